"""Dense ConSE: phrases found through a backbone that was trained to name ImageNet's classes.

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..backbones.efficientnet_lite import (
    NUM_CLASSES,
    PIXEL_MEAN,
    PIXEL_STD,
    SIZE_MULTIPLE,
    EfficientNetLite2,
)
from ..errors import CheckpointError
from ..preprocess import longest_side_size, to_pixel_values
from .heat import sample_cells

TEMPERATURE = 0.05  # of the weights of classes
LOOK_SIZE = 384  # long side of the look at the picture, in pixels
# A class this similar to the phrase is a synonym, one that dissimilar says nothing about it.
SIMILARITY_RANGE = (0.35, 0.75)
NAMES_FILE = "imagenet_names.safetensors"

_STRIDE = 16


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


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """What the ImageNet head sees at every place of a picture.

    Attributes:
        probabilities: (1000, h, w).
        extent: Height and width of the picture in cells; the last cells may overhang it.
    """

    probabilities: Tensor
    extent: tuple[float, float]


class DenseConse(nn.Module):
    """Heat of phrases from the ImageNet classes at every location.

    Args:
        backbone: With its ImageNet weights and head.
        class_names: Embeddings of the classes' names.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: EfficientNetLite2, class_names: ClassNames) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = class_names
        for name, value in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def look(self, image: NDArray[np.uint8]) -> ClassMaps:
        """Class probabilities at every place of a picture (H, W, 3) uint8 RGB."""
        size = longest_side_size((image.shape[0], image.shape[1]), LOOK_SIZE)
        pad_to = (_round_up(size[0]), _round_up(size[1]))
        pixels = to_pixel_values(
            image, size, mean=self.pixel_mean, std=self.pixel_std, pad_to=pad_to
        )
        features = self.backbone(pixels.contiguous(memory_format=torch.channels_last))[-1]
        rows, columns = -(-size[0] // _STRIDE), -(-size[1] // _STRIDE)
        logits = self.backbone.classify(features[..., :rows, :columns])
        return ClassMaps(logits[0].softmax(0), (size[0] / _STRIDE, size[1] / _STRIDE))

    def score(self, maps: ClassMaps, text: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Heat and presence of phrases.

        Args:
            maps: Of :meth:`look`.
            text: MiniLM embeddings (P, 384), of length 1.
            grid: Rows and columns of the heat.

        Returns:
            Heat (P, *grid) in [0, 1] over the whole picture, and presence (P,) in [0, 1].
        """
        similarity = self.class_names.similarities(text)
        nearest = similarity.amax(1)
        weights = ((similarity - nearest[:, None]) / TEMPERATURE).exp()
        heat = torch.einsum("bc,chw->bhw", weights, maps.probabilities)
        low, high = SIMILARITY_RANGE
        known = ((nearest - low) / (high - low)).clamp(0, 1)
        return sample_cells(heat[None], maps.extent, grid)[0], heat.flatten(1).amax(1) * known


def _round_up(side: int) -> int:
    return -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE
