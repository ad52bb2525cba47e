"""Detectors of the transformers library: from a folder or from what was fetched of the hub.

Nothing here reaches for the network: what is missing is said at once.
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

# Older versions have no SAM 3, and pad pictures for OWLv2 with another colour than its training.
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
    """A model with all its weights, in float32 and evaluation mode, and its processor.

    Args:
        checkpoint: A folder in the layout of the Hugging Face hub, or the id of a model there
            that was fetched before.
        model: Name of the model's class in transformers.
        processor: Name of the processor's class.
        model_types: What the folder's ``config.json`` may call the model.
        device: Where the model goes.

    Raises:
        CheckpointError: transformers is missing or too old, or the checkpoint is missing, broken
            or another model's.
    """
    # The folder first: a wrong path should not cost the import, which takes seconds.
    folder = Path(checkpoint)
    if not folder.is_dir():
        folder = find_folder(checkpoint, ("config.json",)) or folder
    if not folder.is_dir():
        command = how_to_fetch(checkpoint)
        raise CheckpointError(
            f"{str(checkpoint)!r} is not there, neither as a folder nor among the models fetched "
            f"from the hub: {f'run `{command}`, or ' if command else ''}give the folder of a "
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
                ignore_mismatched_sizes=True,  # they are told below
            )
            processing = processor_class.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise CheckpointError(
            f"{model} needs another library ({_quote(error)}): {_REMEDY}"
        ) from error
    # A broken folder fails anywhere in transformers, with any kind of error.
    except Exception as error:
        raise CheckpointError(
            f"{folder} cannot be read as a {model_types[0]} model ({_quote(error)}); "
            "download the folder again"
        ) from error
    # Without its files a tokenizer is made of special tokens alone, and nobody is told.
    if len(processing.tokenizer) < network.config.text_config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} lacks words of its model; download the folder again"
        )
    # What is left over does no harm: older versions saved more than the weights.
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
    """Refuse what the model cannot read.

    Args:
        phrase: As the user gave it.
        own: Ids of the phrase's own tokens, without special ones.
        length: Of all its tokens.
        limit: Most tokens that the model reads.
        tokenizer: Knows the id of what it does not know.

    Raises:
        InputError: The phrase is too long, or there is no known word in it.
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
    """Most tokens that the positions of a model's text encoder reach."""
    config: Any = model.config  # each model's own class
    return int(config.text_config.max_position_embeddings)


def check_batch_size(batch_size: int) -> int:
    """The number of phrases that go through a model at once.

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
    """No progress bar and no report while weights are read; what is wrong with them is raised."""
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
