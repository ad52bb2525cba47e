"""Pocket text grounding: dense ConSE on a backbone that was trained to name ImageNet's classes.

ConSE (Norouzi et al. 2013, "Zero-shot learning by convex combination of semantic embeddings")
describes a picture by its class probabilities and the classes by text embeddings. Here it works
at every location: the ImageNet head runs on the feature map, and a phrase's heat is the sum of
the class probabilities, each weighted by how near the class's name is to the phrase:

    heat(x) = sum over c of p(c at x) * exp((sim(c, phrase) - max sim) / 0.05)

The weights are relative, so that a phrase far from every class would borrow the nearest one's
heat; the presence score therefore falls with the similarity of the nearest class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.efficientnet_lite import (
    NUM_CLASSES,
    PIXEL_MEAN,
    PIXEL_STD,
    SIZE_MULTIPLE,
    EfficientNetLite2,
)
from ..errors import CheckpointError
from ..preprocess import longest_side_size, to_pixel_values
from .heat import HeatMap
from .minilm import MiniLM, load_minilm

TEMPERATURE = 0.05  # of the weights of classes
SECOND_SCALE = 320  # long side of the second look, in pixels
# A class this similar to the phrase is a synonym, one that dissimilar says nothing about it.
SIMILARITY_RANGE = (0.35, 0.75)
NAMES_FILE = "imagenet_names.safetensors"

_STRIDE = 16
_CELL = 4  # pixels of the backbone's input that a cell of the heat map spans


class ClassNames(nn.Module):
    """Text embeddings of the ImageNet classes' names; a class may have several.

    Args:
        path: A file of ``training/class_names.py``.

    Raises:
        CheckpointError: The file is missing or another one.
    """

    embeddings: Tensor
    classes: Tensor
    numbers: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with safe_open(path, framework="pt") as file:
                embeddings = file.get_tensor("embeddings").float()
                pairs = file.get_tensor("pairs").long()
                self.names: list[str] = json.loads(file.metadata()["names"])
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: expected the embeddings of the class names, found none ({error}): "
                "reinstall promptseg"
            ) from error
        self.register_buffer("embeddings", embeddings)
        self.register_buffer("classes", pairs[:, 0])
        self.register_buffer("numbers", pairs[:, 1])

    def similarities(self, phrases: Tensor) -> Tensor:
        """Cosine (B, 1000) of phrases (B, 384) to the nearest name of each class."""
        by_name = phrases @ self.embeddings.T
        start = phrases.new_full((len(phrases), NUM_CLASSES), -1.0)
        index = self.classes.expand(len(phrases), -1)
        return start.scatter_reduce(1, index, by_name[:, self.numbers], "amax")


class PocketGrounder(nn.Module):
    """Heat maps for phrases, from the backbone that also serves the masks.

    Args:
        backbone: With its ImageNet head.
        text_encoder: Embeds the phrases; loaded at the first phrase if not given.
        class_names: Embeddings of the classes' names.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: EfficientNetLite2,
        *,
        class_names: ClassNames,
        text_encoder: MiniLM | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = class_names
        self._given_text_encoder = text_encoder
        for name, value in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    @cached_property
    def text_encoder(self) -> MiniLM:
        """The text encoder; clicks and boxes never need it."""
        return self._given_text_encoder or load_minilm().to(self.pixel_mean.device)

    @torch.inference_mode()
    def ground(
        self,
        phrases: Sequence[str],
        *,
        image: NDArray[np.uint8],
        features: Tensor,
        input_size: tuple[int, int],
    ) -> list[HeatMap]:
        """Score every place for every phrase, each on its own.

        Args:
            phrases: What to look for.
            image: (H, W, 3) uint8 RGB, for the second look.
            features: The backbone's last map (1, 352, h, w) of the first look.
            input_size: Size (H', W') of the picture in the first look's input, without padding.

        Returns:
            A heat map for each phrase, in their order.
        """
        similarity = self.class_names.similarities(self.text_encoder.encode(phrases))
        nearest = similarity.amax(1)
        weights = ((similarity - nearest[:, None]) / TEMPERATURE).exp()
        grid = (-(-input_size[0] // _CELL), -(-input_size[1] // _CELL))
        looks = [(features, input_size), self._look_again(image)]
        heat = torch.stack([self._heat(f, size, weights, grid) for f, size in looks]).mean(0)
        low, high = SIMILARITY_RANGE
        known = ((nearest - low) / (high - low)).clamp(0, 1)
        presence = heat.flatten(1).amax(1) * known
        return [
            HeatMap(phrase, heat[i].cpu().numpy(), float(presence[i]))
            for i, phrase in enumerate(phrases)
        ]

    def _look_again(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        size = longest_side_size((image.shape[0], image.shape[1]), SECOND_SCALE)
        pad_to = (_round_up(size[0]), _round_up(size[1]))
        pixels = to_pixel_values(
            image, size, mean=self.pixel_mean, std=self.pixel_std, pad_to=pad_to
        )
        return self.backbone(pixels)[-1], size

    def _heat(
        self, features: Tensor, size: tuple[int, int], weights: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Heat (B, *grid) of one look; padding is cut off."""
        rows, columns = -(-size[0] // _STRIDE), -(-size[1] // _STRIDE)
        probabilities = self.backbone.classify(features[..., :rows, :columns]).softmax(1)
        heat = torch.einsum("bc,chw->bhw", weights, probabilities[0])
        # Cells overhang the picture; take their values at its own places.
        y = ((torch.arange(grid[0], device=heat.device) + 0.5) / grid[0] * size[0]) / _STRIDE
        x = ((torch.arange(grid[1], device=heat.device) + 0.5) / grid[1] * size[1]) / _STRIDE
        places = torch.stack(
            torch.meshgrid(2 * x / columns - 1, 2 * y / rows - 1, indexing="xy"), dim=-1
        )
        sampled = F.grid_sample(
            heat[None], places[None], padding_mode="border", align_corners=False
        )
        return sampled[0]


def _round_up(side: int) -> int:
    return -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE
