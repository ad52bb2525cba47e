"""All limits of the servers: the app's page, its endpoints, the HTTP service and what uses it.

What is refused here costs nothing: counts, lengths and sizes are checked before anything is
decoded or computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...models.errors import InputError

# --- A query ---

MAX_PHRASES = 50
# Characters of a text of phrases, of one phrase, and of a label.
MAX_TEXT = 5_000
MAX_LABEL = 200
# Points and boxes together.
MAX_MARKS = 100
# Pictures searched for one example.
MAX_PICTURES = 16
# Of everything mode's grid; the time grows with its square.
MAX_POINTS_PER_SIDE = 64

# --- Collected objects ---

# Objects on one picture, and steps that can be undone.
MAX_OBJECTS = 200
MAX_STEPS = 100
# Of one brush stroke: points, and the brush's radius as a share of the picture's longer side.
MAX_STROKE_POINTS = 1_000
MAX_BRUSH_SHARE = 0.25
# Bytes of masks that the steps of one page may hold, and those of all pages.
MAX_WORK_BYTES = 16 * 2**20
MAX_SHELF_BYTES = 256 * 2**20

# --- Pictures ---

# The page scales larger pictures down to this many pixels, others refuse them; --max-pixels changes
# it.
MAX_PIXELS = 4_000_000
# Pixels of a file that is scaled down; larger ones are refused by their header, for a file of a few
# hundred kilobytes may decode to gigabytes.
MAX_FILE_PIXELS = 50_000_000
# A painting is as large as the stage, which is smaller.
MAX_PAINTING_PIXELS = 4_000_000
MAX_PAINTING_TEXT = 1_000_000

# --- Requests over HTTP, in bytes ---

MAX_FILE_BYTES = 50 * 2**20
# All files of one upload.
MAX_UPLOAD_BYTES = 200 * 2**20
# All uploads and files for download together, on disk; the oldest go first.
MAX_STORED_BYTES = 2 * 2**30
# Anything else that the page sends. The largest is a painting.
MAX_JSON_BYTES = 2 * 2**20
# A request to the HTTP service: a picture, an example and its mask, perhaps in base64.
MAX_BODY_BYTES = 100 * 2**20
# All requests together that the HTTP service holds at a time.
MAX_HELD_BYTES = 256 * 2**20
# Seconds in which a request must have arrived.
MAX_SECONDS = 60.0
# Requests waiting for the models; further ones are asked to come again.
MAX_WAITING = 32

# --- Encoded pictures of the HTTP service ---

MAX_EMBEDDINGS = 64
MAX_EMBEDDING_BYTES = 512 * 2**20


def check_text(name: str, text: str, most: int) -> str:
    """Return a text that is not too long.

    Raises:
        InputError: It is too long.
    """
    if len(text) > most:
        raise InputError(f"{name} has {len(text)} characters; give at most {most}")
    return text


def check_count(name: str, number: int, most: int) -> None:
    """Raise InputError if there are too many of something."""
    if number > most:
        raise InputError(f"{number} {name} are too many; give at most {most}")


def check_phrases(name: str, phrases: Sequence[str]) -> None:
    """Raise InputError if there are too many phrases, or one is too long."""
    check_count(name, len(phrases), MAX_PHRASES)
    for phrase in phrases:
        check_text("a phrase", phrase, MAX_LABEL)


def check_grid(points_per_side: int) -> None:
    """Raise InputError if a grid has too many points, or none."""
    if not 1 <= points_per_side <= MAX_POINTS_PER_SIDE:
        raise InputError(
            f"points_per_side must be between 1 and {MAX_POINTS_PER_SIDE}, not {points_per_side}"
        )


def check_pixels(name: str, size: tuple[int, int], most: int) -> None:
    """Raise InputError if a file of ``size`` (width, height) has too many pixels to be decoded."""
    width, height = size
    if width * height > most:
        raise InputError(
            f"{name!r} has {width} x {height} pixels, more than the {most / 1e6:g} megapixels that "
            "this app reads; scale it down"
        )
