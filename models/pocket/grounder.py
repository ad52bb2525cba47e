"""Pocket text grounding: a trained head for the words it was taught, dense ConSE for all others.

How much the head is trusted with a phrase depends on how similar the phrase is to the words it was
trained on, and on how many training images had the nearest one:

    trust = max over words of ramp(sim(word, phrase)) * pictures / (pictures + SUPPORT)

With that weight, the heat maps are mixed as logits and the presences as probabilities. A second
head, taught more words by fewer pictures each, has its own trust in what the first leaves over, and
ConSE has the rest. A colour word is split off the phrase and looked for in the pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..checkpoint import without_initialising
from ..embedding import ImageFeatures
from ..errors import CheckpointError
from ..grounding.answers import HeatMap, ObjectField, sample_cells
from .colour import colour_share, keep_coloured, split_colour
from .conse import ClassMaps, DenseConse, Relative
from .minilm import MiniLM, load_minilm
from .objects import STRIDE as OBJECT_STRIDE
from .objects import ObjectHead
from .text_head import TextHead

# At the upper similarity a phrase is a word of the training, at the lower one a different word.
TRUST_RANGE = (0.7, 0.95)
SUPPORT = 10.0  # number of training images of a word at which trust in the head is one half
# Where an object ends, as a fraction of the peak of ConSE's heat, and how many logits the heat
# spans from 0 to its peak.
CONSE_LEVEL = 0.42
CONSE_GAIN = 8.0
# Least similarity of a phrase and a word of which the phrase may be another form or a synonym.
LEAST_LIKE = 0.7
_SHORTEST = 3  # letters of a word that may be changed to its other number
_HISSES = ("x", "ch", "sh", "z")
_HISSES_PLURAL = ("xes", "ches", "shes", "zes", "sses")
TEXT_FILE = "text_pocket.safetensors"
MORE_WORDS_FILE = "more_words_pocket.safetensors"

_STRIDE = 16
_CELL = 4  # pixels of the model input that a cell of the heat map spans
_LARGEST_LOGIT = 10.0


class KnownWords(nn.Module):
    """The words that the text head was trained on.

    Args:
        embeddings: MiniLM embeddings (W, 384) of length 1.
        pictures: (W,), number of training images of each word.
        names: The words.
    """

    embeddings: Tensor
    pictures: Tensor

    def __init__(self, embeddings: Tensor, pictures: Tensor, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("embeddings", embeddings)
        self.register_buffer("pictures", pictures)

    def trust(self, text: Tensor) -> Tensor:
        """How much to trust the head with phrases (P, 384): (P,) in [0, 1]."""
        low, high = TRUST_RANGE
        near = ((text @ self.embeddings.T - low) / (high - low)).clamp(0, 1)
        return (near * self.pictures / (self.pictures + SUPPORT)).amax(1)

    def nearest(self, text: Tensor) -> list[Relative]:
        """Return the word that is most like each of the phrases (P, 384)."""
        similarity, index = (text @ self.embeddings.T).max(1)
        return [
            Relative(self.names[i] if self.names else "", float(value), int(self.pictures[i]))
            for value, i in zip(similarity, index.tolist(), strict=True)
        ]


def other_number(phrase: str) -> str | None:
    """Return the plural of a phrase that looks like a singular, and the other way round.

    Articles are left out. None for what has no other number by the usual endings.
    """
    words = [word for word in phrase.split() if word.lower() not in ("a", "an", "the")]
    last = words[-1].lower() if words else ""
    if len(last) < _SHORTEST or last.endswith("ss"):
        return None
    if last.endswith("ies"):
        other = last[:-3] + "y"
    elif last.endswith(_HISSES_PLURAL):
        other = last[:-2]
    elif last.endswith("s"):
        other = last[:-1]
    elif last.endswith(_HISSES):
        other = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        other = last[:-1] + "ies"
    else:
        other = last + "s"
    return " ".join([*words[:-1], other])


def _hint(relative: Relative) -> str:
    """What to tell of a phrase that nothing was found for."""
    if relative.similarity >= LEAST_LIKE:
        return ""
    nearest = f", the nearest is {relative.word!r}" if relative.word else ""
    return f"no word like it is known{nearest}; words are English"


@dataclass(frozen=True, eq=False)
class Views:
    """What both halves see in one image, independent of the phrases.

    Attributes:
        cells: For each text head (C, h, w), its vectors of the image's cells.
        extent: Height and width of the image in those cells.
        classes: Class probabilities of the ImageNet head.
        image: The image at the size of the heat maps, (h, w, 3) uint8 RGB, for its colours.
        objects: (h, w, 5), for cells of the object head its boxes, in cells of the heat maps, and
            their confidence.
    """

    cells: tuple[Tensor, ...]
    extent: tuple[float, float]
    classes: ClassMaps
    image: NDArray[np.uint8]
    objects: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the heat maps."""
        return self.image.shape[0], self.image.shape[1]


