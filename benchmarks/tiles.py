"""Tiles on mosaics of photographs: objects across seams, and answers to absent phrases.

    python benchmarks/tiles.py DATA [--split dev] [--source voc] [--mosaics 4]

DATA is a folder in the layout of docs/data.md. Each mosaic is 6 x 6 photographs of 448 x 336 pixels
without some of the phrases, so that these are absent from all of it. Every phrase of the source is
asked of each photograph alone, of the mosaic as one picture, and of the mosaic in tiles: with the
gate of a single look, with the whole picture's veto, and with gates raised by some log-odds for
each doubling of the looks. Printed are, for each way,

- the share of absent phrases that are answered by nothing;
- of the phrases that a photograph shows, the share found there, and the mean IoU of what is found
  in the place of the photograph with what the phrase means there, 0 where nothing is found;
- the same IoU of what is found both alone and in this way, and of the best single mask, for objects
  that no tile shows whole.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import promptseg
from promptseg.apps.evaluation.index_folder import VOID, Sample, read_index
from promptseg.models.errors import InputError
from promptseg.pipeline import Proposals, Result
from promptseg.pipeline.checks import UInt8Array
from promptseg.pipeline.images import load_image
from promptseg.pipeline.masks import Box, cut, tight_box
from promptseg.pipeline.prompters.evidence import raised
from promptseg.pipeline.scoring.ranking import rank
from promptseg.pipeline.tiling.joining import is_cut
from promptseg.pipeline.tiling.layout import lay_tiles
from promptseg.pipeline.tiling.pictures import InMemory
from promptseg.pipeline.tiling.run import TilingConfig, find_in_tiles

ROWS = COLUMNS = 6
WIDTH, HEIGHT = 448, 336
ALONE, WHOLE, PLAIN, VETO = "alone", "as one picture", "gate of one look", "whole picture's veto"


@dataclass(frozen=True)
class Shown:
    """What a phrase means in a place of a mosaic.

    Attributes:
        phrase: The phrase.
        place: The box of the photograph in the mosaic.
        truth: (H, W) what the phrase means there.
        valid: (H, W) which pixels count.
        across: Whether no tile shows it whole.
    """

    phrase: str
    place: Box
    truth: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    across: bool


@dataclass
class Tally:
    """Figures of one way of asking."""

    empty: list[bool]
    ious: list[float]
    best: list[float]


class Looks:
    """Looks at pictures, each picture once with a gate that lets all pass; others filter that."""

    def __init__(self, pipe: promptseg.Pipeline, phrases: Sequence[str]) -> None:
        self.pipe = pipe
        self.query = promptseg.Query(phrases)
        self._seen: dict[bytes, tuple[Proposals, dict[str, float]]] = {}

    def __call__(self, pixels: UInt8Array, stricter: float) -> Proposals:
        """Return what a gate that is so many log-odds stricter lets pass."""
        found, presence = self.see(pixels)
        prompter = self.pipe.text_prompter
        if prompter is None:
            raise InputError("the preset takes no text")
        least = raised(prompter.gate.least, stricter)
        kept = [i for i, label in enumerate(found.labels) if presence[label] >= least]
        return found.part(kept)

    def see(self, pixels: UInt8Array) -> tuple[Proposals, dict[str, float]]:
        """Return what the pipeline's own gate lets pass, and each phrase's presence."""
        key = pixels.tobytes()
        if key not in self._seen:
            embedding = self.pipe.encode_image(pixels)
            prompter = self.pipe.text_prompter
            if prompter is None:
                raise InputError("the preset takes no text")
            presences = prompter.presence(embedding, self.query.text)
            found = replace(self.pipe.propose(embedding, self.query), image=None, rejected=())
            self._seen[key] = found, dict(zip(self.query.text, presences, strict=True))
        return self._seen[key]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--source", default="voc")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--mosaics", type=int, default=4)
    parser.add_argument("--absent", type=int, default=6, help="phrases that a mosaic lacks")
    parser.add_argument("--stricter", type=float, nargs="*", default=[0.5, 0.75, 1.0])
    arguments = parser.parse_args()
    pipe = promptseg.load("pocket")
    side = pipe.segmenter.model.image_size
    tallies: dict[str, Tally] = defaultdict(lambda: Tally([], [], []))
    across: list[bool] = []
    started = time.perf_counter()
    mosaics = make_mosaics(arguments, side)
    for number, (pixels, shown, absent, phrases) in enumerate(mosaics):
        looks = Looks(pipe, phrases)
        answers = answer(pipe, looks, pixels, side, arguments.stricter)
        for way, result in answers.items():
            add(tallies[way], result, shown, absent)
        add_alone(tallies[ALONE], pipe, looks, pixels, shown, absent)
        across += [item.across for item in shown]
        print(f"{number + 1} mosaics, {time.perf_counter() - started:.0f} s", flush=True)
        report(tallies, np.array(across))


def make_mosaics(
    arguments: argparse.Namespace, side: int
) -> Iterator[tuple[UInt8Array, list[Shown], list[str], list[str]]]:
    """Yield mosaics: pixels, what they show, the absent phrases, and all phrases."""
    every = read_index(arguments.data, arguments.split)
    samples = [s for s in every if s.source == arguments.source]
    phrases = sorted({r.label for s in samples for r in s.regions if r.thing is not False})
    rng = np.random.default_rng(0)
    size = ROWS * HEIGHT, COLUMNS * WIDTH
    for _ in range(arguments.mosaics):
        for _ in range(1000):
            absent = rng.choice(phrases, min(arguments.absent, len(phrases)), replace=False)
            fit = [s for s in samples if not s.labels & set(absent.tolist())]
            if len(fit) >= ROWS * COLUMNS:
                break
        else:
            raise InputError(f"{arguments.source!r} has too few pictures for a mosaic")
        pixels = np.empty((*size, 3), np.uint8)
        shown: list[Shown] = []
        for place, i in enumerate(rng.permutation(len(fit))[: ROWS * COLUMNS].tolist()):
            y, x = (place // COLUMNS) * HEIGHT, (place % COLUMNS) * WIDTH
            box = x, y, x + WIDTH, y + HEIGHT
            cut(pixels, box)[...] = _resized(load_image(fit[i].image_path))
            shown += _shown(fit[i], box, lay_tiles(size, (side, side)), size)
        yield pixels, shown, absent.tolist(), phrases


def answer(
    pipe: promptseg.Pipeline,
    looks: Looks,
    pixels: UInt8Array,
    side: int,
    stricter: Sequence[float],
) -> dict[str, Result]:
    """Return the answers of each way of asking a mosaic."""
    ranking = pipe.config.ranking
    picture = InMemory(pixels)

    def tiled(by: float, confirm: bool = True) -> Result:
        config = TilingConfig(stricter_by_look=by, confirm=confirm)
        return rank(find_in_tiles(picture, looks, (side, side), config=config), ranking)

    plain = tiled(0.0)
    whole, presence = looks.see(np.ascontiguousarray(pixels))
    least = pipe.text_prompter.gate.least if pipe.text_prompter else 0.0
    vetoed = [i for i, label in enumerate(plain.labels) if presence[label] >= least]
    answers = {WHOLE: rank(whole, ranking), PLAIN: plain, VETO: plain[vetoed]}
    for by in stricter:
        answers[f"{by:g} for each doubling"] = tiled(by)
    own = pipe.config.tiling.stricter_by_look
    answers[f"{own:g}, kept if not found again"] = tiled(own, confirm=False)
    return answers


def add(tally: Tally, result: Result, shown: Sequence[Shown], absent: Sequence[str]) -> None:
    """Count an answer to a mosaic."""
    tally.empty += [phrase not in result.labels for phrase in absent]
    for item in shown:
        masks = [
            mask.window(item.place)
            for mask, label in zip(result.compact_masks, result.labels, strict=True)
            if label == item.phrase
        ]
        _measure(tally, masks, item)


def add_alone(
    tally: Tally,
    pipe: promptseg.Pipeline,
    looks: Looks,
    pixels: UInt8Array,
    shown: Sequence[Shown],
    absent: Sequence[str],
) -> None:
    """Count the answers to each photograph of a mosaic."""
    places = [
        (x, y, x + WIDTH, y + HEIGHT)
        for y in range(0, pixels.shape[0], HEIGHT)
        for x in range(0, pixels.shape[1], WIDTH)
    ]
    found = {}
    for place in places:
        found[place] = rank(
            looks(np.ascontiguousarray(cut(pixels, place)), 0.0), pipe.config.ranking
        )
        tally.empty += [phrase not in found[place].labels for phrase in absent]
    for item in shown:
        result = found[item.place]
        own = [mask.full() for mask, label in zip(result.compact_masks, result.labels, strict=True)
               if label == item.phrase]  # fmt: skip
        _measure(tally, own, item)


def report(tallies: dict[str, Tally], across: NDArray[np.bool_]) -> None:
    """Print the table so far."""
    alone = np.array(tallies[ALONE].ious)
    print(f"{across.size} phrases shown, {across.sum()} across seams")
    print("| | absent: empty | shown: found | IoU | IoU, both find it | across seams: "
          "IoU, alone | across: one mask, alone |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for way, tally in tallies.items():
        ious, best = np.array(tally.ious), np.array(tally.best)
        both = (ious > 0) & (alone > 0)
        seams = both & across
        own_best = np.array(tallies[ALONE].best)
        print(
            f"| {way} | {np.mean(tally.empty):.1%} of {len(tally.empty)} | {np.mean(ious > 0):.1%} "
            f"| {ious.mean():.3f} | {ious[both].mean():.3f} ({alone[both].mean():.3f}) "
            f"| {ious[seams].mean():.3f} ({alone[seams].mean():.3f}) "
            f"| {best[seams].mean():.3f} ({own_best[seams].mean():.3f}) |",
            flush=True,
        )


def _measure(tally: Tally, masks: Sequence[NDArray[np.bool_]], item: Shown) -> None:
    union = np.zeros((HEIGHT, WIDTH), np.bool_)
    for mask in masks:
        union |= mask
    tally.ious.append(_iou(union, item))
    tally.best.append(max((_iou(mask, item) for mask in masks), default=0.0))


def _iou(mask: NDArray[np.bool_], item: Shown) -> float:
    both = int(np.count_nonzero(mask & item.truth & item.valid))
    return both / max(1, int(np.count_nonzero((mask | item.truth) & item.valid)))


def _shown(
    sample: Sample, place: Box, tiles: Sequence[Box], size: tuple[int, int]
) -> Iterator[Shown]:
    """Yield what the phrases of a photograph mean in its place."""
    ids = np.asarray(Image.fromarray(sample.load_ids()).resize((WIDTH, HEIGHT), 0))
    for label in sorted({r.label for r in sample.regions if r.thing is not False}):
        wanted = [i for r in sample.regions if r.label == label for i in r.ids]
        truth = np.isin(ids, wanted)
        if not truth.any():
            continue
        x0, y0, x1, y1 = tight_box(truth)
        box = x0 + place[0], y0 + place[1], x1 + place[0], y1 + place[1]
        whole = any(
            tile[0] <= box[0] and tile[1] <= box[1] and box[2] <= tile[2] and box[3] <= tile[3]
            and not is_cut(box, tile, size)
            for tile in tiles
        )  # fmt: skip
        yield Shown(label, place, truth, ids != VOID, not whole)


def _resized(image: UInt8Array) -> UInt8Array:
    return np.asarray(Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
