"""The folder of a batch's results: what was asked, the results, Ray's checkpoints, a summary.

OUT/run.json      what was asked; a run that asks anything else is refused
OUT/results/      Parquet files
OUT/checkpoint/   Ray Data's record of the ids in them
OUT/summary.json  what became of the images
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import InputError
from ..exports.lock import FolderLock
from .filesystems import is_local, local_path, open_place

if TYPE_CHECKING:
    import pyarrow.dataset as ds

RESULTS, CHECKPOINT = "results", "checkpoint"
RUN_FILE, SUMMARY_FILE = "run.json", "summary.json"
_KEY = "promptseg_batch"
_PENDING = ".pending.parquet"
_LONGEST_SHOWN = 80


class Store:
    """The folder of a batch's results.

    Args:
        out: Folder or URI.

    Raises:
        InputError: It cannot be opened.
    """

    def __init__(self, out: str | Path) -> None:
        if not str(out).strip():
            raise InputError("--out is empty; name a folder or a URI")
        self.out = str(out)
        self.filesystem, self.path = open_place(self.out)
        self._rows: dict[str, int] = {}

    @property
    def results(self) -> str:
        """Path of the results on the file system."""
        return f"{self.path}/{RESULTS}"

    @property
    def checkpoint(self) -> str:
        """Path of the checkpoints on the file system."""
        return f"{self.path}/{CHECKPOINT}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process; elsewhere than on local disks, trust the caller."""
        if not is_local(self.out):
            yield
            return
        with FolderLock(Path(local_path(self.out))):
            yield

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Record what is asked, or make sure that the run whose results are here asked the same.

        Raises:
            InputError: The folder holds another run, or something else.
        """
        asked = json.loads(json.dumps(asked))  # as it is read back: tuples become lists
        before = self.read_json(RUN_FILE)
        if before is None and self._holds_others():
            raise InputError(
                f"{self.out!r} holds files that are not of a batch; give another --out"
            )
        if before is None or not self._committed():  # there is nothing to lose
            self.write_json(RUN_FILE, {_KEY: asked})
            return
        for key, now in asked.items():
            was = before.get(_KEY, {}).get(key)
            if was != now:
                raise InputError(
                    f"the batch in {self.out!r} asked for another {key}: {_show(was)}, not "
                    f"{_show(now)}; ask for the same, or give another --out"
                )

    def asked(self) -> dict[str, Any]:
        """Return what the run asked for.

        Raises:
            InputError: The folder is not of a batch.
        """
        found = (self.read_json(RUN_FILE) or {}).get(_KEY)
        if not isinstance(found, dict):
            raise InputError(f"{self.out!r} holds no batch; promptseg batch SOURCE --out makes one")
        return found

    def done(self) -> int:
        """Return the number of rows that are committed; what was counted before is not read."""
        import pyarrow.parquet as pq

        for path in self._committed():
            if path not in self._rows:
                with contextlib.suppress(OSError, ValueError):  # not whole yet: next time
                    metadata = pq.read_metadata(path, filesystem=self.filesystem)
                    self._rows[path] = metadata.num_rows
        return sum(self._rows.values())

    def done_ids(self) -> Any:
        """Return the ids of all rows that are committed, as an Arrow array."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [
            pq.read_table(path, columns=["id"], filesystem=self.filesystem)["id"].cast(pa.string())
            for path in self._committed()
        ]
        chunks = [chunk for table in tables for chunk in table.chunks]
        return pa.chunked_array(chunks, pa.string())

    def dataset(self) -> ds.Dataset:
        """Return all results.

        Raises:
            InputError: There are none.
        """
        import pyarrow.dataset as ds

        from .rows import schema

        paths = sorted(self._files(RESULTS))
        if not paths:
            raise InputError(f"there are no results in {self.out!r} yet")
        return ds.dataset(paths, schema(), format="parquet", filesystem=self.filesystem)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file of the folder; None if there is none.

        Raises:
            InputError: It is broken.
        """
        try:
            with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
                found = json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{name} in {self.out!r} cannot be read ({' '.join(str(error).split())})"
            ) from error
        if not isinstance(found, dict):
            raise InputError(f"{name} in {self.out!r} is not of a batch; give another --out")
        return found

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all.

        Raises:
            InputError: The folder cannot be written to.
        """
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        partial, path = f"{self.path}/.{name}.partial", f"{self.path}/{name}"
        try:
            self.filesystem.create_dir(self.path, recursive=True)
            with self.filesystem.open_output_stream(partial) as file:
                file.write(text.encode())
            self.filesystem.move(partial, path)
        except OSError as error:
            raise InputError(
                f"--out: {self.out!r} cannot be written to ({' '.join(str(error).split())})"
            ) from error

    def _committed(self) -> list[str]:
        return sorted(path for path in self._files(CHECKPOINT) if not path.endswith(_PENDING))

    def _files(self, folder: str) -> list[str]:
        return [info.path for info in self._entries(f"/{folder}") if info.path.endswith(".parquet")]

    def _holds_others(self) -> bool:
        return any(not info.base_name.startswith(".") for info in self._entries(""))

    def _entries(self, below: str) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path + below, allow_not_found=True)
        return list(self.filesystem.get_file_info(selector))


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
