"""Ten pages at once, each with its own collection, as their requests come over HTTP."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from promptseg.apps.service.limits import MAX_JSON_BYTES, MAX_STROKE_POINTS
from promptseg.apps.web.painting import Stroke, union
from promptseg.apps.web.stage import SCRIPTS

SECONDS = 180
PAGES = 10


class PageClient:
    """One page without a browser: it sends what the page's script would send."""

    def __init__(self, url: str, session: str) -> None:
        self.api = f"{url}gradio_api"
        self.session = session
        self.http = httpx.Client(timeout=SECONDS)
        config = self.http.get(f"{url}config").raise_for_status().json()
        self.handlers = config["dependencies"]
        self.names = {
            item["props"].get("elem_id"): item["id"]
            for item in config["components"]
            if item["props"].get("elem_id")
        }
        self.call("begin", [""])

    def call(self, name: str, data: list[Any], event: Any = None) -> dict[str, Any]:
        """Trigger a handler, and return what it changes on the stage."""
        handler = next(item for item in self.handlers if item["api_name"] == name)
        body = {"data": data, "fn_index": handler["id"], "session_hash": self.session}
        body["event_data"] = event
        self.http.post(f"{self.api}/queue/join", json=body).raise_for_status()
        stream = f"{self.api}/queue/data?session_hash={self.session}"
        with self.http.stream("GET", stream) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    break
        if not message["success"]:
            raise RuntimeError(message["output"]["error"])
        place = handler["outputs"].index(self.names["stage"])
        changes: dict[str, Any] = message["output"]["data"][place]
        return dict(changes.get("props", {}))

    def upload(self, picture: Path) -> dict[str, Any]:
        with picture.open("rb") as file:
            sent = self.http.post(f"{self.api}/upload", files={"files": (picture.name, file)})
        self.stored = path = Path(sent.raise_for_status().json()[0])
        value = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        return self.call("change", [None, [], 0, 0, "best", value])

    def stroke(self, chosen: list[str], stroke: Any, radius: float) -> dict[str, Any]:
        event = {"points": stroke, "radius": radius, "erase": False}
        return self.call("stroke", [None, chosen, 0, 0, "best"], event)


def test_ten_pages_keep_their_own_collections(app_url: str, tmp_path: Path) -> None:
    def work(page: int) -> tuple[list[int], list[int]]:
        size = (120 + page, 160 + 2 * page)
        path = tmp_path / f"{page}.png"
        Image.fromarray(np.full((*size, 3), 20 * page, np.uint8)).save(path)
        client = PageClient(app_url, f"page{page}")
        assert client.upload(path)["photo"]["name"] == path.name
        expected = []
        for i in range(2 + page % 3):
            points = [(10.0 + 30 * i, 20.0 + page), (20.0 + 30 * i, 60.0 + page)]
            client.stroke([], points, 3.0 + page / 2)
            expected.append(Stroke(tuple(points), 3.0 + page / 2).area(size))
        # More is painted to the first one.
        more = ((5.0, 100.0), (100.0, 100.0))
        seen = client.stroke(["1"], more, 4.0)
        expected[0] = union([expected[0], Stroke(more, 4.0).area(size)])
        assert seen["chosen"] == [1]
        assert [item["about"] for item in seen["objects"]] == ["from a brush"] * len(expected)
        return [item["area"] for item in seen["objects"]], [mask.area for mask in expected]

    with ThreadPoolExecutor(PAGES) as pages:
        for found, expected in pages.map(work, range(PAGES)):
            assert found == expected


def test_a_step_keeps_its_picture_on_the_server(app_url: str, pictures: Path) -> None:
    client = PageClient(app_url, "keeps")
    client.upload(pictures / "cat.png")
    os.utime(client.stored, (time.time() - 3600,) * 2)
    client.stroke([], [(10, 10)], 5.0)
    assert time.time() - client.stored.stat().st_mtime < SECONDS


@pytest.mark.parametrize(
    ("chosen", "points", "radius", "words"),
    [
        ([], [[1, 1]] * (MAX_STROKE_POINTS + 1), 3, "That stroke could not be read"),
        ([], [[1, 1]], 1e9, "A brush of 1e\\+09 pixels is too large"),
        ([], [["x", None]], 3, "That stroke could not be read"),
        (["1"] * 300, [[1, 1]], 3, "The chosen objects could not be read"),
        (["<b>"], [[1, 1]], 3, "The chosen objects could not be read"),
    ],
)
def test_what_a_page_sends_has_limits(
    app_url: str, pictures: Path, chosen: list[str], points: Any, radius: float, words: str
) -> None:
    client = PageClient(app_url, f"limits{len(words)}{len(chosen)}{radius}")
    client.upload(pictures / "cat.png")
    with pytest.raises(RuntimeError, match=words):
        client.stroke(chosen, points, radius)


def test_the_longest_stroke_is_no_large_request() -> None:
    points = [[12345.67, 12345.67]] * MAX_STROKE_POINTS
    assert len(json.dumps({"points": points, "radius": 1234.56})) < MAX_JSON_BYTES / 10


def test_scripts_are_served_and_nothing_beside_them(app_url: str) -> None:
    for path in SCRIPTS.iterdir():
        answer = httpx.get(f"{app_url}script/{path.name}", timeout=SECONDS)
        assert answer.text == path.read_text(encoding="utf-8")
        assert answer.headers["cache-control"] == "no-cache"
        assert "javascript" in answer.headers["content-type"]
        again = {"If-None-Match": answer.headers["etag"]}
        assert httpx.get(answer.url, headers=again, timeout=SECONDS).status_code == 304
    for name in ("", "page.css", "..%2fpage.css", "%2e%2e/server.py"):
        assert httpx.get(f"{app_url}script/{name}", timeout=SECONDS).status_code == 404
