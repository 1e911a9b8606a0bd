"""Low frequencies of signatures: descriptors, and symmetry and shift between two images."""

from __future__ import annotations

import numpy as np

from medscale.data.signature import SIDE

RESOLUTION = 8  # steps of a unit in which coefficients are stored; 16 bits hold the largest
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
    """Return matrices (2 FREQUENCIES^2, shifts) from cross spectra to correlations.

    The first is for real parts and is even in the shift, the second is for imaginary parts and is
    odd. Rows are the frequencies (u, v), then (-u, v); columns are the shifts along rows, then
    along columns. The second half of the shifts, which are the first with opposite signs, is left
    out.
    """
    steps = np.arange(-REACH, REACH + 1)
    phases = np.exp(2j * np.pi / SIDE * np.arange(FREQUENCIES)[:, None] * steps)
    signs = np.stack([phases, phases.conj()])[:, :, None, :, None]
    products = (signs * phases[None, None, :, None, :]).reshape(-1, len(steps) ** 2)
    half = products[:, : len(steps) ** 2 // 2 + 1]
    return half.real.astype(np.float32), (-half.imag).astype(np.float32)


def _weights() -> np.ndarray:
    """Return the weight of each frequency in a correlation of two blurred images."""
    squares = (np.arange(FREQUENCIES) / SIDE) ** 2
    gains = np.exp(-4 * (np.pi * BLUR) ** 2 * (squares[:, None] + squares))
    half = np.where(np.arange(FREQUENCIES) == 0, 0.5, 1)  # each sign of 0 is counted once
    return (gains * half[:, None] * half).astype(np.float32)


BASIS, WEIGHTS = _basis(), _weights()
EVEN, ODD = _shifts()
# Symmetries of which no two differ by a turn by 180 degrees, which changes no magnitude.
QUARTER_TURNS = (0, 1, 4, 5)
# Mirroring changes the signs of the sines along one axis.
_SINES = np.repeat(np.array([1, -1], np.float32), FREQUENCIES)


def spectra(details: np.ndarray) -> np.ndarray:
    """Return the lowest frequencies of details (float32, shape (N, SIDE, SIDE)).

    Returns:
        int16, shape (N, 2 FREQUENCIES, 2 FREQUENCIES): products with cosines, then sines, along
        rows and columns, under a Hann window; in steps of 1 / ``RESOLUTION``.
    """
    along_rows = (details.reshape(-1, SIDE) @ BASIS.T).reshape(-1, SIDE, 2 * FREQUENCIES)
    return np.rint(RESOLUTION * np.matmul(BASIS, along_rows)).astype(np.int16)


def _planes(spectra: np.ndarray) -> np.ndarray:
    """Return the complex Fourier coefficients of images.

    Returns:
        shape (2, N, 2, FREQUENCIES, FREQUENCIES): real and imaginary part; image; frequencies
        (u, v) and (-u, v); u; v.
    """
    blocks = spectra.astype(np.float32).reshape(-1, 2, FREQUENCIES, 2, FREQUENCIES)
    cosines, mixed = blocks[:, 0, :, 0], blocks[:, 0, :, 1]
    other_mixed, sines = blocks[:, 1, :, 0], blocks[:, 1, :, 1]
    real, imaginary = planes = np.empty((2, len(blocks), 2, FREQUENCIES, FREQUENCIES), np.float32)
    np.subtract(cosines, sines, out=real[:, 0])
    np.add(cosines, sines, out=real[:, 1])
    np.add(mixed, other_mixed, out=imaginary[:, 0])
    np.negative(imaginary[:, 0], out=imaginary[:, 0])
    np.subtract(other_mixed, mixed, out=imaginary[:, 1])
    return planes


def best_symmetries(spectra: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the symmetry of each second image that fits the first, and the correlation under it.

    Args:
        spectra: shape (N, 2 FREQUENCIES, 2 FREQUENCIES), see ``spectra``.
        pairs: positions of two images each, shape (M, 2).

    Returns:
        Symmetries (int64, shape M, 0 to 7, see ``signature.turned``) and correlations of the
        spectra (float32, shape M).
    """
    symmetries, correlations = np.empty(len(pairs), np.int64), np.empty(len(pairs), np.float32)
    ones = np.ones_like(_SINES)
    signs = np.stack(
        [np.outer(row, column).ravel() for column in (ones, _SINES) for row in (ones, _SINES)]
    ).T
    for start in range(0, len(pairs), CHUNK):
        chunk = slice(start, start + CHUNK)
        first, second = (spectra[side].astype(np.float32) for side in pairs[chunk].T)
        shape = (len(first), -1)
        plain = (first * second).reshape(shape) @ signs
        transposed = (first.transpose(0, 2, 1) * second).reshape(shape) @ signs
        products = np.concatenate([plain, transposed], axis=1)
        energy = np.einsum("nij,nij->n", first, first) * np.einsum("nij,nij->n", second, second)
        symmetries[chunk] = products.argmax(axis=1)
        correlations[chunk] = products.max(axis=1) / np.sqrt(np.maximum(energy, 1e-6))
    return symmetries, correlations


def shifted(spectra: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlate pairs of blurred images under symmetries and all shifts up to ``REACH`` pixels.

    The magnitudes bound the correlation under any shift. They are the same under a symmetry and
    the one that also turns by 180 degrees: the two symmetries with the largest bound are tried.

    Args:
        spectra: shape (N, 2 FREQUENCIES, 2 FREQUENCIES), see ``spectra``.
        pairs: positions of two images each, shape (M, 2).

    Returns:
        The largest correlation (float32, shape M), its symmetry of the second image, and the shift
        of the second image after it (int64, shape (M, 2), pixels down and right).
    """
    largest, symmetries = np.empty(len(pairs), np.float32), np.empty(len(pairs), np.int64)
    shifts = np.empty((len(pairs), 2), np.int64)
    for start in range(0, len(pairs), CHUNK):
        chunk = slice(start, start + CHUNK)
        first, second = (_planes(spectra[side]) for side in pairs[chunk].T)
        largest[chunk], symmetries[chunk], shifts[chunk] = _best_shifts(first, second)
    return largest, symmetries, shifts


def _best_shifts(
    planes: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the values of ``shifted`` for coefficients, see ``_planes``; change both."""
    magnitudes, other_magnitudes = _magnitudes(planes), _magnitudes(other)
    energy = _energy(magnitudes) * _energy(other_magnitudes)
    weighted = WEIGHTS * magnitudes
    bounds = [
        np.einsum("nkuv,nkuv->n", weighted, _turned(other_magnitudes, symmetry))
        for symmetry in QUARTER_TURNS
    ]
    best_bounds = np.argmax(bounds, axis=0)
    for number, symmetry in enumerate(QUARTER_TURNS):
        rows = best_bounds == number
        other[:, rows] = _turned(other[:, rows], symmetry)
        if symmetry & 4:
            other[1][rows, 1] *= -1
    planes *= WEIGHTS
    correlations, positive = _correlations(planes, other)
    best = correlations.argmax(axis=1)
    numbers = np.arange(len(best))
    half_turns, places = np.divmod(best, EVEN.shape[1])
    places = np.where(positive[numbers, best], places, (2 * REACH + 1) ** 2 - 1 - places)
    largest = correlations[numbers, best] / np.sqrt(np.maximum(energy, 1e-6))
    symmetries = np.array(QUARTER_TURNS)[best_bounds] ^ (3 * half_turns)
    return largest, symmetries, np.column_stack(np.divmod(places, 2 * REACH + 1)) - REACH


def _correlations(planes: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlate images with others and with others turned by 180 degrees, under all shifts.

    Returns:
        The larger correlation of each two opposite shifts, and whether it belongs to the shift in
        ``EVEN``, shape (N, 2 shifts): first without, then with the turn.
    """
    count, shifts = planes.shape[1], EVEN.shape[1]
    (real, imaginary), (other_real, other_imaginary) = planes, other
    # The turn replaces the coefficients of the other image by their conjugates.
    products = np.empty((4, count, len(EVEN)), np.float32).reshape(4, *real.shape)
    np.multiply(real, other_real, out=products[0])
    np.multiply(imaginary, other_imaginary, out=products[1])
    np.multiply(imaginary, other_real, out=products[2])
    np.multiply(real, other_imaginary, out=products[3])
    cosines = products[:2].reshape(2 * count, -1) @ EVEN
    sines = products[2:].reshape(2 * count, -1) @ ODD
    even, odd = (np.empty((count, 2, shifts), np.float32) for _ in range(2))
    np.add(cosines[:count], cosines[count:], out=even[:, 0])
    np.subtract(cosines[:count], cosines[count:], out=even[:, 1])
    np.subtract(sines[:count], sines[count:], out=odd[:, 0])
    np.add(sines[:count], sines[count:], out=odd[:, 1])
    return (even + np.abs(odd)).reshape(count, -1), (odd >= 0).reshape(count, -1)


def _magnitudes(planes: np.ndarray) -> np.ndarray:
    return np.sqrt(planes[0] ** 2 + planes[1] ** 2)


def _energy(magnitudes: np.ndarray) -> np.ndarray:
    return np.einsum("nkuv,nkuv->n", WEIGHTS * magnitudes, magnitudes)


def _turned(values: np.ndarray, symmetry: int) -> np.ndarray:
    """Exchange frequencies, shape (..., 2, u, v), as one of ``QUARTER_TURNS`` does.

    If it transposes the image (4), the second coefficients also become their conjugates.
    """
    if symmetry & 1:
        values = values[..., ::-1, :, :]
    return values.swapaxes(-1, -2) if symmetry & 4 else values


def reduced(spectra: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return short descriptors (float32, shape M, D) of some spectra for an index of neighbours.

    Descriptors are reduced by principal components and scaled towards equal variance, since images
    of one body part share most of their descriptor.

    Args:
        spectra: of all images, shape (N, 2 FREQUENCIES, 2 FREQUENCIES).
        members: positions of the images that are compared, shape M.
    """
    stride = max(-(-len(members) // SAMPLE), 1)
    sample = descriptors(spectra[members[::stride]])
    mean = sample.mean(axis=0)
    dimensions = max(min(DIMENSIONS, len(sample) // 8), 1)
    variances, axes = np.linalg.eigh((sample - mean).T @ (sample - mean) / len(sample))
    variances, axes = variances[-dimensions:], axes[:, -dimensions:]
    scale = np.sqrt(np.maximum(variances, 0) + NOISE * max(variances[-1], 1e-6))
    scaled = (axes / scale).astype(np.float32)
    if stride == 1:
        return (sample - mean) @ scaled
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
    positive, negative = _magnitudes(_planes(spectra)).swapaxes(0, 1)
    values = []
    for magnitudes, distinct in (
        (positive + negative, u >= 0),
        (np.abs(positive - negative), u > 0),
    ):
        upper, lower = magnitudes[:, u, v][:, distinct], magnitudes[:, v, u][:, distinct]
        values += [upper + lower, np.abs(upper - lower)[:, (u != v)[distinct]]]
    return np.concatenate(values, axis=1)
