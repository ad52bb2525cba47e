"""Scenes kept on disk as what the text head reads of them, so that each can be seen many times.

With the backbone fixed, a scene's features and words never change: they are computed once and then
cost a hundredth of what a scene costs that is drawn anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer import Composer, repeat_factors, whole_scene
from objective import to_pixel_values
from pictures import Entry
from pocket_models import PocketModels
from scenes import Scene
from targets import SceneTargets, TextTargets
from torch import Tensor
from vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class CachedScene:
    """A scene as the text head is taught it.

    Attributes:
        features: The backbone's last two maps without padding, (C, h, w) float16.
        words: What is there and what is not.
    """

    features: Tensor
    words: TextTargets

    def save(self, path: Path) -> None:
        """Write it as a whole or not at all; shares are kept in steps of 1/255."""
        words = self.words
        state = {
            "features": self.features.clone(),
            "concepts": list(words.concepts),
            "masks": (words.masks * 255).round().byte(),
            "weights": (words.weights * 255).round().byte(),
            "present": words.present,
            "present_weight": words.present_weight,
            "weak": [(number, inside) for number, inside in words.weak],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> CachedScene:
        """Read a file of :meth:`save`."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        words = TextTargets(
            tuple(state["concepts"]),
            state["masks"].float() / 255,
            state["weights"].float() / 255,
            state["present"],
            state["present_weight"],
            tuple((number, inside) for number, inside in state["weak"]),
        )
        return cls(state["features"], words)


class SceneCache:
    """A folder of scenes, filled in a fixed order: all pictures as they are, then drawn scenes.

    Args:
        folder: Where the scenes are.
        models: Whose backbone sees them.
        vocabulary: Which words are there, absent or unknown.
        composer: Draws scenes.
        whole: Pictures that are also seen whole, with nothing changed.
        unnamed: Sources whose labels are no words.
        seed: Of the drawn scenes.
    """

    def __init__(
        self,
        folder: Path,
        models: PocketModels,
        vocabulary: Vocabulary,
        composer: Composer,
        whole: Sequence[Entry],
        *,
        unnamed: Sequence[str],
        seed: int,
    ) -> None:
        self.folder = folder
        self.models = models
        self.vocabulary = vocabulary
        self.composer = composer
        self.whole = whole
        self.unnamed = unnamed
        self.seed = seed
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, number: int) -> Path:
        """File of a scene; the whole pictures have the first numbers."""
        return self.folder / f"{number:06d}.pt"

    def __len__(self) -> int:
        """Number of scenes there are, without a gap from the first on."""
        return len(list(self.folder.glob("*.pt")))

    def chances(self) -> np.ndarray:
        """How often each whole picture is to be seen: as the composer draws pictures, (W,)."""
        shares = self.composer.shares
        factors = np.array(repeat_factors(self.whole, self.composer.config.rare))
        factors = factors**self.composer.config.balance
        sources = [entry.sample.source for entry in self.whole]
        totals: dict[str, float] = defaultdict(float)
        for source, factor in zip(sources, factors, strict=True):
            totals[source] += factor
        chances = np.array(
            [shares[name] * f / totals[name] for name, f in zip(sources, factors, strict=True)]
        )
        return np.asarray(chances / chances.sum())

    def fill(self, count: int) -> Iterator[int]:
        """Compute what is missing of the first scenes; gives the number of each when it is done."""
        for number in range(len(self), count):
            if number < len(self.whole):
                scene = whole_scene(self.whole[number], self.composer.config.side)
            else:
                scene = self.composer(np.random.default_rng((self.seed, number)))
            self.see(scene).save(self.path(number))
            yield number

    @torch.inference_mode()
    def see(self, scene: Scene) -> CachedScene:
        """Compute a scene's features and targets."""
        targets = SceneTargets(scene, self.vocabulary, unnamed=self.unnamed)
        rows, columns = targets.extent
        maps = self.models.maps(to_pixel_values(scene, self.models.device))
        deep = torch.cat(maps[2:], dim=1)[0, :, :rows, :columns]
        return CachedScene(deep.half().cpu(), targets.text)
