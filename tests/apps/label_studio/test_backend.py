"""The backend for Label Studio: its predictions pass Label Studio's own checks."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
from starlette.testclient import TestClient

import promptseg
from promptseg.apps.label_studio.backend import build_backend
from promptseg.apps.label_studio.images import TaskImages
from promptseg.apps.label_studio.regions import brush_rle
from promptseg.apps.service.answers import Answerer
from promptseg.models.errors import InputError
from promptseg.pipeline.compact_mask import CompactMask

EXAMPLES = Path(__file__).resolve().parents[3] / "apps" / "web" / "examples"
CAT = (EXAMPLES / "cat.jpg").read_bytes()
DATA_URL = f"data:image/jpeg;base64,{base64.b64encode(CAT).decode()}"
SIZE = (300, 451)
# A user waits for the answer to a click.
MARKED = {"context": {"result": [{"type": "keypointlabels", "value": {"x": 50, "y": 50}}]}}


def config(tag: str = "BrushLabels", labels: str = "") -> str:
    labels = labels or '<Label value="Tom" predicted_values="cat"/><Label value="unicorn"/>'
    return f"""<View><Image name="img" value="$picture"/>
        <{tag} name="tag" toName="img">{labels}</{tag}>
        <KeyPointLabels name="kp" toName="img" smart="true"><Label value="Tom"/></KeyPointLabels>
        <!-- a comment --><TextArea name="text" toName="img"/></View>"""


@pytest.fixture
def client(pipe: promptseg.Pipeline) -> Iterator[TestClient]:
    app = build_backend(Answerer(pipe, "pocket"), TaskImages())
    with TestClient(app, base_url="http://127.0.0.1") as made:
        yield made


def predict(
    client: TestClient,
    *sources: str,
    labelling: str = "",
    context: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Ask as Label Studio does, and check every entry as Label Studio does."""
    labelling = labelling or config()
    body = {
        "tasks": [
            {"id": i, "data": {"picture": source}, "predictions": []}
            for i, source in enumerate(sources)
        ],
        "project": "1.1700000000",
        "label_config": labelling,
        "params": {
            "login": None,
            "password": None,
            "context": None if context is None else {"result": context},
        },
    }
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert len(results) == len(sources)
    for entry in results:
        # Label Studio takes a task without a result for failed, and asks for it again.
        assert ("result" in entry) != ("error" in entry)
        if "result" in entry:
            assert LabelInterface(labelling).validate_prediction(entry, return_errors=True) == []
    return results


def mask_of(region: dict[str, Any]) -> np.ndarray:
    values = brush.decode_rle(region["value"]["rle"])
    size = region["original_height"], region["original_width"], 4
    channels = values.reshape(size)
    assert (channels == channels[..., :1]).all()
    return channels[..., 3] > 0


def mark(kind: str, x: float, y: float, *, positive: bool = True, **more: Any) -> dict[str, Any]:
    """A mark as the editor sends it, from pixels."""
    value: dict[str, Any] = {"x": x / SIZE[1] * 100, "y": y / SIZE[0] * 100, **more}
    if kind == "rectanglelabels":
        value["width"], value["height"] = more["width"] / SIZE[1] * 100, more["height"] / 3
    return {
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "image_rotation": 0,
        "value": {**value, kind: ["Tom"]},
        "is_positive": positive,
        "id": "x",
        "from_name": "kp",
        "to_name": "img",
        "type": kind,
        "origin": "manual",
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_run_lengths_are_label_studios(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = [(1, 1), (7, 5), (40, 61), (300, 400)][seed]
    mask = rng.random(size) < 0.5
    if seed == 3:  # long runs, more than 2 ** 16 values
        mask[:] = False
        mask[150:] = True
    for each in (mask, ~mask, np.zeros(size, np.bool_)):
        told = brush_rle(CompactMask.of(each))
        decoded = brush.decode_rle(told).reshape(*size, 4)
        assert np.array_equal(decoded, np.repeat(each[..., None] * np.uint8(255), 4, axis=2))
        theirs = brush.mask2rle(each.astype(np.uint8) * 255)
        assert np.array_equal(brush.decode_rle(theirs), decoded.ravel())
        assert len(told) <= len(theirs)


def test_health_setup_and_webhook(client: TestClient) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["model_class"]) == ("UP", "promptseg")
    setup = {
        "project": "1.17",
        "schema": config(),
        "hostname": "http://evil.example",
        "access_token": "x",
        "extra_params": None,
    }
    told = client.post("/setup", json=setup).json()
    assert told["model_version"] == f"promptseg-{promptseg.__version__}-pocket"
    event = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}}
    assert client.post("/webhook", json=event).is_success
    refused = client.post("/setup", json={**setup, "schema": "<View><Choices/></View>"})
    assert refused.status_code == 422
    assert "BrushLabels" in refused.json()["error"]["message"]


