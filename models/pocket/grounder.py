"""Pocket text grounding: a trained head for the words it was taught, dense ConSE for the others.

How much the head is trusted with a phrase depends on how near the phrase is to the words of its
training, and on how many pictures taught it the nearest one:

    trust = max over words of ramp(sim(word, phrase)) * pictures / (pictures + SUPPORT)

The two heats are mixed as logits and the two presences as probabilities, with that weight. A
colour word is taken off the phrase and looked for in the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import CheckpointError
from ..grounding.answers import HeatMap, sample_cells
from .colour import colour_share, keep_coloured, split_colour
from .conse import ClassMaps, DenseConse
from .minilm import MiniLM, load_minilm
from .text_head import TextHead

# A phrase this similar to a word of the training is that word, one that dissimilar another.
TRUST_RANGE = (0.7, 0.95)
SUPPORT = 10.0  # pictures of a word at which the head is half trusted with it
# ConSE's heat relative to its peak at which an object is taken to end, and the logits that the
# heat rises over one peak.
CONSE_LEVEL = 0.42
CONSE_GAIN = 8.0
TEXT_FILE = "text_pocket.safetensors"

_STRIDE = 16
_CELL = 4  # pixels of the model input that a cell of the heat map spans
_LARGEST_LOGIT = 10.0


class KnownWords(nn.Module):
    """The words that the text head was taught.

    Args:
        embeddings: MiniLM embeddings (W, 384), of length 1.
        pictures: How many pictures taught each, (W,).
    """

    embeddings: Tensor
    pictures: Tensor

    def __init__(self, embeddings: Tensor, pictures: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", embeddings)
        self.register_buffer("pictures", pictures)

    def trust(self, text: Tensor) -> Tensor:
        """How much the head is to be trusted with phrases (P, 384); (P,) in [0, 1]."""
        low, high = TRUST_RANGE
        near = ((text @ self.embeddings.T - low) / (high - low)).clamp(0, 1)
        return (near * self.pictures / (self.pictures + SUPPORT)).amax(1)


@dataclass(frozen=True, eq=False)
class Views:
    """What both halves see in one picture; independent of the phrases.

    Attributes:
        cells: The text head's vectors of the picture's cells, (C, h, w).
        extent: Height and width of the picture in those cells.
        classes: What the ImageNet head sees.
        image: The picture at the size of the heat maps, (h, w, 3) uint8 RGB, for its colours.
    """

    cells: Tensor
    extent: tuple[float, float]
    classes: ClassMaps
    image: NDArray[np.uint8]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the heat maps."""
        return self.image.shape[0], self.image.shape[1]


class PocketGrounder(nn.Module):
    """Heat maps for phrases, from the features that also serve the masks.

    Args:
        text_head: The trained head.
        known: The words it was taught.
        conse: For all other words.
        text_encoder: Embeds the phrases; loaded at the first phrase if not given.
    """

    def __init__(
        self,
        text_head: TextHead,
        known: KnownWords,
        conse: DenseConse,
        *,
        text_encoder: MiniLM | None = None,
    ) -> None:
        super().__init__()
        self.text_head = text_head
        self.known = known
        self.conse = conse
        self._given_text_encoder = text_encoder

    @cached_property
    def text_encoder(self) -> MiniLM:
        """The text encoder; clicks and boxes never need it."""
        return self._given_text_encoder or load_minilm().to(self.known.embeddings.device)

    @torch.inference_mode()
    def look(
        self,
        image: NDArray[np.uint8],
        backbone_features: Sequence[Tensor],
        input_size: tuple[int, int],
    ) -> Views:
        """See a picture once, for any number of phrases.

        Args:
            image: (H, W, 3) uint8 RGB.
            backbone_features: The four maps of the image encoder's backbone. Its early stages
                are ConSE's as well, so that only the late ones run a second time.
            input_size: Size (H', W') of the picture in the encoder's input, without padding.
        """
        rows, columns = -(-input_size[0] // _STRIDE), -(-input_size[1] // _STRIDE)
        deep = torch.cat(tuple(backbone_features[-2:]), dim=1)[..., :rows, :columns]
        small = (-(-input_size[1] // _CELL), -(-input_size[0] // _CELL))
        return Views(
            # Under autocast too what is seen is float32: phrases are scored outside of it.
            cells=self.text_head.embed(deep).float(),
            extent=(input_size[0] / _STRIDE, input_size[1] / _STRIDE),
            classes=self.conse.look(backbone_features[1], input_size),
            image=np.asarray(Image.fromarray(image).resize(small, Image.Resampling.BOX)),
        )

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], views: Views) -> list[HeatMap]:
        """Score every place for every phrase, each on its own.

        Args:
            phrases: What to look for.
            views: Of :meth:`look`.

        Returns:
            A heat map for each phrase, in their order.
        """
        asked = [split_colour(phrase) for phrase in phrases]
        heats, presences = self._score([named for _, named in asked], views)
        found = []
        for i, (colour, _) in enumerate(asked):
            heat, presence = heats[i], float(presences[i])
            if colour is not None:
                share = colour_share(views.image, colour)
                heat, presence = keep_coloured(heat, presence, share)
            found.append(HeatMap(phrases[i], heat, presence))
        return found

    def _score(self, phrases: Sequence[str], views: Views) -> tuple[NDArray[np.float32], Tensor]:
        """Heat (P, h, w) and presence (P,) of phrases without colours."""
        text = self.text_encoder.encode(phrases)
        trust = self.known.trust(text)
        cells, taught = self.text_head.score(views.cells, text)
        local = sample_cells(cells[None], views.extent, views.grid)[0]
        heat, unlearnt = self.conse.score(views.classes, text, views.grid)
        relative = heat / heat.flatten(1).amax(1).clamp(min=1e-6)[:, None, None]
        share = trust[:, None, None]
        logits = share * local + (1 - share) * CONSE_GAIN * (relative - CONSE_LEVEL)
        mixed = logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).sigmoid().cpu().numpy()
        return mixed, trust * taught.sigmoid() + (1 - trust) * unlearnt


def load_text_head(path: Path) -> tuple[TextHead, KnownWords]:
    """Read a file of ``training/train_pocket.py``: the head and the words it was taught.

    Raises:
        CheckpointError: The file is missing or another one.
    """
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        known = KnownWords(state.pop("known.embeddings"), state.pop("known.pictures"))
        head = TextHead()
        head.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: expected the weights of the text head, found none ({error}): "
            "reinstall promptseg"
        ) from error
    return head, known
