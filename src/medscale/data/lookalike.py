"""Near-duplicates: each image has a signature, an index proposes pairs, correlation decides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medscale.data import spectrum
from medscale.data.neighbours import nearest_pairs
from medscale.data.registration import registered
from medscale.data.signature import BYTES, SIDE, turned, unpacked

CORRELATION = 0.70  # least correlation of the signatures of near-duplicates
OVERLAP = 0.25  # share of the pixels that must be visible in both images
# Least correlation of signatures after registration: the same lesion in two frames reaches 0.90,
# chest radiographs of different patients 0.75.
REGISTERED = 0.85
# Correlation of blurred signatures under the best shift, from which a registration is tried: two
# frames of one lesion reach 0.81, nine in ten pairs of different images less than 0.7.
SHIFTED = 0.75
# Share of the variance within rows and within columns, at least: stripes have less in one of them.
RELIEF = 0.6
NEIGHBOURS = 3  # nearest neighbours that an image is compared with
CHUNK = 256  # signatures that are unpacked at a time


def pairs(signatures: Sequence[bytes]) -> np.ndarray:
    """Find near-duplicates: the same image, also mirrored, turned, compressed, resized, brighter.

    Each image is correlated with its nearest neighbours. One image of each cluster is then
    registered with its nearest neighbours among those of other clusters, which joins photographs
    of one scene in slightly different frames. Images without relief (blank ones, stripes) are no
    near-duplicates of any other. Time and memory grow with the number of images, not with the
    number of pairs.

    Args:
        signatures: packed signatures, see ``signature.signature``.

    Returns:
        int64, shape (M, 2): positions of near-duplicates. A cluster of many near-duplicates has
        enough pairs to connect it, not every pair.
    """
    relief, spectra = analysed(signatures)
    textured = np.flatnonzero(relief >= RELIEF)
    if not len(textured):
        return np.empty((0, 2), np.int64)
    points = spectrum.reduced(spectra, textured)
    candidates = textured[nearest_pairs(points, NEIGHBOURS, seed=0)]
    links = candidates[near_duplicates(signatures, spectra, candidates)]
    part = components(len(signatures), links)[textured]
    first = np.unique(part, return_index=True)[1]
    candidates = textured[first][nearest_pairs(points[first], NEIGHBOURS, seed=1)]
    alike = same_scene(signatures, spectra, candidates)
    return np.concatenate([links, candidates[alike]])


def components(count: int, links: np.ndarray) -> np.ndarray:
    """Return the component of each of ``count`` nodes that ``links`` (shape M, 2) connect."""
    edges = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def analysed(signatures: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the relief and the lowest frequencies of signatures.

    Returns:
        Relief (float32, shape N): the share of the variance within rows or within columns,
        whichever is smaller; 0 for a blank image. Spectra: see ``spectrum.spectra``.
    """
    relief = np.empty(len(signatures), np.float32)
    side = 2 * spectrum.FREQUENCIES
    spectra = np.empty((len(signatures), side, side), np.float16)
    for start in range(0, len(signatures), CHUNK):
        chunk = slice(start, start + CHUNK)
        details, mask = _details(signatures, np.arange(len(signatures))[chunk])
        total = np.einsum("nij,nij->n", details, details)
        between = [
            (details.sum(axis) ** 2 / np.maximum(mask.sum(axis), 1)).sum(1) for axis in (1, 2)
        ]
        share = 1 - np.maximum(*between) / np.maximum(total, 1e-6)
        relief[chunk] = np.where(total > 0.05 * SIDE * SIDE, share, 0)
        spectra[chunk] = spectrum.spectra(details)
    return relief, spectra


def near_duplicates(
    signatures: Sequence[bytes], spectra: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Return whether the signatures of pairs correlate under any of the 8 symmetries.

    The lowest frequencies give the symmetry that fits best; the signatures are compared under it.

    Args:
        signatures: packed signatures of all images.
        spectra: their lowest frequencies, see ``analysed``.
        candidates: positions, shape (M, 2).

    Returns:
        bool, shape M.
    """
    decisions = np.empty(len(candidates), bool)
    for start in range(0, len(candidates), CHUNK):
        first, second = candidates[start : start + CHUNK].T
        details, mask = _details(signatures, first)
        other, other_mask = _details(signatures, second)
        symmetries = spectrum.best_symmetries(spectra[first], spectra[second])
        for symmetry in np.unique(symmetries):
            rows = symmetries == symmetry
            other[rows] = turned(other[rows], symmetry)
            other_mask[rows] = turned(other_mask[rows], symmetry)
        product = np.einsum("nij,nij->n", details, other)
        energy = np.einsum("nij,nij->n", details**2, other_mask)
        energy *= np.einsum("nij,nij->n", other**2, mask)
        overlap = np.einsum("nij,nij->n", mask, other_mask)
        alike = product >= CORRELATION * np.sqrt(np.maximum(energy, 1e-6))
        decisions[start : start + CHUNK] = alike & (overlap >= OVERLAP * SIDE * SIDE)
    return decisions


def same_scene(
    signatures: Sequence[bytes], spectra: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Return whether the signatures of pairs correlate after a registration.

    Pairs whose lowest frequencies fit under no shift are not registered.

    Args:
        signatures: packed signatures of all images.
        spectra: their lowest frequencies, see ``analysed``.
        candidates: positions, shape (M, 2).

    Returns:
        bool, shape M.
    """
    decisions = np.zeros(len(candidates), bool)
    for start in range(0, len(candidates), CHUNK):
        first, second = candidates[start : start + CHUNK].T
        peaks, symmetries, shifts = spectrum.shifted(spectra[first], spectra[second])
        for row in np.flatnonzero(peaks >= SHIFTED):
            details, mask = _details(signatures, first[row : row + 1])
            other = [turned(a, symmetries[row]) for a in _details(signatures, second[[row]])]
            turned_other, turned_mask = (np.ascontiguousarray(a[0]) for a in other)
            correlation = registered(details[0], mask[0], turned_other, turned_mask, shifts[row])
            decisions[start + row] = correlation >= REGISTERED
    return decisions


def _details(signatures: Sequence[bytes], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return details and masks of some signatures, see ``signature.unpacked``."""
    packed = b"".join(signatures[position] for position in positions)
    return unpacked(np.frombuffer(packed, np.uint8).reshape(-1, BYTES))
