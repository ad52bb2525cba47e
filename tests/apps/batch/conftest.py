"""Small pictures of a cat, some of them broken, and the pocket preset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import promptseg
from promptseg.pipeline import Pipeline

# Wide ones take the encoder a quarter of the time of square ones.
SIZE = (24, 96)
GOOD, BROKEN = 27, 3


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 27 pictures and 3 broken files, one of them below another folder."""
    folder = tmp_path_factory.mktemp("batch") / "pictures"
    (folder / "below").mkdir(parents=True)
    whole = data.chelsea()
    for i in range(GOOD):
        part = whole[4 * i : 4 * i + 6 * SIZE[0], 3 * i : 3 * i + 3 * SIZE[1]]
        picture = Image.fromarray(part).resize((SIZE[1], SIZE[0]))
        picture.save(folder / ("below" if i == 0 else "") / f"{i:02d}.png")
    (folder / "broken1.png").write_text("no picture")
    (folder / "broken2.jpg").write_bytes(b"")
    cut_off = (folder / "01.png").read_bytes()[:-200]
    (folder / "broken3.png").write_bytes(cut_off)
    return folder


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """As workers compute, so that results are the same to the byte."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pipe(one_thread: None) -> Pipeline:
    """The preset pocket."""
    return promptseg.load("pocket")
