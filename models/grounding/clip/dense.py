"""Dense CLIP: similarity maps of phrases from an image-text model, and presence by its own score.

Any model of open_clip whose image encoder is a plain vision transformer. Maps come from the paths
of ``clip_vision``, presence from the vector of the whole picture, by which CLIP was trained.
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
from .similarity import global_presence, min_max, similarity_to_labels, similarity_to_text
from .text import ClipText, default_templates
from .vision import DenseAttention, dense_features
from .weights import LoadedClip, load_clip

# With the picture's shape kept, its long side in short sides; beyond, it is squeezed.
LONGEST = 4
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class DenseClipConfig:
    """How pictures and phrases are compared.

    The defaults are those of CLIP Surgery. Those of SCLIP are ``attention="sclip"``,
    ``input_size=336`` and ``keep_shape=True``; its sliding window is left out, the whole picture
    is seen at once. For presence alone, ``attention="none"`` at the model's own size is enough.

    Attributes:
        attention: The path through the image encoder: "surgery", "sclip", or "none" for the
            tokens as trained.
        blocks: How many of the last blocks "surgery" changes.
        input_size: Side in pixels that pictures are resized to, rounded to whole patches;
            position embeddings are interpolated to the grid.
        keep_shape: Resize the short side to ``input_size`` and keep the picture's shape (up to
            4 times as long as wide), instead of stretching it to a square.
        templates: What phrases are put into, at "{}"; None for the 85 of CLIP Surgery. Fewer are
            faster.
        rivals: Phrases that every phrase is held against for its presence, besides "".
        redundancy_removal: Take the phrases of a call for a set of labels and remove what they
            share, instead of what each shares with the empty text. A phrase's map then depends on
            the others.

    Raises:
        InputError: A value makes no sense.
    """

    attention: DenseAttention = "surgery"
    blocks: int = 6
    input_size: int = 512
    keep_shape: bool = False
    templates: tuple[str, ...] | None = None
    rivals: tuple[str, ...] = ()
    redundancy_removal: bool = False

    def __post_init__(self) -> None:
        kinds = get_args(DenseAttention)
        if self.attention not in kinds:
            raise InputError(f"attention must be one of {', '.join(kinds)}, got {self.attention!r}")
        for name in ("blocks", "input_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.templates is not None and not self.templates:
            raise InputError("templates must hold one or more; '{}' is the phrase alone")
        for template in self.templates or ():
            if "{}" not in template:
                raise InputError(f"the template {template!r} has no {{}} for the phrase")


@dataclass(frozen=True, eq=False)
class ClipView:
    """What is seen in one picture; independent of the phrases.

    Attributes:
        cells: (h, w, C) of length 1; the grid spans the whole picture.
        cls: Of the whole picture, (C,) of length 1.
        image_size: (H, W) of the picture.
    """

    cells: Tensor
    cls: Tensor
    image_size: tuple[int, int]


class DenseClip:
    """Heat maps and presence of phrases by CLIP.

    Args:
        loaded: The model with what goes before it.
        config: How pictures and phrases are compared.
        dtype: What the networks run in; features are float32 in any case.
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
        """Where the model runs."""
        device: torch.device = self.model.logit_scale.device
        return device

    @torch.inference_mode()
    def look(self, image: NDArray[np.uint8]) -> ClipView:
        """See a picture (H, W, 3) uint8 RGB once, for any number of phrases."""
        config = self.config
        pixels = self._pixel_values(image)
        with autocast(self.device, self.dtype):
            cells, cls = dense_features(
                self.model.visual, pixels, attention=config.attention, blocks=config.blocks
            )
        return ClipView(
            cells=F.normalize(cells.float(), dim=-1),
            cls=F.normalize(cls.float(), dim=-1),
            image_size=(image.shape[0], image.shape[1]),
        )

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], view: ClipView) -> list[HeatMap]:
        """Score every place for every phrase.

        Args:
            phrases: What to look for.
            view: Of :meth:`look`.

        Returns:
            A heat map for each phrase, in their order, each on its own unless the config has
            ``redundancy_removal``. Heat is the similarity scaled to [0, 1] from the map's own
            least to its own greatest value: it is relative to its map, and there is a hottest
            place whether the phrase's object is in the picture or not. Presence, as
            :meth:`presence` gives it, tells whether it is.

        Raises:
            InputError: A phrase is empty or longer than the model reads.
        """
        presences = self.presence(phrases, view)
        cells = view.cells.flatten(0, 1)
        labels = list(dict.fromkeys(phrases))
        if self.config.redundancy_removal and len(labels) > 1:
            by_label = similarity_to_labels(cells, view.cls, self.text.encode(labels))
            maps = dict(zip(labels, by_label, strict=True))
        else:
            empty = self.text.encode([""])[0]
            maps = {
                label: similarity_to_text(cells, self.text.encode([label])[0], empty)
                for label in labels
            }
        grid = view.cells.shape[:2]
        return [
            HeatMap(phrase, min_max(maps[phrase]).unflatten(0, grid).cpu().numpy(), presence)
            for phrase, presence in zip(phrases, presences, strict=True)
        ]

    @torch.inference_mode()
    def presence(
        self, phrases: Sequence[str], view: ClipView, siblings: Sequence[str] = ()
    ) -> list[float]:
        """How sure CLIP is that each phrase, and none of its rivals, describes the picture.

        Args:
            phrases: What to look for, each judged on its own.
            view: Of :meth:`look`.
            siblings: Phrases that each is held against, besides "" and the config's rivals; a
                phrase is no rival of itself.

        Returns:
            Shares of a softmax in [0, 1]; with "" alone as the rival, 0.5 is where the phrase says
            no more of the picture than no words do.

        Raises:
            InputError: A phrase is empty or longer than the model reads.
        """
        self.text.check((*phrases, *siblings))
        rivals = ("", *self.config.rivals, *siblings)
        scale = float(self.model.logit_scale.exp())
        shares = []
        for phrase in phrases:
            others = [rival for rival in rivals if rival.casefold() != phrase.casefold()]
            text, against = self.text.encode([phrase])[0], self.text.encode(others)
            shares.append(global_presence(view.cls, text, against, scale))
        return shares

    def _pixel_values(self, image: NDArray[np.uint8]) -> Tensor:
        """The image encoder's input (1, 3, H', W')."""
        height, width = self._input_size((image.shape[0], image.shape[1]))
        resized = Image.fromarray(image).resize((width, height), self._resampling)
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1).float()
        return ((pixels / 255 - self._mean) / self._std)[None]

    def _input_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Size of the input in pixels, whole patches."""
        side = self.config.input_size
        wanted = [float(side), float(side)]
        if self.config.keep_shape:
            wanted = [min(side * size / min(image_size), side * LONGEST) for size in image_size]
        height, width = (
            max(1, round(pixels / patch)) * patch
            for pixels, patch in zip(wanted, self.model.visual.patch_size, strict=True)
        )
        return height, width


def create_dense_clip(
    name: str,
    checkpoint: str | Path | None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "fp32",
    config: DenseClipConfig | None = None,
    seed: int = 0,
) -> DenseClip:
    """Build a dense CLIP; nothing is fetched.

    Args:
        name: Of open_clip, such as "ViT-B-16" or "ViT-L-14". OpenAI's weights, and others that
            were trained with it, want the name that ends in "-quickgelu" unless their config lies
            beside them. Any name will do for weights with their config.
        checkpoint: A weights file, a folder with ``open_clip_model.safetensors`` or
            ``open_clip_pytorch_model.bin`` and ``open_clip_config.json``, or the id of such a
            model on the Hugging Face hub, such as "timm/vit_base_patch16_clip_224.openai", that
            is on this machine. None leaves the weights random.
        device: Where the model goes.
        dtype: "fp32", "bf16" or "fp16", what the networks run in.
        config: How pictures and phrases are compared.
        seed: Of the random weights; the global random state is not touched.

    Raises:
        ModelNotFoundError: open_clip has no model of that name, or its image encoder is no plain
            vision transformer.
        CheckpointError: The weights are missing, broken or another model's.
        InputError: There is no such dtype.
    """
    arithmetic = read_dtype(dtype)
    loaded = load_clip(name, checkpoint, seed=seed)
    loaded.model.to(device)
    return DenseClip(loaded, config=config, dtype=arithmetic)
