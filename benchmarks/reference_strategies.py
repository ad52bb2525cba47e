"""Compare the matching strategies, with one and with several examples, on the same decoder.

    python benchmarks/reference_strategies.py DATA [--split dev] [--source S] [--label L]
        [--pairs N] [--shots 1 5] [--strategy graph] [--without-text]

DATA is a folder in the layout of docs/data.md. Prints a Markdown table for each source: the figures
of `promptseg eval --task reference` on the same pairs, and milliseconds per pair once image and
examples are encoded. Further rows use the class's name alone, and the name with the examples; they
are left out for sources whose labels are not names, such as DAVIS.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

import promptseg
from promptseg.apps.evaluation.index_folder import read_index_collection
from promptseg.apps.evaluation.pictures import Collection, Picture
from promptseg.apps.evaluation.tasks.base import Row, Settings, open_picture
from promptseg.apps.evaluation.tasks.reference import Pair, ReferenceTask, judge
from promptseg.models.embedding import ImageEmbedding
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.prompters.reference.examples import EncodedReference
from promptseg.pipeline.prompters.reference.strategies import STRATEGIES
from promptseg.pipeline.result import Result

UNNAMED = frozenset({"davis"})
COLUMNS = ("mIoU", "mIoU of classes", "found if present", "empty if absent", "IL_MCC")

Ask = Callable[[ImageEmbedding, EncodedReference, str], Result]


@dataclass(frozen=True)
class Way:
    """A row of the table.

    Attributes:
        name: What sets it apart from the others.
        shots: Examples per pair.
        ask: Answers, given a target, the encoded examples and the class's name.
        named: Whether it uses the class's name.
    """

    name: str
    shots: int
    ask: Ask
    named: bool = False


def by_example(pipe: Pipeline) -> Ask:
    """A way of asking with the examples alone."""
    return lambda target, reference, label: pipe(target, reference=reference)


def by_name(pipe: Pipeline) -> Ask:
    """A way of asking with the name alone."""
    return lambda target, reference, label: pipe(target, text=label)


def by_both(pipe: Pipeline) -> Ask:
    """A way of asking with the name and the examples."""
    return lambda target, reference, label: pipe(
        target, text=label, reference=replace(reference, label=label)
    )


def ways_of(pipes: dict[str, Pipeline], shots: Sequence[int], *, text: bool) -> list[Way]:
    """All rows of the table; those that use the name run on the first pipeline."""
    name, first = next(iter(pipes.items()))
    rows = [
        Way(f"{strategy}, k = {k}", k, by_example(pipe))
        for strategy, pipe in pipes.items()
        for k in shots
    ]
    if text and first.text_prompter is not None:
        rows.append(Way("text only", shots[0], by_name(first), named=True))
        rows += [Way(f"text + {name}, k = {k}", k, by_both(first), named=True) for k in shots]
    return rows


def measure(
    ways: Iterable[Way],
    tasks: dict[int, ReferenceTask],
    pictures: Sequence[Picture],
    labels: Sequence[str] | None,
) -> dict[str, list[Row]]:
    """Result rows of all pairs, by way, each with the milliseconds that the answer took."""
    ways = list(ways)
    pipe = next(iter(tasks.values())).pipe
    rows: dict[str, list[Row]] = defaultdict(list)
    for picture in track(pictures, description="measuring", console=Console(stderr=True)):
        if not any(task.pairs[picture.name] for task in tasks.values()):
            continue
        image, truth = open_picture(picture)
        embedding = pipe.segmenter.encode_image(image)
        if any(way.named for way in ways):
            pipe(embedding, text="thing")  # cached, like the encoding: keeps it out of the timing
        for way in ways:
            if way.named and picture.source in UNNAMED:
                continue
            task = tasks[way.shots]
            for pair in chosen(task.pairs[picture.name], labels):
                reference = task.encode(pair.examples)
                started = time.perf_counter()
                found = way.ask(embedding, reference, pair.label)
                took = 1000 * (time.perf_counter() - started)
                row = judge(pair, found.masks, truth)
                rows[way.name].append({"source": picture.source, **row, "ms": took})
    return rows


def chosen(pairs: Iterable[Pair], labels: Sequence[str] | None) -> list[Pair]:
    """The pairs of the given classes; all pairs if ``labels`` is None."""
    return [pair for pair in pairs if labels is None or pair.label in labels]


def table(
    source: str, task: ReferenceTask, found: dict[str, list[Row]], names: Iterable[str]
) -> str:
    """A Markdown table for one source."""
    lines: list[str] = []
    for name in names:
        rows = [row for row in found[name] if row["source"] == source]
        if not rows:
            continue
        figures = task.figures(rows)
        if not lines:
            counts = f"{figures.get('pairs', 0)} pairs, {figures.get('absent', 0)} absent"
            lines.append(f"| {source} ({counts}) | {' | '.join(COLUMNS)} | ms |")
            lines.append("|---" * (len(COLUMNS) + 2) + "|")
        cells = [f"{figures[c]:.2f}" if c in figures else "" for c in COLUMNS]
        spent = sum(row["ms"] for row in rows) / len(rows)
        lines.append(f"| {name} | {' | '.join(cells)} | {spent:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that contains index.jsonl")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--source", action="append", help="use only this source (repeatable)")
    parser.add_argument("--label", action="append", help="use only this class (repeatable)")
    parser.add_argument("--pairs", type=int, help="maximum number of pairs per class")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument(
        "--strategy", choices=STRATEGIES, action="append", help="use only this one (repeatable)"
    )
    parser.add_argument(
        "--without-text", action="store_true", help="leave out the rows that use names"
    )
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--weights", help="folder with the preset's weights")
    arguments = parser.parse_args()
    pipes = {
        name: promptseg.load(arguments.preset, weights=arguments.weights, strategy=name)
        for name in arguments.strategy or STRATEGIES
    }
    every = read_index_collection(arguments.data, arguments.split)
    collection: Collection = replace(
        every,
        pictures=tuple(
            picture
            for picture in every.pictures
            if not arguments.source or picture.source in arguments.source
        ),
    )
    pipe = next(iter(pipes.values()))
    tasks = {
        k: ReferenceTask(pipe, collection, Settings(pairs=arguments.pairs, shots=k))
        for k in arguments.shots
    }
    ways = ways_of(pipes, arguments.shots, text=not arguments.without_text)
    found = measure(ways, tasks, collection.pictures, arguments.label)
    task = next(iter(tasks.values()))
    for source in dict.fromkeys(picture.source for picture in collection.pictures):
        print(table(source, task, found, [way.name for way in ways]))


if __name__ == "__main__":
    main()
