"""The served app with a pipeline that takes minutes: who leaves is left alone, who stays is not.

This file comes before the browser tests: they leave an event loop in the thread of the tests.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from promptseg.apps.service.limits import MAX_POINTS_PER_SIDE

from .conftest import free_port, start_server, stop_app

# Work is left at the next look for its asker, within 2 s on an idle machine; a loaded one may take
# longer to do anything. Without leaving, the work would take minutes.
STOP_SECONDS, START_SECONDS = 20.0, 60.0


@dataclass
class App:
    """A running app, and what it prints."""

    url: str
    folder: Path
    lines: queue.Queue[str]

    @property
    def api(self) -> str:
        return f"{self.url}gradio_api"

    def says(self, words: str, seconds: float) -> bool:
        """Whether it prints a line soon."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if words in self.lines.get(timeout=max(0.0, until - time.monotonic())):
                    return True
            except queue.Empty:
                break
        return False

    def starts(self) -> bool:
        return self.says("work starts", START_SECONDS)

    def stops(self) -> bool:
        return self.says("work stops", STOP_SECONDS)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("slow")
    script = str(Path(__file__).with_name("slow_server.py"))
    process, url, lines = start_server([script, str(free_port())], {"TMPDIR": str(folder)})
    (own,) = folder.glob("promptseg-app-*")
    yield App(url, own, lines)
    stop_app(process)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "grey.png"
    Image.new("RGB", (40, 30), "grey").save(path)
    return path


def upload(app: App, picture: Path) -> dict[str, Any]:
    with picture.open("rb") as file:
        answer = httpx.post(
            f"{app.api}/upload", files={"files": (picture.name, file)}, timeout=START_SECONDS
        )
    return {"path": answer.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}


# Inputs of each endpoint after the picture.
COMMON = [0, 0, "", "pocket", "cpu"]
BY_TEXT = [*COMMON, None]  # the preset's own least presence
BOXES = [[1, 1, 20, 20]] * 100
LONG = {
    "segment_text": [",".join(f"thing {i}" for i in range(50)), "", *BY_TEXT],
    "segment_points": [None, None, BOXES, *COMMON],
    "everything": [64, *COMMON],
}


def ask(app: App, name: str, data: list[Any]) -> str:
    """Put a request in the queue, and return the address of its answer."""
    answer = httpx.post(
        f"{app.api}/call/{name}", json={"data": data}, timeout=START_SECONDS
    ).raise_for_status()
    return f"{app.api}/call/{name}/{answer.json()['event_id']}"


def answer_of(address: str, seconds: float) -> str:
    return httpx.get(address, timeout=seconds).raise_for_status().text


@pytest.mark.parametrize("name", list(LONG))
def test_work_stops_when_its_asker_drops_the_connection(app: App, picture: Path, name: str) -> None:
    file = upload(app, picture)
    with httpx.stream("GET", ask(app, name, [file, *LONG[name]]), timeout=START_SECONDS):
        assert app.starts()
        other = ask(app, "segment_text", [file, "quick", "", *BY_TEXT])
    assert app.stops()
    # Whoever waited in the same lane gets an answer.
    assert "event: complete" in answer_of(other, START_SECONDS)


def test_work_stops_when_it_is_cancelled(app: App, picture: Path) -> None:
    client = Client(app.url, verbose=False, analytics_enabled=False)
    image = handle_file(str(picture))
    job = client.submit(image=image, points_per_side=64, api_name="/everything")
    assert app.starts()
    # The client cancels only a job whose number it has been told, which may be after its start.
    until = time.monotonic() + START_SECONDS
    while not (job.communicator and job.communicator.event_id):
        assert time.monotonic() < until
        time.sleep(0.05)
    job.cancel()
    assert app.stops()
    record, _ = client.predict(image=image, phrases="quick", api_name="/segment_text")
    assert len(record["masks"]) == 1
    client.close()


