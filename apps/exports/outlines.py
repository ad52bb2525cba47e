"""Masks as polygons that fill to the same pixels.

There are two kinds of readers, and each needs different vertices:

- pycocotools fills the pixels whose centres lie inside; x is 0 at the left edge of the first pixel.
  `edge_polygons` run along the pixels' edges.
- OpenCV (ultralytics, supervision) and Pillow (labelme) truncate or round vertices to whole pixels
  and fill these, the lines between them and the inside. `pixel_polygons` run through the pixels at
  the rim, with fractions that give the same pixel whether truncated or rounded.

A part is a 4-connected region. A hole is joined to its surroundings by a seam: a line across the
part and back that adds and removes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csgraph, csr_array
from scipy.spatial import Delaunay

from ...pipeline.checks import BoolArray
from ...pipeline.compact_mask import CompactMask

# (n, 2) vertices (x, y); the last is joined to the first.
Polygon = NDArray[np.float64]

# Offsets of a vertex within its pixel, for the near and the far side. Truncated or rounded, both
# give the pixel, and a single pixel still has an area.
_NEAR = 0.05
_FAR = 0.45
_MIDDLE = 0.25


@dataclass(frozen=True, eq=False)
class Joined:
    """A mask as one polygon.

    Attributes:
        polygon: Its vertices; None for an empty mask.
        parts: How many parts the mask has.
        added: Upper bound of the pixels that the lines between the parts fill.
        lost: Number of pixels in the parts that are left out.
    """

    polygon: Polygon | None
    parts: int
    added: int
    lost: int


def edge_polygons(mask: CompactMask) -> list[Polygon]:
    """Return a polygon along the pixels' edges for each part of a mask."""
    rims, offset = _trace(mask, through_pixels=False)
    return [polygon + offset for polygon in rims.polygons()]


def pixel_polygons(mask: CompactMask) -> list[Polygon]:
    """Return a polygon through the rim's pixels for each part of a mask."""
    rims, offset = _trace(mask, through_pixels=True)
    return [polygon + offset for polygon in rims.polygons()]


def joined_polygon(mask: CompactMask) -> Joined:
    """Return a mask as one polygon through the rim's pixels.

    Parts are joined by lines there and back, which readers fill one pixel wide; the lines are those
    that fill the fewest pixels (a minimum spanning tree of the parts). Parts with fewer pixels than
    the line to them would fill are left out, which is closer to the mask.
    """
    rims, offset = _trace(mask, through_pixels=True)
    parts = rims.parts
    if parts == 0:
        return Joined(None, 0, 0, 0)
    added, lost = rims.join_parts() if parts > 1 else (0, 0)
    (polygon,) = rims.polygons()
    return Joined(polygon + offset, parts, added, lost)


def _trace(mask: CompactMask, *, through_pixels: bool) -> tuple[_Rims, NDArray[np.float64]]:
    """Trace a mask within its tight box; return the rims and the box's corner (x, y)."""
    return _Rims(mask.part(), through_pixels), np.array(mask.box[:2], np.float64)


class _Sides:
    """The straight edges of a mask's rims in one direction, found by a pixel that they touch.

    Args:
        line: (n,) the lattice line each corner is on: its column for vertical edges.
        along: (n,) where on that line.
        rank: (n,) the order of two corners at one place.
        inside: (lines, places) whether the mask is on the far side of the line: right of it for
            vertical edges, below for horizontal ones.

    Attributes:
        first: (n / 2,) corner where each edge begins: its top or left end.
        last: (n / 2,) corner where it ends.
        far: (n / 2,) whether the mask is on its far side.
    """

    def __init__(
        self,
        line: NDArray[np.intp],
        along: NDArray[np.intp],
        rank: NDArray[np.intp],
        inside: BoolArray,
    ) -> None:
        # Along a lattice line, corners begin and end edges by turns.
        order = np.lexsort((rank, along, line))
        self.first, self.last = order[0::2], order[1::2]
        self.far = inside[line[self.first], along[self.first]]
        self._width = int(along.max(initial=0)) + 1
        self._keys = line[self.first] * self._width + along[self.first]

    def find(self, line: int, place: int) -> int:
        """Return the number of the edge on a lattice line that touches a pixel's place."""
        return int(np.searchsorted(self._keys, line * self._width + place, side="right")) - 1


