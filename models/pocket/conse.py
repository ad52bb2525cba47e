"""Dense ConSE: grounding phrases through a backbone that was trained to name ImageNet's classes.

ConSE (Norouzi et al. 2013, "Zero-shot learning by convex combination of semantic embeddings")
describes an image by its class probabilities and the classes by text embeddings. Here it is applied
at every location: the ImageNet head runs on the feature map, and a phrase's heat is the sum of the
class probabilities, each weighted by the similarity of the class's name to the phrase:

    heat(x) = sum over c of p(c at x) * exp((sim(c, phrase) - max sim) / 0.05)

The weights are relative, so a phrase unlike every class would take over the heat of the nearest
one; the presence score therefore falls with the similarity of the nearest class.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CheckpointError
from ..grounding.answers import sample_cells
from .backbone import NUM_CLASSES, EfficientNetLite2

TEMPERATURE = 0.05  # of the class weights
# At the upper similarity a class is a synonym of the phrase, at the lower one it is unrelated.
SIMILARITY_RANGE = (0.35, 0.75)
NAMES_FILE = "imagenet_names.safetensors"

_STRIDE = 16


class ClassNames(nn.Module):
    """Text embeddings of the ImageNet classes' names; a class may have several.

    Args:
        path: A file written by ``training/class_names.py``.

    Raises:
        CheckpointError: The file is missing or has other content.
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

    def nearest(self, phrases: Tensor) -> list[Relative]:
        """Return the name that is most like each of the phrases (P, 384)."""
        similarity, index = (phrases @ self.embeddings.T).max(1)
        return [
            Relative(self.names[i], float(value))
            for value, i in zip(similarity, index.tolist(), strict=True)
        ]

    def similarities(self, phrases: Tensor) -> Tensor:
        """Cosine similarity (B, 1000) of phrases (B, 384) to the nearest name of each class."""
        by_name = phrases @ self.embeddings.T
        start = phrases.new_full((len(phrases), NUM_CLASSES), -1.0)
        index = self.classes.expand(len(phrases), -1)
        return start.scatter_reduce(1, index, by_name[:, self.numbers], "amax")


@dataclass(frozen=True)
class Relative:
    """A word that is like a phrase.

    Attributes:
        word: The word.
        similarity: Cosine of the two embeddings.
        pictures: Number of training images that taught it; None for the name of a class.
    """

    word: str
    similarity: float
    pictures: int | None = None


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Class probabilities at every location of an image.

    Attributes:
        probabilities: (1000, h, w).
        extent: Height and width of the image in cells; the last cells may overhang it.
    """

    probabilities: Tensor
    extent: tuple[float, float]


class DenseConse(nn.Module):
    """Heat of phrases from the ImageNet classes at every location.

    Args:
        backbone: The backbone with its ImageNet weights and head.
        class_names: Embeddings of the class names.
    """

    def __init__(self, backbone: EfficientNetLite2, class_names: ClassNames) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = class_names

    def look(self, stride8: Tensor, input_size: tuple[int, int]) -> ClassMaps:
        """Compute class probabilities at every location of an image.

        Args:
            stride8: The backbone's stride-8 map (1, 48, h, w), padded at the right and bottom.
            input_size: (H', W') of the image in the backbone's input, without padding.
        """
        features = self.backbone.deep(stride8)[-1]
        rows, columns = -(-input_size[0] // _STRIDE), -(-input_size[1] // _STRIDE)
        logits = self.backbone.classify(features[..., :rows, :columns])
        extent = input_size[0] / _STRIDE, input_size[1] / _STRIDE
        return ClassMaps(logits[0].float().softmax(0), extent)

    def nearest(self, text: Tensor) -> list[Relative]:
        """Return the class name that is most like each of the phrases (P, 384)."""
        return self.class_names.nearest(text)

    def score(self, maps: ClassMaps, text: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Heat and presence of phrases.

        Args:
            maps: The result of :meth:`look`.
            text: MiniLM embeddings (P, 384) of length 1.
            grid: Rows and columns of the heat maps.

        Returns:
            Heat (P, *grid) in [0, 1] over the whole image, and presence (P,) in [0, 1].
        """
        similarity = self.class_names.similarities(text)
        nearest = similarity.amax(1)
        weights = ((similarity - nearest[:, None]) / TEMPERATURE).exp()
        heat = torch.einsum("bc,chw->bhw", weights, maps.probabilities)
        low, high = SIMILARITY_RANGE
        known = ((nearest - low) / (high - low)).clamp(0, 1)
        return sample_cells(heat[None], maps.extent, grid)[0], heat.flatten(1).amax(1) * known
