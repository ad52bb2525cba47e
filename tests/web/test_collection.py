"""Collected objects, their edits and history: pure values, compared with sets of pixels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.apps.service import limits
from promptseg.apps.web import sheet as sheet_module
from promptseg.apps.web.collection import Collection, Scores, read_color
from promptseg.apps.web.desk import read_numbers
from promptseg.apps.web.painting import Stroke, difference, union
from promptseg.apps.web.request import MarkHistory, Request, Setup
from promptseg.apps.web.sheet import History, Sheet, Shown, collect
from promptseg.apps.web.shelf import Shelf
from promptseg.apps.web.views import stage_objects
from promptseg.models.errors import InputError
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.result import Result

SIZE = (13, 17)
PICTURE = Path("picture.png")

masks = st.integers(0, 2 ** (SIZE[0] * SIZE[1]) - 1).map(
    lambda bits: np.array([bits >> i & 1 for i in range(SIZE[0] * SIZE[1])], bool).reshape(SIZE)
)
points = st.tuples(st.floats(0, SIZE[1] - 0.01), st.floats(0, SIZE[0] - 0.01))
strokes = st.builds(Stroke, st.lists(points, min_size=1, max_size=4).map(tuple), st.floats(0.5, 4))


def pack(mask: np.ndarray) -> CompactMask:
    return CompactMask.of(mask)


def collection(*parts: np.ndarray) -> Collection:
    labels = [f"thing {i}" for i in range(len(parts))]
    scores = [Scores(0.5 + i / 10) for i in range(len(parts))]
    return Collection().add([pack(part) for part in parts], labels, scores, "phrase")


@given(masks, masks, masks)
@settings(max_examples=60, deadline=None)
def test_unions_and_differences_are_those_of_pixels(
    one: np.ndarray, two: np.ndarray, three: np.ndarray
) -> None:
    assert union([pack(one), pack(two), pack(three)]) == pack(one | two | three)
    assert union([pack(one)]) == pack(one)
    assert difference(pack(one), pack(two)) == pack(one & ~two)


@given(strokes)
@settings(max_examples=60, deadline=None)
def test_a_stroke_covers_what_is_within_the_brush(stroke: Stroke) -> None:
    area = stroke.area(SIZE).full()
    # The distance of each pixel's centre to the path through the centres of its pixels.
    path = np.floor(stroke.points)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    centres = np.stack([columns, rows], -1).astype(float)
    distances = []
    for start, end in zip(path, [*path[1:], path[-1]], strict=True):
        along = end - start
        share = (centres - start) @ along / max(along @ along, 1e-9)
        nearest = start + np.clip(share, 0, 1)[..., None] * along
        distances.append(np.linalg.norm(centres - nearest, axis=-1))
    distance = np.min(distances, 0)
    # The path is drawn in whole pixels, which are at most half a pixel beside it.
    assert area[distance <= stroke.radius - 0.75].all()
    assert not area[distance > stroke.radius + 0.75].any()


def test_a_dot_is_a_disc() -> None:
    area = Stroke(((8.5, 6.5),), 3.0).area(SIZE).full()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    assert np.array_equal(area, np.hypot(rows - 6, columns - 8) <= 3)


def test_a_stroke_beyond_the_edges_is_cut_off() -> None:
    size = (100, 200)
    area = Stroke(((-40.0, 50.0), (500.0, 50.0)), 10.0).area(size).full()
    assert area[40:61].all()
    assert not area[:40].any()
    assert not area[61:].any()
    assert Stroke(((-90.0, -90.0),), 10.0).area(size).area == 0


@given(st.lists(masks, min_size=2, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_merging_is_the_union_and_keeps_the_first(
    parts: list[np.ndarray], data: st.DataObject
) -> None:
    before = collection(*parts)
    numbers = data.draw(st.lists(st.sampled_from(before.numbers or [0]), unique=True))
    if len(numbers) < 2:
        with pytest.raises(InputError, match="two or more"):
            before.merge(numbers)
        return
    some = before.pick(numbers)
    after = before.merge(numbers)
    (merged,) = after.pick([some[0].number])
    assert np.array_equal(merged.mask.full(), np.any([item.mask.full() for item in some], axis=0))
    assert (merged.label, merged.color) == (some[0].label, some[0].color)
    assert len(after) == len(before) - len(numbers) + 1


@given(masks, strokes)
@settings(max_examples=60, deadline=None)
def test_painting_adds_pixels_and_erasing_takes_them(part: np.ndarray, stroke: Stroke) -> None:
    before = collection(np.ones(SIZE, bool) & part)
    area = stroke.area(SIZE)
    if not len(before):  # empty masks are not collected; painting makes an object
        assert before.stroke([], area, False).objects[0].mask == area
        return
    painted = before.stroke([1], area, False)
    assert np.array_equal(painted.objects[0].mask.full(), part | area.full())
    erased = before.stroke([1], area, True)
    left = part & ~area.full()
    if left.any():
        assert np.array_equal(erased.objects[0].mask.full(), left)
        assert erased.objects[0].edited == bool((part & area.full()).any())
    else:
        assert len(erased) == 0


# Every edit, on objects that are there and objects that are not.
_EDITS: list[Callable[[Collection, list[int], Any], Collection]] = [
    lambda objects, numbers, _: objects.rename(numbers, "new name"),
    lambda objects, numbers, _: objects.recolor(numbers, "#123456"),
    lambda objects, numbers, _: objects.hide(numbers),
    lambda objects, numbers, _: objects.delete(numbers),
    lambda objects, numbers, _: objects.merge(numbers),
    lambda objects, numbers, area: objects.stroke(numbers[:1], area, False),
    lambda objects, numbers, area: objects.stroke(numbers[:1], area, True),
    lambda objects, numbers, area: objects.add([area], ["added"], [Scores()], "clicks"),
]


@given(
    st.lists(masks, max_size=3),
    st.lists(
        st.tuples(st.sampled_from(_EDITS), st.lists(st.integers(1, 5), max_size=3), strokes),
        max_size=8,
    ),
)
@settings(max_examples=60, deadline=None)
def test_undo_inverts_every_edit_and_redo_repeats_it(
    parts: list[np.ndarray], edits: list[Any]
) -> None:
    history = History(Sheet(PICTURE).with_objects(collection(*parts)))
    seen = [history.present]
    for edit, numbers, stroke in edits:
        try:
            objects = edit(history.present.objects, numbers, stroke.area(SIZE))
        except InputError:
            continue
        assert history.present == seen[-1]  # the edit changed nothing in place
        history = history.do(history.present.with_objects(objects))
        if history.present != seen[-1]:
            seen.append(history.present)
    last = history
    for expected in reversed(seen):
        assert history.present == expected
        history = history.undo()
    assert history == history.undo()
    for expected in seen[1:]:
        history = history.redo()
        assert history.present == expected
    assert history == history.redo() == last


def test_a_new_step_ends_what_could_be_redone() -> None:
    first, other = Sheet(PICTURE), Sheet(Path("other.png"))
    history = History().do(first).undo().do(other)
    assert history.redo() == history
    assert history.undo().present == Sheet()


def test_numbers_are_never_given_twice() -> None:
    objects = collection(np.ones(SIZE, bool), np.eye(*SIZE, dtype=bool)).delete([2])
    again = objects.add([pack(np.ones(SIZE, bool))], [""], [Scores()], "clicks")
    assert again.numbers == [1, 3]
    assert again.objects[1].label == "object"


def test_what_is_refused() -> None:
    objects = collection(np.ones(SIZE, bool), np.eye(*SIZE, dtype=bool))
    area = Stroke(((3.0, 3.0),), 2.0).area(SIZE)
    for words, edit in {
        "choose an object first": lambda: objects.delete([9]),
        "a label cannot be empty": lambda: objects.rename([1], " \n "),
        "the label has 201 characters": lambda: objects.rename([1], "x" * 201),
        "'red' is not a colour": lambda: objects.recolor([1], "red"),
        "choose one object to paint on": lambda: objects.stroke([1, 2], area, False),
        "choose the object to erase from": lambda: objects.stroke([], area, True),
        "201 objects are too many": lambda: objects.add(
            [area] * 199, [""] * 199, [Scores()] * 199, "clicks"
        ),
        "a brush of 9 pixels is too large": lambda: Stroke(((1.0, 1.0),), 9.0).area(SIZE),
        "could not be read": lambda: read_numbers(["one"]),
        "the chosen objects could not be read": lambda: read_numbers([1] * 201),
    }.items():
        with pytest.raises(InputError, match=words):
            edit()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"points": [], "radius": 3},
        {"points": "ab", "radius": 3},
        {"points": [[1, 2]], "radius": 0},
        {"points": [[1, 2]], "radius": float("nan")},
        {"points": [[1, 2]], "radius": "wide"},
        {"points": [[1, float("inf")]], "radius": 3},
        {"points": [[1, 2, 3]], "radius": 3},
        {"points": [[10**400, 2]], "radius": 3},
        {"points": [[1, 2]] * (limits.MAX_STROKE_POINTS + 1), "radius": 3},
        {"points": [[1, 2]]},
    ],
)
def test_a_malformed_stroke_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="that stroke could not be read; paint it again"):
        Stroke.read(data)


def test_colours_are_read_as_the_picker_gives_them() -> None:
    assert read_color("#1a2B3c") == "#1A2B3C"
    assert read_color("rgba(230.4, 159, 0, 1)") == "#E69F00"
    for text in ("rgb(300, 0, 0)", "#12345", "url(x)", "#123456; } body { color: red", ""):
        with pytest.raises(InputError, match="is not a colour"):
            read_color(text)


def request(**fields: Any) -> Request:
    return Request(Setup(), PICTURE, **fields)


def result(*parts: np.ndarray, label: str) -> Result:
    n = len(parts)
    rows = np.linspace(0.9, 0.5, n, dtype=np.float32)
    return Result.of(np.array(parts), [label] * n, rows, rows - 0.1, rows - 0.2, rows - 0.3)


def test_answers_are_collected_with_their_labels_and_scores() -> None:
    one, two = np.eye(*SIZE, dtype=bool), np.ones(SIZE, bool)
    asked = Sheet(PICTURE, Shown((request(phrases=("cat",)),)))
    sheet = collect(asked, result(one, two, label="cat"), "")
    assert sheet.shown.request is None
    clicked = sheet.mark(MarkHistory().add_click((3, 4), 1), Setup())
    assert clicked.marks.is_lone_click
    sheet = collect(clicked, result(two, label="point"), "")
    sheet = collect(sheet.mark(clicked.marks, Setup()), result(one, label="point"), " my  dog ")
    assert [item.label for item in sheet.objects.objects] == ["cat", "cat", "object", "my dog"]
    assert [item.origin for item in sheet.objects.objects] == ["phrase"] * 2 + ["clicks"] * 2
    exported = sheet.objects.hide([2]).to_result(SIZE)
    assert np.array_equal(exported.masks, [one, two, two, one])
    assert exported.labels == ["cat", "cat", "object", "my dog"]
    np.testing.assert_allclose(exported.scores, [0.9, 0.5, 0.9, 0.9], rtol=1e-6)
    np.testing.assert_allclose(exported.prompt_scores, [0.6, 0.2, 0.6, 0.6], rtol=1e-6)
    with pytest.raises(InputError, match="nothing to add"):
        collect(sheet, result(one, label="cat"), "")


def test_each_picture_that_was_searched_has_a_list_of_its_own() -> None:
    other = Path("other.png")
    both = Shown((request(phrases=("cat",)), Request(Setup(), other, phrases=("cat",))), 1)
    sheet = Sheet(PICTURE).with_objects(collection(np.ones(SIZE, bool)))
    there = Sheet(PICTURE, both, sheet.collections)
    assert len(there.objects) == 0
    there = there.with_objects(collection(np.eye(*SIZE, dtype=bool), np.ones(SIZE, bool)))
    assert len(there.objects) == 2
    assert len(there.collections[PICTURE]) == 1
    # Clearing the marks keeps the picture on the stage.
    assert there.mark(MarkHistory(), Setup()).on_stage == other


def test_a_history_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    for i in range(limits.MAX_STEPS + 20):
        history = history.do(Sheet(Path(f"{i}.png")))
    assert len(history.past) == limits.MAX_STEPS
    monkeypatch.setattr(sheet_module, "MAX_WORK_BYTES", 30_000)
    rng = np.random.default_rng(0)
    history = History(Sheet(PICTURE))
    for _ in range(20):
        noise = collection(rng.random((64, 64)) > 0.5)  # some 1.7 kB
        history = history.do(Sheet(PICTURE).with_objects(noise))
    assert 3 < len(history.past) < 20
    assert sheet_module.weigh(history.sheets) <= 30_000
    full = collection(*(rng.random((8, 64, 64)) > 0.5), *(rng.random((8, 64, 64)) > 0.5))
    full = full.add([item.mask for item in full.objects], [""] * 16, [Scores()] * 16, "clicks")
    large = collection(*(rng.random((24, 64, 64)) > 0.5))
    with pytest.raises(InputError, match="download them and delete some"):
        history.do(Sheet(PICTURE).with_objects(large))
    assert sheet_module.weigh([Sheet(PICTURE).with_objects(full)]) < 60_000  # shared masks once


def test_pages_have_their_own_work_and_a_reload_a_copy() -> None:
    shelf = Shelf(60)
    key, other = shelf.open(""), shelf.open("no such key")
    assert len(key) >= 32
    assert key != other
    shelf.do(key, lambda sheet: Sheet(PICTURE))
    assert shelf.get(other).present == Sheet()
    reloaded = shelf.open(key)
    assert shelf.get(reloaded) == shelf.get(key)
    shelf.change(reloaded, History.undo)
    assert shelf.get(reloaded).present == Sheet()
    assert shelf.get(key).present == Sheet(PICTURE)
    for wrong in ("", "guessed"):
        with pytest.raises(InputError, match="reload the page"):
            shelf.get(wrong)


def test_the_shelf_forgets_what_is_old_or_too_much() -> None:
    now = 0.0
    shelf = Shelf(100, capacity=30_000, clock=lambda: now)
    keys = [shelf.open("") for _ in range(3)]
    now = 90.0
    shelf.do(keys[1], lambda sheet: Sheet(PICTURE))
    now = 110.0
    assert shelf.get(keys[1]).present == Sheet(PICTURE)  # 20 s after its last change
    with pytest.raises(InputError, match=re.escape("no longer on the server")):
        shelf.get(keys[0])
    many = [shelf.open("") for _ in range(30)]
    with pytest.raises(InputError):
        shelf.get(many[0])
    assert shelf.get(many[-1]).present == Sheet()


def test_the_stage_gets_a_picture_once() -> None:
    one, two = np.zeros((2, *SIZE), bool)
    one[2:5, 3:9] = two[6:, 10:] = True
    before = collection(one, two)

    def told(objects: Collection, before: Collection) -> list[tuple[str | None, bool]]:
        return [(item.get("picture"), "src" in item) for item in stage_objects(objects, before)]

    (first, _), (second, _) = told(before, Collection())
    assert told(before, Collection()) == [(first, True), (second, True)]
    assert first != second
    renamed = before.rename([1], "other")
    assert told(renamed, before) == [(first, False), (second, False)]
    hidden = before.hide([1])
    assert told(hidden, before) == [(None, False), (second, False)]
    assert told(hidden.hide([1]), hidden) == [(first, True), (second, False)]
    recoloured = told(before.recolor([2], "#123456"), before)
    assert recoloured[0] == (first, False)
    assert recoloured[1][0] not in (first, second)
    assert recoloured[1][1]
    assert told(before.merge([1, 2]), before)[0][1]
    assert told(before, before.delete([2])) == [(first, False), (second, True)]
