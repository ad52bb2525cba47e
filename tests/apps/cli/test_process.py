"""The command in a process of its own: what reaches the terminal, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptseg.apps.cli.options import DTYPES, STRATEGIES
from promptseg.apps.console import describe_error, exit_code, visible
from promptseg.models import device
from promptseg.pipeline.prompters.reference import strategies

HERE = str(Path(__file__).parent)
# With a pipeline that answers at once; "fault" makes it fail as only a fault of ours can.
FAKED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from conftest import FakePipeline
from promptseg.apps.cli.main import main
from promptseg.apps.cli.options import ModelOptions
class Pipeline(FakePipeline):
    def propose(self, image, query, **options):
        if "fault" in query.text:
            raise AttributeError("'NoneType' object has no attribute 'masks'")
        return super().propose(image, query)
ModelOptions.load = lambda options: Pipeline()
main()
"""
WITHOUT_TORCH = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from promptseg.apps.cli.main import main
main()
"""

# What a phrase on a photograph does not need, and whether garbage is collected again.
IMPORTED = """
import gc, sys
from promptseg.apps.cli.main import main
try:
    main()
finally:
    known = {"torch", "scipy.optimize", "scipy.sparse", "supervision", "timm", "transformers",
        "torchvision", "open_clip", "huggingface_hub", "gradio", "requests", "sympy",
        "torch._dynamo", "torch._inductor"}
    print(gc.isenabled(), *sorted(known & set(sys.modules)), file=sys.stderr)
"""


def run(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stderr=subprocess.PIPE, env=environment, timeout=120, check=False,
        **{"stdout": subprocess.PIPE, **options},
    )  # fmt: skip


@pytest.fixture
def album(tmp_path: Path, monkeypatch) -> Path:
    """Two pictures, in the folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    Path("album").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    for name in ("a.jpg", "b_кот\x1b[2J.jpg"):
        Image.fromarray(pixels).save(Path("album") / name)
    return Path("album")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_no_name_is_too_foreign_for_the_console(album: Path, encoding: str) -> None:
    done = run(
        FAKED, HERE, "segment", "album", "-t", "cat", "-t", "к\x1b[31m", "--format", "coco",
        "--out", "o", env={"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"2 images: 2 with masks" in done.stdout
    assert rb"b_\u043a\u043e\u0442\x1b[2J.jpg: 1 mask (cat)" in done.stdout
    one = run(
        FAKED, HERE, "segment", "album/a.jpg", "-t", "к\x1b[31m", "--out", "p",
        env={"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    assert rb"\u043a\x1b[31m" in one.stdout
    for text in (done.stdout, done.stderr, one.stdout):
        assert b"\x1b" not in text


def test_a_fault_of_ours_is_one_line_and_the_others_are_done(album: Path) -> None:
    asked = ("segment", "album/a.jpg", "-t", "fault", "--out", "o")
    done = run(FAKED, HERE, *asked)
    assert done.returncode == 70
    (line,) = done.stderr.decode().splitlines()
    assert "this is a fault of promptseg: please report it with the output of the same" in line
    assert "--debug" in line
    for told in (run(FAKED, HERE, *asked, "--debug"),
                 run(FAKED, HERE, *asked, env={"PROMPTSEG_DEBUG": "1"})):  # fmt: skip
        assert told.returncode == 70
        assert b"Traceback" in told.stderr
        assert b"AttributeError" in told.stderr


def test_what_nothing_else_catches_is_one_line(album: Path) -> None:
    broken = FAKED.replace("main()\n", "") + (
        "from promptseg.apps.cli.runner import Runner\nRunner.run = lambda *_: {}['gone']\nmain()\n"
    )
    done = run(broken, HERE, "segment", "album", "-t", "cat")
    assert done.returncode == 70
    assert done.stderr.startswith(b"error: KeyError: 'gone'; this is a fault of promptseg")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("models", "list"), ("segment", "album", "-t", "cat", "--json"), ("--version",)],
)
def test_a_full_disk_at_stdout_is_one_line(album: Path, arguments) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(FAKED, HERE, *arguments, stdout=full)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert b"No space left on device" in done.stderr


def test_a_reader_that_leaves_is_no_error(album: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(FAKED, HERE, "segment", "album", "-t", "cat", "--json", stdout=write)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-t", "cat", "--preset", "hug"), "no preset is called 'hug'"),
        (("-t", "cat", "--device", "cdua"), "there is no device 'cdua'"),
        (("-t", "cat", "--dtype", "f7"), "there is no dtype 'f7'"),
        (("-t", "cat", "--format", "pdf"), "there is no 'pdf'"),
        (("-t", "cat", "--strategy", "foo"), "no matching strategy is called 'foo'"),
        (("-t", "cat", "--weights", "nowhere"), "'nowhere' is not a folder"),
        (("--concept", "nowhere"), "'nowhere.safetensors'"),
        (("--reference", "no.png", "--reference-box", "1,2,3,4"), "'no.png' does not exist"),
        (("--reference", "album/a.jpg", "--reference-mask", "no.png"), "'no.png' does not exist"),
        (("-t", "cat", "--min-presence", "2"), "--min-presence must be between 0 and 1"),
        (("-t", "cat", "--simplify", "2"), "--simplify is for polygons"),
        (("-t", "cat", "dog"), "give each phrase its own --text"),
        (("album/*.gif", "-t", "cat"), "nothing matches 'album/*.gif'"),
        (("https://host/a.jpg", "-t", "cat"), "--allow-urls fetches it"),
        (("no.jpg", "-t", "cat"), "'no.jpg' does not exist"),
    ],
)
def test_mistakes_are_told_before_torch_is_imported(album: Path, arguments, says: str) -> None:
    image = () if arguments[0] == "no.jpg" else ("album/a.jpg",)
    done = run(WITHOUT_TORCH, "segment", *image, *arguments)
    assert done.returncode == 2, done.stderr
    error, torch_is_there = done.stderr.decode().splitlines()
    assert says in error
    assert torch_is_there == "False"


def test_a_photograph_needs_no_more_than_torch(album: Path) -> None:
    done = run(IMPORTED, "segment", "album/a.jpg", "-t", "cat", "--out", "o")
    assert done.returncode == 0, done.stderr
    assert (Path("o") / "overlay.png").is_file()
    assert done.stderr.decode().split() == ["True", "torch"]


def test_names_that_are_checked_early_are_those_that_are_there() -> None:
    assert set(STRATEGIES) == set(strategies.STRATEGIES)
    for name in DTYPES:
        device.read_dtype(name)


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert visible("a\x1b[31m\r\n\x9b\u202eb кот") == "a\\x1b[31m\\r\\n\\x9b\\u202eb кот"
    assert exit_code(KeyError("x")) == 70
    assert "fault of promptseg" in describe_error(KeyError("x"))
    assert exit_code(OSError("x")) == exit_code(RuntimeError("x")) == 1
