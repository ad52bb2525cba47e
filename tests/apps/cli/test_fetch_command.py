"""`promptseg models fetch` against a small server that answers as the hub does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import numpy as np
import pytest
from safetensors.numpy import save

from promptseg.models.hub import fetch
from promptseg.models.hub.find import find_places, find_source
from promptseg.models.hub.sources import SOURCES, WeightSource
from promptseg.pipeline.presets.catalog import PRESETS, Preset

REPO = "someone/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"a": np.arange(50_000, dtype=np.float32)})
CONFIG = b'{"size": 3}'
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass
class FakeHub:
    """Files of one repository; large ones are redirected to another host, as the hub does.

    Attributes:
        files: Name -> content.
        refusals: Name -> status and the hub's code for it.
        cut: How many bytes the next download of weights gives before it breaks off.
        seen: Method, path and range of each request, with the token if it was sent.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut: int | None = None
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)
    url: str = ""
    lies: bytes | None = None

    def ranges(self) -> list[str]:
        gets = [seen for seen in self.seen if seen[0] == "GET"]
        return [told for _, path, told, _ in gets if "cdn" in path]


def make_handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def note(self) -> str:
            told = (self.headers.get("Range", ""), self.headers.get("Authorization", ""))
            hub.seen.append((self.command, self.path, *told))
            return self.path.rsplit("/", 1)[1]

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def describe(self, name: str) -> dict[str, str]:
            content = hub.files[name]
            headers = {"X-Repo-Commit": hub.commit, "X-Linked-Size": str(len(content))}
            if len(content) < 1000:
                return {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            port = hub.url.rsplit(":", 1)[1]
            return {
                **headers,
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "Location": f"http://localhost:{port}/cdn/{name}",
            }

        def do_HEAD(self) -> None:
            name = self.note()
            if name in hub.refusals or name not in hub.files:
                status, code = hub.refusals.get(name, (404, "EntryNotFound"))
                self.answer(status, {"X-Error-Code": code, "X-Repo-Commit": hub.commit})
                return
            headers = self.describe(name)
            length = {"Content-Length": str(len(hub.files[name]))}
            self.answer(302 if "Location" in headers else 200, {**headers, **length})

        def do_GET(self) -> None:
            name = self.note()
            if name not in hub.files:
                self.answer(404, {})
                return
            content = hub.lies if hub.lies is not None and "cdn" in self.path else hub.files[name]
            first = int(self.headers.get("Range", "bytes=0-")[6:-1])
            if first:
                told = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
                self.answer(206, told, content[first:])
            elif hub.cut is not None and "cdn" in self.path:
                cut, hub.cut = hub.cut, None
                self.answer(200, {"Content-Length": str(len(content))}, content[:cut])
                self.close_connection = True
            else:
                self.answer(200, {}, content)

    return Handler


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[ThreadingHTTPServer, FakeHub]]:
    hub = FakeHub({})
    with ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub)) as running:
        hub.url = f"http://127.0.0.1:{running.server_port}"
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running, hub
        huggingface_hub.close_session()
        running.shutdown()
        thread.join()


