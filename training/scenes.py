"""Training scenes: pictures scaled, cropped, mirrored, coloured, put together and pasted into.

A scene is one picture, or several side by side, into which objects of others may be pasted
(Ghiasi et al. 2021, "Simple Copy-Paste"). What each pixel shows and whose picture it is from stays
known, so that no label claims more than its own source said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pictures import Entry, Picture, Thing
from PIL import Image
from scipy import ndimage

from promptseg.apps.evaluation.index_folder import VOID

IDS_A_LAYER = 256
VOID_ID = -1
MULTIPLE = 32  # of a scene's sides
Load = Callable[[Entry], Picture]


@dataclass(frozen=True, eq=False)
class Layer:
    """What one picture, or an object pasted from it, brings to a scene.

    Attributes:
        entry: Where it is from.
        things: Its objects, with ids of the scene.
        regions: Its labels with all their ids of the scene.
        labels: All labels of its picture, also of what is not shown.
        areas: Pixels that each id would have in the scene if nothing were cut off or covered.
        boxes: Words of a picture without masks, with their boxes in the scene.
        pasted: It is an object, not a picture.
    """

    entry: Entry
    things: tuple[Thing, ...]
    regions: tuple[tuple[str, tuple[int, ...]], ...]
    labels: tuple[str, ...]
    areas: dict[int, float]
    boxes: tuple[tuple[str, tuple[tuple[float, float, float, float], ...]], ...] = ()
    pasted: bool = False


@dataclass(frozen=True, eq=False)
class Scene:
    """What the models are trained on at a time.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, sides multiples of 32.
        ids: (H, W) int32: layer number times ``IDS_A_LAYER`` plus the picture's own id; 0 and
            other multiples are unlabelled, ``VOID_ID`` is void or padding.
        owner: (H, W) int16, the layer that each pixel is of, -1 for padding.
        layers: In the order they were put down.
    """

    pixels: NDArray[np.uint8]
    ids: NDArray[np.int32]
    owner: NDArray[np.int16]
    layers: list[Layer] = field(default_factory=list)


def empty_scene(size: tuple[int, int]) -> Scene:
    """A scene of padding only, of size (H, W): mid-grey, as the models pad."""
    return Scene(
        np.full((*size, 3), 127, np.uint8),
        np.full(size, VOID_ID, np.int32),
        np.full(size, -1, np.int16),
    )


def coloured(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and tint at random; seldom take all colour away."""
    saturation = 0.0 if rng.random() < 0.04 else rng.uniform(0.6, 1.4)
    contrast = rng.uniform(0.7, 1.3)
    gains = rng.uniform(0.75, 1.25) * rng.uniform(0.94, 1.06, size=3)
    grey = np.array([0.299, 0.587, 0.114])
    # All of it is one linear map of the colours and a shift.
    mix = saturation * np.eye(3) + (1 - saturation) * grey
    mean = float(pixels[::8, ::8].reshape(-1, 3).mean(0) @ grey)
    matrix = (contrast * mix * gains[:, None]).astype(np.float32)
    shift = ((1 - contrast) * mean * gains).astype(np.float32)
    values = pixels.reshape(-1, 3).astype(np.float32) @ matrix.T + shift
    changed: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8).reshape(pixels.shape)
    return changed


def _moved(things: Sequence[Thing], base: int) -> tuple[Thing, ...]:
    return tuple(
        Thing(
            t.label,
            tuple(base + i for i in t.ids),
            tuple(base + i for i in t.doubtful),
            t.single,
        )
        for t in things
    )


def _areas(ids: NDArray[np.uint8], scale: float, base: int) -> dict[int, float]:
    counts = np.bincount(ids.ravel(), minlength=VOID + 1)
    return {base + i: float(counts[i]) * scale**2 for i in range(1, VOID) if counts[i]}


