"""Measure a pipeline on annotated pictures; the tasks are in `tasks/`.

Objects that cover less than 1% of their picture do not count. A run writes a line per picture as
it goes and skips pictures that are already in the file, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from ... import __version__
from ...models.errors import InputError
from ..journal import Journal
from .rows import read_entry
from .tasks.base import Row, Shown, Task
from .tasks.boxes import BoxTask
from .tasks.everything import EverythingTask
from .tasks.points import PointTask
from .tasks.reference import ReferenceTask
from .tasks.text import TextTask

TASKS: Mapping[str, type[Task]] = MappingProxyType(
    {task.name: task for task in (TextTask, PointTask, BoxTask, ReferenceTask, EverythingTask)}
)

Figures = dict[str, dict[str, float]]

_REMEDY = "delete the file to measure again, or give another --json"


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
    """Measure every picture; return all rows, each with its picture's name and source.

    Pictures that cannot be read are skipped and added to the collection's ``skipped``.

    Args:
        task: What is measured, and on what.
        store: Journal with a line per picture; pictures in it are not measured again.
        about: What else the rows depend on, such as the preset and its weights. A journal of a
            run that differs in this, in the task, the version or the settings, is refused.
        advance: Called after each picture.

    Raises:
        InputError: The journal belongs to another run, or no picture can be read.
    """
    journal, known = _open_journal(store, task, about)
    rows: list[Row] = []
    failures: list[InputError] = []
    for picture in task.collection.pictures:
        found = known.get(picture.name)
        if found is None:
            try:
                found = task.measure(picture)
            except InputError as error:
                failures.append(error)
                advance()
                continue
            if journal is not None:
                journal.append({"name": picture.name, "rows": found})
        rows += [{"source": picture.source, "picture": picture.name, **row} for row in found]
        advance()
    if failures and len(failures) == len(task.collection.pictures):
        raise failures[0]
    for failure in failures:
        task.collection.skipped.add(failure)
    return rows


def weights_fingerprint() -> str:
    """SHA-256 of the weight files that come with the package, by name and content."""
    from ...pipeline.presets.pocket import WEIGHTS

    digest = hashlib.sha256()
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _open_journal(
    path: Path | None, task: Task, about: Mapping[str, str]
) -> tuple[Journal | None, dict[str, list[Row]]]:
    """Return the journal, ready to be added to, and the rows that it has, by picture."""
    if path is None:
        return None, {}
    journal = Journal(path, "header", _describe_run(task, about), _REMEDY)
    known = dict(journal.read(partial(read_entry, task.name)))
    journal.write({"name": name, "rows": rows} for name, rows in known.items())
    return journal, known


def _describe_run(task: Task, about: Mapping[str, str]) -> dict[str, str]:
    """Everything that rows depend on besides the pictures; rows of other runs must not mix in."""
    settings = _configs("pipe", task.pipe)
    return {
        "task": task.name,
        **about,
        "version": __version__,
        "settings": hashlib.sha256("\n".join(settings).encode()).hexdigest(),
        **task.depends_on(),
    }


def _configs(name: str, part: object, depth: int = 2) -> list[str]:
    """Settings of the pipeline, its prompters and their strategies."""
    if not hasattr(part, "__dict__"):
        return []
    found = [f"{name} {part.config!r}"] if hasattr(part, "config") else []
    if depth:
        for key, value in sorted(vars(part).items()):
            found += _configs(f"{name}.{key}", value, depth - 1)
    return found


def figures_by_source(task: Task, rows: Sequence[Row]) -> Figures:
    """Figures by source, and of all rows under "all"; empty if there are no rows."""
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
    """Predict the worst rows again to show them, worst first.

    Args:
        task: The task that measured them.
        rows: Rows of :func:`evaluate`.
        count: At most this many.

    Raises:
        InputError: A picture cannot be read, or the rows do not fit the pictures.
    """
    worst = task.worst(rows, count)
    by_picture: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(worst):
        by_picture[row["picture"]].append(i)
    pictures = {picture.name: picture for picture in task.collection.pictures}
    shown: dict[int, Shown] = {}
    for name, numbers in by_picture.items():
        try:
            again = task.show(pictures[name], [worst[i] for i in numbers])
        except (LookupError, StopIteration) as error:  # rows that were altered
            raise InputError(f"the rows of {name!r} are not of this picture; {_REMEDY}") from error
        shown |= dict(zip(numbers, again, strict=True))
    return [shown[i] for i in range(len(worst))]
