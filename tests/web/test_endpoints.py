"""The named endpoints, called as docs/app.md says, by one user and by ten at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from skimage import data

import promptseg

SECONDS = 180


@pytest.fixture
def client(app_url: str, tmp_path: Path) -> Iterator[Client]:
    made = Client(app_url, verbose=False, download_files=tmp_path, analytics_enabled=False)
    yield made
    made.close()


def masks_of(record: dict[str, Any]) -> np.ndarray:
    """(N, H, W) bool of an answer."""
    masks = [coco_mask.decode(item["segmentation"]) for item in record["masks"]]
    return np.array(masks, bool).reshape(-1, *record["image_size"])


def test_text_is_answered_as_in_python(client: Client, pictures: Path) -> None:
    picture = pictures / "astronaut.png"
    record, files = client.predict(
        image=handle_file(str(picture)),
        phrases="helmet, unicorn",
        formats="coco, cutout",
        top_k=1,
        api_name="/segment_text",
    )
    expected = promptseg.load("pocket")(picture, text=["helmet", "unicorn"], top_k=1)
    assert record["schema"] == "promptseg.result/1"
    assert (record["image"], record["preset"]) == ("astronaut.png", "pocket")
    assert [item["label"] for item in record["masks"]] == expected.labels == ["helmet"]
    assert np.mean(masks_of(record) ^ expected.masks) < 1e-3
    assert sorted(item["label"] for item in record["rejected"]) == ["helmet", "unicorn"]
    coco = COCO(files[0])
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    assert np.array_equal(coco.annToMask(annotation), masks_of(record)[0])
    with Image.open(files[1]) as cutout:
        assert np.array_equal(np.asarray(cutout)[..., 3] > 0, masks_of(record)[0])


def test_what_seems_absent_is_tried_with_less_presence(client: Client, pictures: Path) -> None:
    picture = handle_file(str(pictures / "cat.png"))
    gated, _ = client.predict(image=picture, phrases="dog", api_name="/segment_text")
    (rejected,) = gated["rejected"]
    assert gated["masks"] == []
    tried, _ = client.predict(
        image=picture,
        phrases="dog",
        min_presence=rejected["presence"],
        api_name="/segment_text",
    )
    assert "dog" in [item["label"] for item in tried["masks"]]


def test_points_and_boxes(client: Client, pictures: Path) -> None:
    picture = handle_file(str(pictures / "astronaut.png"))
    record, files = client.predict(
        image=picture,
        points=[[230, 410], [370, 435]],
        labels=[1, 0],
        boxes=None,
        api_name="/segment_points",
    )
    assert files is None
    (mask,) = masks_of(record)
    assert mask[410, 230]
    record, _ = client.predict(
        image=picture, points=None, labels=None, boxes=[[300, 300, 500, 500]],
        api_name="/segment_points",
    )  # fmt: skip
    (mask,) = masks_of(record)
    assert mask.any()
    assert not mask[:300].any()
    assert not mask[:, :300].any()


def test_a_reference(client: Client, pictures: Path, tmp_path: Path) -> None:
    example = handle_file(str(pictures / "mirrored.png"))
    mask = np.zeros((300, 451), np.uint8)
    mask[60:280, 130:400] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for given in (
        {"mask": handle_file(str(tmp_path / "mask.png"))},
        {"points": [[225, 150]]},
        {"box": [60, 2, 440, 298]},
    ):
        record, _ = client.predict(
            image=handle_file(str(pictures / "cat.png")),
            example=example,
            label="cat",
            **{"mask": None, "points": None, "box": None, **given},
            api_name="/segment_reference",
        )
        assert record["masks"][0]["label"] == "cat", given
        assert record["masks"][0]["area"] > 0.2 * mask.size, given


def test_everything(client: Client, pictures: Path) -> None:
    record, _ = client.predict(
        image=handle_file(str(pictures / "astronaut.png")),
        points_per_side=4,
        min_score=0.3,
        api_name="/everything",
    )
    scores = [item["score"] for item in record["masks"]]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.3


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("/segment_text", {"phrases": " , "}, "Phrases is empty"),
        ("/segment_text", {"phrases": "cat", "formats": "psd"}, "There is no format 'psd'"),
        ("/segment_text", {"phrases": "cat", "device": "tpu"}, "no device 'tpu'"),
        ("/segment_text", {"phrases": "cat", "preset": "huge"}, "No preset is called 'huge'"),
        ("/segment_text", {"phrases": "cat", "preset": "base"}, "promptseg models fetch base"),
        ("/segment_text", {"phrases": "cat", "min_score": 2}, "Min_score must be between 0 and 1"),
        (
            "/segment_text",
            {"phrases": "cat", "min_presence": 2},
            "Min_presence must be between 0 and 1",
        ),
        (
            "/segment_points",
            {"points": [[1, 2, 3]], "labels": None, "boxes": None},
            "Points must have shape (N, 2)",
        ),
        (
            "/segment_points",
            {"points": [[9999, 2]], "labels": None, "boxes": None},
            "lies outside the image",
        ),
        (
            "/segment_points",
            {"points": None, "labels": None, "boxes": None},
            "Give points or boxes",
        ),
        ("/everything", {"points_per_side": -3}, "Points_per_side must be"),
    ],
)
def test_bad_requests_are_told_in_one_line(
    client: Client, pictures: Path, name: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(AppError, match=re.escape(words)):
        client.predict(image=handle_file(str(pictures / "cat.png")), **arguments, api_name=name)


def test_a_file_that_is_no_picture(client: Client, pictures: Path) -> None:
    with pytest.raises(AppError, match=r"^'notes.txt' is not an image that can be read"):
        client.predict(
            image=handle_file(str(pictures / "notes.txt")),
            phrases="cat",
            api_name="/segment_text",
        )


def test_files_of_the_server_cannot_be_asked_for(app_url: str, pictures: Path) -> None:
    # cat.png was not uploaded: its path is only guessed.
    file = {"path": str(pictures / "cat.png"), "meta": {"_type": "gradio.FileData"}}
    request = urllib.request.Request(
        f"{app_url}gradio_api/call/segment_text",
        json.dumps({"data": [file, "cat", "", 0, 0, "", "pocket", "cpu"]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        event = json.loads(answer.read())["event_id"]
    url = f"{app_url}gradio_api/call/segment_text/{event}"
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        text = answer.read().decode()
    assert "event: error" in text
    assert "segmentation" not in text


def test_only_the_named_endpoints_are_public(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(endpoints) == [
        "/everything", "/segment_points", "/segment_reference", "/segment_text",
    ]  # fmt: skip
    parameters = endpoints["/segment_text"]["parameters"]
    assert [item["parameter_name"] for item in parameters] == [
        "image", "phrases", "negatives", "top_k", "min_score", "formats", "preset", "device",
        "min_presence",
    ]  # fmt: skip


def test_ten_users_at_once_get_their_own_answers(app_url: str, tmp_path: Path) -> None:
    photographs = [data.chelsea(), data.astronaut(), data.coffee(), data.rocket()]
    wanted = []
    for user in range(10):
        # Pictures of different sizes, so that an answer for another one's would be seen at once.
        picture = photographs[user % 4][: 280 - 3 * user, : 430 - 5 * user]
        path = tmp_path / f"user-{user}.png"
        Image.fromarray(np.ascontiguousarray(picture)).save(path)
        wanted.append((path, [[60 + 25 * user, 90 + 15 * (user % 5)]]))

    def ask(user: int) -> list[dict[str, Any]]:
        path, points = wanted[user]
        answers = []
        client = Client(app_url, verbose=False, analytics_enabled=False)
        image = handle_file(str(path))
        for name, query in (
            ("/segment_points", {"points": points, "labels": None, "boxes": None}),
            ("/segment_text", {"phrases": "cat, person, cup, rocket"}),
        ):
            job = client.submit(image=image, **query, api_name=name)
            answers.append(job.result(timeout=SECONDS)[0])
        client.close()
        return answers

    with ThreadPoolExecutor(len(wanted)) as users:
        together = list(users.map(ask, range(len(wanted))))
    pipe = promptseg.load("pocket")
    for (path, points), answers in zip(wanted, together, strict=True):
        alone = (
            pipe(path, points=points),
            pipe(path, text=["cat", "person", "cup", "rocket"]),
        )
        for answer, expected in zip(answers, alone, strict=True):
            assert answer["image"] == path.name
            assert tuple(answer["image_size"]) == expected.image_size
            assert [item["label"] for item in answer["masks"]] == expected.labels
            assert np.allclose(
                [item["score"] for item in answer["masks"]], expected.scores, atol=1e-3
            )
            assert np.mean(masks_of(answer) ^ expected.masks) < 1e-3


def blocks(root: Path, language: str) -> list[str]:
    text = (root / "docs" / "app.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_examples_of_the_documentation_run(
    repo_root: Path, app_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = blocks(repo_root, "python")
    assert len(examples) >= 2
    Image.fromarray(data.chelsea()).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in examples:
        exec(example.replace("http://127.0.0.1:7860/", app_url), names)
    assert [item["label"] for item in names["result"]["masks"]] == ["cat"]
    assert COCO(names["files"][0]).getAnnIds() == [1]
    assert len(names["clicked"]["masks"]) == 1
    names["client"].close()


def test_the_curl_example_of_the_documentation_runs(
    repo_root: Path, app_url: str, tmp_path: Path
) -> None:
    (example,) = blocks(repo_root, "sh")
    Image.fromarray(data.chelsea()).save(tmp_path / "photo.jpg")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.replace("http://127.0.0.1:7860/", app_url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=dict(os.environ, NO_PROXY="127.0.0.1"),
    )
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^data: (.*)$", done.stdout, re.MULTILINE)
    record, files = json.loads(line)
    assert [item["label"] for item in record["masks"]] == ["cat"]
    assert files is None
