"""Registration of two signatures, such as two photographs of the same lesion or eye."""

from __future__ import annotations

import cv2
import numpy as np

from medscale.data.signature import SIDE

COARSE_BLUR = 2.0  # standard deviation in pixels of the filter before the images are halved
# Multiple correlations from which a pair is registered further, after each step of the halved
# images and of the details. On real images the same scene reaches 0.84, 0.94, 0.85, 0.86 and 0.87;
# of the pairs of different images half stay below 0.75 and three in four below 0.85 after the
# halved images' steps, nine in ten below 0.63 after those of the details.
COARSE_STEPS = (0.75, 0.85)
FINE_STEPS = (0.70, 0.80, 0.80)
RIDGE = 1e-4  # share of each diagonal element that keeps the linear equations solvable
COMMON = 0.5  # share of the pixels that must be visible in both images after registration


def _halving() -> np.ndarray:
    """Return the matrix, shape (SIDE / 2, SIDE), that blurs a column and averages two pixels."""
    width = 2 * round(4 * COARSE_BLUR) + 1
    reflected = np.pad(np.arange(SIDE), width // 2, mode="reflect")
    blur = np.zeros((SIDE, SIDE), np.float32)
    for place, weight in enumerate(cv2.getGaussianKernel(width, COARSE_BLUR).ravel()):
        blur[np.arange(SIDE), reflected[place : place + SIDE]] += weight
    return (blur[::2] + blur[1::2]) / 2


HALVING = _halving()


def registered(
    details: np.ndarray,
    masks: np.ndarray,
    other_details: np.ndarray,
    other_masks: np.ndarray,
    shifts: np.ndarray,
) -> np.ndarray:
    """Return the correlation of pairs of signatures after an affine registration of each.

    The registration maximizes the correlation by the steps of Lucas and Kanade (1981), of halved
    images first. The result is 0 where too few pixels are visible in both, or where a step leaves
    the correlation too small.

    Args:
        details: of the first signatures, float32, shape (N, SIDE, SIDE), 0 where not visible.
        masks: 1 where visible, as float32.
        other_details: details of the second signatures, already turned to the first.
        other_masks: as ``masks``.
        shifts: initial shifts of the second signatures, shape (N, 2), pixels down and right.

    Returns:
        float64, shape N.
    """
    halves, other_halves = (HALVING @ (pixels @ HALVING.T) for pixels in (details, other_details))
    warps = np.tile(np.eye(2, 3, dtype=np.float32), (len(details), 1, 1))
    warps[:, :, 2] = -shifts[:, ::-1] / 2
    rows = np.arange(len(details))
    for least in COARSE_STEPS:
        fits, warps = linear_step(halves[rows], other_halves[rows], warps)
        rows, warps = rows[fits >= least], warps[fits >= least]
    # The position p of a pixel of the halved image lies at 2 p + 1/2.
    warps[:, :, 2] = 2 * warps[:, :, 2] + 0.5 - warps[:, :, :2].sum(axis=2) / 2
    for least in FINE_STEPS:
        fits, warps = linear_step(details[rows], other_details[rows], warps)
        rows, warps = rows[fits >= least], warps[fits >= least]
    correlations = np.zeros(len(details))
    for row, warp in zip(rows, warps, strict=True):
        images = (details[row], masks[row], other_details[row], other_masks[row])
        correlations[row] = _correlation(*images, warp)
    return correlations


def linear_step(
    images: np.ndarray, second_images: np.ndarray, warps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Improve affine maps between images by one step of Lucas and Kanade (1981).

    Each image is fitted by a constant, the mapped other image and its derivatives by the six
    parameters of the map.

    Args:
        images: float32, shape (N, side, side).
        second_images: the images that are mapped, of the same shape.
        warps: for each pair the affine map from pixels (x, y) of the first to the other image,
            float32, shape (N, 2, 3).

    Returns:
        The multiple correlation of the fit (float64, shape N, 0 to 1) and the improved maps.
    """
    terms = _terms(images, _mapped(second_images, warps))
    products = (terms @ terms.swapaxes(1, 2)).astype(np.float64)
    correlations, weights = _least_squares(products)
    # The weights of the derivatives by y and x: alone, times y, times x.
    gain = np.where(weights[:, 1] > 0, weights[:, 1], np.inf)
    constant, down, right = np.moveaxis(weights[:, 2:].reshape(-1, 3, 2)[:, :, ::-1], 1, 0)
    steps = np.stack([right, down, constant], axis=2) / gain[:, None, None] + np.eye(2, 3)
    improved = warps[:, :, :2] @ steps
    improved[:, :, 2] += warps[:, :, 2]
    return correlations, improved.astype(np.float32)


def _mapped(second_images: np.ndarray, warps: np.ndarray) -> np.ndarray:
    """Resample images by affine maps; pixels that come from outside an image are NaN."""
    size, flags = second_images.shape[1:], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mapped = np.empty_like(second_images)
    for image, other, warp in zip(mapped, second_images, warps, strict=True):
        cv2.warpAffine(other, warp, size, dst=image, flags=flags, borderValue=np.nan)
    return mapped


def _terms(images: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """Return images, ones, mapped images and their derivatives at every second pixel.

    Returns:
        float32, shape (N, 9, pixels), 0 where the mapped image or a derivative is not known.
    """
    places = np.arange(1, images.shape[1] - 1, 2, dtype=np.float32)
    inner = (slice(None), slice(1, -1, 2), slice(1, -1, 2))
    terms = np.empty((len(images), 9, len(places), len(places)), np.float32)
    terms[:, 0], terms[:, 1], terms[:, 2] = images[inner], 1, mapped[inner]
    terms[:, 3] = (mapped[:, 2::2, 1:-1:2] - mapped[:, :-2:2, 1:-1:2]) / 2
    terms[:, 4] = (mapped[:, 1:-1:2, 2::2] - mapped[:, 1:-1:2, :-2:2]) / 2
    np.multiply(terms[:, 3:5], places[:, None], out=terms[:, 5:7])
    np.multiply(terms[:, 3:5], places, out=terms[:, 7:9])
    unknown = np.isnan(terms[:, 2:5].sum(axis=1, keepdims=True))
    np.copyto(terms, 0, where=unknown)
    return terms.reshape(len(terms), 9, len(places) ** 2)


def _least_squares(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the first term by the other terms, the first of which is constant.

    Args:
        products: of each two terms, float64, shape (N, 1 + K, 1 + K); the diagonal is changed.

    Returns:
        Multiple correlations (shape N) and the weights of the other terms (shape (N, K)).
    """
    diagonal = np.arange(1, products.shape[1])
    right = products[:, 1:, 0]
    products[:, diagonal, diagonal] += RIDGE * products[:, diagonal, diagonal] + 1e-6
    weights = np.linalg.solve(products[:, 1:, 1:], right[:, :, None])[:, :, 0]
    mean = right[:, 0] ** 2 / products[:, 1, 1]
    explained = np.einsum("nt,nt->n", weights, right) - mean
    total = np.maximum(products[:, 0, 0] - mean, 1e-6)
    return np.sqrt(np.clip(explained / total, 0, 1)), weights


def _correlation(
    details: np.ndarray,
    mask: np.ndarray,
    other: np.ndarray,
    other_mask: np.ndarray,
    warp: np.ndarray,
) -> float:
    """Return the correlation of one pair under an affine map, over what both images show."""
    inverse, size = cv2.WARP_INVERSE_MAP, (SIDE, SIDE)
    warped = cv2.warpAffine(other, warp, size, flags=cv2.INTER_LINEAR | inverse)
    common = mask * cv2.warpAffine(other_mask, warp, size, flags=cv2.INTER_NEAREST | inverse)
    if common.sum() < COMMON * SIDE * SIDE:
        return 0.0
    first, second = details * common, warped * common
    energy = float((first**2).sum() * (second**2).sum())
    return float((first * second).sum()) / max(energy, 1e-6) ** 0.5
