"""Draws sets of points to prompt with, from points that are likely on an object.

Source: the robust prompt sampler of Liu et al. 2023 (Matcher): sets within clusters of the points
prompt for parts, sets of any points for instances, sets of the clusters' centres for the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from ...checks import Float32Array
from .target import groups_of

MAX_STEPS = 100  # of k-means


def cluster(
    points: Float32Array, count: int, rng: np.random.Generator
) -> tuple[Float32Array, NDArray[np.intp]]:
    """Cluster points (n, 2) by k-means++ (Arthur & Vassilvitskii 2007).

    Returns:
        (k, 2) centres, and the cluster (n,) of each point; k is ``count``, or the number of
        distinct points if that is less.
    """
    count = min(count, len(np.unique(points, axis=0)))
    centres = points[[rng.integers(len(points))]]
    while len(centres) < count:
        squared = _squared_distances(points, centres).min(1)
        chosen = rng.choice(len(points), p=squared / squared.sum())
        centres = np.concatenate([centres, points[[chosen]]])
    for _ in range(MAX_STEPS):
        labels = _squared_distances(points, centres).argmin(1)
        # A cluster that lost all of its points stays where it is.
        means = [points[labels == k].mean(0) if k in labels else c for k, c in enumerate(centres)]
        if np.array_equal(means, centres):
            break
        centres = np.array(means, np.float32)
    return centres, labels


def draw_sets(
    points: Float32Array,
    centres: Float32Array,
    labels: NDArray[np.intp],
    rng: np.random.Generator,
    *,
    sizes: tuple[int, int],
    count: int,
) -> list[Float32Array]:
    """Draw sets of points for parts, instances and the whole.

    Args:
        points: (n, 2).
        centres: (k, 2) centres of their clusters.
        labels: (n,) cluster of each point.
        rng: Draws sets where there are more than wanted.
        sizes: Minimum and maximum number of points of a set; a pool with fewer points than the
            minimum gives all of them.
        count: Sets of each size; a third for each of parts, instances and the whole.

    Returns:
        For each size s of a set, (B, s, 2), without duplicate sets.
    """
    third = max(1, count // 3)
    parts = [points[group] for group in groups_of(labels.astype(np.int32))]
    pools = [(centres, third), (points, third)]
    pools += [(part, max(1, third // len(parts))) for part in parts]
    sets: dict[int, dict[bytes, Float32Array]] = {}
    for pool, quota in pools:
        least, most = (min(size, len(pool)) for size in sizes)
        for size in range(least, most + 1):
            for chosen in _subsets(len(pool), size, quota, rng):
                drawn = pool[np.array(chosen)]
                known = sets.setdefault(size, {})
                known.setdefault(drawn[np.lexsort(drawn.T)].tobytes(), drawn)
    return [np.stack(list(sets[size].values())) for size in sorted(sets)]


def _squared_distances(points: Float32Array, centres: Float32Array) -> NDArray[np.float64]:
    difference = points[:, None].astype(np.float64) - centres[None]
    squared: NDArray[np.float64] = (difference**2).sum(-1)
    return squared


def _subsets(
    count: int, size: int, most: int, rng: np.random.Generator
) -> Sequence[tuple[int, ...]]:
    """Return all subsets of ``size`` out of ``count``, or ``most`` random ones if that is less."""
    if comb(count, size) <= most:
        return list(combinations(range(count), size))
    return [tuple(rng.choice(count, size, replace=False)) for _ in range(most)]
