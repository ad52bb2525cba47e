"""The sheet of failures: what is drawn where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from promptseg.apps.evaluation import contact_sheet
from promptseg.apps.evaluation.contact_sheet import CELL, draw_sheet, save_sheet
from promptseg.apps.evaluation.tasks.base import Shown
from promptseg.pipeline.drawing import MASK_OPACITY

GREY = 100
LEFT, TOP = 10, 50  # of the first cell
PITCH = CELL + 10, CELL + 30


def shown(**changes) -> Shown:
    """A square grey picture as large as a cell; predicted in its middle, true to its left."""
    prediction, target = np.zeros((2, CELL, CELL), bool)
    prediction[100:160, 100:160] = True
    target[100:160, 20:80] = True
    image = np.full((CELL, CELL, 3), GREY, np.uint8)
    values = {"caption": "dog", "image": image, "prediction": prediction, "target": target}
    return Shown(**{**values, **changes})


def cell(sheet: Image.Image, number: int = 0) -> np.ndarray:
    left, top = LEFT + number % 4 * PITCH[0], TOP + number // 4 * PITCH[1]
    return np.asarray(sheet)[top : top + CELL, left : left + CELL].astype(int)


def color(name: str) -> np.ndarray:
    return np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])


def test_the_prediction_is_filled_and_the_truth_outlined() -> None:
    drawn = cell(draw_sheet("title", [shown()]))
    tinted = (1 - MASK_OPACITY) * GREY + MASK_OPACITY * color(contact_sheet._PREDICTION)
    np.testing.assert_allclose(drawn[100:160, 100:160] - tinted, 0, atol=0.51)
    edge = np.zeros((CELL, CELL), bool)
    edge[100:160, 20:80] = True
    edge[102:158, 22:78] = False
    assert (drawn[edge] == color(contact_sheet._TRUTH)).all()
    assert (drawn[102:158, 22:78] == GREY).all()
    assert (drawn[:100] == GREY).all()
    assert (drawn[160:] == GREY).all()


def test_without_a_target_nothing_is_outlined() -> None:
    drawn = cell(draw_sheet("title", [shown(target=None)]))
    assert (drawn[:, :100] == GREY).all()


def test_what_was_asked_with_is_drawn() -> None:
    asked = color(contact_sheet._ASKED)
    nothing = {"target": None, "prediction": np.zeros((CELL, CELL), bool)}
    drawn = cell(draw_sheet("t", [shown(box=(20, 30, 80, 90), **nothing)]))
    assert (drawn[30, 20:80] == asked).all()
    assert (drawn[89, 20:80] == asked).all()
    assert (drawn[30:90, 20] == asked).all()
    assert (drawn[30:90, 79] == asked).all()
    assert (drawn[31:89, 21:79] == GREY).all()
    drawn = cell(draw_sheet("t", [shown(clicks=((50, 60, 1), (150, 160, 0)), **nothing)]))
    assert (drawn[60, 45:47] == asked).all()  # beside the number
    assert (drawn[160, 145:147] == 0).all()
    example = np.full((40, 40, 3), 7, np.uint8), np.ones((40, 40), bool)
    drawn = cell(draw_sheet("t", [shown(example=example, **nothing)]))
    side = round(0.38 * CELL)
    assert (drawn[:2, : side + 4] == asked).all()
    assert (drawn[5 : side - 5, 5 : side - 5] == 7).all()
    assert (drawn[side + 4 :] == GREY).all()


def test_pictures_of_any_shape_lie_in_the_middle_of_their_cells() -> None:
    wide = np.full((CELL, 4 * CELL, 3), GREY, np.uint8)
    mask = np.zeros((CELL, 4 * CELL), bool)
    mask[:, : 2 * CELL] = True
    drawn = cell(draw_sheet("t", [shown(image=wide, prediction=mask, target=None)]))
    rows = np.flatnonzero((drawn[:, -1] == GREY).all(-1))
    assert len(rows) == CELL // 4
    assert abs(rows[0] - (CELL - 1 - rows[-1])) <= 1
    assert (drawn[rows, : CELL // 2] != GREY).any(-1).all()
    assert (drawn[rows, CELL // 2 :] == GREY).all()


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (4, 1), (5, 2), (24, 6)])
def test_four_cells_in_a_row(count: int, rows: int) -> None:
    items = [shown(image=np.full((9, 9, 3), i, np.uint8), prediction=np.zeros((9, 9), bool),
                   target=None) for i in range(count)]  # fmt: skip
    sheet = draw_sheet("title", items)
    assert sheet.size == (10 + 4 * PITCH[0], TOP + 10 + rows * PITCH[1])
    for i in range(count):
        assert (cell(sheet, i) == i).all()


def test_captions_and_title_are_written_and_cut() -> None:
    def ink(sheet: Image.Image, top: int, left: int, right: int) -> int:
        return int((np.asarray(sheet.convert("L"))[top : top + 20, left:right] < 128).sum())

    short, long = draw_sheet("t", [shown()]), draw_sheet("x" * 1000, [shown(caption="word " * 99)])
    below = TOP + CELL
    assert 0 < ink(short, below, LEFT, LEFT + CELL) < ink(long, below, LEFT, LEFT + CELL)
    assert ink(long, below, LEFT + CELL + 1, long.width) == 0
    assert ink(long, 10, long.width - 8, long.width) == 0
    font = ImageFont.load_default(13)
    assert contact_sheet._fit("word " * 99, font, CELL).endswith("...")
    assert contact_sheet._fit("狗 chien é", font, CELL) == "? chien é"


def test_the_sheet_is_written_as_a_whole(tmp_path: Path) -> None:
    sheet = draw_sheet("title", [shown()])
    save_sheet(tmp_path / "new" / "sheet.png", sheet)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "new" / "sheet.png") as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(sheet))
