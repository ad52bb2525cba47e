"""Loading open_clip models from their names and weights, without using the network.

Weights are a file, or a folder in the hub's layout for open_clip: the weights beside
``open_clip_config.json``, which describes the model and how its input is normalised.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...checkpoint import load_strictly, read_state_dict
from ...errors import CheckpointError, ModelNotFoundError
from ...hub.find import find_folder, how_to_fetch
from .text import Tokenizer

if TYPE_CHECKING:
    from open_clip import CLIP, CustomTextCLIP

CONFIG_FILE = "open_clip_config.json"
# Preferred one first.
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

_PARTS = ("vision_cfg", "text_cfg")
# Settings with which open_clip replaces PyTorch's attention by its own.
_CUSTOM = (
    "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"
)  # fmt: skip
_WANTED = " or ".join(WEIGHT_FILES)
_OPENAI = "timm/vit_base_patch16_clip_224.openai"
_EXAMPLES = "such as ViT-B-16, ViT-B-32-quickgelu or ViT-L-14"


@dataclass(frozen=True, eq=False)
class LoadedClip:
    """A model with its tokenizer and preprocessing.

    Attributes:
        model: The open_clip model, in evaluation mode, on the CPU.
        tokenizer: The model's tokenizer.
        mean: Channel means, for pixels in 0..1.
        std: Channel standard deviations, for pixels in 0..1.
        interpolation: How images are resized: "bicubic" or "bilinear".
    """

    model: CLIP | CustomTextCLIP
    tokenizer: Tokenizer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


def load_clip(name: str, checkpoint: str | Path | None, *, seed: int = 0) -> LoadedClip:
    """Build an open_clip model whose image encoder is a plain vision transformer.

    Args:
        name: A name of open_clip, such as "ViT-B-16"; with a config beside the weights, any name.
        checkpoint: A weights file, a folder, or the hub id of a model on this machine. None leaves
            the weights random.
        seed: Seed of the random weights; the global random state is not touched.

    Raises:
        ModelNotFoundError: open_clip has no model of that name, or dense features of its kind are
            not supported.
        CheckpointError: The weights are missing, broken or another model's.
    """
    weights = None if checkpoint is None else find_clip_weights(checkpoint)
    # Importing open_clip takes seconds, which a wrong path should not cost.
    import open_clip

    config = {} if weights is None else _read_config(weights.parent / CONFIG_FILE)
    known = open_clip.get_model_config(name.replace("/", "-"))
    spec: dict[str, Any] | None = config.get("model_cfg", known)
    if spec is None:
        raise ModelNotFoundError(
            f"open_clip has no model called {name!r}; give a name, {_EXAMPLES}, or weights with "
            f"their {CONFIG_FILE} beside them"
        )
    _check_kind(name, spec)
    if known is not None and _sizes(known) != _sizes(spec):
        raise CheckpointError(
            f"{weights} holds another model than {name}: its {CONFIG_FILE} has {_sizes(spec)} "
            f"instead of {_sizes(known)}; give the weights of {name}, or their own name"
        )
    folder = weights.parent if weights is not None and config else None
    tokenizer = _tokenizer(name, spec["text_cfg"], folder)
    model = _build(name, spec, seed)
    if weights is not None:
        state = read_state_dict(weights)
        if all(key.startswith("module.") for key in state):  # saved by distributed training
            state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
        load_strictly(model, state, source=weights, name=name)
    pixels = config.get("preprocess_cfg", {})
    return LoadedClip(
        model.eval(),
        tokenizer,
        tuple(pixels.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        tuple(pixels.get("std") or open_clip.OPENAI_DATASET_STD),
        pixels.get("interpolation") or "bicubic",
    )


def find_clip_weights(checkpoint: str | Path) -> Path:
    """Return the weights file of a checkpoint: a file, a folder or a hub id.

    Args:
        checkpoint: A path, or a hub id "owner/name" of a model on this machine. A path that exists
            is never taken for an id.

    Raises:
        CheckpointError: There is no such file; the message says what to fetch or to give.
    """
    path = Path(checkpoint)
    if not path.exists():
        path = find_folder(checkpoint, WEIGHT_FILES) or path
    if path.is_dir():
        found = [path / file for file in WEIGHT_FILES if (path / file).is_file()]
        if not found:
            raise CheckpointError(
                f"{path} holds no open_clip weights: expected {_WANTED}; give the folder of a "
                "model downloaded from the hub, or the weights file itself"
            )
        return found[0]
    if not path.exists():
        command = how_to_fetch(checkpoint)
        fetch = f"if it is a hub id, run `{command}`, or " if command else ""
        raise CheckpointError(
            f"{str(checkpoint)!r} is neither a file, nor a folder, nor a model of the hub that is "
            f"on this machine; {fetch}give the path of {_WANTED}"
        )
    if _is_program(path):
        raise CheckpointError(
            f"{path} is a TorchScript program, as OpenAI published CLIP, and programs are never "
            f"run from a checkpoint; the same weights are on the hub, such as those of {_OPENAI}: "
            f"run `hf download {_OPENAI}` and give that id"
        )
    return path


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _read_config(path: Path) -> dict[str, Any]:
    """Read the hub's open_clip config; {} if there is none."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(config["model_cfg"][part], dict) for part in _PARTS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not the config of an open_clip model ({error}); download it again"
        ) from error
    if not whole:
        raise CheckpointError(f"{path} lacks {' or '.join(_PARTS)}; download it again")
    return dict(config)


