"""Runs that are interrupted and go on, and runs that must not mix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptseg.apps.evaluation.run import evaluate, get_task, show_worst
from promptseg.apps.evaluation.tasks.base import Settings
from promptseg.models.errors import InputError


@pytest.fixture
def measure(collection, fakes):
    """Measure the four pictures with a new pipeline, or with one of the test's own."""

    def run(task: str, pipe: Any = None, *, pictures: int = 4, pairs: int | None = None, **kwargs):
        few = replace(collection, pictures=collection.pictures[:pictures])
        made = get_task(task)(pipe or fakes.Pipeline(), few, Settings(pairs=pairs))
        return evaluate(made, **kwargs)

    return run


@pytest.mark.parametrize("task", ["boxes", "points", "text", "reference"])
@pytest.mark.parametrize("cut", [0, 7])
def test_an_interrupted_run_goes_on(measure, fakes, tmp_path: Path, task: str, cut: int) -> None:
    expected = measure(task)
    whole, store = tmp_path / "new" / "whole.jsonl", tmp_path / "new" / "cut.jsonl"
    assert measure(task, store=whole) == expected
    with pytest.raises(KeyboardInterrupt):
        measure(task, fakes.Pipeline(fakes.Segmenter(fails_at=2)), store=store)
    if cut:
        store.write_bytes(store.read_bytes()[:-cut])
    pipe = fakes.Pipeline()
    assert measure(task, pipe, store=store) == expected
    assert pipe.segmenter.encoded == (3 if cut else 2)
    assert store.read_bytes() == whole.read_bytes()
    again = fakes.Pipeline()
    assert measure(task, again, store=store) == expected
    assert again.segmenter.encoded == 0


def test_everything_keeps_its_times(measure, fakes, tmp_path: Path) -> None:
    first = measure("everything", store=tmp_path / "rows.jsonl")
    pipe = fakes.Pipeline()
    assert measure("everything", pipe, store=tmp_path / "rows.jsonl") == first
    assert pipe.segmenter.encoded == 0


def test_a_short_run_grows_into_a_long_one(measure, fakes, tmp_path: Path) -> None:
    store = tmp_path / "rows.jsonl"
    for task in ("boxes", "text"):
        measure(task, pictures=2, store=store)
        pipe = fakes.Pipeline()
        assert measure(task, pipe, store=store) == measure(task)
        assert pipe.segmenter.encoded == 2
        store.unlink()


ABOUT = {"preset": "pocket", "weights": "1f"}


@pytest.mark.parametrize(
    ("task", "about", "changes", "says"),
    [
        ("points", ABOUT, {}, 'its task is "boxes", not "points" as in this run'),
        ("boxes", {**ABOUT, "preset": "x"}, {}, 'its preset is "pocket", not'),
        ("boxes", {**ABOUT, "weights": "2a"}, {}, 'its weights is "1f", not'),
        ("boxes", {**ABOUT, "split": "dev"}, {}, "its split is null"),
        ("boxes", {"preset": "pocket"}, {}, 'its weights is "1f", not null'),
        ("boxes", ABOUT, {"config": "other"}, "its settings is"),
        ("boxes", ABOUT, {"text_prompter": "other"}, "its settings is"),
    ],
)
def test_rows_of_another_run_are_refused_and_kept(
    measure, fakes, tmp_path: Path, task: str, about: dict[str, str], changes, says: str
) -> None:
    store = tmp_path / "rows.jsonl"
    measure("boxes", store=store, about=ABOUT)
    before = store.read_bytes()
    pipe = fakes.Pipeline(config=changes.get("config", "ranking"))
    pipe.text_prompter = fakes.Prompter(changes.get("text_prompter", "thresholds"))
    with pytest.raises(InputError) as caught:
        measure(task, pipe, store=store, about=about)
    message = str(caught.value)
    assert says in message
    assert str(store) in message
    assert "delete the file" in message
    assert "\n" not in message
    assert store.read_bytes() == before
    assert pipe.segmenter.encoded == 0


def test_settings_below_a_prompter_count_as_well(measure, fakes, tmp_path: Path) -> None:
    store = tmp_path / "rows.jsonl"
    for settings in ("one", "other"):
        pipe = fakes.Pipeline()
        pipe.text_prompter.strategy = fakes.Prompter(settings)
        if settings == "one":
            measure("boxes", pipe, store=store)
    with pytest.raises(InputError, match="its settings is"):
        measure("boxes", pipe, store=store)


