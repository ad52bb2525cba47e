"""Drawing scenes: balanced, reproducible, of sizes that the models take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from composer import Composer, repeat_factors, whole_scene
from config import SceneConfig
from pictures import Entry, read_entries, read_weak
from scenes import MULTIPLE, VOID_ID

from promptseg.apps.evaluation.index_folder import Region, Sample

CONFIG = SceneConfig(
    side=128, small_side=96, paste_sources=("voc", "made-up"), paste_sides=(16.0, 60.0)
)


def entry_of(source: str, *labels: str) -> Entry:
    regions = tuple(Region(label, (i,), True, None) for i, label in enumerate(labels, start=1))
    path = Path(f"{source}.png")
    return Entry(Sample(path, path, source, "train", regions), tuple(() for _ in labels))


def test_pictures_of_rare_words_are_drawn_more_often() -> None:
    entries = [entry_of("a", "person")] * 90 + [entry_of("a", "person", "toaster")] * 10
    factors = repeat_factors(entries, threshold=0.4)
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(2)
    # Words of one concept are counted together.
    entries = [entry_of("a", "couch")] * 5 + [entry_of("a", "sofa")] * 5
    assert repeat_factors(entries, threshold=1.0) == [1.0] * 10


def test_sources_are_drawn_by_the_settings_and_others_by_their_share() -> None:
    entries = [entry_of("a", "cup")] * 5 + [entry_of("b", "cup")] * 5
    composer = Composer(entries, replace(CONFIG, sources=(("a", 0.1), ("missing", 0.4))))
    assert composer.shares == pytest.approx({"a": 1 / 6, "b": 5 / 6})
    rng = np.random.default_rng(0)
    drawn = Counter(composer.draw_entry(rng, weak=True).sample.source for _ in range(600))
    assert drawn["a"] / 600 == pytest.approx(1 / 6, abs=0.05)


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 0.1), (1.0, 0.25)])
def test_rare_words_are_balanced_as_far_as_the_settings_ask(
    balance: float, expected: float
) -> None:
    entries = [entry_of("a", "cup")] * 9 + [entry_of("a", "gnome")]
    composer = Composer(entries, replace(CONFIG, rare=2.5, balance=balance))
    rng = np.random.default_rng(0)
    drawn = [composer.draw_entry(rng, weak=True).sample.regions[0].label for _ in range(400)]
    # Nine cups to one gnome: the root of that is how much more often the gnome is drawn.
    assert drawn.count("gnome") / 400 == pytest.approx(expected, abs=0.06)


@pytest.fixture
def composer(data_folder) -> Composer:
    entries = read_entries(data_folder, "train") + read_weak(data_folder, "train")
    return Composer(entries, CONFIG)


def test_scenes_are_reproducible_and_of_sizes_that_the_models_take(composer) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(30):
        scene, again = (composer(np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(scene.pixels, again.pixels)
        assert np.array_equal(scene.ids, again.ids)
        height, width = scene.ids.shape
        assert height % MULTIPLE == width % MULTIPLE == 0
        assert max(height, width) <= 128
        assert (scene.owner >= 0).any()
        assert scene.owner.max() < len(scene.layers)
        assert ((scene.owner == -1) <= (scene.ids == VOID_ID)).all()
        put = [layer for layer in scene.layers if not layer.pasted]
        kinds["mosaic" if len(put) > 1 else "single"] += 1
        kinds["pasted"] += len(put) < len(scene.layers)
        # A picture without masks is only ever one of several, and never pasted.
        if len(put) == 1:
            assert not put[0].entry.weak
        assert not any(layer.pasted and layer.entry.weak for layer in scene.layers)
        kinds["weak"] += any(layer.entry.weak for layer in put)
    assert min(kinds[kind] for kind in ("mosaic", "single", "pasted", "weak")) >= 3
    assert composer.presentations["voc"] > 20
    assert composer.presentations["pasted"] > 0


def test_stuff_is_not_pasted(data_folder) -> None:
    entries = read_entries(data_folder, "train")
    stuff = []
    for entry in entries:
        box, disc = entry.sample.regions
        sample = replace(entry.sample, regions=(box, replace(disc, thing=False)))
        stuff.append(replace(entry, sample=sample))
    composer = Composer(stuff, replace(CONFIG, paste=1.0))
    assert composer.words == ["box"]
    pasted = [
        layer
        for seed in range(12)
        for layer in composer(np.random.default_rng(seed)).layers
        if layer.pasted
    ]
    assert pasted
    assert {thing.label for layer in pasted for thing in layer.things} == {"box"}


def test_a_whole_scene_is_the_picture_at_the_models_size(data_folder) -> None:
    scene = whole_scene(read_entries(data_folder, "dev")[0], 128)
    assert scene.ids.shape == (96, 128)
    assert (scene.owner == 0).all()
    assert len(scene.layers) == 1
