"""Tables that the command line prints: results, presets, weights, models and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..console import visible
from ..wording import (
    describe_figure,
    describe_missing,
    describe_size,
    figure_names,
    main_reason,
    shorten,
)

if TYPE_CHECKING:
    from ...pipeline.result import RejectedMask, Result

_MOST_REJECTED = 8
_HINT = "--min-presence {} tries it anyway"
_SHORTEST_LABEL = 5


def describe_result(title: str, result: Result, phrases: Sequence[str]) -> RenderableType:
    """Return the table of masks, then what was not found and what was rejected.

    Args:
        title: The image's name.
        result: What was found in it.
        phrases: What was asked for.
    """
    parts: list[RenderableType] = []
    if len(result):
        parts.append(_masks_table(title, result))
    else:
        parts.append(Text(visible(title), style="bold"))
    missing = describe_missing(result, phrases, _HINT)
    parts.extend(Text(visible(line)) for line in missing)
    absent = [phrase for phrase in phrases if phrase not in result.labels]
    told = {id(main_reason(result, phrase)) for phrase in absent}
    others = [item for item in result.rejected if id(item) not in told]
    if others:
        parts.append(Text(f"rejected: {len(others)}", style="dim"))
        parts.extend(Text(_rejected_line(item), style="dim") for item in others[:_MOST_REJECTED])
        if len(others) > _MOST_REJECTED:
            more = len(others) - _MOST_REJECTED
            parts.append(Text(f"  ... and {more} more; --json lists all", style="dim"))
    return Group(*parts)


def presets_table(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Return the table of presets: name, description, the weights they need, state."""
    table = Table(title="presets", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    table.add_column("weights", overflow="fold")
    table.add_column("state", overflow="fold")
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    return table


def weights_table(rows: Iterable[tuple[str, str, int, str, str]]) -> Table:
    """Return the table of published weights: name, hub id, bytes, licence, state."""
    table = Table(title="weights", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name, and on the Hugging Face hub", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("licence", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name, repo, size, licence, state in rows:
        # A hub's name is copied, so it is never broken.
        cells = (f"{name}\n  {repo}", describe_size(size), licence, state)
        table.add_row(*(Text(value) for value in cells))
    return table


def models_table(rows: Iterable[tuple[str, str, int, str, str]]) -> Table:
    """Return the table of models: name, description, parameters, licence, weights."""
    table = Table(title="models", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("licence", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    table.add_column("weights", overflow="fold")
    for name, description, parameters, licence, weights in rows:
        millions = f"{parameters / 1e6:.1f} M"
        table.add_row(*(Text(v) for v in (name, millions, licence, description, weights)))
    return table


def figures_table(title: str, figures: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table of figures by source: a column per source, a row per figure."""
    table = _figures_frame(title, figures)
    for name in figure_names(figures):
        table.add_row(Text(name), *(_figure(group.get(name)) for group in figures.values()))
    return table


def classes_table(title: str, figures: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table of figures by class: a row per class, a column per figure."""
    names = figure_names(figures)
    table = _figures_frame(title, names)
    for label, group in figures.items():
        table.add_row(Text(visible(shorten(label))), *(_figure(group.get(name)) for name in names))
    return table


def _figures_frame(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(Text(heading), justify="right", overflow="fold")
    return table


def _figure(value: float | None) -> Text:
    return Text(describe_figure(value), no_wrap=True)


def _masks_table(title: str, result: Result) -> Table:
    height, width = result.image_size
    table = Table(
        title=Text(visible(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("#", justify="right", no_wrap=True)
    # The only column that may wrap, so that rich narrows it in a narrow terminal; its cells are cut
    # all the same, so that a mask takes one line.
    table.add_column("label", min_width=_SHORTEST_LABEL)
    for heading in ("score", "IoU", "stab.", "prompt", "area"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("box x0,y0,x1,y1", no_wrap=True)
    for i in range(len(result)):
        area = result.compact_masks[i].area / (height * width)
        cells = [
            str(i + 1),
            visible(shorten(result.labels[i])),
            f"{result.scores[i]:.2f}",
            f"{result.iou_predictions[i]:.2f}",
            f"{result.stability_scores[i]:.2f}",
            f"{result.prompt_scores[i]:.2f}",
            f"{area:.1%}",
            ",".join(f"{edge:.0f}" for edge in result.boxes_xyxy[i]),
        ]
        # Text, not str: a phrase such as "[red]" is not markup.
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    return table


def _rejected_line(item: RejectedMask) -> str:
    scores = [
        f"{name} {value:.2f}"
        for name, value in (
            ("score", item.score),
            ("IoU pred.", item.iou_prediction),
            ("stability", item.stability_score),
            ("prompt", item.prompt_score),
        )
        if value is not None
    ]
    return f"  '{visible(shorten(item.label))}': {item.reason} ({', '.join(scores)})"
