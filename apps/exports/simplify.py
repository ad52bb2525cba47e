"""Polygons with fewer points, which are easier to edit, by the Douglas-Peucker algorithm.

Source: Douglas and Peucker 1973, "Algorithms for the reduction of the number of points required to
represent a digitized line or its caricature"; shapely computes it.
"""

from __future__ import annotations

import numpy as np
from shapely import LinearRing

from .outlines import Polygon

_FEWEST = 3


def simplify(polygon: Polygon, tolerance: float) -> Polygon:
    """Return a polygon whose points are some of the given one's, in their order.

    Args:
        polygon: (n, 2) vertices.
        tolerance: Pixels that the given points may lie away from it; 0 changes nothing.

    Returns:
        (m, 2), m <= n; the polygon as it is if nothing with an area would be left.
    """
    if tolerance <= 0 or len(polygon) <= _FEWEST:
        return polygon
    # Not preserving topology: the seams to holes run there and back, which is no valid ring.
    ring = LinearRing(polygon).simplify(tolerance, preserve_topology=False)
    left: Polygon = np.asarray(ring.coords, np.float64)[:-1]
    return left if len(left) >= _FEWEST and _area(left) > 0 else polygon


def _area(polygon: Polygon) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
