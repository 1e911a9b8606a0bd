"""Nearest neighbours, approximate among many points: time and memory per point hardly grow."""

from __future__ import annotations

import numpy as np

LEAF = 4096  # points in a leaf, at most; for so many points the result is exact
TREES = 4  # random partitions into leaves
ROWS = 512  # points whose distances to all points of a leaf are held at a time


def nearest_pairs(points: np.ndarray, neighbours: int, seed: int) -> np.ndarray:
    """Pair each point with its nearest neighbours.

    Points are divided at the median of random directions until a leaf has at most ``LEAF`` of them
    (random projection trees, Dasgupta and Freund 2008); within a leaf the distances are exact. The
    nearest neighbours of several such divisions are kept.

    Args:
        points: float32, shape (N, D).
        neighbours: number of neighbours that each point is paired with, at most.
        seed: seed of the random directions.

    Returns:
        int64, shape (M, 2), each pair once, the smaller position first.
    """
    count = min(neighbours, len(points) - 1)
    if count < 1:
        return np.empty((0, 2), np.int64)
    rng = np.random.default_rng(seed)
    nearest = np.full((len(points), count), -1, np.int32)
    distances = np.full((len(points), count), np.inf, np.float32)
    for _ in range(TREES if len(points) > LEAF else 1):
        for leaf in _leaves(points, rng):
            _keep_nearest(nearest, distances, leaf, *_within(points[leaf], count))
    first = np.repeat(np.arange(len(points)), count)
    second = nearest.ravel().astype(np.int64)
    pairs = np.sort(np.column_stack([first, second])[second >= 0], axis=1)
    codes = np.unique(pairs[:, 0] * len(points) + pairs[:, 1])
    return np.column_stack(np.divmod(codes, len(points)))


def _leaves(points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Divide points into leaves; return the positions in each."""
    leaves, parts = [], [np.arange(len(points))]
    while parts:
        part = parts.pop()
        if len(part) <= LEAF:
            leaves.append(part)
            continue
        heights = points[part] @ rng.standard_normal(points.shape[1], dtype=np.float32)
        order = np.argpartition(heights, len(part) // 2)
        parts += [part[order[: len(part) // 2]], part[order[len(part) // 2 :]]]
    return leaves


def _within(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest neighbours of each point and their squared distances, shape (N, count)."""
    count = min(count, len(points) - 1)
    squares = (points**2).sum(axis=1)
    nearest = np.empty((len(points), count), np.int64)
    distances = np.empty((len(points), count), np.float32)
    for start in range(0, len(points), ROWS):
        rows = np.arange(start, min(start + ROWS, len(points)))
        # a matrix product, and few passes for the smallest values, take less time than sorting
        squared = squares - 2 * (points[rows] @ points.T)
        squared[rows - start, rows] = np.inf
        for rank in range(count):
            best = squared.argmin(axis=1)
            nearest[rows, rank] = best
            distances[rows, rank] = squared[rows - start, best] + squares[rows]
            squared[rows - start, best] = np.inf
    return nearest, distances


def _keep_nearest(
    nearest: np.ndarray,
    distances: np.ndarray,
    leaf: np.ndarray,
    leaf_neighbours: np.ndarray,
    leaf_distances: np.ndarray,
) -> None:
    """Merge the neighbours within a leaf into the rows of ``nearest`` and ``distances``."""
    count = nearest.shape[1]
    candidates = np.concatenate([nearest[leaf], leaf[leaf_neighbours]], axis=1)
    candidate_distances = np.concatenate([distances[leaf], leaf_distances], axis=1)
    repeated = nearest[leaf][:, :, None] == leaf[leaf_neighbours][:, None, :]
    candidate_distances[:, count:][repeated.any(axis=1)] = np.inf
    order = np.argsort(candidate_distances, axis=1)[:, :count]
    nearest[leaf] = np.take_along_axis(candidates, order, axis=1)
    distances[leaf] = np.take_along_axis(candidate_distances, order, axis=1)
