"""Draw mistakes of the pocket preset on photographs that come with scikit-image.

python benchmarks/failures.py docs/images/failures.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from skimage import data

import promptseg
from promptseg.apps.evaluation.contact_sheet import draw_sheet, save_sheet
from promptseg.apps.evaluation.tasks.base import Shown

Box = tuple[float, float, float, float]
# Photograph, phrase or box, and what is wrong with the answer.
CASES: tuple[tuple[str, str | Box, str], ...] = (
    ("coffee", "spoon", "a small thing"),
    ("astronaut", "hair", "the face and the collar as well"),
    ("coffee", "cup", "the saucer for the cup"),
    ("coffee", "plate", "a word it lacks"),
    ("astronaut", (90.0, 30.0, 400.0, 511.0), "parts of a cluttered object"),
    ("astronaut", "helmet", "the suit's collar as well"),
    ("chelsea", "whiskers", "no word for the part"),
    ("astronaut", "man", "all words for people are one"),
)


def main() -> None:
    """Parse the arguments, run the queries and draw the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG to write")
    out = parser.parse_args().out
    pipe = promptseg.load("pocket", dtype="fp32")
    shown = []
    for name, query, wrong in CASES:
        image = getattr(data, name)()
        if isinstance(query, str):
            result, asked = pipe(image, text=query), f'"{query}"'
        else:
            result, asked = pipe(image, boxes=[query]), "box"
        best = f"{result.scores[0]:.2f}" if len(result) else "not found"
        shown.append(
            Shown(
                caption=f"{asked} {best}: {wrong}",
                image=image,
                prediction=np.logical_or.reduce(result.masks, axis=0),
                target=None,
                box=None if isinstance(query, str) else query,
            )
        )
    save_sheet(out, draw_sheet("pocket, failures", shown))


if __name__ == "__main__":
    main()
