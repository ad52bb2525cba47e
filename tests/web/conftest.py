"""The real app with the pocket preset in a process of its own, and a real browser."""

from __future__ import annotations

import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from skimage import data

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As root there is no sandbox; the rest keeps Chromium from looking for its maker's servers.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
START_SECONDS = 180
# A busy machine takes longer than Playwright's own five seconds.
WAIT_MILLISECONDS = 60_000
# Where tests put a picture of each state, if it is set.
SCREENSHOTS = "PROMPTSEG_SCREENSHOTS"
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}


def find_browser() -> str:
    """Path of a Chromium; without one the tests fail, for nothing else tests the page."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.fail("the browser tests need Chromium: apt-get install chromium")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)


def start_app(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[str], str]:
    """Start `promptseg app` and return it and its address when it can be used."""
    changed = {"HF_HOME": str(folder / "no-weights"), "TMPDIR": str(folder)}
    command = ["-m", "promptseg.apps.cli.main", "app", "--port", str(free_port()), *options]
    process, url, _ = start_server(command, {**changed, **(environment or {})})
    return process, url


def start_server(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[subprocess.Popen[str], str, queue.Queue[str]]:
    """Start a Python process that says "open URL"; return it, the URL and the lines it prints."""
    own = {name: value for name, value in os.environ.items() if name != "PROMPTSEG_WEIGHTS"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=read_lines, args=(process.stdout, lines), daemon=True).start()
    told, until = [], time.monotonic() + START_SECONDS
    while time.monotonic() < until and (process.poll() is None or not lines.empty()):
        try:
            told.append(lines.get(timeout=1))
        except queue.Empty:
            continue
        found = re.search(r"open (http://\S+)", told[-1])
        if found:
            return process, found[1], lines
    stop_app(process)
    pytest.fail(f"the app did not start: {''.join(told)}")


def stop_app(process: subprocess.Popen[str]) -> None:
    """Stop the app as a service manager would."""
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def app_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an app that all tests share."""
    process, url = start_app(tmp_path_factory.mktemp("app"))
    yield url
    stop_app(process)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs: cat.png, its mirror image, astronaut.png; and two texts."""
    folder = tmp_path_factory.mktemp("pictures")
    cat = data.chelsea()
    Image.fromarray(cat).save(folder / "cat.png")
    Image.fromarray(np.ascontiguousarray(cat[:, ::-1])).save(folder / "mirrored.png")
    Image.fromarray(data.astronaut()).save(folder / "astronaut.png")
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    (folder / "notes.png").write_text("no picture", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_browser()
    expect.set_options(timeout=WAIT_MILLISECONDS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


def wait_until_ready(page: Page) -> None:
    """Wait until a page that was opened or reloaded takes clicks, and its work is kept."""
    page.wait_for_selector("#stage .stage[data-ready]", state="attached")
    page.wait_for_selector("body[data-kept]")


def wait_until_still(page: Page) -> None:
    """Wait until the page has been laid out and nothing moves on it."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    page.wait_for_function("document.getAnimations().every(item => item.playState != 'running')")


@pytest.fixture
def open_page(browser: Browser, app_url: str) -> Iterator[Callable[[], Page]]:
    """Open the app as a new user; only the app's own address can be reached."""
    contexts = []
    foreign: list[str] = []

    def request_made(request: Request) -> None:
        if not request.url.startswith((app_url, "data:", "blob:")):
            foreign.append(request.url)

    def open_it() -> Page:
        width, height = WIDTHS["wide"]
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MILLISECONDS)
        page.on("request", request_made)
        page.route(
            lambda url: not url.startswith((app_url, "data:", "blob:")), lambda route: route.abort()
        )
        page.goto(app_url)
        wait_until_ready(page)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert foreign == []


@pytest.fixture
def page(open_page: Callable[[], Page]) -> Page:
    return open_page()


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Save pictures of the page at both widths, if the environment says where."""

    def save(page: Page, name: str) -> None:
        target = os.environ.get(SCREENSHOTS)
        if not target:
            return
        Path(target).mkdir(parents=True, exist_ok=True)
        for kind, (width, height) in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": height})
            wait_until_still(page)
            page.screenshot(path=Path(target) / f"{name}-{kind}.png", full_page=True)
        width, height = WIDTHS["wide"]
        page.set_viewport_size({"width": width, "height": height})
        wait_until_still(page)

    return save
