"""Boxes, clicks and everything on made-up pictures with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.apps.evaluation.metrics import boundary_f
from promptseg.apps.evaluation.run import (
    evaluate,
    figures_by_class,
    figures_by_source,
    get_task,
    show_worst,
)
from promptseg.apps.evaluation.tasks.base import Settings
from promptseg.models.errors import InputError


def make(name: str, pipe, collection, **settings):
    return get_task(name)(pipe, collection, Settings(**settings))


def test_boxes(pipe, collection, fakes) -> None:
    task = make("boxes", pipe, collection)
    rows = evaluate(task)
    assert [(row["picture"], row["label"], row["iou"]) for row in rows] == [
        ("even/0", "dog", 1),
        ("odd/1", "dog", 1), ("odd/1", "cat", 0.75),
        ("even/2", "dog", 1), ("even/2", "car", 0.75),
        ("odd/3", "dog", 1), ("odd/3", "bus", 0.75),
    ]  # fmt: skip
    corner = boundary_f(fakes.block(28, 16, 36, 24), fakes.CORNER)
    assert 0.7 < corner < 0.9
    figures = figures_by_source(task, rows)
    assert list(figures) == ["even", "odd", "all"]
    assert figures["even"] == pytest.approx(
        {
            "objects": 3,
            "mIoU": 2.75 / 3,
            "boundary F": (2 + corner) / 3,
            "IoU error": (0.5 + 0.5 + 0.25) / 3,  # 0.5 is predicted of all
        }
    )
    assert figures["all"]["mIoU"] == pytest.approx(6.25 / 7)
    classes = figures_by_class(task, rows)
    assert list(classes) == ["bus", "car", "cat", "dog"]
    assert classes["dog"] == pytest.approx(
        {"objects": 4, "mIoU": 1, "boundary F": 1, "IoU error": 0.5}
    )


def test_points_click_on_the_largest_error(pipe, collection) -> None:
    task = make("points", pipe, collection)
    (row,) = task.measure(collection.pictures[0])
    # On the dog's middle, on the missing right half's, and on the excess's (15 x 20, at the
    # border of the picture). Then nothing is left, and clicks repeat the dog's middle.
    three = [{**click, "three": True} for click in [
        {"number": 1, "last": (9, 9, 1), "before": None},
        {"number": 2, "last": (19, 9, 1), "before": 0.0},
        {"number": 3, "last": (32, 7, 0), "before": 1.0},
        {"number": 4, "last": (9, 9, 1), "before": 0.0},
        {"number": 5, "last": (9, 9, 1), "before": 0.0},
    ]]  # fmt: skip
    # The single mask has its own clicks: it is whole at once, then too much, then the left half.
    single = [{**click, "three": False} for click in [
        {"number": 1, "last": (9, 9, 1), "before": None},
        {"number": 2, "last": (9, 9, 1), "before": 0.0},
        {"number": 3, "last": (32, 7, 0), "before": 0.0},
        {"number": 4, "last": (19, 9, 1), "before": 0.0},
        {"number": 5, "last": (19, 9, 1), "before": 0.0},
    ]]  # fmt: skip
    assert pipe.segmenter.clicks == three + single
    # The pipeline's own answers are clicked on in the same way.
    assert pipe.clicked == [(9, 9, 1), (19, 9, 1), (32, 7, 0), (9, 9, 1), (9, 9, 1)]
    assert [row[n]["pipeline"] for n in "1235"] == [0.5, 0.4, 1, 0.4]
    assert [(row[n]["background"], row[n]["covered"]) for n in "1235"] == [
        (0, 0), (0, 0), (1, 0), (1, 1),
    ]  # fmt: skip
    assert row["1"]["ious"] == [0.5, 1, 0]
    assert row["3"]["ious"] == [1, 0.5, 0]
    assert row["5"]["ious"] == [0, 0.5, 1]
    assert [row[number]["single"] for number in "135"] == [1, 0.5, 1]


def test_the_figures_of_points(pipe, collection, fakes) -> None:
    task = make("points", pipe, collection)
    rows = task.measure(collection.pictures[0])
    half = boundary_f(fakes.LEFT, fakes.DOG)
    assert task.figures(rows) == pytest.approx(
        {
            "objects": 1,
            "1 pipeline": 0.5,
            "1 single": 1.0,
            "1 selected": 0.5,
            "1 best": 1.0,
            "1 boundary F": half,
            "1 IoU error": (0.4 + 0.7 + 0.1) / 3,
            "1 IoU error, selected": 0.4,
            "1 IoU error, single": 0.25,
            "1 picks best": 0.0,
            "2 pipeline": 0.4,
            "2 single": 0.4,
            "2 selected": 0.4,
            "2 best": 0.5,
            "2 boundary F": boundary_f(fakes.TOO_MUCH, fakes.DOG),
            "2 IoU error": (0.3 + 0.4 + 0.1) / 3,
            "2 IoU error, selected": 0.4,
            "2 IoU error, single": 0.1,
            "2 picks best": 0.0,
            "3 pipeline": 1.0,
            "3 background covered": 0.0,
            "3 single": 0.5,
            "3 selected": 1.0,
            "3 best": 1.0,
            "3 boundary F": 1.0,
            "3 IoU error": 0.0,
            "3 IoU error, selected": 0.0,
            "3 IoU error, single": 0.25,
            "3 picks best": 1.0,
            "5 pipeline": 0.4,
            "5 background covered": 1.0,
            "5 single": 1.0,
            "5 selected": 1.0,
            "5 best": 1.0,
            "5 boundary F": 1.0,
            "5 IoU error": 0.25,
            "5 IoU error, selected": 0.0,
            "5 IoU error, single": 0.0,
            "5 picks best": 1.0,
        },
        abs=1e-6,
    )


def test_picking_one_of_two_equally_good_masks_is_picking_the_best(pipe, collection) -> None:
    step = {"ious": [0.5, 0.8, 0.8], "predicted": [0.1, 0.2, 0.9], "boundary": 1.0}
    step |= {"single": 1.0, "single predicted": 1.0}
    step |= {"pipeline": 0.8, "background": 0, "covered": 0}
    row = {"label": "dog", "object": 0, "area": 0.1}
    row |= dict.fromkeys(("1", "2", "3", "5"), step)
    assert make("points", pipe, collection).figures([row])["1 picks best"] == 1.0


def test_everything_takes_the_best_mask_of_each_object(pipe, collection, fakes) -> None:
    task = make("everything", pipe, collection)
    rows = evaluate(task)
    # The dog: half of it, or 200 of 500 pixels. The L: 16 of its 48 pixels are in TOO_MUCH.
    overlap = np.count_nonzero(fakes.TOO_MUCH & fakes.CORNER)
    corner = overlap / (500 + 48 - overlap)
    by_label = {row["label"]: row["iou"] for row in rows if "label" in row}
    assert by_label == pytest.approx({"dog": 0.5, "cat": corner, "car": corner, "bus": corner})
    figures = figures_by_source(task, rows)["even"]
    assert figures.pop("seconds a picture") >= 0
    assert figures == pytest.approx(
        {
            "objects": 3,
            "best IoU": (1 + corner) / 3,
            "recall at 0.50": 2 / 3,
            "recall at 0.75": 0.0,
            "average recall": 2 / 3 / 10,
            "pictures": 2,
            "masks a picture": 3.0,
        }
    )
    assert set(figures_by_class(task, rows)) == {"dog", "cat", "car", "bus"}


@pytest.mark.parametrize("name", ["boxes", "points", "text", "reference", "everything"])
def test_no_rows_no_figures(pipe, collection, name: str) -> None:
    task = make(name, pipe, collection)
    assert figures_by_source(task, []) == {}
    assert figures_by_class(task, []) == {}
    assert show_worst(task, [], 5) == []


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InputError, match="there is no task 'masks'; there are text, points, boxes"):
        get_task("masks")


def test_masks_of_another_size_are_refused(pipe, collection, data_folder) -> None:
    from PIL import Image

    Image.new("RGB", (8, 6)).save(data_folder / "0.png")
    with pytest.raises(InputError, match=r"even/0: the photograph is 6 x 8 pixels .* 30 x 40"):
        make("boxes", pipe, collection).measure(collection.pictures[0])


def test_the_worst_boxes_are_shown_as_they_were_measured(pipe, collection, fakes) -> None:
    task = make("boxes", pipe, collection)
    rows = evaluate(task)
    shown = show_worst(task, rows, 4)
    assert [item.caption for item in shown] == ["cat  IoU 0.75", "car  IoU 0.75", "bus  IoU 0.75",
                                                "dog  IoU 1.00"]  # fmt: skip
    assert [int(item.image[0, 0, 0]) // 20 for item in shown] == [1, 2, 3, 0]
    for item in shown[:3]:
        np.testing.assert_array_equal(item.prediction, fakes.block(28, 16, 36, 24))
        np.testing.assert_array_equal(item.target, fakes.CORNER)
        assert item.box == (28, 16, 36, 24)


def test_the_worst_clicks_are_shown_with_the_clicks(pipe, collection, fakes) -> None:
    task = make("points", pipe, collection)
    rows = evaluate(task)
    first, *_, last = show_worst(task, rows, 10)
    # After three clicks the mask is the dog: 0 of the L, all of the dog.
    assert first.caption == "cat  3 clicks  IoU 0.00"
    np.testing.assert_array_equal(first.prediction, fakes.DOG)
    np.testing.assert_array_equal(first.target, fakes.CORNER)
    assert last.caption == "dog  3 clicks  IoU 1.00"
    assert last.clicks == ((9, 9, 1), (19, 9, 1), (32, 7, 0))


def test_the_worst_of_everything_is_shown_with_its_best_mask(pipe, collection, fakes) -> None:
    task = make("everything", pipe, collection)
    shown = show_worst(task, evaluate(task), 4)
    assert [item.caption.split()[0] for item in shown] == ["cat", "car", "bus", "dog"]
    np.testing.assert_array_equal(shown[0].prediction, fakes.TOO_MUCH)
    np.testing.assert_array_equal(shown[3].prediction, fakes.LEFT)
