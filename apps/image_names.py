"""Names of image files: their endings, and the order that people expect."""

from __future__ import annotations

import re

# Of the formats that pipeline.images reads, which is not imported here: it takes its time.
ENDINGS = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "tif", "tiff", "bmp", "gif"),
    *("avif", "avifs", "heic", "heif", "hif", "jp2", "j2k", "jpc", "jpf", "jpx", "j2c"),
    *("pbm", "pgm", "ppm", "pnm", "pfm"),
)


def has_ending(name: str) -> bool:
    """Return whether a file's name ends as those of images do."""
    stem, _, ending = name.lower().rpartition(".")
    return bool(stem) and ending in ENDINGS


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key for names: 2 comes before 10, and b after A."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name
