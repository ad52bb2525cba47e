"""The main job in a process that cannot open a socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image
from skimage import data

from .blocked_network import BLOCKED

SEGMENT = BLOCKED + "from promptseg.apps.cli.main import main\nmain()\n"
CONNECT = BLOCKED + "import socket\nsocket.create_connection(('127.0.0.1', 9))\n"


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )


def test_the_block_works() -> None:
    done = run(CONNECT)
    assert done.returncode == 1
    assert "the network is blocked: socket." in done.stderr


def test_segment_needs_no_network(tmp_path: Path) -> None:
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    done = run(SEGMENT, "segment", str(tmp_path / "cat.png"), "-t", "cat", "--json")
    assert done.returncode == 0, done.stderr
    (mask, *_) = json.loads(done.stdout)["masks"]
    assert mask["label"] == "cat"
