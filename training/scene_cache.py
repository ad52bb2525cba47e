"""Scenes kept on disk as what a head reads of them, so that each can be seen many times.

With the backbone fixed, a scene's features and words never change: they are computed once and then
cost a hundredth of what a scene costs that is drawn anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

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


class Seen(Protocol):
    """What a head is taught of a scene."""

    def save(self, path: Path) -> None:
        """Write it as a whole or not at all."""
        ...


SeenT = TypeVar("SeenT", bound=Seen)


def write_whole(state: dict[str, Any], path: Path) -> None:
    """Write a file of torch as a whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


@dataclass(frozen=True, eq=False)
class TextScene:
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
        write_whole(state, path)

    @classmethod
    def load(cls, path: Path) -> TextScene:
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


class SceneCache(ABC, Generic[SeenT]):
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

    @abstractmethod
    def see(self, scene: Scene) -> SeenT:
        """Compute what the head is taught of a scene."""

    @abstractmethod
    def load(self, number: int) -> SeenT:
        """Read a scene that is there."""


class TextCache(SceneCache[TextScene]):
    """Scenes for the text head."""

    @torch.inference_mode()
    def see(self, scene: Scene) -> TextScene:
        targets = SceneTargets(scene, self.vocabulary, unnamed=self.unnamed)
        rows, columns = targets.extent
        maps = self.models.maps(to_pixel_values(scene, self.models.device))
        deep = torch.cat(maps[2:], dim=1)[0, :, :rows, :columns]
        return TextScene(deep.half().cpu(), targets.text)

    def load(self, number: int) -> TextScene:
        return TextScene.load(self.path(number))


@dataclass(frozen=True, eq=False)
class ObjectScene:
    """A scene as the object head is taught it.

    Attributes:
        deep: The backbone's last two maps, (C, h, w) float16.
        coarse: The image embedding, (C, h, w) float16.
        fine: The map at stride 8, (C, 2h, 2w) float16.
        masks: Share of each cell at stride 4 that each object covers, (N, 4h, 4w) in [0, 1].
        concepts: The objects' words.
    """

    deep: Tensor
    coarse: Tensor
    fine: Tensor
    masks: Tensor
    concepts: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write it as a whole or not at all; shares are kept in steps of 1/255."""
        state = {name: getattr(self, name).clone() for name in ("deep", "coarse", "fine")}
        masks = (self.masks * 255).round().byte()
        write_whole(state | {"masks": masks, "concepts": list(self.concepts)}, path)

    @classmethod
    def load(cls, path: Path) -> ObjectScene:
        """Read a file of :meth:`save`."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return cls(
            state["deep"],
            state["coarse"],
            state["fine"],
            state["masks"].float() / 255,
            tuple(state["concepts"]),
        )


class ObjectCache(SceneCache[ObjectScene]):
    """Scenes for the object head."""

    min_area = 0.0008  # of an object, as a share of the scene
    min_visible = 0.4

    @torch.inference_mode()
    def see(self, scene: Scene) -> ObjectScene:
        targets = SceneTargets(
            scene,
            self.vocabulary,
            unnamed=self.unnamed,
            min_area=self.min_area,
            min_visible=self.min_visible,
        )
        objects = [target for target in targets.objects if target.single]
        maps = self.models.maps(to_pixel_values(scene, self.models.device))
        features = self.models.embed(maps)
        masks = [target.mask for target in objects]
        return ObjectScene(
            torch.cat(maps[2:], dim=1)[0].half().cpu(),
            features.image_embeddings[0].half().cpu(),
            features.high_res_features[0][0].half().cpu(),
            torch.stack(masks) if masks else torch.zeros(0, *targets.grid),
            tuple(target.concept for target in objects),
        )

    def load(self, number: int) -> ObjectScene:
        return ObjectScene.load(self.path(number))
