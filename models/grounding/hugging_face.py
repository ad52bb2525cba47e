"""Loading detectors of the transformers library from a folder or from the hub's cache.

Nothing here uses the network; missing files are an error at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CheckpointError, InputError
from ..hub.find import find_folder, how_to_fetch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

# Older versions lack SAM 3, and pad images for OWLv2 in another colour than in its training.
_REMEDY = "`pip install 'transformers>=5.0' torchvision`"
_EXAMPLES = 3
_LONGEST_QUOTE = 100


def load_pretrained(
    checkpoint: str | Path,
    *,
    model: str,
    processor: str,
    model_types: Sequence[str],
    device: str | torch.device,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a model with all its weights, in float32 and evaluation mode, and its processor.

    Args:
        checkpoint: A folder in the layout of the Hugging Face hub, or the hub id of a model that
            is on this machine.
        model: Name of the model's class in transformers.
        processor: Name of the processor's class.
        model_types: Accepted values of ``model_type`` in the folder's ``config.json``.
        device: Device to put the model on.

    Raises:
        CheckpointError: transformers is missing or too old, or the checkpoint is missing, broken
            or another model's.
    """
    # The folder first: with a wrong path there is no need for the import, which takes seconds.
    folder = Path(checkpoint)
    if not folder.is_dir():
        folder = find_folder(checkpoint, ("config.json",)) or folder
    if not folder.is_dir():
        command = how_to_fetch(checkpoint)
        raise CheckpointError(
            f"{str(checkpoint)!r} is neither a folder nor a model of the hub that is on this "
            f"machine: {f'run `{command}`, or ' if command else ''}give the folder of a "
            "downloaded model"
        )
    _check_model_type(folder, model_types)
    model_class, processor_class = _import(model), _import(processor)
    try:
        with _quiet():
            network, report = model_class.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below
            )
            processing = processor_class.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise CheckpointError(
            f"{model} needs another library ({_quote(error)}): {_REMEDY}"
        ) from error
    # A broken folder can fail anywhere in transformers, with any type of error.
    except Exception as error:
        raise CheckpointError(
            f"{folder} cannot be read as a {model_types[0]} model ({_quote(error)}); "
            "download the folder again"
        ) from error
    # Without its files a tokenizer silently consists of special tokens alone.
    if len(processing.tokenizer) < network.config.text_config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} lacks words of its model; download the folder again"
        )
    # Unexpected keys are harmless: older versions saved more than the weights.
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if wrong:
        raise CheckpointError(
            f"the weights in {folder} do not fit {model}: {len(wrong)} are missing or of another "
            f"shape ({', '.join(sorted(wrong)[:_EXAMPLES])}); download the folder again"
        )
    return network.float().to(device).eval(), processing


def check_phrase(
    phrase: str, own: Sequence[int], *, length: int, limit: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Check that the model can read a phrase.

    Args:
        phrase: The phrase as the user gave it.
        own: Token ids of the phrase, without special tokens.
        length: Number of tokens, special ones included.
        limit: Maximum number of tokens that the model reads.
        tokenizer: The model's tokenizer, which has the id of unknown words.

    Raises:
        InputError: The phrase is too long or has no known word.
    """
    if all(token == tokenizer.unk_token_id for token in own):
        raise InputError(
            f"the phrase {_quote(phrase)!r} has no word that the model knows; "
            "name the object in plain English words"
        )
    if length > limit:
        raise InputError(
            f"the phrase {_quote(phrase)!r} has {length} tokens and the model reads {limit}; "
            "shorten it to the object's name, or split it into several phrases"
        )


def text_limit(model: PreTrainedModel) -> int:
    """Maximum number of tokens that a model's text encoder has positions for."""
    config: Any = model.config  # its class depends on the model
    return int(config.text_config.max_position_embeddings)


def check_batch_size(batch_size: int) -> int:
    """Return the batch size if it is valid.

    Raises:
        InputError: It is not positive.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, got {batch_size}")
    return batch_size


def _check_model_type(folder: Path, model_types: Sequence[str]) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} holds no readable config.json; give the folder of a downloaded "
            f"{model_types[0]} model, or download it again"
        ) from error
    if found not in model_types:
        raise CheckpointError(
            f"{folder} is a model of type {found!r}, expected {model_types[0]!r}; "
            "give the folder of another model"
        )


def _import(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(f"this model needs the transformers library: {_REMEDY}") from error
    found = getattr(transformers, name, None)
    if found is None:
        raise CheckpointError(
            f"the installed transformers {transformers.__version__} has no {name}: {_REMEDY}"
        )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and reports while weights are read; problems are raised instead."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _quote(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[: _LONGEST_QUOTE - 3]}..."
