"""What became of the images of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from .store import Store

_MOST_FAILURES = 20
_ROWS = 1024


@dataclass(frozen=True)
class Summary:
    """What became of the images of a batch; the content of summary.json.

    Attributes:
        images: How many there are.
        with_masks: How many of them have masks.
        nothing_found: How many have none.
        failed: How many failed.
        failures: Id and error of the first 20 that failed.
        seconds: How long this run took; 0 if all was done before it.
        segmented: How many images this run segmented.
    """

    images: int
    with_masks: int
    nothing_found: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    seconds: float = 0.0
    segmented: int = 0


def summarise(store: Store, *, seconds: float, segmented: int) -> Summary:
    """Count the results, a part at a time."""
    import pyarrow.compute as pc

    images = failed = with_masks = 0
    failures: list[tuple[str, str]] = []
    scanned = store.dataset().to_batches(columns=["id", "error", "masks"], batch_size=_ROWS)
    for batch in scanned:
        images += batch.num_rows
        broken = pc.is_valid(batch["error"])
        failed += pc.sum(broken).as_py() or 0
        found = pc.greater(pc.list_value_length(batch["masks"]), 0)
        with_masks += pc.sum(found).as_py() or 0
        for row in batch.select(["id", "error"]).filter(broken).to_pylist():
            failures.append((row["id"], row["error"]))
        failures = sorted(failures)[:_MOST_FAILURES]
    return Summary(
        images=images,
        with_masks=with_masks,
        nothing_found=images - failed - with_masks,
        failed=failed,
        failures=tuple(failures),
        seconds=round(seconds, 3),
        segmented=segmented,
    )
