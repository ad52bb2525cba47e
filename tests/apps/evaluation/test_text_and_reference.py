"""Phrases and examples, present and absent, on made-up pictures with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptseg.apps.evaluation.metrics import boundary_f
from promptseg.apps.evaluation.run import evaluate, figures_by_class, figures_by_source, show_worst
from promptseg.apps.evaluation.tasks import reference as reference_task
from promptseg.apps.evaluation.tasks.base import Settings
from promptseg.apps.evaluation.tasks.reference import ReferenceTask
from promptseg.apps.evaluation.tasks.text import TextTask
from promptseg.models.errors import InputError


@pytest.fixture
def text(pipe, collection) -> TextTask:
    return TextTask(pipe, collection, Settings())


def test_what_is_asked_for(text) -> None:
    rows = evaluate(text)
    # Of each source's labels: none of the picture's own, the crumb included. Picture 1 has the
    # dog's only sibling, picture 2 has all that "even" knows.
    assert [(row["picture"], row["label"], row["kind"]) for row in rows] == [
        ("even/0", "dog", "present"), ("even/0", "car", "random"),
        ("odd/1", "dog", "present"), ("odd/1", "cat", "present"), ("odd/1", "bus", "random"),
        ("even/2", "dog", "present"), ("even/2", "car", "present"),
        ("odd/3", "dog", "present"), ("odd/3", "bus", "present"),
        ("odd/3", "cat", "random"), ("odd/3", "cat", "sibling"),
    ]  # fmt: skip


def test_masks_are_joined_and_compared_with_the_class(text, fakes) -> None:
    rows = {(row["label"], row["picture"]): row for row in evaluate(text)}
    dog, cat = rows["dog", "even/0"], rows["cat", "odd/1"]
    assert dog["iou"] == 0.75  # two masks, 15 of 20 columns
    assert dog["boundary"] == pytest.approx(boundary_f(fakes.block(5, 5, 20, 15), fakes.DOG))
    assert dog["pointed"]
    scores = {"score": 1.0, "iou_prediction": 1.0, "stability": 1.0, "prompt": 1.0}
    assert dog["masks"] == [{"iou": 0.5, **scores}, {"iou": 0.25, **scores}]
    assert cat["found"]
    assert cat["iou"] == 0
    assert not cat["pointed"]
    assert not rows["bus", "odd/3"]["pointed"]  # at the corner


def test_the_figures_of_text(text) -> None:
    figures = figures_by_source(text, evaluate(text))["all"]
    boundary = figures.pop("boundary F")
    assert 0 < boundary < 4 / 7
    # Found: 4 dogs and the cat, of 7 that are there; the cat once where it is not.
    present = 5 * [True] + 2 * [False]
    random = [False, False, True]
    # Without the gate the bus is found as well, once where it is and once where it is not.
    loose_present, loose_random = 6 * [True] + [False], [False, True, True]

    def balanced(absent: list[bool], present: list[bool] = present) -> float:
        """The correlation of truth and decision with each group repeated to one size."""
        truth = np.repeat([True, False], len(present) * len(absent))
        decided = present * len(absent) + absent * len(present)
        return float(np.corrcoef(truth, decided)[0, 1])

    # Above absent car 0.6, bus 0.3 and cat 0.6: four dogs 0.9, cat and car 0.6, bus 0.3.
    wins = 4 * 3 + 2 * (1 + 2 * 0.5) + 0.5
    assert figures == pytest.approx(
        {
            "phrases": 7,
            "mIoU": 4 * 0.75 / 7,
            "pointing": 4 / 7,
            "found if present": 5 / 7,
            # Only the dogs are surely single objects; the larger half is matched to each.
            "object IoU": 0.5,
            "object count": 4,
            # Scores are 1: halves and quarters of four dogs, the cat where it is and is not.
            "score error": (4 * (0.5 + 0.75) + 1 + 1) / 10,
            "random absent": 3,
            "random empty if absent": 2 / 3,
            "random AUC": wins / 21,
            "random IL_MCC": balanced(random),
            "random IL_MCC ungated": balanced(loose_random, loose_present),
            "sibling absent": 1,
            "sibling empty if absent": 0.0,
            "sibling AUC": (4 + 2 * 0.5) / 7,
            "sibling IL_MCC": balanced([True]),
            "sibling IL_MCC ungated": balanced([True], loose_present),
        }
    )


def test_people_are_apart_from_the_rest(text) -> None:
    row = {"source": "s", "picture": "s/1", "kind": "present", "found": True, "presence": 1.0}
    row |= {"boundary": 0.5, "area": 0.1, "objects": [], "masks": []}
    rows = [
        {**row, "label": "dog", "iou": 0.5, "pointed": True},
        {**row, "label": "person", "iou": 0.25, "pointed": False},
        {**row, "label": "Woman", "iou": 0.75, "pointed": False},
    ]
    figures = text.figures(rows)
    assert figures == {
        "phrases": 1, "mIoU": 0.5, "boundary F": 0.5, "pointing": 1.0,
        "person phrases": 2, "person mIoU": 0.5, "person boundary F": 0.5, "person pointing": 0.0,
        "found if present": 1.0,
    }  # fmt: skip
    absent = {"source": "s", "label": "cat", "kind": "random", "found": False, "presence": 0.0}
    absent |= {"picture": "s/1", "masks": []}
    assert text.figures([absent]) == {"random absent": 1, "random empty if absent": 1.0}


def test_figures_by_class_count_a_phrase_drawn_twice_once(text) -> None:
    classes = figures_by_class(text, evaluate(text))
    assert classes["cat"] == {
        "phrases": 1, "mIoU": 0.0, "boundary F": 0.0, "pointing": 0.0,
        "found if present": 1.0, "absent": 1, "empty if absent": 0.0,
    }  # fmt: skip
    assert classes["car"]["empty if absent"] == 1.0


def test_absent_phrases_stay_when_fewer_pictures_are_measured(pipe, collection) -> None:
    task = TextTask(pipe, replace(collection, pictures=collection.pictures[:1]), Settings())
    assert [(row["label"], row["kind"]) for row in evaluate(task)] == [
        ("dog", "present"), ("car", "random"),
    ]  # fmt: skip


def test_each_picture_is_encoded_once(text, pipe) -> None:
    evaluate(text)
    assert pipe.segmenter.encoded == 4


def test_a_pipeline_without_text_is_refused(pipe, collection) -> None:
    pipe.text_prompter = None
    with pytest.raises(InputError, match="no text prompter"):
        TextTask(pipe, collection, Settings())


def test_the_worst_of_text_are_missed_and_false(text, fakes) -> None:
    shown = show_worst(text, evaluate(text), 4)
    assert [item.caption for item in shown] == [
        "cat  IoU 0.00", "car  not found", "bus  not found", "cat is absent  presence 0.60",
    ]  # fmt: skip
    np.testing.assert_array_equal(shown[0].prediction, fakes.DOG)
    assert not shown[1].prediction.any()
    np.testing.assert_array_equal(shown[1].target, fakes.CORNER)
    np.testing.assert_array_equal(shown[3].prediction, fakes.DOG)
    assert shown[3].target is None


@pytest.fixture
def reference(pipe, collection) -> ReferenceTask:
    return ReferenceTask(pipe, collection, Settings())


def test_all_ordered_pairs_of_a_class_and_as_many_absent_ones(reference) -> None:
    rows = evaluate(reference)
    assert all(len(row["references"]) == 1 for row in rows)
    assert [(*row["references"], row["picture"], row["label"], row["present"]) for row in rows] == [
        # "even" shows the dog twice; picture 0 lacks the car, picture 2 lacks nothing.
        ("even/2", "even/0", "dog", True), ("even/2", "even/0", "car", False),
        # "odd" shows the dog twice; picture 1 lacks the bus, picture 3 the cat.
        ("odd/3", "odd/1", "dog", True), ("odd/3", "odd/1", "bus", False),
        ("even/0", "even/2", "dog", True),
        ("odd/1", "odd/3", "dog", True), ("odd/1", "odd/3", "cat", False),
    ]  # fmt: skip
    # Found from a lower number to a higher one, as the example's own mask.
    assert [(row["found"], row.get("iou")) for row in rows] == [
        (False, 0), (False, None), (False, 0), (False, None), (True, 1), (True, 1), (True, None),
    ]  # fmt: skip


def test_the_figures_of_references(reference) -> None:
    figures = figures_by_source(reference, evaluate(reference))
    assert figures["all"] == pytest.approx(
        {
            "pairs": 4,
            "mIoU": 0.5,
            "mIoU of classes": 0.5,
            "boundary F": 0.5,
            "found if present": 0.5,
            "absent": 3,
            "empty if absent": 2 / 3,
            # 12 phrases, 6 of each: 3 and 3 of those present, 2 and 4 of those absent.
            "IL_MCC": np.corrcoef([1] * 6 + [0] * 6, [1, 0] * 3 + [1, 0, 0] * 2)[0, 1],
        }
    )
    assert "IL_MCC" in figures["odd"]


def test_classes_weigh_the_same_in_their_mean(reference) -> None:
    row = {"source": "s", "present": True, "found": True, "boundary": 1.0}
    rows = [{**row, "label": "dog", "iou": 1.0}] * 3 + [{**row, "label": "cat", "iou": 0.0}]
    figures = reference.figures(rows)
    assert figures["mIoU"] == 0.75
    assert figures["mIoU of classes"] == 0.5


def test_each_example_and_each_target_is_encoded_once(reference, pipe) -> None:
    evaluate(reference)
    assert sorted(pipe.encoded_references) == sorted(
        ["even/0 dog", "even/2 dog", "even/2 car", "odd/1 dog", "odd/1 cat", "odd/3 dog",
         "odd/3 bus"]
    )  # fmt: skip
    assert pipe.segmenter.encoded == 4


def test_a_pipeline_without_references_is_refused(pipe, collection) -> None:
    pipe.reference_prompter = None
    with pytest.raises(InputError, match="no reference prompter"):
        ReferenceTask(pipe, collection, Settings())


def test_only_so_many_examples_are_kept(reference, pipe, monkeypatch) -> None:
    monkeypatch.setattr(reference_task, "_KEPT", 2)
    expected = evaluate(reference)
    assert len(reference._encoded) == 2
    assert evaluate(reference) == expected


def test_pairs_of_a_class_can_be_bounded(pipe, collection) -> None:
    def pairs(most: int | None) -> list[tuple[str, str]]:
        task = ReferenceTask(pipe, collection, Settings(pairs=most))
        return [(*r["references"], r["picture"]) for r in evaluate(task) if r["present"]]

    assert len(pairs(None)) == 4
    assert len(pairs(1)) == 2  # the dog of each source
    assert pairs(1) == pairs(1)
    assert set(pairs(1)) < set(pairs(None))
    assert pairs(2) == pairs(None)


def test_several_examples_a_pair(pipe, collection) -> None:
    pictures = tuple(replace(picture, source="one") for picture in collection.pictures)
    collection = replace(collection, pictures=pictures)
    one, three = (ReferenceTask(pipe, collection, Settings(shots=shots)) for shots in (1, 3))
    rows = evaluate(three)
    # The dog is on all four pictures, all else on one.
    for row in rows:
        names = row["references"]
        assert len(set(names)) == len(names) == (3 if row["label"] == "dog" else 1)
        assert row["picture"] not in names
    # One of the examples is on a picture before the target's, but before the first there is none.
    found = {(row["picture"], row["found"]) for row in rows if row["label"] == "dog"}
    assert found == {("one/0", False), ("one/1", True), ("one/2", True), ("one/3", True)}
    # The pairs are those of one example, and runs of unlike numbers do not mix.
    for name, pairs in one.pairs.items():
        assert [pair.examples for pair in pairs] == [p.examples[:1] for p in three.pairs[name]]
    assert one.depends_on() != three.depends_on()


def test_bounded_pairs_are_drawn_from_all() -> None:
    names = [f"s/{i}" for i in range(10)]
    every = reference_task._draw_ordered(names, names, None, "s/dog")
    assert len(every) == len(set(every)) == 90
    assert all(one != other for one, other in every)
    some = reference_task._draw_ordered(names, names, 30, "s/dog")
    assert len(some) == len(set(some)) == 30
    assert set(some) < set(every)
    assert {one for one, _ in some} == {other for _, other in some} == set(names)
    assert some != reference_task._draw_ordered(names, names, 30, "s/cat")


def test_the_worst_pairs_are_shown_with_their_example(reference, fakes) -> None:
    shown = show_worst(reference, evaluate(reference), 3)
    assert [item.caption for item in shown] == [
        "dog  not found", "dog  not found", "cat is absent",
    ]  # fmt: skip
    np.testing.assert_array_equal(shown[2].prediction, fakes.CORNER)
    assert shown[2].target is None
    image, mask = shown[2].example
    assert image[0, 0, 0] == 20  # picture 1
    np.testing.assert_array_equal(mask, fakes.CORNER)
