"""What is done with every image of a batch: query, models and limits, in a form that pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import InputError
from ...pipeline.tiling.layout import LEAST_SIDE, Tiles, read_tiles

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline
    from ...pipeline.prompters.reference.examples import EncodedReference
    from ...pipeline.query import Query

MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Work:
    """What every worker does.

    Attributes:
        query: What to look for in images whose rows do not say otherwise.
        ranking: ``top_k``, ``min_score`` and ``no_overlap``, as for a pipeline's ``rank``.
        models: Keywords of :func:`~promptseg.pipeline.presets.load.load`, as JSON can hold them.
        max_pixels: Larger images are refused before they are decoded.
        threads: Threads that a worker's networks use on a CPU.
        tiles: "auto" or the (height, width) of tiles that images are looked at in; None for none.
    """

    query: Query
    ranking: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS
    threads: int = 1
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise InputError(f"max_pixels must be 1 or more, not {self.max_pixels}")
        if self.tiles is not None:
            read_tiles(self.tiles, LEAST_SIDE)

    @property
    def preset(self) -> str:
        """Name of the preset."""
        return str(self.models.get("preset", "pocket"))

    def load(self) -> tuple[Pipeline, Work]:
        """Load the pipeline, and encode the examples once for all images."""
        from ...pipeline.cache.store import EmbeddingCache
        from ...pipeline.presets.load import load

        models = dict(self.models)
        cache, size = models.pop("cache", None), models.pop("cache_gb", None)
        make = partial(load, cache=None if cache is None else _cache(EmbeddingCache, cache, size))
        pipeline = make(**models)
        query = self.query.with_references(
            _encoded(pipeline, self.query.reference),
            _encoded(pipeline, self.query.negative_reference),
        )
        return pipeline, replace(self, query=query)

    def query_of(self, row: Mapping[str, Any]) -> Query:
        """Return the query of one image; what its row says stands in place of the batch's.

        Raises:
            InputError: Values of the row make no sense.
        """
        from ...pipeline.query import Query

        own = {name: value for name, value in row.items() if value is not None}
        if not own.keys() & {"text", "negative_text", "points", "boxes", "min_presence"}:
            return self.query
        base = self.query
        marks = base.marks
        return Query(
            own.get("text", base.text or None),
            negative_text=own.get("negative_text", base.negative_text or None),
            reference=base.reference or None,
            negative_reference=base.negative_reference or None,
            points=own.get("points", marks.points if len(marks.points) else None),
            point_labels=own.get(
                "point_labels",
                marks.point_labels if len(marks.points) and "points" not in own else None,
            ),
            boxes=own.get("boxes", marks.boxes if len(marks.boxes) else None),
            min_presence=own.get("min_presence", base.min_presence),
        )


def _cache(kind: Any, folder: str, size: float | None) -> Any:
    return kind(Path(folder)) if size is None else kind(Path(folder), max_gb=size)


def _encoded(pipeline: Pipeline, references: Any) -> tuple[EncodedReference, ...]:
    """Encode examples, those of one label together."""
    by_label: dict[str, list[Any]] = {}
    for reference in references:
        by_label.setdefault(reference.label, []).append(reference)
    return tuple(pipeline.encode_reference(group) for group in by_label.values())