class PocketGrounder(nn.Module):
    """Heat maps for phrases, from the features that also serve the masks.

    Args:
        text_head: The trained head.
        known: The words that it was trained on.
        conse: The grounder for all other words.
        object_head: Tells the objects of a phrase apart.
        further: A second head with its words, for what the first was not taught.
        text_encoder: Embeds the phrases; by default MiniLM, loaded at the first phrase.
    """

    def __init__(
        self,
        text_head: TextHead,
        known: KnownWords,
        conse: DenseConse,
        object_head: ObjectHead,
        *,
        further: tuple[TextHead, KnownWords] | None = None,
        text_encoder: MiniLM | None = None,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList([text_head, *(further or ())[:1]])
        self.known = nn.ModuleList([known, *(further or ())[1:]])
        self.conse = conse
        self.object_head = object_head
        self._given_text_encoder = text_encoder

    @property
    def taught(self) -> list[tuple[TextHead, KnownWords]]:
        """The heads with their words, in the order in which phrases are left to them."""
        pairs = zip(self.heads, self.known, strict=True)
        return [cast("tuple[TextHead, KnownWords]", pair) for pair in pairs]

    @cached_property
    def text_encoder(self) -> MiniLM:
        """The text encoder, loaded on first use: clicks and boxes never need it."""
        return self._given_text_encoder or load_minilm().to(self.taught[0][1].embeddings.device)

    @torch.inference_mode()
    def look(
        self,
        image: NDArray[np.uint8],
        features: ImageFeatures,
        input_size: tuple[int, int],
    ) -> Views:
        """Prepare an image once, for any number of phrases.

        Args:
            image: (H, W, 3) uint8 RGB.
            features: What the image encoder left, with its backbone's four maps. ConSE shares the
                early stages, so that only the late ones run a second time.
            input_size: (H', W') of the image in the encoder's input, without padding.
        """
        maps = features.backbone_features
        rows, columns = -(-input_size[0] // _STRIDE), -(-input_size[1] // _STRIDE)
        deep = torch.cat(tuple(maps[-2:]), dim=1)[..., :rows, :columns]
        small = (-(-input_size[1] // _CELL), -(-input_size[0] // _CELL))
        boxes, confidence = self.object_head(features)
        return Views(
            # float32 under autocast too: phrases are scored outside of it.
            cells=tuple(head.embed(deep).float() for head, _ in self.taught),
            extent=(input_size[0] / _STRIDE, input_size[1] / _STRIDE),
            classes=self.conse.look(maps[1], input_size),
            image=np.asarray(Image.fromarray(image).resize(small, Image.Resampling.BOX)),
            objects=torch.cat([boxes / _CELL, confidence.float().sigmoid()[..., None]], dim=-1),
        )

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], views: Views) -> list[HeatMap]:
        """Score every place for every phrase, each independently.

        Args:
            phrases: What to look for.
            views: The result of :meth:`look`.

        Returns:
            A heat map for each phrase, in the order of the phrases.
        """
        asked = [split_colour(phrase) for phrase in phrases]
        text = self.encode([named for _, named in asked])
        heats, presences = self._score(text, views)
        hints = [_hint(relative) for relative in self.relatives(text)]
        objects = _spread(views.objects, views.grid)
        found = []
        for i, (colour, _) in enumerate(asked):
            heat, presence = heats[i], float(presences[i])
            if colour is not None:
                share = colour_share(views.image, colour)
                heat, presence = keep_coloured(heat, presence, share)
            found.append(HeatMap(phrases[i], heat, presence, hints[i], objects))
        return found

    def encode(self, phrases: Sequence[str]) -> Tensor:
        """Return embeddings (P, 384) of phrases, each in the number in which it is a known word.

        Of "sneaker" and "sneakers", which MiniLM holds for different things, only one was taught.
        """
        text = self.text_encoder.encode(phrases).clone()
        known = [relative.similarity >= TRUST_RANGE[1] for relative in self.relatives(text)]
        for i, phrase in enumerate(phrases):
            other = None if known[i] else other_number(phrase)
            if other is not None:
                changed = self.text_encoder.encode([other])
                if self.relatives(changed)[0].similarity >= TRUST_RANGE[1]:
                    text[i] = changed[0]
        return text

    def relatives(self, text: Tensor) -> list[Relative]:
        """Return the word or name that is most like each of the phrases (P, 384)."""
        pairs = zip(self.nearest_taught(text), self.conse.nearest(text), strict=True)
        return [max(pair, key=lambda r: r.similarity) for pair in pairs]

    def nearest_taught(self, text: Tensor) -> list[Relative]:
        """Return the taught word that is most like each of the phrases (P, 384)."""
        by_head = [known.nearest(text) for _, known in self.taught]
        return [max(found, key=lambda r: r.similarity) for found in zip(*by_head, strict=True)]

    def _score(self, text: Tensor, views: Views) -> tuple[NDArray[np.float32], Tensor]:
        """Heat (P, h, w) and presence (P,) of phrases without colours, (P, 384)."""
        left = torch.ones(len(text), device=text.device)
        logits: Tensor | float = 0.0
        presence: Tensor | float = 0.0
        for (head, known), seen in zip(self.taught, views.cells, strict=True):
            share = left * known.trust(text)
            cells, there = head.score(seen, text)
            local = sample_cells(cells[None], views.extent, views.grid)[0]
            logits = logits + share[:, None, None] * local
            presence = presence + share * there.sigmoid()
            left = left - share
        heat, unlearnt = self.conse.score(views.classes, text, views.grid)
        relative = heat / heat.flatten(1).amax(1).clamp(min=1e-6)[:, None, None]
        logits = logits + left[:, None, None] * CONSE_GAIN * (relative - CONSE_LEVEL)
        mixed = logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).sigmoid().cpu().numpy()
        return mixed, presence + left * unlearnt


def _spread(cells: Tensor, grid: tuple[int, int]) -> ObjectField:
    """Give each cell of the heat maps what the cell of the object head around it says."""
    times = OBJECT_STRIDE // _CELL
    spread = cells.repeat_interleave(times, 0).repeat_interleave(times, 1)[: grid[0], : grid[1]]
    values = spread.cpu().numpy()
    return ObjectField(values[..., :4], values[..., 4])


def load_text_head(path: Path) -> tuple[TextHead, KnownWords]:
    """Read a file written by ``training/train_pocket.py``: the head and its words.

    Raises:
        CheckpointError: The file is missing or has other content.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            names = json.loads(file.metadata()["words"])
        known = KnownWords(state.pop("known.embeddings"), state.pop("known.pictures"), names)
        with without_initialising():
            head = TextHead()
        head.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected the weights of the text head, found none ({error}): "
            "reinstall promptseg"
        ) from error
    return head, known
