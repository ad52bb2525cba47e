"""Tiles on mosaics of photographs: objects across seams, and answers to absent phrases.

    python benchmarks/tiles.py DATA [--split dev] [--source voc] [--mosaics 4] [--gates] \
        [--looks FOLDER]

DATA is a folder in the layout of docs/data.md. Each mosaic is 6 x 6 photographs of 448 x 336 pixels
without some of the phrases, so that these are absent from all of it. Every phrase of the source is
asked of each photograph alone, of the mosaic as one picture, and of the mosaic in tiles; with
--gates also with the gate of a single look, with the whole picture's veto, and with gates raised by
other log-odds for each doubling of the looks. Printed are, for each way,

- the share of absent phrases that are answered by nothing;
- of the phrases that a photograph does not show, the share of which nothing is found in its place;
- of the phrases that a photograph shows, the share found there, with an IoU of a tenth or more
  (less is the rim of what is found beside it), and the mean IoU of what is found in the place of
  the photograph with what the phrase means there, 0 where nothing is found;
- the same IoU of what is found both alone and in this way, and of the best single mask, for objects
  that no tile shows whole.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import promptseg
from promptseg.apps.evaluation.index_folder import VOID, Sample, read_index
from promptseg.models.errors import InputError
from promptseg.pipeline import Proposals, Result
from promptseg.pipeline.checks import UInt8Array
from promptseg.pipeline.files import write_whole
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
# Least IoU of what is found.
FOUND = 0.1
# Log-odds for each doubling of the looks.
OTHERS = (0.5, 0.75, 1.0)
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


@dataclass(frozen=True)
class Mosaic:
    """Photographs side by side.

    Attributes:
        pixels: (H, W, 3).
        shown: What phrases mean in its places.
        unshown: For each place, the phrases that its photograph does not show.
        absent: Phrases that none of them shows.
        phrases: All that are asked.
    """

    pixels: UInt8Array
    shown: list[Shown]
    unshown: dict[Box, list[str]]
    absent: list[str]
    phrases: list[str]


@dataclass
class Tally:
    """Figures of one way of asking."""

    empty: list[bool] = field(default_factory=list)
    clean: list[bool] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)


class Looks:
    """Looks at pictures, each picture once with a gate that lets all pass; others filter that.

    Args:
        pipe: Looks.
        phrases: What for.
        folder: Keeps what is found; None for this mosaic only.
    """

    def __init__(
        self, pipe: promptseg.Pipeline, phrases: Sequence[str], folder: Path | None = None
    ) -> None:
        self.pipe = pipe
        self.query = promptseg.Query(phrases)
        self.folder = folder
        self._seen: dict[str, tuple[Proposals, dict[str, float]]] = {}

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
        about = f"{pixels.shape}{'|'.join(self.query.text)}".encode()
        key = hashlib.sha1(pixels.tobytes() + about).hexdigest()
        if key not in self._seen:
            path = None if self.folder is None else self.folder / key
            if path is not None and path.is_file():
                self._seen[key] = pickle.loads(path.read_bytes())
                return self._seen[key]
            self._seen[key] = self._look(pixels)
            if path is not None:
                write_whole(path, pickle.dumps(self._seen[key]))
        return self._seen[key]

    def _look(self, pixels: UInt8Array) -> tuple[Proposals, dict[str, float]]:
        embedding = self.pipe.encode_image(pixels)
        prompter = self.pipe.text_prompter
        if prompter is None:
            raise InputError("the preset takes no text")
        presences = prompter.presence(embedding, self.query.text)
        found = replace(self.pipe.propose(embedding, self.query), image=None, rejected=())
        return found, dict(zip(self.query.text, presences, strict=True))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--source", default="voc")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--mosaics", type=int, default=4)
    parser.add_argument("--absent", type=int, default=6, help="phrases that a mosaic lacks")
    parser.add_argument("--gates", action="store_true", help="compare other gates, which is slow")
    parser.add_argument("--looks", type=Path, help="folder that keeps looks for other runs")
    arguments = parser.parse_args()
    pipe = promptseg.load("pocket")
    side = pipe.segmenter.model.image_size
    tallies: dict[str, Tally] = defaultdict(Tally)
    across: list[bool] = []
    started = time.perf_counter()
    mosaics = make_mosaics(arguments, side)
    for number, mosaic in enumerate(mosaics):
        looks = Looks(pipe, mosaic.phrases, arguments.looks)
        answers = answer(pipe, looks, mosaic.pixels, side, gates=arguments.gates)
        for way, result in answers.items():
            add(tallies[way], result, mosaic)
        add_alone(tallies[ALONE], pipe, looks, mosaic)
        across += [item.across for item in mosaic.shown]
        print(f"{number + 1} mosaics, {time.perf_counter() - started:.0f} s", flush=True)
        report(tallies, np.array(across))


def make_mosaics(arguments: argparse.Namespace, side: int) -> Iterator[Mosaic]:
    """Yield mosaics."""
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
        unshown: dict[Box, list[str]] = {}
        for place, i in enumerate(rng.permutation(len(fit))[: ROWS * COLUMNS].tolist()):
            y, x = (place // COLUMNS) * HEIGHT, (place % COLUMNS) * WIDTH
            box = x, y, x + WIDTH, y + HEIGHT
            cut(pixels, box)[...] = _resized(load_image(fit[i].image_path))
            shown += _shown(fit[i], box, lay_tiles(size, (side, side)), size)
            unshown[box] = [phrase for phrase in phrases if phrase not in fit[i].labels]
        yield Mosaic(pixels, shown, unshown, absent.tolist(), phrases)


def answer(
    pipe: promptseg.Pipeline,
    looks: Looks,
    pixels: UInt8Array,
    side: int,
    *,
    gates: bool,
) -> dict[str, Result]:
    """Return the answers of each way of asking a mosaic."""
    ranking = pipe.config.ranking
    picture = InMemory(pixels)

    def tiled(by: float, confirm: bool = True) -> Result:
        config = TilingConfig(stricter_by_look=by, confirm=confirm)
        return rank(find_in_tiles(picture, looks, (side, side), config=config), ranking)

    own = pipe.config.tiling.stricter_by_look
    whole, presence = looks.see(np.ascontiguousarray(pixels))
    answers = {WHOLE: rank(whole, ranking), f"{own:g} for each doubling": tiled(own)}
    if gates:
        plain = tiled(0.0)
        least = pipe.text_prompter.gate.least if pipe.text_prompter else 0.0
        vetoed = [i for i, label in enumerate(plain.labels) if presence[label] >= least]
        answers |= {PLAIN: plain, VETO: plain[vetoed]}
        answers |= {f"{by:g} for each doubling": tiled(by) for by in OTHERS if by != own}
        answers[f"{own:g}, kept if not found again"] = tiled(own, confirm=False)
    return answers


def add(tally: Tally, result: Result, mosaic: Mosaic) -> None:
    """Count an answer to a mosaic."""
    tally.empty += [phrase not in result.labels for phrase in mosaic.absent]
    found = list(zip(result.compact_masks, result.labels, strict=True))
    for place, phrases in mosaic.unshown.items():
        there = {
            label
            for mask, label in found
            if label in phrases and 2 * np.count_nonzero(mask.window(place)) > mask.area
        }
        tally.clean += [phrase not in there for phrase in phrases]
    for item in mosaic.shown:
        masks = [mask.window(item.place) for mask, label in found if label == item.phrase]
        _measure(tally, masks, item)


def add_alone(tally: Tally, pipe: promptseg.Pipeline, looks: Looks, mosaic: Mosaic) -> None:
    """Count the answers to each photograph of a mosaic."""
    found = {}
    for place, phrases in mosaic.unshown.items():
        pixels = np.ascontiguousarray(cut(mosaic.pixels, place))
        found[place] = rank(looks(pixels, 0.0), pipe.config.ranking)
        tally.empty += [phrase not in found[place].labels for phrase in mosaic.absent]
        tally.clean += [phrase not in found[place].labels for phrase in phrases]
    for item in mosaic.shown:
        result = found[item.place]
        own = [mask.full() for mask, label in zip(result.compact_masks, result.labels, strict=True)
               if label == item.phrase]  # fmt: skip
        _measure(tally, own, item)


def report(tallies: dict[str, Tally], across: NDArray[np.bool_]) -> None:
    """Print the table so far."""
    alone = np.array(tallies[ALONE].ious)
    print(f"{across.size} phrases shown, {across.sum()} across seams")
    print("| | absent: empty | not shown there: empty | shown: found | IoU | IoU, both find it "
          "| across seams: IoU, alone | across: one mask, alone |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for way, tally in tallies.items():
        ious, best = np.array(tally.ious), np.array(tally.best)
        both = (ious >= FOUND) & (alone >= FOUND)
        seams = both & across
        own_best = np.array(tallies[ALONE].best)
        print(
            f"| {way} | {np.mean(tally.empty):.1%} of {len(tally.empty)} "
            f"| {np.mean(tally.clean):.1%} of {len(tally.clean)} | {np.mean(ious >= FOUND):.1%} "
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
