"""Low frequencies of signatures: descriptors, and symmetry and shift between two images."""

from __future__ import annotations

import numpy as np

from medscale.data.signature import SIDE

FREQUENCIES = 10  # lowest frequencies of the Fourier transform, an axis
DIMENSIONS = 32  # of a reduced descriptor, at most
# Share of the largest variance that is added to the variance of each component of a descriptor.
# Components that vary less than copies of one image do are not amplified.
NOISE = 0.3
SAMPLE = 8192  # images that the reduction of descriptors is fitted to
CHUNK = 256  # spectra that are processed at a time
BLUR = 1.5  # standard deviation in pixels of the Gaussian filter before two spectra are shifted
REACH = 5  # pixels of the largest shift in each direction


def _basis() -> np.ndarray:
    """Return windowed cosines, then sines, of the lowest frequencies about the middle."""
    places = np.arange(SIDE) - (SIDE - 1) / 2
    angles = 2 * np.pi / SIDE * np.arange(FREQUENCIES)[:, None] * places
    window = np.hanning(SIDE + 2)[1:-1]
    return (np.concatenate([np.cos(angles), np.sin(angles)]) * window).astype(np.float32)


def _shifts() -> tuple[np.ndarray, np.ndarray]:
    """Return phase factors of shifts along columns, and along rows for both signs."""
    steps = np.arange(-REACH, REACH + 1)
    phases = np.exp(2j * np.pi / SIDE * np.arange(FREQUENCIES)[:, None] * steps)
    columns = phases.astype(np.complex64)
    return columns, np.concatenate([columns.T, columns.T.conj()], axis=1)


def _weights() -> np.ndarray:
    """Return the weight of each frequency in a correlation of two blurred images."""
    squares = (np.arange(FREQUENCIES) / SIDE) ** 2
    gains = np.exp(-4 * (np.pi * BLUR) ** 2 * (squares[:, None] + squares))
    half = np.where(np.arange(FREQUENCIES) == 0, 0.5, 1)  # each sign of 0 is counted once
    return (gains * half[:, None] * half).astype(np.float32)


BASIS, WEIGHTS = _basis(), _weights()
COLUMN_SHIFTS, ROW_SHIFTS = _shifts()
# Mirroring changes the signs of the sines along one axis.
_SINES = np.repeat(np.array([1, -1], np.float32), FREQUENCIES)


def spectra(details: np.ndarray) -> np.ndarray:
    """Return the lowest frequencies of details (float32, shape (N, SIDE, SIDE)).

    Returns:
        float16, shape (N, 2 FREQUENCIES, 2 FREQUENCIES): products with cosines, then sines, along
        rows and columns, under a Hann window.
    """
    return np.matmul(np.matmul(BASIS, details), BASIS.T).astype(np.float16)


