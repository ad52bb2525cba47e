"""Published weights on this machine: in a folder of yours or in the Hugging Face hub's cache.

Nothing here goes to the network, so that loading never downloads; ``models/fetch.py`` does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, MissingWeightsError
from .sources import SOURCES, WeightSource, get_source

# Names a folder with one folder for each source: <owner>--<name>, or only <name>.
WEIGHTS_VARIABLE = "PROMPTSEG_WEIGHTS"
# What holds the weights of a model that is not listed, most wanted first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Place:
    """A folder with files of a source.

    Attributes:
        folder: The folder.
        missing: Files that it lacks, or has only in part.
    """

    folder: Path
    missing: tuple[str, ...]


def find_source(source: WeightSource | str, folder: Path | None = None) -> Path:
    """Return a folder with all files of a source.

    Args:
        source: The source or its name.
        folder: Where to look first; by default the folder that PROMPTSEG_WEIGHTS names. The
            hub's cache comes after it.

    Raises:
        ModelNotFoundError: There is no source of that name.
        MissingWeightsError: Files are missing; the message has the command that fetches them.
    """
    if isinstance(source, str):
        source = get_source(source)
    places = find_places(source, folder)
    if places and not places[0].missing:
        return places[0].folder
    known = [f"{place.folder} lacks {', '.join(place.missing)}" for place in places]
    own = folder or own_folder()
    # Unlike this one, Path.is_dir raises where it may not look.
    if own is not None and not os.path.isdir(own):  # noqa: PTH112
        known.append(f"{own} is no folder")
    detail = f" ({'; '.join(known)})" if known else ""
    raise MissingWeightsError(
        f"the weights of {source.name} are not {'all ' if places else ''}here{detail}",
        f"run `{how_to_fetch(source.repo)}`",
    )


def find_places(source: WeightSource, folder: Path | None = None) -> list[Place]:
    """Return the places that have any file of a source, the fullest first.

    Args:
        source: What to look for.
        folder: As for :func:`find_source`.
    """
    places = []
    own = folder or own_folder()
    folders = own_places(source.repo, own) if own is not None else []
    cached = find_cached(source.repo, source.files)
    for place in [*folders, *([cached] if cached is not None else [])]:
        missing = tuple(name for name in source.needed if not is_whole(place / name))
        if len(missing) < len(source.needed):
            places.append(Place(place, missing))
    return sorted(places, key=lambda place: len(place.missing))


def find_weights(checkpoint: str | Path) -> Path:
    """Path of a checkpoint: of a weights file on this machine, if a hub id is given.

    Args:
        checkpoint: A path, or "owner/name". A path that exists is never taken for an id.

    Raises:
        CheckpointError: There are no weights of that id on this machine.
    """
    path = Path(checkpoint)
    if isinstance(checkpoint, Path) or path.exists() or not _HUB_ID.fullmatch(checkpoint):
        return path
    known = _source_of(checkpoint)
    names = WEIGHT_FILES if known is None else (known.weights,)
    folder = find_folder(checkpoint, names)
    if folder is not None:
        return next(folder / name for name in names if is_whole(folder / name))
    raise CheckpointError(
        f"{checkpoint!r} is no path, and the hub's cache does not have its {' or '.join(names)}: "
        f"run `{how_to_fetch(checkpoint)}` or give the path of the weights"
    )


def find_folder(repo: str | Path, files: Sequence[str]) -> Path | None:
    """Return a folder of this machine with any of some files of a model, the whole of it.

    Args:
        repo: Hub id of the model, "owner/name"; nothing else is found.
        files: Names of files.
    """
    if isinstance(repo, Path) or not _HUB_ID.fullmatch(repo):
        return None
    own = own_folder()
    folders = own_places(repo, own) if own is not None else []
    cached = find_cached(repo, files)
    for folder in [*folders, *([cached] if cached is not None else [])]:
        if any(is_whole(folder / name) for name in files):
            return folder
    return None


def how_to_fetch(repo: str | Path) -> str:
    """Return the command that fetches a model of the hub; "" for what cannot be a hub id."""
    if isinstance(repo, Path) or not _HUB_ID.fullmatch(repo):
        return ""
    return f"hf download {repo}"


def _source_of(repo: str | Path) -> WeightSource | None:
    return next((source for source in SOURCES.values() if source.repo == str(repo)), None)


def own_folder() -> Path | None:
    """Return the folder that PROMPTSEG_WEIGHTS names, if it is set."""
    name = os.environ.get(WEIGHTS_VARIABLE)
    return Path(name).expanduser() if name else None


def own_places(repo: str, folder: Path) -> list[Path]:
    """Return where a folder of weights may have those of a hub id, the most explicit first."""
    return [folder / repo.replace("/", "--"), folder / repo.split("/")[1]]


def find_cached(repo: str, files: Sequence[str]) -> Path | None:
    """Return the hub cache's folder of a model, if it has any of the files."""
    try:
        # Importing it takes a moment; a setting in the environment that it cannot read fails here.
        import huggingface_hub.constants

        cache = huggingface_hub.constants.HF_HUB_CACHE
        for name in files:
            found = huggingface_hub.try_to_load_from_cache(repo, name, cache_dir=cache)
            if isinstance(found, str):
                return Path(found).parent
    except (ImportError, OSError, ValueError):  # a cache that cannot be read has nothing
        pass
    return None


def is_whole(path: Path) -> bool:
    """Whether a file is there, and of safetensors the whole of it.

    A download that was cut off, or the pointer that git leaves without its large file storage,
    has the name but not the weights.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size == 0:
            return False
        if path.suffix != ".safetensors":
            return True
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size, _LONGEST_HEADER):
                return False
            header = json.loads(stream.read(length))
        tensors = (entry for name, entry in header.items() if name != "__metadata__")
        end = max((entry["data_offsets"][1] for entry in tensors), default=0)
        return bool(size == 8 + length + end)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