def test_work_stops_when_a_page_is_closed(app: App, picture: Path) -> None:
    file = upload(app, picture)
    config = httpx.get(f"{app.url}config", timeout=START_SECONDS).json()
    (index,) = (item["id"] for item in config["dependencies"] if item["api_name"] == "everything")
    body = {"data": [file, *LONG["everything"]], "fn_index": index, "session_hash": "one"}
    stream = f"{app.api}/queue/data?session_hash=one"
    httpx.post(f"{app.api}/queue/join", json=body, timeout=START_SECONDS).raise_for_status()
    with httpx.stream("GET", stream, timeout=START_SECONDS):
        assert app.starts()
    assert app.stops()


def test_work_that_nobody_listens_for_is_given_up(app: App, picture: Path) -> None:
    # The server waits three seconds for a listener.
    ask(app, "everything", [upload(app, picture), *LONG["everything"]])
    assert app.starts()
    assert app.says("work stops", 3 + STOP_SECONDS)


def test_the_pages_slider_ends_where_the_endpoint_does(app: App, picture: Path) -> None:
    (slider,) = (
        item["props"]
        for item in httpx.get(f"{app.url}config", timeout=START_SECONDS).json()["components"]
        if item["props"].get("elem_id") == "points-per-side"
    )
    assert slider["maximum"] == MAX_POINTS_PER_SIDE
    more = [upload(app, picture), MAX_POINTS_PER_SIDE + 1, *COMMON]
    text = answer_of(ask(app, "everything", more), START_SECONDS)
    assert "Points_per_side must be between 1 and 64, not 65" in text


def test_the_queue_cannot_be_passed_by(app: App, picture: Path) -> None:
    data = {"data": [upload(app, picture), "quick", "", *BY_TEXT]}
    for route in ("run", "api"):
        assert (
            httpx.post(
                f"{app.api}/{route}/segment_text", json=data, timeout=START_SECONDS
            ).status_code
            == 404
        )


def test_files_leave_nothing_behind_but_themselves(app: App, picture: Path) -> None:
    file = upload(app, picture)
    before = {path for path in app.folder.rglob("*") if path.is_file()}
    text = answer_of(
        ask(app, "segment_text", [file, "quick", "", 0, 0, "coco", "pocket", "cpu", None]), 60
    )
    (line,) = (line for line in text.splitlines() if line.startswith("data: ["))
    made = json.loads(line[6:])[1]
    after = {path for path in app.folder.rglob("*") if path.is_file()}
    assert {str(path) for path in after - before} == {item["path"] for item in made}


def test_bad_requests_are_not_echoed_to_the_log(app: App) -> None:
    config = httpx.get(f"{app.url}config", timeout=START_SECONDS).json()
    page = [item for item in config["dependencies"] if item["api_visibility"] == "private"]
    find = next(item for item in page if item["api_name"] == "find" and len(item["inputs"]) == 12)
    loud = "x" * 1_500_000
    for i, value in enumerate((loud, [loud], {"path": loud})):
        data = [None, [], 0, 0, "best", value, "cpu", None, "cat", "", False, 0.15]
        body = {"data": data, "fn_index": find["id"], "session_hash": f"loud{i}"}
        httpx.post(f"{app.api}/queue/join", json=body, timeout=START_SECONDS)
        answer = httpx.get(f"{app.api}/queue/data?session_hash=loud{i}", timeout=60)
        assert '"success":false' in answer.text
    assert (
        httpx.post(
            f"{app.api}/call/segment_text", json=[loud * 7], timeout=START_SECONDS
        ).status_code
        == 413
    )
    assert (
        httpx.post(f"{app.api}/call/segment_text", json=[loud], timeout=START_SECONDS).status_code
        == 422
    )
    time.sleep(0.5)
    told = []
    while not app.lines.empty():
        told.append(app.lines.get())
    assert sum(map(len, told)) < 5_000, told[0][:1000]


def test_hundreds_of_requests_do_not_grow_the_server(tmp_path: Path) -> None:
    script = Path(__file__).with_name("many_requests.py")
    done = subprocess.run(
        [sys.executable, str(script), str(free_port())],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # About 12 MB; with a session of Gradio's kept for each request it was 49.
    assert float(done.stdout.splitlines()[-1]) < 30
    assert not list(tmp_path.glob("promptseg-app-*"))
