"""Measure a pipeline on pictures with region masks; the tasks are in `tasks/`.

Objects of less than 1% of their picture do not count. A run writes a line a picture as it goes
and leaves out the pictures that are already there, so that an interrupted run can go on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ... import __version__
from ...models.errors import InputError
from .row_store import Row, RowStore
from .tasks.base import Shown, Task
from .tasks.boxes import BoxTask
from .tasks.everything import EverythingTask
from .tasks.points import PointTask
from .tasks.reference import ReferenceTask
from .tasks.text import TextTask

TASKS: Mapping[str, type[Task]] = MappingProxyType(
    {task.name: task for task in (TextTask, PointTask, BoxTask, ReferenceTask, EverythingTask)}
)

Figures = dict[str, dict[str, float]]


def get_task(name: str) -> type[Task]:
    """Return a task's class by its name.

    Raises:
        InputError: There is no such task.
    """
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def evaluate(
    task: Task,
    *,
    store: Path | None = None,
    about: Mapping[str, str] = MappingProxyType({}),
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure every picture and give all rows, each with its picture's name and source.

    Args:
        task: What is measured, and on what.
        store: File of one JSON line a picture; pictures in it are not measured again.
        about: What else the rows depend on, such as the preset and its weights. A store of a
            run that differs in it, or in the task, the version or the settings, is refused.
        advance: Called after each picture.

    Raises:
        InputError: The store is of another run, or a picture cannot be read.
    """
    kept = None if store is None else RowStore(store, _describe_run(task, about))
    rows: list[Row] = []
    for picture in task.collection.pictures:
        found = None if kept is None else kept.rows.get(picture.name)
        if found is None:
            found = task.measure(picture)
            if kept is not None:
                kept.add(picture.name, found)
        rows += [{"source": picture.source, "picture": picture.name, **row} for row in found]
        advance()
    return rows


def _describe_run(task: Task, about: Mapping[str, str]) -> dict[str, str]:
    """All that rows depend on besides the pictures; rows of unlike runs must not mix."""
    settings = _configs("pipe", task.pipe)
    return {
        "task": task.name,
        **about,
        "version": __version__,
        "settings": hashlib.sha256("\n".join(settings).encode()).hexdigest(),
        **task.depends_on(),
    }


def _configs(name: str, part: object, depth: int = 2) -> list[str]:
    """Settings of the pipeline, of its prompters and of their strategies."""
    if not hasattr(part, "__dict__"):
        return []
    found = [f"{name} {part.config!r}"] if hasattr(part, "config") else []
    if depth:
        for key, value in sorted(vars(part).items()):
            found += _configs(f"{name}.{key}", value, depth - 1)
    return found


def figures_by_source(task: Task, rows: Sequence[Row]) -> Figures:
    """Figures by source, and of all rows under "all"; nothing if there are no rows."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["source"]].append(row)
    groups["all"] = list(rows)
    return {name: task.figures(group) for name, group in groups.items() if group}


def figures_by_class(task: Task, rows: Sequence[Row]) -> Figures:
    """Figures by class over all sources, in the order of their names."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "label" in row:
            groups[row["label"]].append(row)
    return {name: task.class_figures(groups[name]) for name in sorted(groups)}


def show_worst(task: Task, rows: Sequence[Row], count: int) -> list[Shown]:
    """Predict the worst rows again, to be looked at, worst first.

    Args:
        task: That measured them.
        rows: Of :func:`evaluate`.
        count: At most so many.
    """
    worst = task.worst(rows, count)
    by_picture: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(worst):
        by_picture[row["picture"]].append(i)
    pictures = {picture.name: picture for picture in task.collection.pictures}
    shown: dict[int, Shown] = {}
    for name, numbers in by_picture.items():
        again = task.show(pictures[name], [worst[i] for i in numbers])
        shown |= dict(zip(numbers, again, strict=True))
    return [shown[i] for i in range(len(worst))]
