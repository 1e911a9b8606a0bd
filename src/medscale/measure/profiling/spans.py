"""Arithmetic of intervals on a time line: unions, overlaps and nesting."""

import numpy as np


def union(spans: np.ndarray) -> np.ndarray:
    """Return the union of intervals (n,2) as disjoint intervals in ascending order (m,2)."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    first = np.r_[True, spans[1:, 0] > reach[:-1]]
    return np.c_[spans[first, 0], reach[np.r_[first[1:], True]]]


def length(spans: np.ndarray) -> float:
    """Return the total length of disjoint intervals (n,2)."""
    return float((spans[:, 1] - spans[:, 0]).sum())


def overlap(spans: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the length of each interval (n,2) within ``reference``, shape n; both ascend."""
    if not len(reference):
        return np.zeros(len(spans))
    ends = np.r_[0.0, np.cumsum(reference[:, 1] - reference[:, 0])]
    times, covered = reference.ravel(), np.c_[ends[:-1], ends[1:]].ravel()
    return np.interp(spans[:, 1], times, covered) - np.interp(spans[:, 0], times, covered)


def innermost(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide the time of nested intervals among the innermost intervals.

    Args:
        starts: ascending, shape n. Of intervals with equal starts the longest comes first.
        ends: shape n. An interval that ends after the interval around it is cut at that end.

    Returns:
        Disjoint pieces in ascending order (m,2), and the number of the innermost interval of each
        piece (m).
    """
    pieces: list[tuple[float, float]] = []
    owners: list[int] = []
    stack: list[tuple[int, float]] = []
    position = -np.inf

    def close(until: float) -> None:
        nonlocal position
        while stack and stack[-1][1] <= until:
            owner, end = stack.pop()
            if end > position:
                pieces.append((position, end))
                owners.append(owner)
                position = end

    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        close(start)
        if stack and start > position:
            pieces.append((position, start))
            owners.append(stack[-1][0])
        position = max(position, start)
        stack.append((number, min(end, stack[-1][1]) if stack else end))
    close(np.inf)
    return np.array(pieces).reshape(-1, 2), np.array(owners, dtype=int)


def parents(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the number of the interval around each interval, shape n; -1 for none.

    The arguments are those of ``innermost``.
    """
    parent = np.full(len(starts), -1)
    stack: list[tuple[int, float]] = []
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        while stack and stack[-1][1] <= start:
            stack.pop()
        if stack:
            parent[number] = stack[-1][0]
        stack.append((number, end))
    return parent