class _Rims:
    """The closed rims of a mask, as corners that each know the next.

    The mask is on the right hand of who walks along: outer rims turn clockwise on the screen, rims
    of holes the other way. Where two pixels touch at a corner only, the rim turns between them.

    Args:
        mask: (H, W) bool.
        through_pixels: Whether vertices lie in the rim's pixels or at their edges.

    Attributes:
        parts: How many outer rims there are.
    """

    def __init__(self, mask: BoolArray, through_pixels: bool) -> None:
        self._mask = mask
        padded = np.pad(mask, 1)
        # The four pixels around each lattice point (H + 1, W + 1).
        above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
        below_left, below_right = padded[1:, :-1], padded[1:, 1:]
        saddle = (above_left == below_right) & (above_right == below_left)
        saddle &= above_left != above_right
        turns = (above_left ^ above_right ^ below_left ^ below_right) | saddle
        ys, xs = np.nonzero(turns)
        twice = np.flatnonzero(saddle[ys, xs])
        y, x = np.concatenate([ys, ys[twice]]), np.concatenate([xs, xs[twice]])
        # A saddle is two corners: first the one of its upper pixel, then that of its lower one.
        lower = np.zeros(len(y), np.intp)
        lower[len(ys) :] = 1
        upper_is_left = above_left[y, x]
        righter = np.where(upper_is_left, lower, 1 - lower)
        self._columns = _Sides(x, y, lower, padded[1:, 1:].T)
        self._rows = _Sides(y, x, righter, padded[1:, 1:])

        following = np.zeros(len(y), np.intp)
        for sides, far_runs_back in ((self._columns, True), (self._rows, False)):
            back = sides.far == far_runs_back
            following[sides.first[~back]] = sides.last[~back]
            following[sides.last[back]] = sides.first[back]
        self._hole_seams = self._find_seams(x, y, following)

        vertices = np.stack([x, y], axis=1).astype(np.float64)
        self._shift = np.array([_MIDDLE, _MIDDLE]) if through_pixels else np.array([0.5, 0.5])
        if through_pixels:
            for axis, sides in ((0, self._columns), (1, self._rows)):
                into = np.where(sides.far, _NEAR, _FAR - 1)
                vertices[sides.first, axis] += into
                vertices[sides.last, axis] += into
        self._vertices: list[tuple[float, float]] = [(a, b) for a, b in vertices.tolist()]
        self._next: list[int] = following.tolist()
        self._join_holes()

    def _find_seams(
        self, x: NDArray[np.intp], y: NDArray[np.intp], following: NDArray[np.intp]
    ) -> list[tuple[int, int, int]]:
        """Set the outer rims' starts; return row, column and corner of a seam for each hole."""
        count = len(x)
        graph = csr_array((np.ones(count), (np.arange(count), following)), shape=(count, count))
        rims, rim = csgraph.connected_components(graph, directed=False) if count else (0, x)
        doubled_area = np.bincount(rim, x * y[following] - x[following] * y, minlength=rims)
        starts = np.zeros(rims, np.intp)
        starts[rim[::-1]] = np.arange(count)[::-1]
        self._starts: list[int] = starts[doubled_area > 0].tolist()
        self.parts = len(self._starts)

        # The leftmost edge of each hole: whatever is met to the left of it belongs to a rim that
        # begins further left, so that seams never close a circle.
        of_hole = np.flatnonzero(doubled_area[rim[self._columns.first]] < 0)
        corner = self._columns.first[of_hole]
        order = np.lexsort((y[corner], x[corner], rim[corner]))
        _, leftmost = np.unique(rim[corner][order], return_index=True)
        chosen = corner[order[leftmost]]
        return sorted(zip(y[chosen].tolist(), x[chosen].tolist(), chosen.tolist(), strict=True))

    def _join_holes(self) -> None:
        for row, column, here in self._hole_seams:
            outside = np.flatnonzero(~self._mask[row, :column])
            left = int(outside[-1]) + 1 if len(outside) else 0
            met = int(self._columns.last[self._columns.find(left, row)])
            height = row + float(self._shift[1])
            # Seams come from the top, and the edges that they meet are walked upwards.
            self._splice(
                met, here, (self._vertices[met][0], height), (self._vertices[here][0], height)
            )

    def _splice(
        self, one: int, other: int, at_one: tuple[float, float], at_other: tuple[float, float]
    ) -> None:
        """Join two rims by a line between points on the edges that follow two of their corners."""
        count = len(self._vertices)
        self._vertices += [at_one, at_other, at_other, at_one]
        self._next += [count + 1, self._next[other], count + 3, self._next[one]]
        self._next[one], self._next[other] = count, count + 2

    def join_parts(self) -> tuple[int, int]:
        """Join the rims of all parts that are worth a line.

        Returns:
            At most how many pixels the lines fill, and how many pixels are left out.
        """
        lines = _lines_between_parts(self._mask)
        for one, other in lines.drawn:
            at = [(float(x + self._shift[0]), float(y + self._shift[1])) for x, y in (one, other)]
            self._splice(self._corner_before(*one), self._corner_before(*other), at[0], at[1])
        self._starts = [self._corner_before(*lines.start)]
        added = sum(max(abs(x0 - x1), abs(y0 - y1)) - 1 for (x0, y0), (x1, y1) in lines.drawn)
        return added, lines.lost

    def _corner_before(self, x: int, y: int) -> int:
        """Return the corner from which the walk comes along a pixel of the rim."""
        width = self._mask.shape[1]
        columns, rows = self._columns, self._rows
        if x == 0 or not self._mask[y, x - 1]:
            return int(columns.last[columns.find(x, y)])
        if x == width - 1 or not self._mask[y, x + 1]:
            return int(columns.first[columns.find(x + 1, y)])
        if y == 0 or not self._mask[y - 1, x]:
            return int(rows.first[rows.find(y, x)])
        return int(rows.last[rows.find(y + 1, x)])

    def polygons(self) -> Iterator[Polygon]:
        """Yield a polygon for each outer rim."""
        for start in self._starts:
            yield np.array([self._vertices[corner] for corner in self._walk(start)])

    def _walk(self, start: int) -> Iterable[int]:
        corner = start
        while True:
            yield corner
            corner = self._next[corner]
            if corner == start:
                return