def test_rows_drawn_from_other_labels_or_pairs_are_refused(
    measure, collection, fakes, tmp_path: Path
) -> None:
    store = tmp_path / "rows.jsonl"
    measure("text", store=store)
    fewer = replace(collection, vocabulary={"even": ("dog", "car"), "odd": ("dog", "cat")})
    grouped = replace(collection, supercategories={"dog": "animal"})
    for other in (fewer, grouped):
        with pytest.raises(InputError, match="its labels is"):
            evaluate(get_task("text")(fakes.Pipeline(), other, Settings()), store=store)
    store.unlink()
    measure("reference", store=store)
    for changes in ({"pairs": 1}, {"pictures": 3}):
        with pytest.raises(InputError, match="its pairs is"):
            measure("reference", store=store, **changes)


@pytest.mark.parametrize("task", ["boxes", "points", "text", "reference", "everything"])
def test_rows_with_a_wrong_field_are_refused(measure, tmp_path: Path, task: str) -> None:
    """Whatever field of the first row is dropped or of another type, or not a finite number."""
    store = tmp_path / "rows.jsonl"
    measure(task, store=store)
    header, *lines = store.read_text().splitlines()
    entry = next(e for e in map(json.loads, lines) if e["rows"])
    tried = 0
    for number, row in enumerate(entry["rows"]):
        for key in row:
            for value in (None, [], {"a": 1}, "x" if key != "label" else 3, float("nan"), 1e999):
                if value == [] and isinstance(row[key], list):
                    continue  # there may be none
                rows = [{**other} for other in entry["rows"]]
                rows[number][key] = value
                store.write_text("\n".join([header, json.dumps({**entry, "rows": rows}), ""]))
                with pytest.raises(InputError, match="line 2 is broken") as caught:
                    measure(task, store=store)
                assert "\n" not in str(caught.value)
                tried += 1
    assert tried >= 12


@pytest.mark.parametrize(
    "line", ["[]", '{"name": "even/0", "rows": [3]}', '{"name": 3, "rows": []}']
)
def test_entries_that_are_not_rows_are_refused(measure, tmp_path: Path, line: str) -> None:
    store = tmp_path / "rows.jsonl"
    measure("boxes", store=store)
    store.write_text(store.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 6 is broken"):
        measure("boxes", store=store)


@pytest.mark.parametrize("task", ["boxes", "points", "text", "reference", "everything"])
def test_altered_rows_that_fit_no_picture_are_told(collection, fakes, task: str) -> None:
    made = get_task(task)(fakes.Pipeline(), collection, Settings())
    rows = [row for row in evaluate(made) if "label" in row]
    for row in rows:
        row |= {"object": 99, "label": "nobody", "present": True, "iou": 0.0, "area": 1.0}
        row |= {"references": ["nowhere"], "kind": "present"}
    with pytest.raises(InputError, match=r"the rows of '\w+/\d' are not of this picture; delete"):
        show_worst(made, rows, 1)


def test_pictures_that_cannot_be_read_are_skipped_and_named(
    measure, collection, fakes, tmp_path: Path
) -> None:
    store = tmp_path / "rows.jsonl"
    bad = collection.pictures[1]
    content = bad.mask_path.read_bytes()
    bad.mask_path.write_text("no picture")
    rows = measure("boxes", store=store)
    assert {row["picture"] for row in rows} == {"even/0", "even/2", "odd/3"}
    assert collection.skipped.count == 1
    assert "1_ids.png' cannot be read" in collection.skipped.named[0]
    bad.mask_path.write_bytes(content)  # mended, it is measured by the next run
    pipe = fakes.Pipeline()
    assert len({row["picture"] for row in measure("boxes", pipe, store=store)}) == 4
    assert pipe.segmenter.encoded == 1


@pytest.mark.parametrize("part", ["image_path", "mask_path"])
def test_an_example_that_cannot_be_read_takes_no_other_picture_with_it(
    collection, fakes, part: str
) -> None:
    pictures = tuple(replace(picture, source="one") for picture in collection.pictures)

    def measure_again() -> list[dict[str, Any]]:
        task = get_task("reference")(
            fakes.Pipeline(), replace(collection, pictures=pictures), Settings()
        )
        return evaluate(task)

    assert {row["picture"] for row in measure_again()} == {"one/0", "one/1", "one/2", "one/3"}
    getattr(pictures[0], part).write_text("no picture")
    rows = measure_again()
    assert {row["picture"] for row in rows} == {"one/1", "one/2", "one/3"}
    assert all("one/0" not in row["references"] for row in rows)
    assert collection.skipped.count == 1


def test_no_picture_that_can_be_read_is_an_error(measure, collection) -> None:
    for picture in collection.pictures:
        picture.mask_path.write_text("no picture")
    with pytest.raises(InputError, match=r"0_ids.png' cannot be read"):
        measure("boxes")
