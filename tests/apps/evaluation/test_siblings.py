"""Which labels are siblings, which may name the same, and what is drawn as absent."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.apps.evaluation.siblings import (
    draw_absent,
    is_person,
    may_name_the_same,
    normalise,
    siblings,
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sofa", "couch"),
        ("tv", "tv monitor"),
        ("tv", "tv/monitor"),
        ("TV", "television"),
        ("motorbike", "motorcycle"),
        ("aeroplane", "airplane"),
        ("handbag", "bag"),
        ("bag", "purse"),
        ("handbag", "purse"),
        ("table", "dining table"),
        ("diningtable", "dining_table"),
        ("person", "woman"),
        ("man", "child"),
        ("potted plant", "pottedplant"),
        ("t-shirt", "T shirt"),
        ("shoes", "boots"),
        ("accessories", "sunglasses"),
        ("accessories", "handbag"),  # through a synonym of what the general word names
        ("pants", "jeans"),
        ("dog", "dog"),
    ],
)
def test_labels_that_may_name_the_same(first: str, second: str) -> None:
    assert may_name_the_same(first, second)
    assert may_name_the_same(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [("cow", "horse"), ("cat", "dog"), ("hot dog", "dog"), ("car", "truck"), ("boots", "sandals"),
     ("jeans", "shorts"), ("chair", "sofa"), ("teddy bear", "bear"), ("person", "dog")],
)  # fmt: skip
def test_labels_that_do_not(first: str, second: str) -> None:
    assert not may_name_the_same(first, second)
    assert not may_name_the_same(second, first)


def test_labels_are_compared_however_they_are_written() -> None:
    assert normalise("  Tennis_Racket ") == normalise("tennis-racket") == "tennis racket"
    assert [is_person(word) for word in ("Person", "people", "woman", "CHILD", "dog")] == [
        True, True, True, True, False,
    ]  # fmt: skip


VOC = ["bicycle", "bottle", "car", "cat", "chair", "cow", "dog", "horse", "motorcycle", "person",
       "sofa", "tv monitor"]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "among", "expected"),
    [
        ("cow", VOC, ["cat", "dog", "horse"]),
        ("car", VOC, ["bicycle", "motorcycle"]),
        ("motorbike", VOC, ["bicycle", "car"]),  # its synonym is none of its siblings
        # COCO's table has no kitchenware to give here; VOC's household has.
        ("bottle", VOC, ["chair", "sofa", "tv monitor"]),
        ("bottle", [*VOC, "cup", "wine glass"], ["cup", "wine glass"]),
        ("couch", VOC, ["chair"]),
        ("person", VOC, []),
        ("rhino", VOC, []),
        ("coat", ["shirt", "skirt", "T-shirt", "jacket", "boots"], ["shirt", "T-shirt"]),
        ("boots", ["shoes", "sandals", "sneakers", "hat"], ["sandals", "sneakers"]),
        ("jeans", ["pants", "shorts", "skirt", "dress"], ["shorts", "skirt"]),
        ("necklace", ["bracelet", "accessories", "belt"], ["bracelet"]),
        ("cow", [], []),
    ],
)
def test_siblings(label: str, among: list[str], expected: list[str]) -> None:
    assert siblings(label, among, {}) == expected


def test_the_datas_own_grouping_comes_first() -> None:
    groups = {"cow": "farm", "tractor": "farm", "cat": "home", "horse": "home"}
    assert siblings("cow", ["cat", "horse", "tractor", "dog"], groups) == ["tractor"]
    # What it does not know is looked up in the tables.
    assert siblings("dog", ["cat", "tractor"], groups) == ["cat"]
    # Its groups do not make a synonym a sibling.
    assert siblings("sofa", ["couch", "bed"], dict.fromkeys(["sofa", "couch", "bed"], "f")) == [
        "bed"
    ]


def draw(present: list[str], here: list[str], vocabulary: list[str], seed: int = 0):
    return draw_absent(present, here, vocabulary, {}, np.random.default_rng(seed))


def test_as_many_absent_ones_as_present_ones() -> None:
    at_random, drawn = draw(["cow", "car"], ["cow", "car", "sofa"], VOC)
    assert len(set(at_random)) == 2
    assert len(drawn) == 2
    assert drawn[0] in {"cat", "dog", "horse"}
    assert drawn[1] in {"bicycle", "motorcycle"}


def test_nothing_that_may_be_there_is_drawn() -> None:
    vocabulary = ["couch", "tv", "motorbike", "aeroplane", "handbag", "table", "woman", "boots"]
    here = ["sofa", "tv monitor", "motorcycle", "airplane", "bag", "dining table", "person"]
    assert draw(here, [*here, "shoes"], vocabulary) == ([], [])
    assert draw(here, here, vocabulary) == (["boots"], [])


def test_siblings_are_drawn_once_each() -> None:
    for seed in range(20):
        _, drawn = draw(["cow", "horse"], ["cow", "horse"], ["cat", "cow", "dog", "horse"], seed)
        assert sorted(drawn) == ["cat", "dog"]
        _, drawn = draw(["cow", "horse"], ["cow", "horse"], ["cat", "cow", "horse"], seed)
        assert drawn == ["cat"]


def test_every_absent_label_can_be_drawn_and_draws_are_repeatable() -> None:
    seen: set[str] = set()
    for seed in range(60):
        at_random, drawn = draw(["cow"], ["cow"], VOC, seed)
        assert (at_random, drawn) == draw(["cow"], ["cow"], VOC, seed)
        seen |= {*at_random}
    assert seen == set(VOC) - {"cow"}  # siblings among them


def test_few_labels_give_few_absent_ones() -> None:
    assert draw(["cow", "car"], ["cow", "car"], ["cow", "car", "cat"]) == (["cat"], ["cat"])
    assert draw([], [], VOC) == ([], [])
