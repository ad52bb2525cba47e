"""Runs a batch by Ray Data: rows are read, segmented by workers, and written with checkpoints."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...models.errors import CheckpointError, InputError, PromptsegError
from .cluster import Cluster, connected, hushed
from .require import require_ray
from .sources import Source, read_source
from .store import SUMMARY_FILE, Store
from .summary import Summary, summarise
from .work import MAX_PIXELS, Work

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.prompters.reference.examples import ReferenceQuery
    from ...pipeline.query import Phrases
    from ...pipeline.tiling.layout import Tiles

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

# CPUs of the tasks that read rows and write files.
_FEW_CPUS = 0.05
_LOOK_SECONDS = 1.0
# Of a message of Ray, the line with the error of ours that caused it.
_OURS = re.compile(r"promptseg\.models\.errors\.(\w+): (.+)")


def segment(
    source: Source,
    out: str | Path,
    text: Phrases = None,
    *,
    negative_text: Phrases = None,
    reference: ReferenceQuery | None = None,
    negative_reference: ReferenceQuery | None = None,
    min_presence: float | None = None,
    top_k: int | None = None,
    min_score: float | None = None,
    no_overlap: bool | None = None,
    tiles: Tiles | None = None,
    preset: str = "pocket",
    device: str | None = None,
    dtype: str = "auto",
    weights: str | None = None,
    strategy: str | None = None,
    cache: str | None = None,
    cache_gb: float | None = None,
    max_pixels: int = MAX_PIXELS,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Segment many images into Parquet files; go on where an earlier call of the same was stopped.

    Every image becomes one row, a broken one with its error. Rows that are written are never
    written again: call it again after a crash, or when the source has grown.

    Args:
        source: A folder, a pattern, a list of images or a Parquet manifest, local or a URI; see
            :func:`~promptseg.apps.batch.sources.read_source`.
        out: Folder or URI of the results.
        text: As for a :class:`~promptseg.pipeline.pipeline.Pipeline`, like the next eight. Columns
            of a manifest stand in place of them.
        negative_text: Phrases whose masks are not wanted.
        reference: Examples of what to look for, encoded or not.
        negative_reference: Examples of what not to find.
        min_presence: Minimum presence.
        top_k: Maximum number of masks for each phrase.
        min_score: Minimum score of a mask.
        no_overlap: Whether each pixel goes to the best of the masks that cover it.
        tiles: "auto" or (height, width) in pixels: also look at overlapping tiles of each image.
            TIFFs are then read tile by tile, whatever their size.
        preset: As for ``promptseg.load``, like the next five.
        device: Where the models run; by default "cuda" for workers with GPUs, else "cpu".
        dtype: Precision of the models.
        weights: Folder with weights, which every machine has under this name.
        strategy: How examples are matched.
        cache: Folder for encoded images, which every machine has under this name.
        cache_gb: Most gigabytes in it.
        max_pixels: Images with more are refused before they are decoded.
        cluster: Where it runs; by default on this machine.
        progress: Called about once a second with the number of images done and the total.

    Raises:
        InputError: The source or the query makes no sense, another run is in ``out``, the cluster
            cannot be reached, or Ray is not installed.
        CheckpointError: Weights are missing.
        PromptsegError: The run failed; what is written stays.
    """
    require_ray()
    from ...pipeline.presets.catalog import get_preset
    from ...pipeline.query import Query

    get_preset(preset)
    cluster = cluster or Cluster()
    query = Query(
        text,
        negative_text=negative_text,
        reference=reference,
        negative_reference=negative_reference,
        min_presence=min_presence,
    )
    models: dict[str, Any] = {
        "preset": preset,
        "device": device or ("cuda" if cluster.gpus_per_worker else "cpu"),
        "dtype": dtype,
        "weights": weights,
        "strategy": strategy,
    }
    ranking = {"top_k": top_k, "min_score": min_score, "no_overlap": no_overlap}
    kept = {"cache": cache, "cache_gb": cache_gb} if cache is not None else {}
    work = Work(query, ranking, {**models, **kept}, max_pixels, cluster.cpus_per_worker, tiles)
    store = Store(out)
    table = read_source(source, store.out)
    _check_asked(query, table)
    asked = {
        "version": __version__,
        **models,
        "tiles": tiles,
        "text": query.text,
        "negative_text": query.negative_text,
        "references": [_digest(item) for item in query.reference],
        "negative references": [_digest(item) for item in query.negative_reference],
        "labels": list(dict.fromkeys([*query.text, *(item.label for item in query.reference)])),
        "min_presence": query.min_presence,
        **ranking,
    }
    with store.held():
        store.begin(asked)
        began = time.perf_counter()
        left = _left(table, store)
        if left.num_rows:
            _run(left, table.num_rows, work, cluster, store, progress)
        elif progress is not None:
            progress(table.num_rows, table.num_rows)
        seconds = time.perf_counter() - began if left.num_rows else 0.0
        summary = summarise(store, seconds=seconds, segmented=left.num_rows)
        store.write_json(SUMMARY_FILE, asdict(summary))
    return summary