@dataclass(frozen=True)
class _Lines:
    """Lines between the parts of a mask.

    Attributes:
        start: A pixel (x, y) on the rim of the largest part.
        drawn: Ends (x, y) of each line.
        lost: Pixels of the parts that no line leads to.
    """

    start: tuple[int, int]
    drawn: list[tuple[tuple[int, int], tuple[int, int]]]
    lost: int


def _lines_between_parts(mask: BoolArray) -> _Lines:
    """Find the cheapest lines that join other parts to the largest."""
    part, _ = ndimage.label(mask)
    y, x = np.nonzero(mask & ~ndimage.binary_erosion(mask))
    of = part[y, x] - 1
    one, other = _nearest_pairs(x, y, of)
    length = np.maximum(np.abs(x[one] - x[other]), np.abs(y[one] - y[other]))
    order = np.lexsort((length, of[other], of[one]))
    one, other, length = one[order], other[order], length[order]
    number = int(part.max())
    _, shortest = np.unique(of[one].astype(np.int64) * number + of[other], return_index=True)
    one, other, length = one[shortest], other[shortest], length[shortest]
    graph = csr_array((length, (of[one], of[other])), shape=(number, number))
    tree = csgraph.minimum_spanning_tree(graph)

    # From the leaves to the largest part: a branch is drawn if it has as many pixels as its line.
    areas = np.bincount(part.ravel())[1:]
    root = int(areas.argmax())
    reached, before = csgraph.breadth_first_order(tree, root, directed=False)
    worth = areas.tolist()
    sides = {(a, b): k for k, (a, b) in enumerate(zip(of[one], of[other], strict=True))}
    line = {}
    for node in reached[:0:-1].tolist():
        parent = int(before[node])
        line[node] = sides[min(node, parent), max(node, parent)]
        gain = worth[node] - (int(length[line[node]]) - 1)
        if gain >= 0:
            worth[parent] += gain
        else:
            del line[node]
    drawn, kept = [], {root}
    for node in reached[1:].tolist():
        if node in line and int(before[node]) in kept:
            kept.add(node)
            a, b = one[line[node]], other[line[node]]
            drawn.append(((int(x[a]), int(y[a])), (int(x[b]), int(y[b]))))
    start = int(np.flatnonzero(of == root)[0])
    lost = int(areas.sum() - areas[list(kept)].sum())
    return _Lines((int(x[start]), int(y[start])), drawn, lost)


def _nearest_pairs(
    x: NDArray[np.intp], y: NDArray[np.intp], of: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs of points of different parts, the lower part first.

    The shortest lines that join points are among the sides of their Delaunay triangles.
    """
    # Three points far away: without them, points on one line have no triangles.
    far = 4.0 * max(x.max(), y.max()) + 4
    corners = np.array([[-far, -far], [3 * far, -far], [-far, 3 * far]])
    # Moved very slightly: on a grid, where many points lie on one circle, triangulation takes
    # several times as long.
    points = np.stack([x, y], axis=1) + np.random.default_rng(0).uniform(-0.01, 0.01, (len(x), 2))
    triangles = Delaunay(np.concatenate([points, corners])).simplices
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ends = ends[(ends < len(x)).all(axis=1)]
    one, other = ends[of[ends[:, 0]] != of[ends[:, 1]]].T
    lower_first = of[one] < of[other]
    return np.where(lower_first, one, other), np.where(lower_first, other, one)
