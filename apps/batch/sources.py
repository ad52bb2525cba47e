"""What a batch is given: a folder, a pattern, a list or a Parquet manifest, as a table of rows."""

from __future__ import annotations

import fnmatch
import glob
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import InputError
from ..image_names import ENDINGS, has_ending, natural_key
from .filesystems import is_local, local_path, open_place

if TYPE_CHECKING:
    import pyarrow as pa

Source = str | Path | Sequence[str | Path]

MANIFEST_ENDING = ".parquet"
# Columns of a manifest that say what to look for in that image alone.
QUERY_COLUMNS = ("text", "negative_text", "points", "point_labels", "boxes", "min_presence")


def read_source(source: Source, out: str = "") -> pa.Table:
    """Return a row for each image: its id and URI, and the columns of a manifest's queries.

    Args:
        source: A folder, which is searched with those below it; a pattern such as
            "s3://bucket/**/*.jpg"; a list of images; or a Parquet file with the columns ``id`` and
            ``uri``, and any of ``QUERY_COLUMNS``.
        out: A folder that is not searched.

    Raises:
        InputError: It does not exist, holds no images, or ids are missing or not unique.
    """
    if not isinstance(source, (str, Path)):
        return _of_list(source)
    text = str(source)
    if not text.strip():
        raise InputError("the source is empty; name a folder, a pattern or a Parquet manifest")
    filesystem, path = open_place(text)
    from pyarrow.fs import FileType

    kind = filesystem.get_file_info(path).type
    if kind == FileType.Directory:
        return _of_folder(text, out)
    if kind == FileType.File and text.lower().endswith(MANIFEST_ENDING):
        return _of_manifest(text)
    if kind == FileType.File:
        return _of_list([text])
    if glob.has_magic(text.partition("://")[2] or text):
        return _of_pattern(text, out)
    raise InputError(f"{text!r} does not exist; check the path")


def _of_list(source: Iterable[str | Path]) -> pa.Table:
    uris = [_absolute(str(item)) for item in source]
    if not uris:
        raise InputError("the list of images is empty")
    return _table(_short_ids(uris), uris)


def _short_ids(uris: Sequence[str]) -> list[str]:
    """Return the paths below the closest folder that holds all, or else the URIs."""
    folders = {posixpath.dirname(uri) for uri in uris}
    try:
        common = posixpath.commonpath(folders)
    except ValueError:
        return list(uris)
    if not common.strip("/"):
        return [uri.lstrip("/") for uri in uris]
    # Of "s3://bucket" the path functions leave "s3:/bucket".
    cut = len(common) + 1 + any("://" in uri for uri in uris)
    return [uri[cut:] for uri in uris]


def _of_folder(folder: str, out: str) -> pa.Table:
    names = [name for name in _files_below(folder, out) if has_ending(posixpath.basename(name))]
    if not names:
        raise InputError(
            f"{folder!r} holds no images, and neither do folders below it; images are files that "
            f"end in {', '.join(ENDINGS)}"
        )
    top = _absolute(folder).rstrip("/")
    return _table(names, [f"{top}/{name}" for name in names])


def _of_pattern(pattern: str, out: str) -> pa.Table:
    fixed, rest = _split_pattern(_absolute(pattern))
    names = [
        name
        for name in _files_below(fixed, out)
        if has_ending(name) and _matches(name.split("/"), rest)
    ]
    if not names:
        raise InputError(
            f"no image matches {pattern!r}; check the pattern (* within a folder, ** through "
            "folders)"
        )
    return _table(names, [f"{fixed}/{name}" for name in names])


def _split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Split a pattern before the first folder or file that has magic in its name."""
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]), parts[first:]


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether a path's parts match a pattern's: ** is any number of folders."""
    if not (parts and patterns):
        return not (parts or patterns)
    if patterns[0] != "**":
        return fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
    if len(patterns) == 1:
        return True
    return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts)))


def _files_below(folder: str, out: str) -> list[str]:
    """Return the visible files below a folder, in natural order, but for those below ``out``."""
    from pyarrow.fs import FileSelector, FileType

    filesystem, top = open_place(folder)
    left_out = open_place(out)[1] + "/" if out and is_local(out) == is_local(folder) else None
    try:
        found = filesystem.get_file_info(FileSelector(top, recursive=True))
    except OSError as error:
        raise InputError(
            f"{folder!r} cannot be listed ({' '.join(str(error).split())}); check the path"
        ) from error
    names = []
    for info in found:
        if info.type != FileType.File or (left_out and info.path.startswith(left_out)):
            continue
        name = info.path[len(top) :].lstrip("/")
        if not any(part.startswith(".") for part in name.split("/")):
            names.append(name)
    return sorted(names, key=natural_key)


def _of_manifest(uri: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    filesystem, path = open_place(uri)
    try:
        names = pq.read_schema(path, filesystem=filesystem).names
        lacking = [name for name in ("id", "uri") if name not in names]
        if lacking:
            raise InputError(
                f"the manifest {uri!r} has no column {' and none '.join(lacking)}; it has "
                f"{', '.join(names)}"
            )
        wanted = [name for name in ("id", "uri", *QUERY_COLUMNS) if name in names]
        table = pq.read_table(path, columns=wanted, filesystem=filesystem)
        for name in ("id", "uri"):
            if table[name].null_count:
                raise InputError(f"the manifest {uri!r} has rows without {name}")
            text = pc.cast(table[name], pa.string())
            table = table.set_column(table.column_names.index(name), name, text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InputError(
            f"the manifest {uri!r} cannot be read ({' '.join(str(error).split())})"
        ) from error
    folder = _absolute(uri).rpartition("/")[0]
    places = [_beside(folder, item) for item in table["uri"].to_pylist()]
    return _checked(table.set_column(table.column_names.index("uri"), "uri", pa.array(places)))


def _beside(folder: str, uri: str) -> str:
    """Return the URI of a manifest's row: a relative path is one from the manifest's folder."""
    if "://" in uri or os.path.isabs(uri):  # noqa: PTH117
        return uri
    return f"{folder}/{uri}"


def _absolute(uri: str) -> str:
    return local_path(uri) if is_local(uri) else uri


def _table(ids: Sequence[str], uris: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    texts = [list(map(_encodable, items)) for items in (ids, uris)]
    return _checked(pa.table({"id": texts[0], "uri": texts[1]}))


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{text!r} is not valid Unicode; rename it") from error
    return text


def _checked(table: Any) -> Any:
    import pyarrow.compute as pc

    if not table.num_rows:
        raise InputError("the manifest has no rows")
    if pc.count_distinct(table["id"]).as_py() != table.num_rows:
        counts = pc.value_counts(table["id"].combine_chunks())
        twice = next(item["values"] for item in counts.to_pylist() if item["counts"] > 1)
        raise InputError(f"the id {twice!r} is given more than once; ids must be unique")
    return table
