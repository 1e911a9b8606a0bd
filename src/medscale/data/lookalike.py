"""Near-duplicates: each image has a signature, an index proposes pairs, correlation decides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import cv2
import numpy as np
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 64  # pixels a side of a signature
BYTES = SIDE * SIDE // 2  # of a packed signature: two pixels a byte
UNSEEN = 0  # value of a pixel that is not compared; 1 to 15 are -2 to 2 local standard deviations
ZERO, STEP = 8, 2 / 7
CLIP = 2.0  # local standard deviations; larger differences count no more than this
DARK = 10  # grey levels: darker pixels are background and are not compared
# The band of details that is compared. Coarser structure is shared by all images of a body part;
# finer structure does not survive compression. Found on fundus, dermoscopy and chest images:
# copies correlate by 0.71 or more, different chest radiographs by 0.65 at most.
FINE, COARSE = 0.7, 2.0  # standard deviations of the two Gaussian filters, in pixels
WINDOW = 37  # pixels a side of the window whose standard deviation normalizes the details
LEAST_DEVIATION = 0.3  # grey levels: weaker details are noise and are not amplified
CORRELATION = 0.70  # of the signatures of near-duplicates, at least
OVERLAP = 0.25  # share of the pixels that must be seen in both images
RELIEF = (
    0.6  # share of the variance within rows and within columns: stripes have less in one of them
)
EXHAUSTIVE = 96  # up to so many images every pair is compared: too few to fit an index to
FREQUENCIES = 20  # lowest frequencies of the cosine transform that the descriptor holds, an axis
DIMENSIONS = 32  # of a reduced descriptor
NOISE = 0.35  # standard deviation of a descriptor's value between copies of one image
BITS, TABLES, NEIGHBOURS = 256, 24, 4
RADIUS = 72  # bits of BITS in which the codes of near-duplicates differ at most
DISTANCE = 0.75  # squared, between reduced descriptors, in units of the product of their lengths
TRIES = 128  # comparisons of signatures an image at most: bounds the time of uniform datasets
SAMPLE = 8192  # images that the reduction of descriptors is fitted to
CHUNK = 256  # signatures that are unpacked at a time


def signature(image: np.ndarray) -> bytes:
    """Return the packed details of an image: SIDE x SIDE values of 4 bits, row by row.

    The image is cut to its rim, resized, converted to grey levels, filtered to a band of
    frequencies and divided by its local standard deviation. Brightness, contrast and a dark border
    of any width have no influence. ``image``: uint8 RGB, shape (height, width, 3).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.resize(_inside_rim(grey), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    visible = 1 - cv2.dilate((grey <= DARK).astype(np.float32), np.ones((3, 3), np.uint8))
    details = (_blurred(grey, visible, FINE) - _blurred(grey, visible, COARSE)) * visible
    box = (WINDOW, WINDOW)
    energy = cv2.blur(details * details, box) / np.maximum(cv2.blur(visible, box), 1e-3)
    deviation = np.sqrt(np.maximum(energy, LEAST_DEVIATION**2))
    steps = np.rint(np.clip(details / deviation, -CLIP, CLIP) / STEP).astype(np.int8) + ZERO
    values = np.where(visible > 0, steps, UNSEEN).astype(np.uint8).ravel()
    return (values[::2] << 4 | values[1::2]).tobytes()


def _inside_rim(grey: np.ndarray) -> np.ndarray:
    """Cut off dark borders, such as those around the disc of a fundus photograph."""
    bright = (grey > DARK).astype(np.float32)
    edges = []
    for axis, length in ((1, grey.shape[0]), (0, grey.shape[1])):
        lines = np.flatnonzero(cv2.reduce(bright, axis, cv2.REDUCE_AVG).ravel() > 0.05)
        if len(lines) < length // 4:  # a dark image has no rim
            return grey
        edges += [lines[0], lines[-1] + 1]
    top, bottom, left, right = edges
    return grey[top:bottom, left:right]


def _blurred(grey: np.ndarray, visible: np.ndarray, deviation: float) -> np.ndarray:
    """Return a Gaussian mean over the pixels that are seen."""
    if visible.all():
        return cv2.GaussianBlur(grey, (0, 0), deviation)
    weight = cv2.GaussianBlur(visible, (0, 0), deviation)
    return cv2.GaussianBlur(grey * visible, (0, 0), deviation) / np.maximum(weight, 1e-3)


# The two values and the two mask pixels of each byte of a signature, as tables for look-up. A
# pair is one complex number, which numpy looks up several times faster than two floats.
_NIBBLES = np.stack([np.arange(256) >> 4, np.arange(256) & 15], axis=1)
_MASKS = (_NIBBLES != UNSEEN).astype(np.float32)
_VALUES = ((_NIBBLES - ZERO) * STEP).astype(np.float32) * _MASKS
_MASKS, _VALUES = _MASKS.view(np.complex64).ravel(), _VALUES.view(np.complex64).ravel()


def unpacked(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return details (float32, 0 where unseen) and masks (float32, 0 or 1), shape (N, SIDE, SIDE).

    ``signatures``: uint8, shape (N, BYTES).
    """
    shape = (-1, SIDE, SIDE)
    details, mask = (np.take(table, signatures).view(np.float32) for table in (_VALUES, _MASKS))
    return details.reshape(shape), mask.reshape(shape)


def turned(images: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a view of images (shape N, side, side) under one of the 8 symmetries of the square."""
    if symmetry & 1:
        images = images[:, ::-1]
    if symmetry & 2:
        images = images[:, :, ::-1]
    return images.transpose(0, 2, 1) if symmetry & 4 else images


def pairs(signatures: np.ndarray) -> np.ndarray:
    """Find near-duplicates: the same image, also mirrored, turned, compressed, resized, brighter.

    Images without relief (blank ones, stripes) are no near-duplicates of any other. Time and
    memory grow with the number of images, not with the number of pairs.

    Args:
        signatures: uint8, shape (N, BYTES), one for each image.

    Returns:
        int64, shape (M, 2): positions of near-duplicates. A cluster of many near-duplicates has
        enough pairs to connect it, not every pair.
    """
    shares, spectra = analysed(signatures)
    textured = np.flatnonzero(shares >= RELIEF)
    if len(textured) < len(signatures):  # else no copy: signatures of many images are large
        signatures, spectra = signatures[textured], spectra[textured]
    part = np.arange(len(textured))
    tries = np.zeros(len(textured), np.int64)
    links = np.empty((0, 2), np.int64)
    for candidates in _candidates(spectra):
        apart = part[candidates[:, 0]] != part[candidates[:, 1]]
        few = tries[candidates].max(axis=1, initial=0) < TRIES
        candidates = candidates[apart & few]
        if len(candidates):
            tries += np.bincount(candidates.ravel(), minlength=len(textured))
            alike = near_duplicates(signatures, spectra, candidates)
            links = np.concatenate([links, candidates[alike]])
            part = components(len(textured), links)
    return textured[links]


def components(count: int, links: np.ndarray) -> np.ndarray:
    """Return the component of each of ``count`` nodes that ``links`` (shape M, 2) connect."""
    edges = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def analysed(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the relief and the lowest frequencies of signatures.

    Args:
        signatures: uint8, shape (N, BYTES).

    Returns:
        Relief (float32, shape N): the share of the variance within rows or within columns,
        whichever is smaller; 0 for a blank image. Spectra (float16, shape (N, FREQUENCIES,
        FREQUENCIES)): coefficients of the discrete cosine transform.
    """
    shares = np.empty(len(signatures), np.float32)
    spectra = np.empty((len(signatures), FREQUENCIES, FREQUENCIES), np.float16)
    basis = dct(np.eye(SIDE, dtype=np.float32), axis=0, norm="ortho")[:FREQUENCIES]
    for start in range(0, len(signatures), CHUNK):
        chunk = slice(start, start + CHUNK)
        details, mask = unpacked(signatures[chunk])
        total = np.einsum("nij,nij->n", details, details)
        between = [
            (details.sum(axis) ** 2 / np.maximum(mask.sum(axis), 1)).sum(1) for axis in (1, 2)
        ]
        share = 1 - np.maximum(*between) / np.maximum(total, 1e-6)
        shares[chunk] = np.where(total > 0.05 * SIDE * SIDE, share, 0)
        spectra[chunk] = np.matmul(np.matmul(basis, details), basis.T)
    return shares, spectra


def near_duplicates(
    signatures: np.ndarray, spectra: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Return whether the signatures of pairs correlate under any of the 8 symmetries.

    The lowest frequencies tell which symmetry fits best; the signatures are compared under it.

    Args:
        signatures: uint8, shape (N, BYTES).
        spectra: float16, shape (N, FREQUENCIES, FREQUENCIES), see ``analysed``.
        candidates: positions, shape (M, 2).

    Returns:
        bool, shape M.
    """
    decisions = np.empty(len(candidates), bool)
    for start in range(0, len(candidates), CHUNK):
        first, second = candidates[start : start + CHUNK].T
        (details, mask), (other, other_mask) = (
            unpacked(signatures[first]),
            unpacked(signatures[second]),
        )
        symmetries = _best_symmetries(spectra[first], spectra[second])
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


def _best_symmetries(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the symmetry (0 to 7, see ``turned``) of ``second`` that fits ``first`` best.

    Mirroring an image changes the sign of every second coefficient of its cosine transform, and
    transposing it transposes the coefficients.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    alternating = (-1.0) ** np.arange(FREQUENCIES, dtype=np.float32)
    rows, columns = alternating[:, None], alternating[None]
    signs = np.stack(
        np.broadcast_arrays(
            rows**0 * columns**0, rows * columns**0, columns * rows**0, rows * columns
        )
    )
    signs = signs.reshape(4, -1).T
    shape = (len(first), -1)
    plain = (first * second).reshape(shape) @ signs
    transposed = (first.transpose(0, 2, 1) * second).reshape(shape) @ signs
    return np.concatenate([plain, transposed], axis=1).argmax(axis=1)


def _candidates(spectra: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pairs (shape M, 2) that can be near-duplicates.

    Codes are signs of random projections (locality-sensitive hashing, Charikar 2002). Each table
    sorts the codes by another random order of their bits and compares neighbours (sorted
    neighbourhood, Hernández and Stolfo 1995), so that the cost of an image does not depend on the
    number of images nor on how many of them are alike.
    """
    if len(spectra) <= EXHAUSTIVE:
        every = np.array(list(combinations(range(len(spectra)), 2)), np.int64)
        yield every.reshape(-1, 2)
        return
    reduced, bits = _codes(spectra)
    codes = np.ascontiguousarray(np.packbits(bits, axis=0).T).view(np.uint64)
    rng = np.random.default_rng(0)
    for _ in range(TABLES):
        key = np.packbits(bits[rng.permutation(BITS)[:32]], axis=0).astype(np.uint32)
        order = np.argsort(key[0] << 24 | key[1] << 16 | key[2] << 8 | key[3], kind="stable")
        near = []
        for distance in range(1, NEIGHBOURS + 1):
            left, right = order[:-distance], order[distance:]
            differing = np.bitwise_count(codes[left] ^ codes[right]).sum(axis=1)
            few = differing <= RADIUS
            near.append(np.column_stack([left[few], right[few]]))
        yield _close(reduced, np.concatenate(near))


def _close(reduced: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the candidates (shape M, 2) whose reduced descriptors are close to each other."""
    first, second = reduced[candidates[:, 0]], reduced[candidates[:, 1]]
    lengths = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    # descriptors near the mean, as in a dataset of copies, are close whatever their direction
    bound = DISTANCE * np.maximum(lengths, reduced.shape[1] / 4)
    return candidates[((first - second) ** 2).sum(axis=1) <= bound]


def _codes(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return reduced descriptors (float32, shape N, D) and their codes (uint8, shape BITS, N).

    Descriptors are reduced by principal components and scaled to equal variance, since images of
    one body part share most of their descriptor. Components that vary less than copies of one
    image do are not amplified. Thresholds are random, so that a dataset of copies has equal bits.
    """
    sample = descriptors(spectra[:: -(-len(spectra) // SAMPLE)])
    mean = sample.mean(axis=0)
    dimensions = min(DIMENSIONS, len(sample) // 8)
    variances, axes = np.linalg.eigh((sample - mean).T @ (sample - mean) / len(sample))
    variances, axes = variances[-dimensions:], axes[:, -dimensions:]
    scaled = (axes / np.sqrt(np.maximum(variances, 0) + NOISE**2)).astype(np.float32)
    rng = np.random.default_rng(1)
    rotation = (rng.standard_normal((dimensions, BITS)) / np.sqrt(dimensions)).astype(np.float32)
    thresholds = (rng.standard_normal(BITS) / 2).astype(np.float32)
    reduced = np.empty((len(spectra), dimensions), np.float32)
    bits = np.empty((BITS, len(spectra)), np.uint8)
    for start in range(0, len(spectra), CHUNK):
        chunk = slice(start, start + CHUNK)
        reduced[chunk] = (descriptors(spectra[chunk]) - mean) @ scaled
        bits[:, chunk] = thresholds[:, None] < rotation.T @ reduced[chunk].T
    return reduced, bits


def descriptors(spectra: np.ndarray) -> np.ndarray:
    """Return values that do not change when an image is mirrored or turned by 90 degrees.

    Mirroring changes signs of the cosine transform, turning exchanges its axes: the sums and
    differences of the magnitudes at (u, v) and (v, u) keep their magnitude.

    Args:
        spectra: shape (N, FREQUENCIES, FREQUENCIES), see ``analysed``.

    Returns:
        float32, shape (N, D).
    """
    u, v = np.triu_indices(FREQUENCIES)
    band = (u + v >= 4) & (u**2 + v**2 <= FREQUENCIES**2)
    u, v = u[band], v[band]
    magnitudes = np.abs(spectra.astype(np.float32))
    first, second = magnitudes[:, u, v], magnitudes[:, v, u]
    return np.concatenate([first + second, np.abs(first - second)[:, u != v]], axis=1)
