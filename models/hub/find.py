"""Finding published weights on this machine: in a folder of yours or in the hub's cache.

Nothing here uses the network, so loading never downloads; only :mod:`.fetch` does.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import CheckpointError, InputError, MissingWeightsError
from ..foreign import decode_json
from .sources import SOURCES, WeightSource, get_source

# Environment variable with a folder that has one folder per source: <owner>--<name> or <name>.
WEIGHTS_VARIABLE = "PROMPTSEG_WEIGHTS"
# Weights files of models that are not among SOURCES, preferred one first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# "owner/name", but not a path such as "weights/sam.pth".
_HUB_ID = re.compile(
    r"(?!.*\.(?:safetensors|bin|pt|pth|ckpt|onnx|xml|zip|tar|gz)$)[\w-][\w.-]*/[\w-][\w.-]*"
)
_LONGEST_HEADER = 100_000_000
_LONGEST_TEXT = 200_000_000
_PYTORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
# A pickled number that files from before PyTorch 1.6 begin with.
_OLD_PYTORCH = bytes.fromhex("80028a0a6cfc9c46f920 6aa85019")
_NO_CONTENT = (b"version https://git-lfs", b"<!doctype", b"<!DOCTYPE", b"<html", b"<?xml")


class _Tensor(msgspec.Struct):
    """What is read of a tensor in the header of a safetensors file."""

    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class Place:
    """A folder with files of a source.

    Attributes:
        folder: The folder.
        missing: Names of the files that are absent or incomplete there.
    """

    folder: Path
    missing: tuple[str, ...]


def find_source(source: WeightSource | str, folder: Path | None = None) -> Path:
    """Return a folder with all files of a source.

    Args:
        source: The source or its name.
        folder: Folder to search before the hub's cache; by default the one that
            PROMPTSEG_WEIGHTS names.

    Raises:
        ModelNotFoundError: There is no source of that name.
        MissingWeightsError: Files are missing; the message has a command that fetches them.
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
        known.append(f"{own} is not a folder")
    detail = f" ({'; '.join(known)})" if known else ""
    raise MissingWeightsError(
        f"the weights of {source.name} are {'incomplete' if places else 'missing'}{detail}",
        f"run `{how_to_fetch(source.repo)}`",
    )


def find_places(source: WeightSource, folder: Path | None = None) -> list[Place]:
    """Return the places that have any file of a source, the most complete first.

    Args:
        source: The source to look for.
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
    """Return the path of a checkpoint, looking hub ids up on this machine.

    Args:
        checkpoint: A path, or a hub id "owner/name". A path that exists is never taken for an id.

    Raises:
        CheckpointError: The weights of that id are not on this machine.
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
        f"{checkpoint!r} is not a path, and the hub's cache does not have its "
        f"{' or '.join(names)}: run `{how_to_fetch(checkpoint)}` or give the path of the weights"
    )


def find_folder(repo: str | Path, files: Sequence[str]) -> Path | None:
    """Return a folder on this machine that has at least one complete file of a hub model.

    Args:
        repo: Hub id of the model, "owner/name"; for anything else the answer is None.
        files: Names of the files to look for.
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
    """Return the command that fetches a model from the hub; "" if this cannot be a hub id."""
    if isinstance(repo, Path) or not _HUB_ID.fullmatch(repo):
        return ""
    return f"hf download {repo}"


def _source_of(repo: str | Path) -> WeightSource | None:
    return next((source for source in SOURCES.values() if source.repo == str(repo)), None)


def own_folder() -> Path | None:
    """Return the folder that PROMPTSEG_WEIGHTS names; None if it is not set."""
    name = os.environ.get(WEIGHTS_VARIABLE)
    return Path(name).expanduser() if name else None


def own_places(repo: str, folder: Path) -> list[Path]:
    """Return the subfolders of ``folder`` that may hold a hub model, the most explicit first."""
    return [folder / repo.replace("/", "--"), folder / repo.split("/")[1]]


def find_cached(repo: str, files: Sequence[str]) -> Path | None:
    """Return the model's folder in the hub's cache, if it has any of the files."""
    try:
        # Importing it is slow, and raises if it cannot parse an environment variable.
        import huggingface_hub.constants

        cache = huggingface_hub.constants.HF_HUB_CACHE
        for name in files:
            found = huggingface_hub.try_to_load_from_cache(repo, name, cache_dir=cache)
            if isinstance(found, str):
                return Path(found).parent
    except (ImportError, OSError, ValueError):  # an unreadable cache counts as empty
        pass
    return None


def is_whole(path: Path, name: str = "") -> bool:
    """Whether a file exists and is complete by its own format.

    An interrupted download, a Git LFS pointer or a page that tells of an error has the name but
    not the content.

    Args:
        path: The file.
        name: The name that tells its format; the path's by default.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size == 0:
            return False
        suffix = Path(name or path.name).suffix
        if suffix == ".safetensors":
            return _is_whole_safetensors(path, size)
        if suffix in _PYTORCH_SUFFIXES:
            return _is_whole_pytorch(path)
        return size <= _LONGEST_TEXT and _is_whole_text(path.read_bytes(), suffix)
    except (OSError, ValueError):
        return False


def _is_whole_safetensors(path: Path, size: int) -> bool:
    """Whether the header describes tensors that fill the rest of the file without gaps."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size, _LONGEST_HEADER):
            return False
        header = stream.read(length)
    try:
        entries = decode_json(header, dict[str, msgspec.Raw], "header")
        tensors = [
            decode_json(bytes(entry), _Tensor, name)
            for name, entry in entries.items()
            if name != "__metadata__"
        ]
    except InputError:
        return False
    end = 0
    for begin, last in sorted(tensor.data_offsets for tensor in tensors):
        if begin != end or last < begin:
            return False
        end = last
    return bool(tensors) and size == 8 + length + end


def _is_whole_pytorch(path: Path) -> bool:
    """Whether it is a zip file with a pickle in it, or begins as PyTorch's older files do."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError):  # is_zipfile too may raise it
        return False
    with path.open("rb") as stream:
        return stream.read(len(_OLD_PYTORCH)) == _OLD_PYTORCH


def _is_whole_text(content: bytes, suffix: str) -> bool:
    """Whether it is text in UTF-8, and JSON if it is called so; no LFS pointer, no page."""
    if content.startswith(_NO_CONTENT):
        return False
    if suffix == ".json":
        try:
            decode_json(content, dict[str, msgspec.Raw], "file")
        except InputError:
            return False
    content.decode("utf-8")
    return True
