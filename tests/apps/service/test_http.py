"""The HTTP service: its answers are the Python interface's, and what it refuses says why."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zipfile
import zlib
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from starlette.testclient import TestClient

import promptseg
from promptseg.apps.service import http
from promptseg.apps.service.answers import Answerer
from promptseg.apps.service.http import build_service
from promptseg.apps.service.schemas import FORMAT_NAMES, Format

from .conftest import EXAMPLES


def masks_of(record: dict[str, Any]) -> np.ndarray:
    masks = [coco_mask.decode(item["segmentation"]) for item in record["masks"]]
    return np.array(masks, bool).reshape(-1, *record["image_size"])


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def expected(pipe: promptseg.Pipeline, cat: bytes) -> promptseg.Result:
    return pipe(cat, ["cat", "unicorn"])


def test_a_form_and_json_are_answered_as_in_python(
    client: TestClient, cat: bytes, expected: promptseg.Result
) -> None:
    form = client.post(
        "/segment", files={"image": ("cat.jpg", cat)}, data={"text": ["cat", "unicorn"]}
    )
    image = base64.b64encode(cat).decode()
    plain = client.post("/segment", json={"image": image, "text": "cat, unicorn"})
    link = client.post("/segment", json={"image": f"data:image/jpeg;base64,{image}", "text": "cat"})
    for answer in (form, plain):
        assert answer.status_code == 200, answer.text
        record = answer.json()
        assert {name: record[name] for name in expected.to_dict()} == expected.to_dict()
        assert (record["image"], record["preset"]) == ("image", "pocket")
    assert np.array_equal(masks_of(form.json()), expected.masks)
    assert [item["label"] for item in link.json()["masks"]] == ["cat"]


def test_nothing_here_is_an_answer(client: TestClient, cat: bytes) -> None:
    answer = client.post("/segment", files={"image": cat}, data={"text": "unicorn"})
    record = answer.json()
    assert (answer.status_code, record["masks"]) == (200, [])
    assert [item["label"] for item in record["rejected"]] == ["unicorn"]
    assert "presence" in record["rejected"][0]["reason"]


def test_clicks_boxes_and_thresholds(
    client: TestClient, pipe: promptseg.Pipeline, cat: bytes
) -> None:
    fields = {"points": "[[200, 150], [5, 5]]", "point_labels": "[1, 0]"}
    clicked = client.post("/segment", files={"image": cat}, data=fields).json()
    found = pipe(cat, points=[(200, 150), (5, 5)], point_labels=[1, 0])
    assert np.array_equal(masks_of(clicked), found.masks)
    fields = {"boxes": "[[50, 50, 300, 250]]", "top_k": "1", "no_overlap": "true"}
    boxed = client.post("/segment", files={"image": cat}, data=fields).json()
    assert np.array_equal(masks_of(boxed), pipe(cat, boxes=(50, 50, 300, 250)).masks)
    tried = client.post("/segment", files={"image": cat}, data={"text": "dog", "min_presence": "0"})
    assert "dog" in [item["label"] for item in tried.json()["masks"]]


def test_a_reference(client: TestClient, cat: bytes) -> None:
    with Image.open(io.BytesIO(cat)) as image:
        mirrored = np.ascontiguousarray(np.asarray(image)[:, ::-1])
    height, width = mirrored.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 5 : -height // 10, width // 4 : -width // 8] = 255
    for files, fields in (
        ({"reference_mask": png(mask)}, {}),
        ({}, {"reference_box": json.dumps([width // 8, 2, width - 10, height - 2])}),
        ({}, {"reference_points": json.dumps([[width // 2, height // 2]])}),
    ):
        answer = client.post(
            "/segment",
            files={"image": cat, "reference": png(mirrored), **files},
            data={"reference_label": "cat", **fields},
        )
        assert answer.status_code == 200, answer.text
        best = answer.json()["masks"][0]
        assert best["label"] == "cat"
        assert best["area"] > 0.2 * mask.size


def test_everything(client: TestClient, pipe: promptseg.Pipeline) -> None:
    image = (EXAMPLES / "astronaut.jpg").read_bytes()
    fields = {"points_per_side": "4", "min_score": "0.3", "top_k": "2"}
    record = client.post("/everything", files={"image": image}, data=fields).json()
    found = pipe.everything(image, points_per_side=4)
    found = found[found.scores >= 0.3][:2]
    assert len(found) > 1
    assert np.array_equal(masks_of(record), found.masks)


def test_an_encoded_picture_is_asked_by_its_id(
    client: TestClient, answerer: Answerer, cat: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = client.post("/embeddings", files={"image": cat}).json()
    encoded = []
    real = answerer.pipeline.encode_image
    monkeypatch.setattr(
        answerer.pipeline, "encode_image", lambda pixels: encoded.append(1) or real(pixels)
    )
    by_id = {"embedding": told["embedding"], "boxes": [[50, 50, 300, 250]]}
    record = client.post("/segment", json=by_id).json()
    again = client.post("/segment", files={"image": cat}, data={"boxes": "[[50, 50, 300, 250]]"})
    assert record == again.json()
    assert record["embedding"] == told["embedding"]
    assert encoded == []
    kept = client.get("/health").json()["embeddings"]
    assert (kept["count"], kept["bytes"], kept["most"]) == (1, told["bytes"], 2)
    assert client.delete(f"/embeddings/{told['embedding']}").status_code == 204
    for answer in (
        client.delete(f"/embeddings/{told['embedding']}"),
        client.post("/segment", json=by_id),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unknown_embedding"


def test_encoded_pictures_are_bounded_in_count_and_bytes(pipe: promptseg.Pipeline) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    pictures = [png(pixels) for pixels in noise]
    few = Answerer(pipe, "pocket", most_embeddings=2)
    names = [few.encode(picture)[0] for picture in pictures]
    assert [few.embeddings.find(name) is not None for name in names] == [False, True, True]
    count, size = few.embeddings.size()
    small = Answerer(pipe, "pocket", embedding_capacity=int(size * 0.8))
    names = [small.encode(picture)[0] for picture in pictures[:2]]
    assert small.embeddings.size() == (1, size // count)
    assert [small.embeddings.find(name) is not None for name in names] == [False, True]


def test_formats(client: TestClient, cat: bytes, expected: promptseg.Result) -> None:
    assert set(get_args(Format)) == set(FORMAT_NAMES)
    answers = {}
    for name in FORMAT_NAMES:
        data = {"text": "cat", "format": name, "name": "../a/tom.jpg"}
        answers[name] = client.post("/segment", files={"image": cat}, data=data)
        assert answers[name].status_code == 200, name
    (mask,) = expected.masks
    rle = answers["rle"].json()
    assert np.array_equal(masks_of(rle)[0], mask)
    assert set(rle["masks"][0]) == {"label", "score", "box_xyxy", "segmentation"}
    coco = answers["coco"].json()
    assert coco["images"][0]["file_name"] == "tom.jpg"
    assert np.array_equal(coco_mask.decode(coco["annotations"][0]["segmentation"]), mask)
    with Image.open(io.BytesIO(answers["png"].content)) as image:
        assert np.array_equal(np.asarray(image) > 0, mask)
    with Image.open(io.BytesIO(answers["overlay"].content)) as image:
        assert image.size == mask.shape[::-1]
    assert answers["png"].headers["content-type"] == "image/png"
    assert 'filename="tom-yolo.zip"' in answers["yolo"].headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answers["yolo"].content)) as archive:
        assert any(name.endswith("data.yaml") for name in archive.namelist())


def test_answers_are_as_the_openapi_document_says(client: TestClient, cat: bytes) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/segment",
        "/everything",
        "/embeddings",
        "/embeddings/{name}",
        "/health",
        "/limits",
    }

    def check(value: Any, path: str, method: str, status: str) -> None:
        content = document["paths"][path][method]["responses"][status]["content"]
        schema = {**content["application/json"]["schema"], "components": document["components"]}
        jsonschema.validate(value, schema)

    data = {"text": "cat, unicorn"}
    check(
        client.post("/segment", files={"image": cat}, data=data).json(), "/segment", "post", "200"
    )
    check(client.post("/segment", json={}).json(), "/segment", "post", "422")
    check(client.get("/health").json(), "/health", "get", "200")
    body = document["paths"]["/segment"]["post"]["requestBody"]["content"]
    asked = {"image": "aGk=", "text": ["cat"], "points": [[1, 2]]}
    jsonschema.validate(asked, body["application/json"]["schema"])
    assert body["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
    assert set(client.get("/limits").json()["formats"]) == set(FORMAT_NAMES)
    assert '"max_phrases":50,' in client.get("/limits").text  # a count, not 50.0


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, 422, "say what to look for: give text, a reference, points or boxes"),
        ({"text": ""}, 422, "name what to look for"),
        ({"text": ["cat"] * 51}, 422, "text"),
        ({"text": ",".join(map(str, range(51)))}, 422, "51 phrases are too many"),
        ({"text": "x" * 201}, 422, "a phrase has 201 characters; give at most 200"),
        ({"points": [[1, 1]] * 101}, 422, "points: List should have at most 100 items"),
        ({"points": [[1, 1]] * 60, "boxes": [[1, 1, 9, 9]] * 60}, 422, "120 points and boxes are"),
        ({"points": [[1, 1, 1]]}, 422, "points must have shape (N, 2)"),
        ({"points": [["a", 1]]}, 422, "points.0.0: Input should be a valid number"),
        ({"points": [[9999, 1]]}, 422, "lies outside the image"),
        ({"text": "cat", "top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({"text": "cat", "min_score": 2}, 422, "min_score: "),
        ({"text": "cat", "format": "psd"}, 422, "format: Input should be 'result', 'rle'"),
        ({"txt": "cat"}, 422, "txt: Extra inputs are not permitted"),
        ({"reference_box": [1, 2, 3, 4]}, 422, "need the reference as well"),
        ({"text": "cat", "embedding": "x"}, 422, "give either image or embedding"),
        ({"image": "https://example.com/a.jpg", "text": "cat"}, 422, "an address is not looked up"),
        ({"image": "/etc/passwd", "text": "cat"}, 422, "not valid base64"),
        ({"image": "aGk=", "text": "cat"}, 422, "not an image that can be read"),
        ({"image": "aGk=", "reference": "aGk=", "text": "cat"}, 422, "the image is not an image"),
    ],
)
def test_what_is_refused_says_why(
    client: TestClient, cat: bytes, fields: dict[str, Any], status: int, words: str
) -> None:
    image = base64.b64encode(cat).decode()
    answer = client.post("/segment", json={"image": image, **fields})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == "bad_input"
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_bodies_that_are_none(client: TestClient) -> None:
    json_type = {"Content-Type": "application/json"}
    deep = b"[" * 100_000
    for content, headers, status, code in (
        (b"{", json_type, 400, "bad_request"),
        (deep, json_type, 400, "bad_request"),
        (b'{"points": [[NaN, 1]]}', json_type, 400, "bad_request"),
        (b"text=cat", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=y"}, 400, "bad_request"),
        (b"[1]", json_type, 422, "bad_input"),
        (b"", json_type, 422, "bad_input"),
    ):
        answer = client.post("/segment", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), content[:20]
    plain = client.post("/segment", content=b"x", headers={"Content-Type": "text/plain"})
    told = plain.json()["error"]["message"]
    assert "multipart/form-data" in told
    assert "application/json" in told
    for path, code in (("/segment", "method_not_allowed"), ("/", "not_found")):
        error = client.get(path).json()["error"]
        assert error["code"] == code
        assert "/openapi.json lists the endpoints" in error["message"]


def test_large_pictures_are_refused_by_their_header(client: TestClient) -> None:
    header = struct.pack(">IIBBBBB", 3000, 3000, 8, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 1) + b"IDAT"
    small = png(np.zeros((8, 8, 3), np.uint8))
    for files in ({"image": bomb}, {"image": small, "reference": bomb}):
        marks = {"reference_box": "[1, 1, 5, 5]"} if "reference" in files else {}
        answer = client.post("/segment", files=files, data={"text": "cat", **marks})
        assert answer.status_code == 422
        message = answer.json()["error"]["message"]
        assert "3000 x 3000 pixels, more than the 4 megapixels" in message


def test_other_sites_and_names_are_refused(answerer: Answerer, cat: bytes) -> None:
    app = build_service(answerer, allowed_hosts=["seg.example"])
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for headers, status in (
            ({"Host": "evil.example"}, 403),
            ({"Host": "seg.example"}, 200),
            ({"Origin": "http://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 200),
        ):
            assert client.get("/health", headers=headers).status_code == status
        crossed = client.post("/segment", json={}, headers={"Sec-Fetch-Site": "cross-site"})
        assert crossed.status_code == 403
        assert crossed.json()["error"]["code"] == "forbidden"
        assert client.get("/health").headers["x-content-type-options"] == "nosniff"


def test_bodies_are_bounded_one_by_one_and_together(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.limits, "MAX_BODY_BYTES", 1000)
    app = build_service(answerer)
    app.user_middleware[0].kwargs.update(most=2000, held=1500)
    json_type = {"Content-Type": "application/json"}

    def chunks():
        yield b'"' + b"x" * 1200

    with TestClient(app, base_url="http://127.0.0.1") as client:
        for content, status in (
            (b'"' + b"x" * 3000 + b'"', 413),  # by its length
            (chunks(), 413),  # while it comes
            (b'"' + b"x" * 1700 + b'"', 413),
        ):
            assert client.post("/segment", content=content, headers=json_type).status_code == status
        monkeypatch.setattr(http.limits, "MAX_BODY_BYTES", 10_000)
        full = client.post("/segment", content=b'"' + b"x" * 1700 + b'"', headers=json_type)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert full.json()["error"]["code"] == "busy"
        # Room is given back.
        assert client.post("/segment", json={}).status_code == 422


def test_a_fault_tells_nothing_of_the_server(
    client: TestClient, answerer: Answerer, cat: bytes, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def fail(embedding: object, query: object) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr(answerer.pipeline, "propose", fail)
    answer = client.post("/segment", files={"image": cat}, data={"text": "cat"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert re.search("a request failed: KeyError", caplog.text)