def _check_asked(query: Any, table: pa.Table) -> None:
    """Refuse a batch that looks for nothing."""
    asks = {"text", "points", "boxes"} & set(table.column_names)
    if not (query.finds or asks):
        raise InputError(
            "say what to look for: give text, a reference, or a manifest with a column text, "
            "points or boxes"
        )


def _left(table: pa.Table, store: Store) -> pa.Table:
    """Return the rows that are not done."""
    import pyarrow.compute as pc

    done = store.done_ids()
    if not len(done):
        return table
    return table.filter(pc.invert(pc.is_in(table["id"], value_set=done.combine_chunks())))


def _run(
    left: pa.Table,
    total: int,
    work: Work,
    cluster: Cluster,
    store: Store,
    progress: Progress | None,
) -> None:
    """Run Ray Data on some rows."""
    with connected(cluster):
        import ray
        from ray.data.checkpoint import CheckpointConfig
        from ray.exceptions import RayError

        from .blocks import Blocks
        from .worker import Worker

        memory = cluster.memory(work.preset, work.max_pixels)
        workers = cluster.most_workers(memory)
        blocks = Blocks(left, cluster.rows_at_once(left.num_rows, workers))
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        checkpoints = CheckpointConfig(
            id_column="id",
            checkpoint_path=store.checkpoint,
            delete_checkpoint_on_success=False,
            override_filesystem=store.filesystem,
        )
        # Only ids of rows that are left are read; the filter that Ray puts there needs little.
        checkpoints.checkpoint_actor_memory_bytes = 2**26
        context.checkpoint_config = checkpoints
        store.filesystem.create_dir(store.results, recursive=True)
        with hushed(), ray.data.DataContext.current(context), _watched(store, total, progress):
            rows = ray.data.read_datasource(
                blocks, override_num_blocks=blocks.count, num_cpus=_FEW_CPUS
            )
            found = rows.map_batches(
                Worker,
                fn_constructor_args=(work,),
                batch_size=cluster.batch_size,
                batch_format="pyarrow",
                # All at once, but the batch also goes on with one.
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=workers, initial_size=workers
                ),
                num_cpus=cluster.worker_cpus(),
                num_gpus=cluster.gpus_per_worker or None,
                memory=memory,
                udf_modifying_row_count=False,
            )
            try:
                found.write_parquet(
                    store.results,
                    filesystem=store.filesystem,
                    ray_remote_args={"num_cpus": _FEW_CPUS},
                )
            except RayError as error:
                raise _told(error, store) from error


@contextmanager
def _watched(store: Store, total: int, progress: Progress | None) -> Iterator[None]:
    """Tell the progress, which is what is committed, while the context lasts."""
    if progress is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while True:
            try:
                progress(min(store.done(), total), total)
            except OSError:
                logger.debug("the checkpoints cannot be listed", exc_info=True)
            if ended.wait(_LOOK_SECONDS):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    progress(min(store.done(), total), total)


def _told(error: Exception, store: Store) -> PromptsegError:
    """Return a failure of Ray on one line: the error of ours that caused it, if one did."""
    ours = _OURS.findall(str(error))
    if ours:
        kind, text = ours[-1]
        kinds = {"CheckpointError": CheckpointError, "InputError": InputError}
        return kinds.get(kind, PromptsegError)(text)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[-1] if lines else type(error).__name__)[:300]
    return PromptsegError(
        f"the batch failed ({type(error).__name__}: {reason}); the same command continues from the "
        f"{store.done()} images that are done"
    )


def _digest(reference: Any) -> str:
    """Return a hash of an example, encoded or not."""
    from ...pipeline.prompters.reference.examples import Reference

    digest = hashlib.sha256(reference.label.encode())
    parts: Sequence[Any]
    if isinstance(reference, Reference):
        marks = reference.marks
        parts = (reference.image, reference.mask, marks.points, marks.boxes)
    else:
        shots = (*reference.shots, *reference.negatives)
        parts = [x.cpu().numpy() for shot in shots for x in (shot.features.tokens, shot.coverage)]
    for part in parts:
        digest.update(b"-" if part is None else f"{part.shape}".encode() + part.tobytes())
    return digest.hexdigest()
