"""Mix two generations of pocket weights, entry by entry.

    python training/mix_weights.py models/weights runs/pocket/cooldown-6000 0.7 mixed

A model that was trained further from another's weights lies in the same valley; a point between the
two often does better than either, above all on what the further training saw less of (Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from pocket_models import FILES
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def mixed(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Weights between two states of the same names.

    Args:
        first: The earlier weights.
        second: The later ones. What counts pictures or lists words is theirs.
        share: Of the second, in [0, 1].
    """
    found = dict(second)
    for name, value in second.items():
        if value.is_floating_point() and not name.startswith("known."):
            between = (1 - share) * first[name].float() + share * value.float()
            found[name] = between.to(value.dtype)
    return found


def mix_folders(
    first: Path, second: Path, share: float, out: Path, *, keep_words: bool = False
) -> None:
    """Mix all files of weights; one that the first folder lacks is the second's.

    Args:
        first: Folder of the earlier weights.
        second: Folder of the later weights.
        share: Of the second, in [0, 1].
        out: Folder for the mixed weights.
        keep_words: Whether the list of words that were taught is the first's, so that a second text
            head still answers the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        weights, metadata = _read(second / name)
        if (first / name).is_file():
            earlier, earlier_metadata = _read(first / name)
            weights = mixed(earlier, weights, share)
            if keep_words and "words" in metadata:
                weights |= {k: v for k, v in earlier.items() if k.startswith("known.")}
                metadata["words"] = earlier_metadata["words"]
        save_file(weights, out / name, metadata=metadata)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    return load_file(path), metadata


def main() -> None:
    """Read the arguments and mix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="folder of the earlier weights")
    parser.add_argument("second", type=Path, help="folder of the later weights")
    parser.add_argument("share", type=float, help="of the second, from 0 to 1")
    parser.add_argument("out", type=Path, help="folder for the mixed weights")
    parser.add_argument("--keep-words", action="store_true", help="the earlier list of words")
    arguments = parser.parse_args()
    if not 0 <= arguments.share <= 1:
        parser.error("the share must be from 0 to 1")
    mix_folders(
        arguments.first,
        arguments.second,
        arguments.share,
        arguments.out,
        keep_words=arguments.keep_words,
    )


if __name__ == "__main__":
    main()