def put(
    scene: Scene,
    entry: Entry,
    picture: Picture,
    *,
    cell: tuple[int, int, int, int],
    scale: float,
    corner: tuple[float, float],
    flip: bool,
    rng: np.random.Generator | None,
) -> None:
    """Put a picture into a cell of a scene.

    Args:
        scene: It is changed.
        entry: The picture's.
        picture: The picture.
        cell: (x, y, width, height) in the scene.
        scale: Scene pixels a picture pixel.
        corner: (x, y) of the picture that comes to the cell's corner, in scene pixels from the
            scaled picture's own; not negative.
        flip: Mirror left to right.
        rng: Source of the colours; none leaves them as they are.
    """
    x, y, width, height = cell
    full = picture.pixels.shape[1] * scale, picture.pixels.shape[0] * scale
    width = min(width, max(1, round(full[0] - corner[0])))
    height = min(height, max(1, round(full[1] - corner[1])))
    pixels, ids = picture.pixels, picture.ids
    if flip:
        pixels, ids = pixels[:, ::-1], ids[:, ::-1]
    source = (
        corner[0] / scale,
        corner[1] / scale,
        min(pixels.shape[1], (corner[0] + width) / scale),
        min(pixels.shape[0], (corner[1] + height) / scale),
    )
    pixels = pixels if rng is None else coloured(pixels, rng)
    resized = np.asarray(
        Image.fromarray(np.ascontiguousarray(pixels)).resize(
            (width, height), Image.Resampling.BILINEAR, box=source
        )
    )
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(ids)).resize(
            (width, height), Image.Resampling.NEAREST, box=source
        )
    )
    number = len(scene.layers)
    base = number * IDS_A_LAYER
    window = slice(y, y + height), slice(x, x + width)
    scene.pixels[window] = resized
    scene.ids[window] = np.where(small == VOID, VOID_ID, small.astype(np.int32) + base)
    scene.owner[window] = number
    boxes = tuple(
        (word, tuple(_box_in_scene(b, picture, scale, corner, cell, flip) for b in found))
        for word, found in entry.words
    )
    scene.layers.append(
        Layer(
            entry,
            _moved(picture.things, base),
            tuple((label, tuple(base + i for i in own)) for label, own in picture.regions),
            (*(label for label, _ in picture.regions), *(word for word, _ in entry.words)),
            _areas(picture.ids, scale, base),
            boxes,
        )
    )


def _box_in_scene(
    box: tuple[float, float, float, float],
    picture: Picture,
    scale: float,
    corner: tuple[float, float],
    cell: tuple[int, int, int, int],
    flip: bool,
) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    if flip:
        x0, x1 = picture.pixels.shape[1] - x1, picture.pixels.shape[1] - x0
    dx, dy = cell[0] - corner[0], cell[1] - corner[1]
    return x0 * scale + dx, y0 * scale + dy, x1 * scale + dx, y1 * scale + dy


def paste(
    scene: Scene,
    entry: Entry,
    picture: Picture,
    thing: Thing,
    *,
    side: float,
    centre: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> bool:
    """Paste an object of a picture into a scene.

    Args:
        scene: It is changed.
        entry: The picture's.
        picture: The picture.
        thing: One of its objects.
        side: Longest side of the object in the scene, in pixels.
        centre: (x, y) of the middle of the object's box in the scene.
        flip: Mirror left to right.
        rng: Source of the colours.

    Returns:
        Whether any of it came into the scene.
    """
    mask = np.isin(picture.ids, thing.ids)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return False
    crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    mask, pixels, ids = mask[crop], picture.pixels[crop], picture.ids[crop]
    scale = side / max(mask.shape)
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    if flip:
        mask, pixels, ids = mask[:, ::-1], pixels[:, ::-1], ids[:, ::-1]
    # The colours are the whole crop's, so that the object's border does not bleed to black.
    resized = Image.fromarray(coloured(np.ascontiguousarray(pixels), rng)).resize(
        size, Image.Resampling.BILINEAR
    )
    soft = Image.fromarray(np.ascontiguousarray(mask).astype(np.uint8) * 255).resize(
        size, Image.Resampling.BILINEAR
    )
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(ids)).resize(size, Image.Resampling.NEAREST)
    )
    alpha = ndimage.gaussian_filter(np.asarray(soft).astype(np.float32) / 255, 0.6)
    left, top = round(centre[0] - size[0] / 2), round(centre[1] - size[1] / 2)
    height, width = scene.ids.shape
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + size[0]), min(height, top + size[1])
    if x0 >= x1 or y0 >= y1:
        return False
    there = slice(y0, y1), slice(x0, x1)
    here = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    opacity = alpha[here][..., None]
    shown = (alpha[here] > 0.5) & np.isin(small[here], thing.ids)
    number = len(scene.layers)
    base = number * IDS_A_LAYER
    blended = opacity * np.asarray(resized)[here] + (1 - opacity) * scene.pixels[there]
    scene.pixels[there] = np.round(blended).astype(np.uint8)
    scene.ids[there] = np.where(shown, small[here].astype(np.int32) + base, scene.ids[there])
    scene.owner[there] = np.where(shown, number, scene.owner[there])
    parts = set(thing.ids)
    regions = tuple(
        (label, tuple(base + i for i in own if i in parts))
        for label, own in picture.regions
        if parts & set(own)
    )
    things = [t for t in picture.things if set(t.ids) <= parts]
    kept = np.where(mask, ids, 0).astype(np.uint8)
    scene.layers.append(
        Layer(
            entry,
            _moved(things, base),
            regions,
            tuple(label for label, _ in picture.regions),
            _areas(kept, scale, base),
            pasted=True,
        )
    )
    return True