@pytest.fixture
def hub(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub that this test fetches from, with the source and the preset "tiny"."""
    _, hub = server
    hub.__init__({"model.safetensors": WEIGHTS, "config.json": CONFIG}, url=hub.url)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("PROMPTSEG_WEIGHTS", "HF_TOKEN", "NO_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    add_source(monkeypatch)
    monkeypatch.setitem(
        PRESETS, "small", Preset("small", "for tests", "sam_vit_t", {"masks": "tiny"})
    )
    return hub


def add_source(monkeypatch: pytest.MonkeyPatch, sha256: str = "", gated: bool = False) -> None:
    files = ("model.safetensors", "config.json")
    hashes = {"model.safetensors": sha256} if sha256 else {}
    source = WeightSource("tiny", REPO, files, 200_200, "MIT", hashes, gated)
    monkeypatch.setitem(SOURCES, "tiny", source)


def one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1


def test_a_preset_is_fetched_to_the_cache(run, hub: FakeHub, tmp_path: Path) -> None:
    done = run("models", "fetch", "small")
    assert done.exit_code == 0, done.output
    assert "small: 2 files, 200 kB, to the hub's cache" in done.stdout
    folder = find_source("tiny")
    assert folder == tmp_path / "cache" / "models--someone--tiny" / "snapshots" / COMMIT
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == CONFIG
    # In the library's own layout, nothing left over.
    assert huggingface_hub.snapshot_download(REPO, local_files_only=True) == str(folder)
    names = {path.name for path in (folder.parents[1] / "blobs").iterdir()}
    assert names == {SHA256, hashlib.sha1(CONFIG).hexdigest()}
    assert hub.ranges() == [""]


def test_what_is_there_is_not_asked_for(run, hub: FakeHub) -> None:
    run("models", "fetch", "tiny")
    hub.seen.clear()
    done = run("models", "fetch", "small")
    assert done.stdout == "small: all weights are here already\n"
    assert hub.seen == []


def test_a_folder_is_filled(run, hub: FakeHub, tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = run("models", "fetch", "tiny", "--dir", own)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"set PROMPTSEG_WEIGHTS={own} to use them"
    assert {path.name for path in (own / "someone--tiny").iterdir()} == {
        "model.safetensors",
        "config.json",
    }
    assert find_source("tiny", own) == own / "someone--tiny"
    assert not (tmp_path / "cache").exists()


def test_the_variable_names_the_folder(run, hub: FakeHub, tmp_path: Path, monkeypatch) -> None:
    own = tmp_path / "own"
    (own / "tiny").mkdir(parents=True)
    (own / "tiny" / "config.json").write_bytes(CONFIG)
    monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(own))
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 0, done.output
    assert "tiny: 1 file, 200 kB" in done.stdout
    assert "set PROMPTSEG_WEIGHTS" not in done.stdout
    assert find_source("tiny") == own / "tiny"


def test_a_folder_is_filled_from_the_cache(run, hub: FakeHub, tmp_path: Path) -> None:
    run("models", "fetch", "tiny")
    hub.seen.clear()
    done = run("models", "fetch", "tiny", "--dir", tmp_path / "own")
    assert done.exit_code == 0, done.output
    assert hub.seen == []
    folder = find_source("tiny", tmp_path / "own")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_broken_connection_is_taken_up(run, hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.cut = 70_000
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 0, done.output
    assert hub.ranges() == ["", "bytes=70000-"]
    assert (find_source("tiny") / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("own", [False, True])
def test_a_run_that_was_stopped_goes_on(
    run, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    arguments = ["models", "fetch", "tiny", *(["--dir", str(tmp_path / "own")] if own else [])]

    def stop(url: str, stream, **_: object) -> None:
        stream.write(WEIGHTS[:60_000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub.file_download, "http_get", stop)
        done = run(*arguments)
    assert done.exit_code == 130
    assert "stopped; run the same command again" in done.stderr
    assert "Traceback" not in done.output
    assert find_places(SOURCES["tiny"], tmp_path / "own") == []
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert "140 kB (60 kB already here)" in done.stdout
    assert hub.ranges() == ["bytes=60000-"]
    folder = find_source("tiny", tmp_path / "own")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(tmp_path.rglob("*.incomplete*"))


def test_a_rest_that_does_not_fit_is_removed(run, hub: FakeHub, tmp_path: Path) -> None:
    partial = tmp_path / "own" / "someone--tiny" / "model.safetensors.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"?" * 60_000)
    done = run("models", "fetch", "tiny", "--dir", tmp_path / "own")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "is broken (its sha256 is" in done.stderr
    assert not partial.exists()
    assert run("models", "fetch", "tiny", "--dir", tmp_path / "own").exit_code == 0
    # More than the whole cannot be a part of it.
    weights = partial.with_name("model.safetensors")
    weights.unlink()
    partial.write_bytes(WEIGHTS + b"?")
    assert run("models", "fetch", "tiny", "--dir", tmp_path / "own").exit_code == 0
    assert weights.read_bytes() == WEIGHTS


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_was_cut_off_is_fetched_anew(
    run, hub: FakeHub, tmp_path: Path, cached: bool
) -> None:
    arguments = ["models", "fetch", "tiny", *([] if cached else ["--dir", str(tmp_path / "own")])]
    run(*arguments)
    weights = (find_source("tiny", tmp_path / "own") / "model.safetensors").resolve()
    weights.write_bytes(WEIGHTS[:1000])
    assert find_places(SOURCES["tiny"], tmp_path / "own")[0].missing == ("model.safetensors",)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert weights.read_bytes() == WEIGHTS
    assert find_places(SOURCES["tiny"], tmp_path / "own")[0].missing == ()


def test_a_cache_without_links_is_mended(run, hub: FakeHub) -> None:
    run("models", "fetch", "tiny")
    link = find_source("tiny") / "model.safetensors"
    link.resolve().unlink()  # as where files cannot be linked: the content lies in the snapshot
    link.unlink()
    link.write_bytes(WEIGHTS[:1000])
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 0, done.output
    assert (find_source("tiny") / "model.safetensors").read_bytes() == WEIGHTS


def test_wrong_content_is_removed(run, hub: FakeHub, tmp_path: Path) -> None:
    hub.lies = b"?" * len(WEIGHTS)
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert f"not {SHA256}) and was removed; run the command again" in done.stderr
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("own", [False, True])
def test_content_without_a_known_hash_must_be_whole_by_its_format(
    run, hub: FakeHub, tmp_path: Path, own: bool
) -> None:
    arguments = ["models", "fetch", "tiny", *(["--dir", str(tmp_path / "own")] if own else [])]
    hub.files["config.json"] = b"<html>Bad gateway</html>"
    done = run(*arguments)
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "someone/tiny/config.json is broken (it is not whole by its own format)" in done.stderr
    assert find_places(SOURCES["tiny"], tmp_path / "own")[0].missing == ("config.json",)
    # What an earlier version took for the file does not count either.
    for broken in tmp_path.rglob("model.safetensors"):
        broken.resolve().write_bytes(b"\x02" + b"\0" * 7 + b"{}")
    assert find_places(SOURCES["tiny"], tmp_path / "own") == []
    hub.files["config.json"] = CONFIG
    assert run(*arguments).exit_code == 0
    assert (find_source("tiny", tmp_path / "own") / "model.safetensors").read_bytes() == WEIGHTS


def test_another_file_than_the_known_one_is_not_fetched(run, hub: FakeHub, monkeypatch) -> None:
    add_source(monkeypatch, "0" * 64)
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert f"(its sha256 is {SHA256}, not {'0' * 64}); update promptseg" in done.stderr
    assert [method for method, *_ in hub.seen] == ["HEAD"]
    add_source(monkeypatch, SHA256)
    assert run("models", "fetch", "tiny").exit_code == 0


def test_a_new_version_on_the_hub_is_fetched_as_a_whole(run, hub: FakeHub) -> None:
    run("models", "fetch", "tiny")
    (find_source("tiny") / "config.json").unlink()
    hub.commit = "f" * 40
    hub.files["config.json"] = b'{"size": 4}'
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 0, done.output
    folder = find_source("tiny")
    assert folder.name == "f" * 40
    assert (folder / "config.json").read_bytes() == b'{"size": 4}'
    assert hub.ranges() == [""]  # the weights are the same, and only linked


def test_the_token_goes_to_the_hub_alone(run, hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run("models", "fetch", "tiny").exit_code == 0
    sent = {"cdn" if "/cdn/" in path else "hub": token for _, path, _, token in hub.seen}
    assert sent == {"hub": "Bearer hf_secret", "cdn": ""}


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "GatedRepo", "someone/tiny; then log in with `hf auth login` or set HF_TOKEN"),
        (403, "GatedRepo", "access to someone/tiny must be requested at http"),
        (401, "RepoNotFound", "has no someone/tiny, or you have no access to it: check"),
        (404, "RepoNotFound", "has no someone/tiny, or you have no access to it: check"),
        (404, "EntryNotFound", "has no model.safetensors in someone/tiny: update promptseg"),
        (500, "", "cannot be fetched from http://127.0.0.1"),
    ],
)
def test_refusals_are_told_in_one_line(run, hub: FakeHub, status: int, code: str, says) -> None:
    hub.refusals["model.safetensors"] = (status, code)
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert says in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_no_hub_is_told(run, hub: FakeHub) -> None:
    hub.commit = ""
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "check HF_ENDPOINT" in done.stderr


def test_no_server_is_told(run, hub: FakeHub, monkeypatch) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "run the command again: it resumes where it stopped" in done.stderr


def test_too_little_room_is_told_before(run, hub: FakeHub, monkeypatch, tmp_path: Path) -> None:
    usage = type("Usage", (), {"free": 100_200_000})
    asked = []
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    done = run("models", "fetch", "tiny")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "the download needs 0.0 GB" in done.stderr
    assert "a folder on another disk" in done.stderr
    assert asked == [tmp_path]
    assert {method for method, *_ in hub.seen} == {"HEAD"}
    usage.free = 100_200_300
    assert run("models", "fetch", "tiny").exit_code == 0


def test_bad_input(run, hub: FakeHub, tmp_path: Path) -> None:
    done = run("models", "fetch", "huge")
    assert done.exit_code == 2
    assert "no preset and no weights are called 'huge'; there are the presets pocket" in done.stderr
    (tmp_path / "file").touch()
    done = run("models", "fetch", "tiny", "--dir", tmp_path / "file")
    assert done.exit_code == 2
    assert "is a file; give a folder with --dir or PROMPTSEG_WEIGHTS" in done.stderr
    done = run("models", "fetch", "tiny", "--dir", tmp_path / "file" / "below")
    assert done.exit_code == 1
    assert one_line(done.stderr)
    assert "cannot be written" in done.stderr


def test_pocket_needs_nothing(run) -> None:
    done = run("models", "fetch", "pocket")
    assert done.exit_code == 0
    assert done.stdout == "nothing to fetch: the weights of pocket come with its packages\n"


def fetch_in_process(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Fetch MobileSAM, whose hash is known, with settings in the environment alone."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    clean.pop("PROMPTSEG_WEIGHTS", None)
    return subprocess.run(
        [sys.executable, "-m", "promptseg.apps.cli.main", "models", "fetch", "mobile-sam"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environment},
    )


def test_the_environment_is_respected(hub: FakeHub, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = fetch_in_process({**settings, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert one_line(done.stderr)
    assert "HF_HUB_OFFLINE is set, and mobile-sam is incomplete" in done.stderr
    assert hub.seen == []
    hub.files["mobile_sam.pt"] = b"another file" * 100
    done = fetch_in_process(settings)
    assert done.returncode == 1
    assert one_line(done.stderr)
    assert "is not the file that promptseg knows" in done.stderr
    assert "/dhkim2810/MobileSAM/resolve/main/mobile_sam.pt" in {path for _, path, *_ in hub.seen}
    storage = tmp_path / "home" / "hub" / "models--dhkim2810--MobileSAM"
    (storage / "snapshots" / COMMIT).mkdir(parents=True)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(COMMIT)
    with zipfile.ZipFile(storage / "snapshots" / COMMIT / "mobile_sam.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    done = fetch_in_process({**settings, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0
    assert done.stdout == "mobile-sam: all weights are here already\n"
