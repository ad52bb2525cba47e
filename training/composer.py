"""Draws training scenes: which pictures, in what arrangement, with which objects pasted in.

Pictures are drawn by source and, within a source, more often the rarer their words are (the repeat
factor of Gupta et al. 2019, "LVIS"); objects to paste are drawn by word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from config import SceneConfig
from pictures import Entry, Picture, Thing, load_picture
from scenes import MULTIPLE, Scene, empty_scene, paste, put
from vocabulary import concept_of, labels_of

Rng = np.random.Generator


def repeat_factors(entries: Sequence[Entry], threshold: float) -> list[float]:
    """How often each picture is drawn relative to one of frequent words only, at least 1.

    Args:
        entries: All pictures.
        threshold: Share of the pictures below which a word is rare.
    """
    words = [{concept_of(label) for label in labels_of(entry)} for entry in entries]
    counts = Counter(word for found in words for word in found)
    return [
        max([1.0, *((threshold * len(entries) / counts[word]) ** 0.5 for word in found)])
        for found in words
    ]


@dataclass(frozen=True, eq=False)
class _Pool:
    entries: list[Entry]
    factors: np.ndarray


class Composer:
    """Draws scenes.

    Args:
        entries: Pictures to train on, with masks and without.
        config: Arrangements and their chances.
    """

    def __init__(self, entries: Sequence[Entry], config: SceneConfig) -> None:
        self.config = config
        factors = repeat_factors(entries, config.rare)
        by_source: dict[str, list[tuple[Entry, float]]] = defaultdict(list)
        for entry, factor in zip(entries, factors, strict=True):
            by_source[entry.sample.source].append((entry, factor))
        named = dict(config.sources)
        shares = {
            name: named.get(name, len(found) / len(entries)) for name, found in by_source.items()
        }
        total = sum(shares.values())
        self.shares = {name: share / total for name, share in shares.items()}
        self.pools = {
            name: _Pool([e for e, _ in found], np.array([f for _, f in found]))
            for name, found in by_source.items()
        }
        self.by_word: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.sample.source in config.paste_sources:
                things = [r.label for r in entry.sample.regions if r.thing is not False]
                for word in {concept_of(label) for label in things}:
                    self.by_word[word].append(entry)
        self.words = sorted(self.by_word)
        frequency = np.array([len(self.by_word[word]) for word in self.words], np.float64)
        self.word_chances = frequency**-config.paste_balance
        self.presentations: Counter[str] = Counter()
        self.load = lru_cache(config.kept_pictures)(load_picture)

    def draw_entry(self, rng: Rng, *, weak: bool) -> Entry:
        """A picture; one without masks only if ``weak`` allows it."""
        names = [n for n, pool in self.pools.items() if weak or not pool.entries[0].weak]
        chances = np.array([self.shares[name] for name in names])
        pool = self.pools[names[rng.choice(len(names), p=chances / chances.sum())]]
        chances = pool.factors**self.config.balance
        pick = rng.choice(len(pool.entries), p=chances / chances.sum())
        return pool.entries[int(pick)]

    def __call__(self, rng: Rng) -> Scene:
        """A scene."""
        config = self.config
        scene = self._mosaic(rng) if rng.random() < config.mosaic else self._single(rng)
        if self.words and rng.random() < config.paste:
            self._paste_some(scene, rng)
        return scene

    def _load(self, entry: Entry) -> Picture:
        self.presentations[entry.sample.source] += 1
        return self.load(entry)

    def _single(self, rng: Rng) -> Scene:
        """One picture, about as large as the models see it or scaled at random."""
        config = self.config
        entry = self.draw_entry(rng, weak=False)
        picture = self._load(entry)
        height, width = picture.pixels.shape[:2]
        side = config.side if rng.random() < config.full else config.small_side
        usual = config.side / max(height, width)
        if rng.random() < config.usual:
            scale = usual * rng.uniform(0.9, 1.1)
        else:
            low, high = np.log(config.scales)
            scale = usual * float(np.exp(rng.uniform(low, high)))
        full = height * scale, width * scale
        size = (min(side, _up(full[0])), min(side, _up(full[1])))
        scene = empty_scene(size)
        corner = (
            float(rng.uniform(0, max(0.0, full[1] - size[1]))),
            float(rng.uniform(0, max(0.0, full[0] - size[0]))),
        )
        put(
            scene,
            entry,
            picture,
            cell=(0, 0, size[1], size[0]),
            scale=scale,
            corner=corner,
            flip=bool(rng.random() < 0.5),
            rng=rng if rng.random() < config.colour else None,
        )
        return scene

    def _mosaic(self, rng: Rng) -> Scene:
        """Two or four pictures side by side."""
        side, short = self.config.side, _up(self.config.side * 3 / 4)
        if rng.random() < 0.5:
            size = (side, short) if rng.random() < 0.5 else (short, side)
        else:
            size = (short, short)
        height, width = size
        if rng.random() < 0.65:
            x, y = _split(width, rng), _split(height, rng)
            cells = [
                (0, 0, x, y), (x, 0, width - x, y),
                (0, y, x, height - y), (x, y, width - x, height - y),
            ]  # fmt: skip
        elif width >= height:
            x = _split(width, rng)
            cells = [(0, 0, x, height), (x, 0, width - x, height)]
        else:
            y = _split(height, rng)
            cells = [(0, 0, width, y), (0, y, width, height - y)]
        scene = empty_scene(size)
        for cell in cells:
            entry = self.draw_entry(rng, weak=True)
            picture = self._load(entry)
            tall, wide = picture.pixels.shape[:2]
            cover = max(cell[2] / wide, cell[3] / tall)
            fit = min(cell[2] / wide, cell[3] / tall)
            # Without masks it is not known what is cut off: show nearly all.
            scale = fit if entry.weak else cover * rng.uniform(1.0, 1.4)
            put(
                scene,
                entry,
                picture,
                cell=cell,
                scale=scale,
                corner=(
                    float(rng.uniform(0, max(0.0, wide * scale - cell[2]))),
                    float(rng.uniform(0, max(0.0, tall * scale - cell[3]))),
                ),
                flip=bool(rng.random() < 0.5),
                rng=rng if rng.random() < self.config.colour else None,
            )
        return scene

    def _draw_object(self, rng: Rng) -> tuple[Entry, Picture, Thing] | None:
        """An object of a word, the word drawn by its rarity; None if the draw was none to use."""
        config = self.config
        chances = self.word_chances / self.word_chances.sum()
        word = self.words[int(rng.choice(len(self.words), p=chances))]
        entries = self.by_word[word]
        entry = entries[int(rng.integers(len(entries)))]
        picture = self.load(entry)
        stuff = {region.label for region in entry.sample.regions if region.thing is False}
        found = [t for t in picture.things if concept_of(t.label) == word and t.label not in stuff]
        rng.shuffle(found)
        for thing in found:
            mask = np.isin(picture.ids, thing.ids)
            if mask.mean() < config.paste_min_area:
                continue
            borders = [mask[0], mask[-1], mask[:, 0], mask[:, -1]]
            lengths = [float(border.mean()) for border in borders]
            if max(lengths) < 0.25:
                self.presentations["pasted"] += 1
                return entry, picture, thing
        return None

    def _paste_some(self, scene: Scene, rng: Rng) -> None:
        """Paste a few objects; sometimes several of a kind that touch."""
        config = self.config
        height, width = scene.ids.shape
        for _ in range(int(rng.integers(1, config.pastes + 1))):
            drawn = self._draw_object(rng)
            if drawn is None:
                continue
            entry, picture, thing = drawn
            mask = np.isin(picture.ids, thing.ids)
            own = max(np.ptp(np.flatnonzero(mask.any(0))), np.ptp(np.flatnonzero(mask.any(1)))) + 1
            low, high = np.log(config.paste_sides)
            side = float(np.exp(rng.uniform(low, high)))
            side = min(side, 0.6 * min(height, width), float(own) * 2.2)
            centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
            copies = int(rng.integers(2, 4)) if rng.random() < config.paste_group else 1
            for _ in range(copies):
                paste(
                    scene,
                    entry,
                    picture,
                    thing,
                    side=side * float(rng.uniform(0.85, 1.15)),
                    centre=centre,
                    flip=bool(rng.random() < 0.5),
                    rng=rng,
                )
                angle, reach = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.5, 0.9)
                centre = (
                    float(np.clip(centre[0] + reach * np.cos(angle), 0, width)),
                    float(np.clip(centre[1] + reach * np.sin(angle), 0, height)),
                )


def whole_scene(entry: Entry, side: int) -> Scene:
    """A picture as the models see it, its long side ``side``, with nothing changed."""
    picture = load_picture(entry)
    height, width = picture.pixels.shape[:2]
    scale = side / max(height, width)
    size = (min(side, _up(height * scale)), min(side, _up(width * scale)))
    scene = empty_scene(size)
    put(
        scene,
        entry,
        picture,
        cell=(0, 0, size[1], size[0]),
        scale=scale,
        corner=(0.0, 0.0),
        flip=False,
        rng=None,
    )
    return scene


def _up(side: float) -> int:
    return max(MULTIPLE, -(-round(side) // MULTIPLE) * MULTIPLE)


def _split(side: int, rng: Rng) -> int:
    """Where two cells that share a side meet, near its middle."""
    return min(_up(side * rng.uniform(0.35, 0.6)), side - MULTIPLE)
