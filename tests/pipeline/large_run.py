"""A process of its own, so that its peak memory is that of one large picture with pocket.

    python large_run.py masks|picture WIDTH HEIGHT

reads a JPEG of that size, and asks for 100 boxes on it, or searches it for a cat and writes the
answer's files; prints the number of masks and the highest memory, in bytes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from peak_memory import peak_memory
from PIL import Image
from skimage import data

from promptseg import load

BOXES = 100


def main() -> None:
    kind, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cat.jpg")
        Image.fromarray(data.chelsea()).resize((width, height)).save(path)
        pipe = load("pocket")
        if kind == "masks":
            corners = np.random.default_rng(0).uniform(0, 0.75, (BOXES, 2)) * (width, height)
            boxes = np.concatenate([corners, corners + np.array([width, height]) / 4], axis=1)
            result = pipe(path, boxes=boxes)
            result.to_dict()
        else:
            result = pipe(path, "cat")
            result.save(Path(folder, "answer"))
    peak = peak_memory()
    sys.stdout.write(f"{len(result)} {peak}\n")


if __name__ == "__main__":
    main()
