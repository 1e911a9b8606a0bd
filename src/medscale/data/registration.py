"""Registration of two signatures, such as two photographs of the same lesion or eye."""

from __future__ import annotations

import cv2
import numpy as np

from medscale.data.signature import SIDE

COARSE_BLUR = 2.0  # standard deviation in pixels of the filter before the images are halved
FIRST_STEPS, COARSE_STEPS, FINE_STEPS = 2, 5, 10  # iterations of a registration, at most
PRECISION = 1e-4  # gain of the correlation at which a registration ends
# Correlation of the halved images after ``FIRST_STEPS``, from which they are registered further:
# the same scene reaches 0.88, two thirds of the pairs of different images less than 0.8.
FIRST_CORRELATION = 0.8
# Correlation of the halved images after registration from which the details are registered: the
# same scene reaches 0.91, 19 of 20 chest radiographs of different patients stay below 0.87.
COARSE_CORRELATION = 0.87
# Correlation of the details from which they are registered: the same scene reaches 0.82, nine in
# ten pairs of different images less than 0.67.
START_CORRELATION = 0.67
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

    The registration maximizes the correlation (ECC, Evangelidis and Psarakis 2008, in OpenCV), of
    halved images first. The result is 0 where it fails, or where too few pixels are visible in
    both.

    Args:
        details: of the first signatures, float32, shape (N, SIDE, SIDE), 0 where not visible.
        masks: 1 where visible, as float32.
        other_details: details of the second signatures, already turned to the first.
        other_masks: as ``masks``.
        shifts: initial shifts of the second signatures, shape (N, 2), pixels down and right.

    Returns:
        float64, shape N.
    """
    halves = (HALVING @ (images @ HALVING.T) for images in (details, other_details))
    pairs = zip(details, masks, other_details, other_masks, *halves, shifts, strict=True)
    return np.array([_registered(*pair) for pair in pairs])


def _registered(
    details: np.ndarray,
    mask: np.ndarray,
    other: np.ndarray,
    other_mask: np.ndarray,
    half: np.ndarray,
    other_half: np.ndarray,
    shift: np.ndarray,
) -> float:
    """Return the correlation of one pair after a registration, see ``registered``."""
    visible = other_mask.astype(np.uint8)
    warp = np.array([[1, 0, -shift[1] / 2], [0, 1, -shift[0] / 2]], np.float32)
    for steps, least in ((FIRST_STEPS, FIRST_CORRELATION), (COARSE_STEPS, COARSE_CORRELATION)):
        coarse, warp = _align(half, other_half, visible[::2, ::2], steps, warp)
        if coarse < least:
            return 0.0
    # The position p of a pixel of the halved image lies at 2 p + 1/2.
    linear = warp[:, :2]
    warp = np.column_stack([linear, 2 * warp[:, 2] + 0.5 - linear.sum(axis=1) / 2])
    warp = warp.astype(np.float32)
    if _correlation(details, mask, other, other_mask, warp) < START_CORRELATION:
        return 0.0
    fine, warp = _align(details, other, visible, FINE_STEPS, warp)
    return _correlation(details, mask, other, other_mask, warp) if fine else 0.0


def _align(
    image: np.ndarray,
    other: np.ndarray,
    visible: np.ndarray,
    steps: int,
    start: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Return the correlation and the affine map that aligns ``other``; 0 if that fails."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, steps, PRECISION)
    visible = np.ascontiguousarray(visible)
    try:
        correlation, warp = cv2.findTransformECC(
            image, other, start.copy(), cv2.MOTION_AFFINE, criteria, visible, 1
        )
    except cv2.error:  # the images do not overlap, or the steps do not converge
        return 0.0, start
    return correlation, warp


def _correlation(
    details: np.ndarray,
    mask: np.ndarray,
    other: np.ndarray,
    other_mask: np.ndarray,
    warp: np.ndarray,
) -> float:
    inverse, size = cv2.WARP_INVERSE_MAP, (SIDE, SIDE)
    warped = cv2.warpAffine(other, warp, size, flags=cv2.INTER_LINEAR | inverse)
    common = mask * cv2.warpAffine(other_mask, warp, size, flags=cv2.INTER_NEAREST | inverse)
    if common.sum() < COMMON * SIDE * SIDE:
        return 0.0
    first, second = details * common, warped * common
    energy = float((first**2).sum() * (second**2).sum())
    return float((first * second).sum()) / max(energy, 1e-6) ** 0.5