def test_labels_are_looked_for_by_their_names(client: TestClient, pipe: promptseg.Pipeline) -> None:
    (entry,) = predict(client, DATA_URL)
    expected = pipe(CAT, ["cat", "unicorn"])
    (region,) = entry["result"]
    assert np.array_equal(mask_of(region), expected.masks[0])
    assert region["value"]["brushlabels"] == ["Tom"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "tag", "img")
    assert (region["original_width"], region["original_height"]) == SIZE[::-1]
    assert entry["score"] == region["score"] == pytest.approx(expected.scores[0], abs=1e-4)


def test_nothing_here_is_an_empty_result(client: TestClient) -> None:
    unicorns = config(labels='<Label value="unicorn"/>')
    (entry,) = predict(client, DATA_URL, labelling=unicorns)
    assert (entry["result"], entry["score"]) == ([], 0)
    # Without labels there is nothing to look for.
    assert predict(client, DATA_URL, labelling=config(labels="<Header/>"))[0]["result"] == []


def test_a_task_that_cannot_be_read_has_no_result_and_spoils_no_other(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    broken = "data:image/png;base64,aGk="
    elsewhere, found, damaged = predict(client, "https://elsewhere.example/a.jpg", DATA_URL, broken)
    assert "task 0: 'https://elsewhere.example/a.jpg' has to be fetched" in elsewhere["error"]
    assert "task 2: the image is not an image that can be read" in damaged["error"]
    assert len(found["result"]) == 1
    assert "task 2: the image is not an image" in caplog.text
    (alone,) = predict(client, broken)
    assert alone["error"].startswith("task 0: the image is not an image that can be read")


def test_clicks_boxes_and_text(client: TestClient, pipe: promptseg.Pipeline) -> None:
    clicks = [
        mark("keypointlabels", 200, 150),
        mark("keypointlabels", 5, 5, positive=False),
    ]
    box = mark("rectanglelabels", 50, 50, width=250, height=200)
    text = {"type": "textarea", "from_name": "text", "to_name": "img", "value": {"text": ["cat"]}}
    for context, query in (
        (clicks, {"points": [(200, 150), (5, 5)], "point_labels": [1, 0]}),
        ([box], {"boxes": (50, 50, 300, 250)}),
        ([text], {"text": "cat"}),
    ):
        (entry,) = predict(client, DATA_URL, context=context)
        (region,) = entry["result"]
        assert np.mean(mask_of(region) ^ pipe(CAT, **query).masks[0]) < 1e-3
        assert region["value"]["brushlabels"] == ["Tom"]
    assert predict(client, DATA_URL, context=clicks[1:])[0]["result"] == []


def test_polygons_and_rectangles(client: TestClient, pipe: promptseg.Pipeline) -> None:
    (mask,) = pipe(CAT, "cat").compact_masks
    (entry,) = predict(client, DATA_URL, labelling=config("RectangleLabels"))
    value = entry["result"][0]["value"]
    x0, y0, x1, y1 = mask.box
    share = np.array([SIZE[1], SIZE[0]] * 2) / 100
    found = np.array([value[key] for key in ("x", "y", "width", "height")]) * share
    assert found == pytest.approx([x0, y0, x1 - x0, y1 - y0])
    (entry,) = predict(client, DATA_URL, labelling=config("PolygonLabels"))
    points = np.concatenate([region["value"]["points"] for region in entry["result"]])
    assert (points.min(0) * share[:2]).tolist() == pytest.approx([x0, y0])
    assert (points.max(0) * share[:2]).tolist() == pytest.approx([x1, y1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_config": "<View>"}, "not valid XML"),
        ({"label_config": '<!DOCTYPE x [<!ENTITY a "b">]><View/>'}, "document type"),
        ({"label_config": "<View/>"}, "has no BrushLabels"),
        (
            {"tasks": [{"id": 7, "data": {}}], "params": MARKED},
            "task 7: its data has no image in the field 'pict",
        ),
        (
            {"tasks": [{"id": 7, "data": {"picture": "/a.jpg"}}], "params": MARKED},
            "task 7: '/a.jpg' has to be fetched",
        ),
        ({"tasks": "x"}, "tasks: "),
        ({"params": {"context": {"result": [{"type": "keypointlabels"}]}}}, "value: Field requir"),
    ],
)
def test_what_cannot_be_used_is_told(
    client: TestClient, changes: dict[str, Any], words: str
) -> None:
    body = {"tasks": [{"id": 1, "data": {"picture": DATA_URL}}], "label_config": config()}
    answer = client.post("/predict", json={**body, **changes})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


class LabelStudio(BaseHTTPRequestHandler):
    """What is needed of Label Studio: a picture for those with a token, and a redirection."""

    def do_GET(self) -> None:
        asked = self.headers["Authorization"]
        self.server.asked.append((self.path, asked))  # type: ignore[attr-defined]
        if self.path == "/away.jpg":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/a.jpg")
            self.end_headers()
            return
        self.send_response(200 if asked in ("Token secret", "Bearer short") else 401)
        self.end_headers()
        self.wfile.write(CAT)

    def do_POST(self) -> None:
        refresh = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["refresh"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"access": "short" if refresh == "a.b.c" else ""}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def label_studio() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), LabelStudio) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_images_come_from_label_studio_alone(label_studio: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{label_studio.server_port}"
    for token in ("secret", "a.b.c"):  # an old one, and a personal one that is exchanged
        images = TaskImages(url, token)
        for source in ("/data/upload/1/a.jpg", f"{url}/data/upload/1/a.jpg"):
            assert images.fetch(source) == CAT
    with pytest.raises(InputError, match="LABEL_STUDIO_API_KEY"):
        TaskImages(url, "wrong").fetch("/a.jpg")
    with pytest.raises(InputError, match="a redirection to elsewhere"):
        TaskImages(url, "secret").fetch("/away.jpg")
    count = len(label_studio.asked)  # type: ignore[attr-defined]
    for source in (
        "http://elsewhere.example/a.jpg",
        "//elsewhere.example/a.jpg",
        f"http://127.0.0.1:{label_studio.server_port + 1}/a.jpg",
        f"https://127.0.0.1:{label_studio.server_port}/a.jpg",
        f"http://x@127.0.0.1:{label_studio.server_port}/a.jpg",
        "s3://bucket/a.jpg",
        "file:///etc/passwd",
        "http://[",
    ):
        with pytest.raises(InputError, match="only images of Label Studio itself are fetched"):
            TaskImages(url, "secret").fetch(source)
    assert len(label_studio.asked) == count  # type: ignore[attr-defined]


def test_local_files_are_read_below_their_folder(tmp_path: Path) -> None:
    (tmp_path / "root" / "a b").mkdir(parents=True)
    (tmp_path / "root" / "a b" / "c.jpg").write_bytes(CAT)
    (tmp_path / "outside.jpg").write_bytes(CAT)
    (tmp_path / "root" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    images = TaskImages(local_files=tmp_path / "root")
    assert images.fetch("/data/local-files/?d=a%20b/c.jpg") == CAT
    for name in ("../outside.jpg", "link.jpg", "a/../../outside.jpg"):
        with pytest.raises(InputError, match="not below the folder of local files"):
            images.fetch(f"/data/local-files/?d={name}")
    with pytest.raises(InputError, match="not a regular file"):
        images.fetch("/data/local-files/?d=a%20b")
    for url, folder in (("ftp://x", None), ("localhost:8080", None), (None, tmp_path / "nothing")):
        with pytest.raises(InputError, match=r"not an address|not a folder"):
            TaskImages(url, local_files=folder)
