"""The rows of a batch as Ray Data reads them: block by block. It imports Ray."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pyarrow as pa
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask


class Blocks(Datasource):
    """Rows in blocks, each of which becomes one file of results and one checkpoint.

    Args:
        table: All rows.
        rows: Of each block.
    """

    def __init__(self, table: pa.Table, rows: int) -> None:
        super().__init__()
        self._table = table
        self._starts = range(0, table.num_rows, rows)
        self._rows = rows

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self._starts)

    def get_name(self) -> str:
        return "Batch"

    def estimate_inmemory_data_size(self) -> int | None:
        return int(self._table.nbytes)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        tasks = []
        for start in self._starts:
            stop = min(start + self._rows, self._table.num_rows)
            # A copy: a slice would be sent with all of the table's memory.
            block = self._table.take(pa.array(range(start, stop)))
            metadata = BlockMetadata(
                num_rows=block.num_rows, size_bytes=block.nbytes, input_files=None, exec_stats=None
            )
            read = partial(_read, block)
            tasks.append(ReadTask(read, metadata, per_task_row_limit=per_task_row_limit))
        return tasks


def _read(block: pa.Table) -> Iterable[pa.Table]:
    return [block]
