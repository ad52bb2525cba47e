"""Features of the training pictures from the frozen early backbone stages, cached on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from promptseg.apps.evaluation.index_folder import VOID, Sample
from promptseg.models.pocket.sam import PocketSam
from promptseg.pipeline.images import load_image


@dataclass(frozen=True, eq=False)
class View:
    """A picture, possibly mirrored, as the mask decoder sees it in training.

    Attributes:
        features: The backbone's stride-4 and stride-8 maps, (1, C, h, w).
        ids: Region ids, (H, W) uint8.
        input_size: Size (H', W') of the picture in the model input, without padding.
        grid_size: Size of the decoder's logits (4h, 4w), padding included.
    """

    features: tuple[Tensor, Tensor]
    ids: NDArray[np.uint8]
    input_size: tuple[int, int]
    grid_size: tuple[int, int]

    def target(self, ids: tuple[int, ...]) -> Tensor:
        """The share of each cell of the decoder's grid that the ids cover, (4h, 4w) in [0, 1]."""
        return self._to_grid(np.isin(self.ids, ids))

    def weight(self) -> Tensor:
        """1 for cells that count, 0 for void and padding, (4h, 4w)."""
        return (self._to_grid(self.ids != VOID) > 0.99).float()

    def _to_grid(self, mask: NDArray[np.bool_]) -> Tensor:
        fine = F.interpolate(
            torch.from_numpy(mask).float()[None, None], self.input_size, mode="bilinear"
        )
        height, width = self.grid_size
        fine = F.pad(fine, (0, 4 * width - self.input_size[1], 0, 4 * height - self.input_size[0]))
        return F.avg_pool2d(fine, 4)[0, 0]


class FeatureCache:
    """Computes the features of a view on first use and reads them from disk afterwards."""

    def __init__(self, model: PocketSam, folder: Path) -> None:
        self.model = model
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def view(self, sample: Sample, *, flip: bool) -> View:
        """The sample's view, mirrored left to right if ``flip`` is set."""
        name = sample.name.replace("/", "_") + ("_flip" if flip else "")
        path = self.folder / f"{name}.safetensors"
        ids = sample.load_ids()
        if flip:
            ids = np.ascontiguousarray(ids[:, ::-1])
        if path.is_file():
            stored = load_file(path)
            height, width = (int(v) for v in stored.pop("input_size"))
            features = stored["f0"].float(), stored["f1"].float()
        else:
            image = load_image(sample.image_path)
            if flip:
                image = np.ascontiguousarray(image[:, ::-1])
            pixel_values, (height, width) = self.model.preprocess(image)
            with torch.inference_mode():
                stride4, stride8 = self.model.image_encoder.backbone.shallow(pixel_values)
            stored = {"f0": stride4.half().contiguous(), "f1": stride8.half().contiguous()}
            stored["input_size"] = torch.tensor([height, width])
            # Several workers may compute the same view at the same time.
            partial = path.with_suffix(f".{os.getpid()}.partial")
            save_file(stored, partial)
            partial.replace(path)
            features = stored["f0"].float(), stored["f1"].float()
        grid = (features[0].shape[-2], features[0].shape[-1])
        return View(features, ids, (height, width), grid)
