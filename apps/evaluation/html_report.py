"""One page for people about a measurement: figures, what scores are worth, the worst pictures.

The page is a single file that needs no network: its pictures are within it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ... import __version__
from ...pipeline.files import write_text
from ..console import visible
from ..wording import describe_figure, figure_names
from .contact_sheet import LEGEND, NO_FAILURES, draw_cell
from .reliability import calibration_error, draw_diagram, score_bins
from .tasks.base import Shown

_TEMPLATE = "report.html"
_PICTURE_SIDE = 360
_JPEG_QUALITY = 85


def write_report(
    path: Path,
    title: str,
    *,
    settings: Mapping[str, object],
    by_source: Mapping[str, Mapping[str, float]],
    by_class: Mapping[str, Mapping[str, float]],
    scored: Sequence[tuple[float, float]],
    shown: Sequence[Shown],
    skipped: int = 0,
) -> None:
    """Write the page of a measurement, whole or not at all; its folder is created if needed.

    Args:
        path: The HTML file.
        title: Its heading.
        settings: What was measured, by name; values that are None or empty are left out.
        by_source: Figures by source, and of all under "all".
        by_class: Figures by class.
        scored: Score and IoU of each mask that has both.
        shown: The worst cases, worst first.
        skipped: How many entries and images of the data did not count.

    Raises:
        OSError: It cannot be written.
    """
    bins = score_bins(scored)
    # StrictUndefined: a name that the template and this file do not share is a bug.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(_TEMPLATE).render(
        title=visible(title),
        version=__version__,
        settings={name: _describe(value) for name, value in settings.items() if value},
        sources=_by_figure(by_source),
        source_names=[visible(name) for name in by_source],
        classes=_by_group(by_class),
        class_figures=figure_names(by_class),
        bins=bins,
        calibration_error=calibration_error(bins) if bins else None,
        diagram=draw_diagram(bins) if bins else "",
        worst=[(visible(item.caption), _data_uri(item)) for item in shown],
        legend="; ".join(LEGEND),
        no_failures=NO_FAILURES,
        side=_PICTURE_SIDE,
        skipped=skipped,
    )
    write_text(path, page)


def _describe(setting: object) -> str:
    return visible(", ".join(setting) if isinstance(setting, list) else str(setting))


def _by_figure(groups: Mapping[str, Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """A row per figure, with a cell for each group."""
    return [
        (name, [describe_figure(group.get(name)) for group in groups.values()])
        for name in figure_names(groups)
    ]


def _by_group(groups: Mapping[str, Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """A row per group, with a cell for each figure."""
    names = figure_names(groups)
    return [
        (visible(label), [describe_figure(group.get(name)) for name in names])
        for label, group in groups.items()
    ]


def _data_uri(item: Shown) -> str:
    stream = io.BytesIO()
    draw_cell(item, _PICTURE_SIDE).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
