"""Nearest neighbours, approximate among many points: time and memory per point hardly grow."""

from __future__ import annotations

import numpy as np

EXACT = 4096  # for so many points the result is exact
LEAF = 1024  # points in a leaf, at most, of more points
TREES = 5  # random partitions into leaves
MIXED = 32  # random points of which a direction is a mixture
HELD = 1 << 17  # distances that are held at a time: 512 KiB fit the cache of a core


def nearest(
    points: np.ndarray, neighbours: int, seed: int, queries: np.ndarray | None = None
) -> np.ndarray:
    """Find the nearest neighbours of points.

    More than ``EXACT`` points are divided at the median of random directions until a leaf has at
    most ``LEAF`` of them (random projection trees, Dasgupta and Freund 2008); within a leaf the
    distances are exact. The nearest neighbours of several such divisions are kept.

    Args:
        points: float32, shape (N, D).
        neighbours: number of neighbours that are searched for each point.
        seed: seed of the random directions.
        queries: positions of the points whose neighbours are searched, shape Q; all by default.

    Returns:
        int64, shape (Q, K): positions of neighbours; K is the smaller of ``neighbours`` and N - 1.
    """
    count = max(min(neighbours, len(points) - 1), 0)
    rng = np.random.default_rng(seed)
    closest = np.full((len(points), count), -1, np.int32)
    distances = np.full((len(points), count), np.inf, np.float32)
    is_query = np.ones(len(points), bool)
    if queries is not None:
        is_query[:] = False
        is_query[queries] = True
    all_points = [np.arange(len(points))]
    for _ in range(TREES if len(points) > EXACT else 1):
        for leaf in _leaves(points, rng) if len(points) > EXACT else all_points:
            rows = np.flatnonzero(is_query[leaf])
            if count and len(rows):
                near = _within(points[leaf], rows, count)
                _keep_nearest(closest, distances, leaf[rows], leaf[near[0]], near[1])
    return (closest if queries is None else closest[queries]).astype(np.int64)


def pairs_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pair ``first`` (shape N) with each of ``second`` (shape (N, K)).

    Returns:
        int64, shape (M, 2), each pair once and in order, the smaller number first.
    """
    return ordered(np.column_stack([np.repeat(first, second.shape[1]), second.ravel()]))


def ordered(pairs: np.ndarray) -> np.ndarray:
    """Return pairs (shape (M, 2)) each once and in order, the smaller number first."""
    smaller, larger = pairs.min(axis=1), pairs.max(axis=1)
    step = int(larger.max(initial=0)) + 1
    keys = np.sort(smaller * step + larger)  # ten times faster than np.unique
    return np.column_stack(np.divmod(keys[np.diff(keys, prepend=-1) > 0], step))


def _leaves(points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Divide points into leaves; return the positions in each."""
    leaves, parts = [], [np.arange(len(points))]
    while parts:
        part = parts.pop()
        if len(part) <= LEAF:
            leaves.append(part)
            continue
        # A mixture of points lies where they vary most, so that near ones are seldom divided.
        mixed = points[part[rng.integers(0, len(part), MIXED)]]
        heights = points[part] @ (rng.standard_normal(MIXED, dtype=np.float32) @ mixed)
        order = np.argpartition(heights, len(part) // 2)
        parts += [part[order[: len(part) // 2]], part[order[len(part) // 2 :]]]
    return leaves


def _within(points: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours of some rows of points and their squared distances, shape (Q, count)."""
    count = min(count, len(points) - 1)
    squares = (points**2).sum(axis=1)
    # One product of matrices gives squared distances, without those from the origin to a row.
    left = np.column_stack([points[rows], np.ones(len(rows), np.float32)])
    right = np.vstack([-2 * points.T, squares])
    closest = np.empty((len(rows), count), np.int64)
    distances = np.empty((len(rows), count), np.float32)
    step = max(HELD // len(points), 1)
    products = np.empty((step, len(points)), np.float32)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        squared = np.matmul(left[start : start + step], right, out=products[: len(part)])
        numbers = np.arange(len(part))
        squared[numbers, part] = np.inf
        for rank in range(count):  # few passes take less time than sorting
            best = squared.argmin(axis=1)
            closest[start + numbers, rank] = best
            distances[start + numbers, rank] = squared[numbers, best] + squares[part]
            squared[numbers, best] = np.inf
    return closest, distances


def _keep_nearest(
    closest: np.ndarray,
    distances: np.ndarray,
    rows: np.ndarray,
    leaf_closest: np.ndarray,
    leaf_distances: np.ndarray,
) -> None:
    """Merge the neighbours within a leaf into ``rows`` of ``closest`` and ``distances``."""
    count = closest.shape[1]
    candidates = np.concatenate([closest[rows], leaf_closest], axis=1)
    candidate_distances = np.concatenate([distances[rows], leaf_distances], axis=1)
    repeated = closest[rows][:, :, None] == leaf_closest[:, None, :]
    candidate_distances[:, count:][repeated.any(axis=1)] = np.inf
    order = np.argsort(candidate_distances, axis=1)[:, :count]
    closest[rows] = np.take_along_axis(candidates, order, axis=1)
    distances[rows] = np.take_along_axis(candidate_distances, order, axis=1)
