"""Compare ways to turn the answer for a phrase into masks, on the same decoder.

    python benchmarks/prompt_strategies.py DATA [--split dev] [--source S] [--limit N]
    python benchmarks/prompt_strategies.py DATA --preset base [--weights FOLDER]

DATA is a folder in the layout of docs/data.md. Prints a Markdown table that compares the masks for
classes that are present; the presence gate is off.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import promptseg
from promptseg.apps.evaluation.index_folder import read_index_collection
from promptseg.apps.evaluation.matching import iou_table, matched_ious
from promptseg.apps.evaluation.metrics import mask_iou
from promptseg.apps.evaluation.pictures import Picture, large
from promptseg.apps.evaluation.siblings import is_person
from promptseg.apps.evaluation.tasks.base import open_picture, union
from promptseg.apps.evaluation.tasks.text import LEAST_OBJECT
from promptseg.pipeline.config import PipelineConfig
from promptseg.pipeline.decoding.decode import DecodingConfig
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.prompters.heat_prompts import HeatPrompts
from promptseg.pipeline.prompters.text.gate import PresenceGate
from promptseg.pipeline.prompters.text.prompter import PromptMaker, TextPrompter

# For heat maps: the prompts of the first pass, and the number of refinement passes.
HEAT_ROWS = (
    (("points",), 1),
    (("boxes",), 1),
    (("masks",), 1),
    (("points", "boxes", "masks"), 1),
    (("points", "masks"), 0),
    (("points", "masks"), 1),
    (("points", "masks"), 2),
)


@dataclass(frozen=True)
class Strategy:
    """A row of the table.

    Attributes:
        name: What sets it apart from the others.
        maker: Turns the grounder's answers into prompts.
        config: How the prompts become masks.
    """

    name: str
    maker: PromptMaker[Any]
    config: PipelineConfig


def strategies(pipe: Pipeline) -> list[Strategy]:
    """The strategies that fit the answers of a preset's text prompter."""
    if pipe.text_prompter is None:
        raise SystemExit("this preset does not support text prompts")
    maker = pipe.text_prompter.maker
    if isinstance(maker, HeatPrompts):
        return heat_strategies(maker, pipe.config)
    return box_strategies(maker, pipe.config)


def box_strategies(maker: PromptMaker[Any], config: PipelineConfig) -> list[Strategy]:
    """For detectors: the single mask or the best of three, with and without refinement."""
    return [
        Strategy(
            f"boxes, {'best of three' if three else 'single mask'}, refined {passes}x",
            maker,
            replace(config, decoding=DecodingConfig(("boxes",), three, passes)),
        )
        for three in (False, True)
        for passes in (0, 1, 2)
    ]


def heat_strategies(maker: HeatPrompts, config: PipelineConfig) -> list[Strategy]:
    """For heat maps: prompts of the first pass and refinements, then which regions are prompted."""
    rows = [
        Strategy(
            f"{' + '.join(parts)}, refined {passes}x",
            maker,
            replace(config, decoding=DecodingConfig(parts, refine_passes=passes)),
        )
        for parts, passes in HEAT_ROWS
    ]
    one = HeatPrompts(maker.segmenter, replace(maker.config, min_peak=1.0))
    together = HeatPrompts(maker.segmenter, replace(maker.config, objects=None))
    return [
        *rows,
        Strategy("preset", maker, config),
        Strategy("preset, one region a phrase", one, config),
        Strategy("preset, touching objects as one", together, config),
    ]


def measure(
    pipe: Pipeline, pictures: Sequence[Picture], rows: Iterable[Strategy]
) -> dict[str, dict[str, list[float]]]:
    """IoU by strategy and column: the masks' union with the target, and objects with their masks.

    Milliseconds too, in a column of their own.
    """
    prompter = pipe.text_prompter
    if prompter is None:
        raise SystemExit("this preset does not support text prompts")
    variants = {
        row.name: Pipeline(
            pipe.segmenter,
            text_prompter=TextPrompter(prompter.grounder, row.maker, PresenceGate()),
            config=row.config,
        )
        for row in rows
    }
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in variants}
    for picture in track(pictures, description="measuring", console=Console(stderr=True)):
        image, truth = open_picture(picture)
        embedding = pipe.segmenter.encode_image(image)
        for target in large(truth.classes):
            column = "person" if is_person(target.label) else picture.source
            pipe(embedding, text=target.label)  # leaves the grounding out of the timing
            for name, variant in variants.items():
                started = time.perf_counter()
                result = variant(embedding, text=target.label)
                found[name]["ms"].append(1000 * (time.perf_counter() - started))
                found[name][column].append(mask_iou(union(result.masks), target.mask, truth.valid))
                meant = [t for t in truth.objects if t.label == target.label and t.single]
                meant = large(meant, LEAST_OBJECT)
                if len(meant) > 1:
                    own = matched_ious(iou_table(result.masks, meant, truth.valid))
                    found[name][f"{column}, each of several"] += own
    return found


def table(
    title: str, figures: Mapping[str, Mapping[str, Sequence[float]]], columns: Sequence[str]
) -> str:
    """A Markdown table of means; the row with the best mean, time excluded, comes first."""

    def mean(row: Mapping[str, Sequence[float]], column: str) -> float:
        return float(np.mean(row[column])) if row.get(column) else float("nan")

    def order(item: tuple[str, Mapping[str, Sequence[float]]]) -> float:
        return -float(np.nanmean([mean(item[1], c) for c in columns if c != "ms"]))

    some = next(iter(figures.values()))
    counts = [f"{c} ({len(some.get(c, ()))})" if c != "ms" else c for c in columns]
    lines = [f"| {title} | {' | '.join(counts)} |", "|---" * (len(columns) + 1) + "|"]
    digits: Callable[[str], str] = lambda c: ".0f" if c == "ms" else ".3f"  # noqa: E731
    lines += [
        f"| {name} | {' | '.join(format(mean(row, c), digits(c)) for c in columns)} |"
        for name, row in sorted(figures.items(), key=order)
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that contains index.jsonl")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--source", action="append", help="use only this source (repeatable)")
    parser.add_argument("--limit", type=int, help="maximum number of pictures")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--weights", help="folder with the preset's weights")
    arguments = parser.parse_args()
    pipe = promptseg.load(arguments.preset, weights=arguments.weights)
    collection = read_index_collection(arguments.data, arguments.split)
    pictures = [
        picture
        for picture in collection.pictures
        if not arguments.source or picture.source in arguments.source
    ][: arguments.limit]
    found = measure(pipe, pictures, strategies(pipe))
    columns = sorted({c for row in found.values() for c in row} - {"ms"})
    print(table("first pass, refinement", found, [*columns, "ms"]))


if __name__ == "__main__":
    main()
