"""CLIP's text features of phrases, averaged over an ensemble of prompt templates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...device import autocast
from ...errors import InputError
from .similarity import average_templates

if TYPE_CHECKING:
    from open_clip import CLIP, CustomTextCLIP

Tokenizer = Callable[..., Tensor]

# Templates that CLIP Surgery adds to the 80 of ImageNet's zero-shot classifier.
SCENE_TEMPLATES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
BATCH_SIZE = 64  # texts encoded together
CACHE_SIZE = 1024  # phrases whose features are cached, a few kilobytes each


def default_templates() -> tuple[str, ...]:
    """The 85 templates of CLIP Surgery, with "{}" in place of the phrase."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return (*(template("{}") for template in OPENAI_IMAGENET_TEMPLATES), *SCENE_TEMPLATES)


class ClipText:
    """Text features of phrases, with a cache of recent ones.

    Args:
        model: The model whose text encoder is used.
        tokenizer: The model's tokenizer, called with texts and ``context_length``.
        templates: Texts with "{}" in place of the phrase.
        dtype: Type that the encoder computes in.
    """

    def __init__(
        self,
        model: CLIP | CustomTextCLIP,
        tokenizer: Tokenizer,
        templates: Sequence[str],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.templates = tuple(templates)
        self.dtype = dtype
        self._recent: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = Lock()

    @torch.inference_mode()
    def encode(self, phrases: Sequence[str]) -> Tensor:
        """Features (P, C) of length 1, of one or more phrases.

        Each phrase is encoded separately, so that its features do not depend on the other
        phrases.

        Raises:
            InputError: A phrase has more tokens than the model reads.
        """
        return torch.stack([self._feature(phrase) for phrase in phrases])

    def check(self, phrases: Sequence[str]) -> None:
        """Check that no phrase is empty.

        Raises:
            InputError: A phrase has no tokens.
        """
        nothing = self._tokens([""])
        for phrase in phrases:
            if torch.equal(self.tokenizer([phrase], context_length=nothing.shape[1]), nothing):
                raise InputError(f"the phrase {phrase!r} is empty; write what to look for")

    def _feature(self, phrase: str) -> Tensor:
        with self._lock:
            if phrase in self._recent:
                self._recent.move_to_end(phrase)
                return self._recent[phrase]
        feature = self._average(phrase)
        with self._lock:
            self._recent[phrase] = feature
            while len(self._recent) > CACHE_SIZE:
                self._recent.popitem(last=False)
        return feature

    def _average(self, phrase: str) -> Tensor:
        device = self.model.logit_scale.device
        tokens = self._tokens([template.replace("{}", phrase) for template in self.templates])
        with autocast(device, self.dtype):
            blocks = [self._run(block.to(device)).float() for block in tokens.split(BATCH_SIZE)]
        return average_templates(torch.cat(blocks))

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids (T, context length)."""
        length = int(self.model.context_length)
        tokens = self.tokenizer(list(texts), context_length=length)
        # Tokenizers truncate silently; room for one more token reveals it.
        longer = self.tokenizer(list(texts), context_length=length + 1)
        for text, row, whole in zip(texts, tokens, longer, strict=True):
            if not torch.equal(row, whole[:length]):
                raise InputError(
                    f"{text!r} is longer than the {length} tokens that the model reads; "
                    "shorten the phrase"
                )
        return tokens

    def _run(self, tokens: Tensor) -> Tensor:
        """Features (T, C), of any length, of tokens (T, context length)."""
        model = self.model
        projection = getattr(model, "text_projection", None)
        if not _reads_to_the_end_token(model) or not isinstance(projection, nn.Parameter):
            return model.encode_text(tokens)
        # Under a causal mask, tokens after the end token do not affect it. Most texts are short,
        # and without their padding they are encoded several times faster.
        ends = tokens.argmax(1)
        length = int(ends.max()) + 1
        x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        return model.ln_final(x)[torch.arange(len(x), device=x.device), ends] @ projection


def _reads_to_the_end_token(model: CLIP | CustomTextCLIP) -> bool:
    """Whether the text encoder is CLIP's own: causal, read out at the token with the highest id."""
    return (
        getattr(model, "text_pool_type", "") == "argmax"
        and getattr(model, "attn_mask", None) is not None
    )
