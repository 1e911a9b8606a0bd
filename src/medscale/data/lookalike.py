"""Near-duplicates: each image has a signature, an index proposes pairs, correlation decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medscale.data import spectrum
from medscale.data.neighbours import nearest, ordered, pairs_of
from medscale.data.registration import registered
from medscale.data.signature import BYTES, SIDE, empty_buffers, turned, unpacked

CORRELATION = 0.70  # least correlation of the signatures of near-duplicates
OVERLAP = 0.25  # share of the pixels that must be visible in both images
# Least correlation of signatures after registration: the same lesion in two frames reaches 0.90,
# chest radiographs of different patients 0.75.
REGISTERED = 0.85
# Correlation of blurred signatures under the best shift, from which a registration is tried: two
# frames of one lesion reach 0.81, nine in ten pairs of different images less than 0.7.
SHIFTED = 0.75
# Correlation of the lowest frequencies under the best symmetry, from which the signatures are
# compared: near-duplicates reach 0.85, nine in ten pairs of different images less than 0.8.
FIT = 0.75
# Share of the variance within rows and within columns, at least: stripes have less in one of them.
RELIEF = 0.6
NEIGHBOURS = 3  # nearest neighbours that an image is compared with
CHUNK = 64  # signatures that are unpacked at a time: 1 MiB fits the cache of a core
# Details and masks of the first and of the second images.
Details = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def pairs(signatures: Sequence[bytes]) -> np.ndarray:
    """Return the pairs of near-duplicates, see ``search``."""
    return search(signatures)[0]


def search(signatures: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
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
        enough pairs to connect it, not every pair. bool, shape N: whether an image has relief.
    """
    relief, spectra = analysed(signatures)
    has_relief = relief >= RELIEF
    textured = np.flatnonzero(has_relief)
    if not len(textured):
        return np.empty((0, 2), np.int64), has_relief
    points = spectrum.reduced(spectra, textured)
    near = nearest(points, NEIGHBOURS, seed=0)
    candidates = textured[pairs_of(np.arange(len(points)), near)]
    links = candidates[near_duplicates(signatures, spectra, candidates)]
    part = components(len(signatures), links)[textured]
    candidates = textured[_between_clusters(points, near, part)]
    alike = same_scene(signatures, spectra, candidates)
    return np.concatenate([links, candidates[alike]]), has_relief


def _between_clusters(points: np.ndarray, near: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Pair the first image of each cluster with its nearest neighbours in other clusters.

    Args:
        points: descriptors, shape (N, D).
        near: the nearest neighbours of each point, shape (N, K).
        part: the cluster of each point, shape N.

    Returns:
        Positions, shape (M, 2).
    """
    _, first, cluster = np.unique(part, return_index=True, return_inverse=True)
    neighbours = np.sort(cluster[near[first]], axis=1)
    numbers = np.arange(len(first))
    crowded = (neighbours == numbers[:, None]).any(axis=1)
    crowded |= (neighbours[:, 1:] == neighbours[:, :-1]).any(axis=1)
    # Where copies of one image are among the neighbours, other clusters are searched again.
    again = nearest(points[first], NEIGHBOURS, seed=1, queries=numbers[crowded])
    pairs = [pairs_of(numbers[~crowded], neighbours[~crowded]), pairs_of(numbers[crowded], again)]
    return first[ordered(np.concatenate(pairs))]


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
    side, ones = 2 * spectrum.FREQUENCIES, np.ones(SIDE, np.float32)
    spectra = np.empty((len(signatures), side, side), np.int16)
    buffers = empty_buffers(CHUNK)
    for chunk in _chunks(np.arange(len(signatures))):
        details, mask = _details(signatures, chunk, buffers)
        total = np.einsum("nij,nij->n", details, details)
        # products with ones take less time than sums along an axis
        between = [
            (values**2 / np.maximum(pixels, 1)).sum(axis=1)
            for values, pixels in ((ones @ details, ones @ mask), (details @ ones, mask @ ones))
        ]
        share = 1 - np.maximum(*between) / np.maximum(total, 1e-6)
        relief[chunk] = np.where(total > 0.05 * SIDE * SIDE, share, 0)
        spectra[chunk] = spectrum.spectra(details)
    return relief, spectra


def _chunks(positions: np.ndarray) -> Iterator[np.ndarray]:
    return (positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK))


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
    symmetries, fits = spectrum.best_symmetries(spectra, candidates)
    decisions = np.zeros(len(candidates), bool)
    for rows, details in _pairs_of_details(signatures, candidates, fits >= FIT, symmetries):
        decisions[rows] = _alike(*details)
    return decisions


def _pairs_of_details(
    signatures: Sequence[bytes], candidates: np.ndarray, chosen: np.ndarray, symmetries: np.ndarray
) -> Iterator[tuple[np.ndarray, Details]]:
    """Yield chunks of the chosen rows of ``candidates``, with details and masks of both images.

    The second image of each pair is turned by its symmetry.
    """
    buffers = [empty_buffers(CHUNK) for _ in range(2)]
    for rows in _chunks(np.flatnonzero(chosen)):
        first, second = candidates[rows].T
        details = _details(signatures, first, buffers[0])
        yield rows, (*details, *_turned(signatures, second, symmetries[rows], buffers[1]))


def _alike(
    details: np.ndarray, mask: np.ndarray, other: np.ndarray, other_mask: np.ndarray
) -> np.ndarray:
    """Return whether details correlate over the pixels that both masks show."""
    product = np.einsum("nij,nij->n", details, other)
    energy = np.einsum("nij,nij->n", details**2, other_mask)
    energy *= np.einsum("nij,nij->n", other**2, mask)
    overlap = np.einsum("nij,nij->n", mask, other_mask)
    alike = product >= CORRELATION * np.sqrt(np.maximum(energy, 1e-6))
    return alike & (overlap >= OVERLAP * SIDE * SIDE)


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
    peaks, symmetries, shifts = spectrum.shifted(spectra, candidates)
    decisions = np.zeros(len(candidates), bool)
    for rows, details in _pairs_of_details(signatures, candidates, peaks >= SHIFTED, symmetries):
        decisions[rows] = registered(*details, shifts[rows]) >= REGISTERED
    return decisions


def _details(
    signatures: Sequence[bytes], positions: np.ndarray, buffers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return details and masks of some signatures in ``buffers``, see ``signature.unpacked``."""
    packed = b"".join(signatures[position] for position in positions)
    return unpacked(np.frombuffer(packed, np.uint8).reshape(-1, BYTES), buffers)


def _turned(
    signatures: Sequence[bytes], positions: np.ndarray, symmetries: np.ndarray, buffers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return details and masks of some signatures in ``buffers``, each under a symmetry."""
    details, mask = _details(signatures, positions, buffers)
    for symmetry in np.unique(symmetries):
        rows = symmetries == symmetry
        details[rows] = turned(details[rows], symmetry)
        mask[rows] = turned(mask[rows], symmetry)
    return details, mask
