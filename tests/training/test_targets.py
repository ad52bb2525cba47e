"""Targets of scenes made by hand: what is there, what is not, and what is not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import Entry, Thing
from scenes import IDS_A_LAYER, VOID_ID, Layer, Scene, empty_scene
from targets import CELL, SceneTargets, object_targets
from vocabulary import Vocabulary

from promptseg.apps.evaluation.index_folder import Region, Sample


def entry_of(source: str, *labels: str, words: tuple = ()) -> Entry:
    regions = tuple(Region(label, (i,), True, None) for i, label in enumerate(labels, start=1))
    path = Path("a.png")
    return Entry(Sample(path, path, source, "train", regions), tuple(() for _ in labels), words)


def layer_of(
    entry: Entry, number: int, areas: dict[int, float], pasted: bool = False, boxes: tuple = ()
) -> Layer:
    """A layer whose regions are one object each, with ids 1, 2, ... of the layer."""
    base = number * IDS_A_LAYER
    labels = [region.label for region in entry.sample.regions]
    return Layer(
        entry,
        tuple(Thing(label, (base + i,), (), True) for i, label in enumerate(labels, start=1)),
        tuple((label, (base + i,)) for i, label in enumerate(labels, start=1)),
        (*labels, *(word for word, _ in entry.words)),
        {base + i: area for i, area in areas.items()},
        boxes or tuple((word, ()) for word, _ in entry.words),
        pasted,
    )


VOC = entry_of("voc", "dog", "chair")
COCO = entry_of("coco", "cat", "gnome")
WEAK = entry_of("grocery", words=(("leek", ()),))
VOCABULARY = Vocabulary.of([VOC, COCO, WEAK, entry_of("coco", "sky"), entry_of("voc", "horse")])


def two_pictures() -> Scene:
    """VOC at the left with a dog, half of it covered by a cat from COCO; COCO at the right."""
    scene = empty_scene((64, 96))
    scene.owner[:, :48], scene.ids[:, :48] = 0, 0
    scene.owner[:, 48:], scene.ids[:, 48:] = 1, IDS_A_LAYER
    scene.ids[16:48, 0:32] = 1  # a dog
    scene.ids[0:8, 40:48] = 2  # a chair, mostly cut off
    scene.ids[32:64, 64:96] = IDS_A_LAYER + 2  # a gnome
    scene.ids[32:48, 0:32] = 2 * IDS_A_LAYER + 1  # the cat, pasted over half of the dog
    scene.owner[32:48, 0:32] = 2
    scene.layers.extend(
        [
            layer_of(VOC, 0, {1: 1024.0, 2: 640.0}),
            layer_of(entry_of("coco", "car", "gnome"), 1, {2: 1024.0}),
            layer_of(entry_of("coco", "cat"), 2, {1: 512.0}, pasted=True),
        ]
    )
    return scene


@pytest.fixture
def targets() -> SceneTargets:
    return SceneTargets(two_pictures(), VOCABULARY, min_area=0.01, min_visible=0.5)


def test_the_grid_has_shares_of_cells(targets) -> None:
    cover = targets.cover([1])
    assert cover.shape == (16, 24)
    assert cover.sum() == 16 * 32 / CELL**2
    assert targets.cover([999]).sum() == 0
    assert targets.weight().min() == 1


def test_void_and_padding_do_not_count() -> None:
    scene = two_pictures()
    scene.ids[0:2, 0:2] = VOID_ID
    scene.ids[:, 92:], scene.owner[:, 92:] = VOID_ID, -1
    targets = SceneTargets(scene, VOCABULARY)
    weight = targets.weight()
    assert weight[0, 0] == 0
    assert weight[:, 23].sum() == 0
    assert weight.sum() == 16 * 23 - 1
    assert targets.extent == (4, 6)
    scene.owner[:, 70:] = -1
    assert SceneTargets(scene, VOCABULARY).extent == (4, 5)


def test_only_objects_that_are_seen_are_asked_for(targets) -> None:
    found = {target.concept for target in targets.objects}
    assert found == {"dog", "gnome", "cat"}  # not a tenth of a chair
    (dog,) = [target for target in targets.objects if target.concept == "dog"]
    assert dog.mask.sum() == 32
    assert dog.named
    scene = two_pictures()
    strict = SceneTargets(scene, VOCABULARY, min_area=0.01, min_visible=0.6)
    assert "dog" not in {target.concept for target in strict.objects}  # half covered
    large = SceneTargets(scene, VOCABULARY, min_area=0.1)
    assert {target.concept for target in large.objects} == {"gnome"}


def presence(targets: SceneTargets) -> dict[str, tuple[float, float]]:
    text = targets.text
    pairs = zip(text.present.tolist(), text.present_weight.tolist(), strict=True)
    return dict(zip(text.concepts, pairs, strict=True))


def test_what_is_there_absent_and_unknown(targets) -> None:
    found = presence(targets)
    for word in ("dog", "cat", "gnome", "animal"):
        assert found[word] == (1, 1)
    assert found["horse"] == (0, 1)  # neither picture has one
    assert found["chair"] == (0, 0)  # too little of it is seen
    assert found["car"] == (0, 0)  # in the picture, but not in what is shown
    assert found["sky"][1] == 0  # VOC would not have labelled it
    shown = targets.text.concepts[: len(targets.text.masks)]
    assert set(shown) == {"dog", "cat", "gnome", "animal"}


def test_words_are_where_their_regions_are_and_known_where_their_source_says(targets) -> None:
    text = targets.text
    number = {word: i for i, word in enumerate(text.concepts)}
    assert text.masks[number["dog"]].tolist() == [
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert text.masks[number["animal"], 2].tolist() == [1, 1, 0, 0, 0, 0]
    # Of the sky only COCO's part of the scene knows, the pasted cat included.
    assert text.weights[number["sky"]].tolist() == [
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [1, 1, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]
    assert text.weights[number["dog"]].min() == 1
    # Where the rest of a chair is, it is not said that there is none.
    chair = text.weights[number["chair"]]
    assert chair[0, 2] == pytest.approx(1 - 64 / 256)


def test_pasted_words_are_no_longer_absent() -> None:
    scene = two_pictures()
    before = Scene(scene.pixels, scene.ids, np.minimum(scene.owner, 1), scene.layers[:2])
    before.ids[32:48, 0:32] = 1
    assert presence(SceneTargets(before, VOCABULARY))["cat"] == (0, 1)
    assert presence(SceneTargets(two_pictures(), VOCABULARY))["cat"] == (1, 1)


def test_a_source_whose_labels_are_no_words_says_nothing() -> None:
    targets = SceneTargets(two_pictures(), VOCABULARY, unnamed=("coco",))
    found = presence(targets)
    assert found["dog"] == (1, 1)
    assert found["horse"] == (0, 0)
    assert "gnome" not in found
    assert {t.concept: t.named for t in targets.objects} == {
        "dog": True,
        "cat": False,
        "gnome": False,
    }


def weak_scene(boxes: tuple = ()) -> Scene:
    scene = empty_scene((64, 64))
    scene.owner[:, :32], scene.ids[:, :32] = 0, 0
    scene.owner[:48, 32:], scene.ids[:48, 32:] = 1, IDS_A_LAYER
    scene.layers.extend(
        [
            layer_of(entry_of("voc"), 0, {}),
            layer_of(WEAK, 1, {}, boxes=(("leek", boxes),)),
        ]
    )
    return scene


def test_a_word_without_mask_is_somewhere_in_its_picture() -> None:
    targets = SceneTargets(weak_scene(), VOCABULARY)
    text = targets.text
    found = presence(targets)
    assert found["leek"] == found["vegetable"] == found["food"] == (1, 1)
    assert len(text.masks) == 0
    for number, inside in text.weak:
        assert text.concepts[number] in ("leek", "vegetable", "food")
        assert inside.tolist() == [
            [False, False, True, True],
            [False, False, True, True],
            [False, False, True, True],
            [False, False, False, False],
        ]
        assert not text.weights[number].any()


def test_with_a_box_it_is_in_the_box_and_nowhere_else_in_the_picture() -> None:
    text = SceneTargets(weak_scene(((40.0, 4.0, 63.0, 30.0),)), VOCABULARY).text
    (inside,) = [cells for number, cells in text.weak if text.concepts[number] == "leek"]
    assert inside.int().tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    weights = text.weights[text.concepts.index("leek")]
    assert weights.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_cells_are_of_the_smallest_object_that_covers_them() -> None:
    masks = torch.zeros(3, 8, 12)
    masks[0, :, 0:8] = 1  # rows 0-31 and columns 0-31 in pixels
    masks[1, 2:4, 2:4] = 1  # a part of it
    masks[2, 7, 11] = 1  # a quarter of a cell
    found = object_targets(masks)
    assert found.owner.shape == (4, 6)
    assert found.owner[:, :4].unique().tolist() == [0, 1]
    assert found.owner[1, 1] == 1
    assert (found.owner == 1).sum() == 1
    assert (found.owner[:, 4:] == -1).all()
    assert found.boxes.tolist() == [[0, 0, 32, 32], [8, 8, 16, 16], [44, 28, 48, 32]]