def _planes(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return complex coefficients at (u, v) and at (-u, v) of spectra, each (N, u, v)."""
    blocks = spectra.astype(np.float32).reshape(-1, 2, FREQUENCIES, 2, FREQUENCIES)
    cosines, mixed = blocks[:, 0, :, 0], blocks[:, 0, :, 1]
    other_mixed, sines = blocks[:, 1, :, 0], blocks[:, 1, :, 1]
    return cosines - sines - 1j * (mixed + other_mixed), cosines + sines + 1j * (
        other_mixed - mixed
    )


def best_symmetries(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the symmetry (0 to 7, see ``signature.turned``) of ``second`` that fits ``first``.

    Args:
        first: spectra, shape (N, 2 FREQUENCIES, 2 FREQUENCIES).
        second: as ``first``.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    ones = np.ones_like(_SINES)
    signs = np.stack(
        [np.outer(row, column).ravel() for column in (ones, _SINES) for row in (ones, _SINES)]
    ).T
    shape = (len(first), -1)
    plain = (first * second).reshape(shape) @ signs
    transposed = (first.transpose(0, 2, 1) * second).reshape(shape) @ signs
    return np.concatenate([plain, transposed], axis=1).argmax(axis=1)


def shifted(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlate blurred images under the 8 symmetries and all shifts up to ``REACH`` pixels.

    Args:
        first: spectra, shape (N, 2 FREQUENCIES, 2 FREQUENCIES).
        second: as ``first``.

    Returns:
        The largest correlation (float32, shape N), its symmetry of ``second``, and the shift of
        ``second`` after it (int64, shape (N, 2), pixels down and right).
    """
    (positive, negative), (other, other_negative) = _planes(first), _planes(second)
    energy = _energy(positive, negative) * _energy(other, other_negative)
    positive, negative = positive * WEIGHTS, negative * WEIGHTS
    correlations = np.empty((8, len(first), 2 * REACH + 1, 2 * REACH + 1), np.float32)
    for symmetry in range(8):
        turned, turned_negative = _turned(other, other_negative, symmetry)
        cross = np.concatenate(
            [positive * turned.conj(), negative * turned_negative.conj()], axis=1
        )
        correlations[symmetry] = np.matmul(ROW_SHIFTS, cross @ COLUMN_SHIFTS).real
    by_pair = correlations.swapaxes(0, 1).reshape(len(first), -1)
    best = by_pair.argmax(axis=1)
    symmetries, down, right = np.unravel_index(best, (8, 2 * REACH + 1, 2 * REACH + 1))
    largest = by_pair[np.arange(len(first)), best] / np.sqrt(np.maximum(energy, 1e-6))
    return largest, symmetries, np.column_stack([down, right]) - REACH


def _energy(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    return (WEIGHTS * (np.abs(positive) ** 2 + np.abs(negative) ** 2)).sum(axis=(1, 2))


def _turned(
    positive: np.ndarray, negative: np.ndarray, symmetry: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients at (u, v) and (-u, v) under a symmetry, see ``signature.turned``."""
    if symmetry & 1:
        positive, negative = negative, positive
    if symmetry & 2:
        positive, negative = negative.conj(), positive.conj()
    if symmetry & 4:
        return positive.transpose(0, 2, 1), negative.conj().transpose(0, 2, 1)
    return positive, negative


def reduced(spectra: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return short descriptors (float32, shape M, D) of some spectra for an index of neighbours.

    Descriptors are reduced by principal components and scaled towards equal variance, since images
    of one body part share most of their descriptor.

    Args:
        spectra: of all images, shape (N, 2 FREQUENCIES, 2 FREQUENCIES).
        members: positions of the images that are compared, shape M.
    """
    sample = descriptors(spectra[members[:: max(-(-len(members) // SAMPLE), 1)]])
    mean = sample.mean(axis=0)
    dimensions = max(min(DIMENSIONS, len(sample) // 8), 1)
    variances, axes = np.linalg.eigh((sample - mean).T @ (sample - mean) / len(sample))
    variances, axes = variances[-dimensions:], axes[:, -dimensions:]
    scale = np.sqrt(np.maximum(variances, 0) + NOISE * max(variances[-1], 1e-6))
    scaled = (axes / scale).astype(np.float32)
    points = np.empty((len(members), dimensions), np.float32)
    for start in range(0, len(members), CHUNK):
        chunk = slice(start, start + CHUNK)
        points[chunk] = (descriptors(spectra[members[chunk]]) - mean) @ scaled
    return points


def descriptors(spectra: np.ndarray) -> np.ndarray:
    """Return values that mirroring and turning by 90 degrees leave as they are, shifts nearly so.

    A shift changes only the phases of a Fourier transform; mirroring exchanges the magnitudes at
    (u, v) and (-u, v), turning those at (u, v) and (v, u): sums and magnitudes of differences stay.

    Args:
        spectra: shape (N, 2 FREQUENCIES, 2 FREQUENCIES), see ``spectra``.

    Returns:
        float32, shape (N, D).
    """
    u, v = np.triu_indices(FREQUENCIES)
    band = (u**2 + v**2 >= 4) & (u**2 + v**2 <= FREQUENCIES**2)
    u, v = u[band], v[band]
    positive, negative = (np.abs(plane) for plane in _planes(spectra))
    values = []
    for magnitudes, distinct in (
        (positive + negative, u >= 0),
        (np.abs(positive - negative), u > 0),
    ):
        upper, lower = magnitudes[:, u, v][:, distinct], magnitudes[:, v, u][:, distinct]
        values += [upper + lower, np.abs(upper - lower)[:, (u != v)[distinct]]]
    return np.concatenate(values, axis=1)
