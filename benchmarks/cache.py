"""What a cache on disk gains: two phrases on the same pictures, with and without.

    python benchmarks/cache.py [FOLDER]

FOLDER holds pictures; without one, parts of scikit-image's photographs are taken. Each run is a
process of its own, as with the command line. Times are of the queries alone, loading left out;
beside the time on the clock stands that of the processor, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import promptseg
from promptseg.pipeline.images import load_image

_SIDE = 400
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def main() -> None:
    """Measure and print a table; with --phrase, one run of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=50, help="most pictures")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--phrases", nargs=2, default=["person", "cat"])
    parser.add_argument("--phrase", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.phrase is not None:
        print(
            json.dumps(run(given.folder, given.pictures, given.preset, given.phrase, given.cache))
        )
        return
    with tempfile.TemporaryDirectory() as work:
        folder = given.folder or make_pictures(Path(work) / "pictures", given.pictures)
        cache = Path(work) / "cache"
        first, second = given.phrases
        print("| run | seconds | of the processor | pictures a second |")
        print("|---|---|---|---|")
        found = {}
        for title, phrase, place in (
            (f"{first!r}, no cache", first, None),
            (f"{second!r}, no cache", second, None),
            (f"{first!r}, an empty cache", first, cache),
            (f"{second!r}, the cache filled", second, cache),
        ):
            command = [sys.executable, __file__, str(folder), "--phrase", phrase]
            command += ["--pictures", str(given.pictures), "--preset", given.preset]
            command += [] if place is None else ["--cache", str(place)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            pictures, wall, processor, masks = json.loads(done.stdout)
            found[title] = processor, masks
            print(f"| {title} | {wall:.2f} | {processor:.2f} | {pictures / wall:.1f} |")
        size = promptseg.EmbeddingCache(cache).size()
    (_, (before, masks), _, (after, again)) = found.values()
    assert masks == again, "the cache changed an answer"  # noqa: S101
    print(
        f"\nThe second phrase takes 1/{before / after:.1f} of the processor's time with the cache"
    )
    print(
        f"that the first one filled: {size / 1e6:.0f} MB, {size / given.pictures / 1e6:.1f} each."
    )


def run(folder: Path, most: int, preset: str, phrase: str, cache: str | None) -> list[object]:
    """Ask one phrase of all pictures; return their number, both times, and all that was found."""
    pipe = promptseg.load(preset, cache=cache)
    pipe(np.zeros((64, 64, 3), np.uint8), phrase)  # loads the text encoder
    pictures = sorted(path for path in folder.iterdir() if path.is_file())[:most]
    wall, processor, masks = time.perf_counter(), time.process_time(), []
    for path in pictures:
        result = pipe(load_image(path), phrase)
        masks.append([mask.counts.decode() for mask in result.compact_masks])
    return [len(pictures), time.perf_counter() - wall, time.process_time() - processor, masks]


def make_pictures(folder: Path, number: int) -> Path:
    """Write parts of photographs as JPEG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    whole = [getattr(data, name)() for name in _PHOTOGRAPHS]
    for i in range(number):
        picture = whole[i % len(whole)]
        height, width = (min(side, _SIDE) for side in picture.shape[:2])
        y = int(rng.integers(picture.shape[0] - height + 1))
        x = int(rng.integers(picture.shape[1] - width + 1))
        part = Image.fromarray(picture[y : y + height, x : x + width])
        part.save(folder / f"{i:04d}.jpg", quality=95)
    return folder


if __name__ == "__main__":
    main()
