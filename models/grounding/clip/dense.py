"""Dense CLIP: heat maps of phrases from an image-text model, and presence from its own score.

Works with any model of open_clip whose image encoder is a plain vision transformer. Heat comes from
the cells' features (see :mod:`.vision`), presence from the feature of the whole image, which CLIP
was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...device import autocast, read_dtype
from ...errors import InputError
from ..answers import HeatMap
from .similarity import global_presence, min_max, similarity_to_text
from .text import ClipText, default_templates
from .vision import DenseAttention, dense_features
from .weights import LoadedClip, load_clip

SURGERY_BLOCKS = 6  # how many of the last blocks "surgery" changes
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class DenseClipConfig:
    """How images and phrases are compared; the defaults are those of CLIP Surgery.

    For presence alone, ``attention="none"`` at the model's native input size is enough.

    Attributes:
        attention: The path through the image encoder: "surgery", or "none" for the tokens as
            trained.
        input_size: Side in pixels of the square that images are stretched to, rounded to whole
            patches; position embeddings are interpolated to the grid.
        templates: Texts with "{}" in place of the phrase, whose features are averaged; None for
            the 85 of CLIP Surgery. Fewer are faster.

    Raises:
        InputError: A value is out of its range.
    """

    attention: DenseAttention = "surgery"
    input_size: int = 512
    templates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        kinds = get_args(DenseAttention)
        if self.attention not in kinds:
            raise InputError(f"attention must be one of {', '.join(kinds)}, got {self.attention!r}")
        if self.input_size < 1:
            raise InputError(f"input_size must be 1 pixel or more, got {self.input_size}")
        if self.templates is not None and not self.templates:
            raise InputError("templates must not be empty; '{}' stands for the phrase alone")
        for template in self.templates or ():
            if "{}" not in template:
                raise InputError(f"the template {template!r} has no {{}} for the phrase")


@dataclass(frozen=True, eq=False)
class ClipView:
    """Features of one image, independent of the phrases.

    Attributes:
        cells: (h, w, C) of length 1; the grid spans the whole image.
        cls: (C,) of length 1, of the whole image.
        image_size: (H, W) of the image.
    """

    cells: Tensor
    cls: Tensor
    image_size: tuple[int, int]


class DenseClip:
    """Heat maps and presence of phrases by CLIP.

    Args:
        loaded: The model with its tokenizer and preprocessing.
        config: How images and phrases are compared.
        dtype: Type that the networks compute in; features are always float32.
    """

    def __init__(
        self,
        loaded: LoadedClip,
        *,
        config: DenseClipConfig | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config or DenseClipConfig()
        self.model = loaded.model
        self.dtype = dtype
        self.text = ClipText(
            loaded.model,
            loaded.tokenizer,
            self.config.templates or default_templates(),
            dtype=dtype,
        )
        self._mean = torch.tensor(loaded.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(loaded.std, device=self.device).view(3, 1, 1)
        self._resampling = _RESAMPLING.get(loaded.interpolation, Image.Resampling.BICUBIC)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.model.logit_scale.device
        return device

    @torch.inference_mode()
    def look(self, image: NDArray[np.uint8]) -> ClipView:
        """Encode an image (H, W, 3) uint8 RGB once, for any number of phrases."""
        pixels = self._pixel_values(image)
        with autocast(self.device, self.dtype):
            cells, cls = dense_features(
                self.model.visual,
                pixels,
                attention=self.config.attention,
                blocks=SURGERY_BLOCKS,
            )
        return ClipView(
            cells=F.normalize(cells.float(), dim=-1),
            cls=F.normalize(cls.float(), dim=-1),
            image_size=(image.shape[0], image.shape[1]),
        )

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], view: ClipView) -> list[HeatMap]:
        """Score every cell for every phrase.

        Args:
            phrases: What to look for, each independently of the others.
            view: The result of :meth:`look`.

        Returns:
            A heat map for each phrase, in their order. Heat is the similarity, scaled so that each
            map spans [0, 1]: there is a hottest place whether or not the object is in the image.
            Presence, from :meth:`presence`, says whether it is.

        Raises:
            InputError: A phrase is empty or longer than the model reads.
        """
        presences = self.presence(phrases, view)
        cells = view.cells.flatten(0, 1)
        empty = self.text.encode([""])[0]
        grid = view.cells.shape[:2]
        found = []
        for phrase, presence in zip(phrases, presences, strict=True):
            heat = min_max(similarity_to_text(cells, self.text.encode([phrase])[0], empty))
            found.append(HeatMap(phrase, heat.unflatten(0, grid).cpu().numpy(), presence))
        return found

    @torch.inference_mode()
    def presence(
        self, phrases: Sequence[str], view: ClipView, siblings: Sequence[str] = ()
    ) -> list[float]:
        """How sure CLIP is that each phrase, rather than its rivals, describes the image.

        Args:
            phrases: What to look for, each judged independently.
            view: The result of :meth:`look`.
            siblings: Rivals besides the empty text, such as the other classes of a data set; a
                phrase is never its own rival.

        Returns:
            Shares of a softmax in [0, 1]; without siblings, 0.5 means that the phrase describes
            the image no better than the empty text does.

        Raises:
            InputError: A phrase is empty or longer than the model reads.
        """
        self.text.check((*phrases, *siblings))
        rivals = ("", *siblings)
        scale = float(self.model.logit_scale.exp())
        shares = []
        for phrase in phrases:
            others = [rival for rival in rivals if rival.casefold() != phrase.casefold()]
            text, against = self.text.encode([phrase])[0], self.text.encode(others)
            shares.append(global_presence(view.cls, text, against, scale))
        return shares

    def _pixel_values(self, image: NDArray[np.uint8]) -> Tensor:
        """The image encoder's input (1, 3, H', W')."""
        side = self.config.input_size
        height, width = (
            max(1, round(side / patch)) * patch for patch in self.model.visual.patch_size
        )
        resized = Image.fromarray(image).resize((width, height), self._resampling)
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1).float()
        return ((pixels / 255 - self._mean) / self._std)[None]


def create_dense_clip(
    name: str,
    checkpoint: str | Path | None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
    config: DenseClipConfig | None = None,
    seed: int = 0,
) -> DenseClip:
    """Build a dense CLIP; nothing is fetched.

    Args:
        name: A name of open_clip, such as "ViT-B-16" or "ViT-L-14". OpenAI's weights, and others
            trained with QuickGELU, need the name that ends in "-quickgelu" unless their config is
            beside them. With a config beside the weights, the name may be anything.
        checkpoint: A weights file, a folder with ``open_clip_model.safetensors`` or
            ``open_clip_pytorch_model.bin`` and ``open_clip_config.json``, or the hub id of such a
            model on this machine, such as "timm/vit_base_patch16_clip_224.openai". None leaves
            the weights random.
        device: Device to put the model on.
        dtype: Type that the networks compute in: "auto", "fp32", "bf16" or "fp16".
        config: How images and phrases are compared.
        seed: Seed of the random weights; the global random state is not touched.

    Raises:
        ModelNotFoundError: open_clip has no model of that name, or its image encoder is not a
            plain vision transformer.
        CheckpointError: The weights are missing, broken or another model's.
        InputError: There is no such dtype.
    """
    arithmetic = read_dtype(dtype, device)
    loaded = load_clip(name, checkpoint, seed=seed)
    loaded.model.to(device)
    return DenseClip(loaded, config=config, dtype=arithmetic)
