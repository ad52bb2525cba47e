"""Disks that take nothing: a full one, and one that may only be read, really mounted where it may.

Where this process may not mount, the limit of a file's size stands in for the full disk, and a
folder without the permission to write for the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = str(Path(__file__).parent)
SMALL = 64 * 1024
FAKED = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.path.insert(0, sys.argv.pop(1))
from conftest import FakePipeline
from promptseg.apps.cli.main import main
from promptseg.apps.cli.options import ModelOptions
ModelOptions.load = lambda options: FakePipeline()
main()
"""
SHEET = """
import resource, signal, sys
from pathlib import Path
from PIL import Image
from promptseg.apps.evaluation.contact_sheet import save_sheet
if int(sys.argv[1]):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    save_sheet(Path(sys.argv[2]), Image.effect_noise((400, 400), 100))
except OSError as error:
    sys.exit(error.strerror)
"""


def mounted(folder: Path, *options: str) -> bool:
    """Mount a small file system in memory, if this process may."""
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def unmounting(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A disk of 64 kB, and the limit of a file's size that stands in for it; 0 for none."""
    disk = tmp_path / "small"
    disk.mkdir()
    if mounted(disk, f"size={SMALL}"):
        with unmounting(disk):
            yield disk, 0
    else:
        yield disk, SMALL // 8


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file in it, which nobody can write to."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if mounted(disk, "size=1m"):
        with unmounting(disk):
            (disk / "mine.txt").write_text("mine")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            yield disk
        return
    (disk / "mine.txt").write_text("mine")
    disk.chmod(0o555)
    if os.access(disk, os.W_OK):  # root without the right to mount writes wherever it likes
        shutil.rmtree(disk)
        disk = Path("/proc/self")
    yield disk
    if disk.is_relative_to(tmp_path):
        disk.chmod(0o755)


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight photographs of noise, in the folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    Path("album").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"album/{i}.png")
    return Path("album")


def segment(limit: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(limit), HERE, "segment", "album", "-t", "cat", *map(str, arguments)]
    return subprocess.run(
        [sys.executable, "-c", FAKED, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def whole(folder: Path) -> None:
    """Every file can be read; nothing is left half-written."""
    assert not list(folder.rglob("*.partial"))
    for path in folder.rglob("*.png"):
        Image.open(path).load()
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("options", [(), ("--format", "cutout", "--format", "coco")])
def test_on_a_full_disk_a_run_stops_and_goes_on_when_there_is_room(
    album, full: tuple[Path, int], options
) -> None:
    disk, limit = full
    done = segment(limit, "--out", disk / "out", *options)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "File too large" in line if limit else "No space left on device" in line
    assert "--resume" in line
    whole(disk)
    done = segment(0, "--out", "roomy", *options)
    assert done.returncode == 0, done.stderr
    shutil.copytree(disk / "out", "moved")  # to a disk with room
    done = segment(0, "--out", "moved", "--resume", *options)
    assert done.returncode == 0, done.stderr
    names = [
        {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.name[0] != "."}
        for folder in ("roomy", "moved")
    ]
    assert names[0] == names[1]


def test_a_sheet_of_failures_is_whole_or_not_there(full: tuple[Path, int]) -> None:
    disk, limit = full
    command = [sys.executable, "-c", SHEET, str(limit), str(disk / "sheet.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == ("File too large" if limit else "No space left on device")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("place", ["", "out"])
def test_what_may_only_be_read_is_told_before_the_first_image(album, read_only, place) -> None:
    done = segment(0, "--out", read_only / place)
    assert done.returncode in (1, 2), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(read_only) in line
    assert done.stdout == ""
    if read_only.name == "disk":
        assert [path.name for path in read_only.iterdir()] == ["mine.txt"]
        assert (read_only / "mine.txt").read_text() == "mine"