def _sizes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that tell models apart."""
    import open_clip

    vision, default = spec["vision_cfg"], open_clip.CLIPVisionCfg()
    keys = ("width", "layers", "patch_size")
    sizes = {key: vision.get(key, getattr(default, key)) for key in keys}
    return {"embed_dim": spec.get("embed_dim"), **sizes}


def _check_kind(name: str, spec: Mapping[str, Any]) -> None:
    vision, text = spec["vision_cfg"], spec["text_cfg"]
    reason = ""
    if vision.get("timm_model_name"):
        reason = f"its image encoder is timm's {vision['timm_model_name']}"
    elif isinstance(vision.get("layers"), (list, tuple)):
        reason = "its image encoder is a ResNet"
    elif vision.get("attentional_pool") or "multimodal_cfg" in spec:
        reason = "it pools its patches by attention (CoCa), so that features have no place"
    elif vision.get("block_type") == "custom" or any(vision.get(key) for key in _CUSTOM):
        reason = "its attention is not that of a plain vision transformer"
    elif text.get("hf_model_name"):
        reason = f"its text encoder is {text['hf_model_name']}, not open_clip's own"
    elif text.get("tokenizer_mode"):
        reason = f"its tokenizer runs in the mode {text['tokenizer_mode']!r}"
    if reason:
        raise ModelNotFoundError(
            f"{name} gives no dense features: {reason}; choose a plain vision transformer of "
            f"open_clip, {_EXAMPLES}"
        )


def _tokenizer(name: str, text: Mapping[str, Any], folder: Path | None) -> Tokenizer:
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    options = text.get("tokenizer_kwargs", {})
    foreign = text.get("hf_tokenizer_name")
    if not foreign:
        return SimpleTokenizer(context_length=text.get("context_length", 77), **options)
    remedy = (
        f"{name} reads its texts with the tokenizer of {foreign}: give the folder of a downloaded "
        "model, with the tokenizer's files in it"
    )
    if folder is None:
        raise CheckpointError(remedy)
    try:
        return HFTokenizer(str(folder), context_length=text.get("context_length", 77), **options)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{folder} has no tokenizer ({reason}); {remedy}") from error


def _build(name: str, spec: Mapping[str, Any], seed: int) -> CLIP | CustomTextCLIP:
    import open_clip

    sizes = {key: value for key, value in spec.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if spec.get("custom_text") else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return kind(**sizes)
        except (TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the installed open_clip {open_clip.__version__} cannot build {name} ({error}); "
                "`pip install -U open-clip-torch`"
            ) from error
