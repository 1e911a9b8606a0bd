"""Signatures of images, from which near-duplicates are found: small, filtered, 4 bits a pixel."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 64  # pixels a side of a signature
BYTES = SIDE * SIDE // 2  # size of a packed signature: two pixels a byte
# Value of a pixel that is not compared; 1 to 15 stand for -2 to 2 local standard deviations.
INVISIBLE = 0
ZERO, STEP = 8, 2 / 7
CLIP = 2.0  # local standard deviations; larger differences count no more than this
DARK = 10  # grey levels: darker pixels are background and are not compared
# The band of details that is compared. Coarser structure is shared by all images of a body part;
# finer structure does not survive compression. Chosen on fundus, dermoscopy and chest images:
# copies correlate by 0.71 or more, different chest radiographs by 0.65 at most.
FINE, COARSE = 0.7, 2.0  # standard deviations of the two Gaussian filters, in pixels
WINDOW = 37  # pixels a side of the window whose standard deviation normalizes the details
LEAST_DEVIATION = 0.3  # grey levels: weaker details are noise and are not amplified


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
    values = np.where(visible > 0, steps, INVISIBLE).astype(np.uint8).ravel()
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
    """Return a Gaussian mean over the visible pixels."""
    if visible.all():
        return cv2.GaussianBlur(grey, (0, 0), deviation)
    weight = cv2.GaussianBlur(visible, (0, 0), deviation)
    return cv2.GaussianBlur(grey * visible, (0, 0), deviation) / np.maximum(weight, 1e-3)


# The two values and the two mask pixels of each byte of a signature, as tables for look-up. A
# pair is one complex number, which numpy looks up several times faster than two floats.
_NIBBLES = np.stack([np.arange(256) >> 4, np.arange(256) & 15], axis=1)
_MASKS = (_NIBBLES != INVISIBLE).astype(np.float32)
_VALUES = ((_NIBBLES - ZERO) * STEP).astype(np.float32) * _MASKS
_MASKS, _VALUES = _MASKS.view(np.complex64).ravel(), _VALUES.view(np.complex64).ravel()


def unpacked(
    signatures: np.ndarray, buffers: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return details and masks, float32, shape (N, SIDE, SIDE).

    Masks are 1 where a pixel is visible and 0 elsewhere, where details are 0.

    Args:
        signatures: uint8, shape (N, BYTES).
        buffers: complex64, shape (2, N or more, BYTES), see ``empty_buffers``: memory of the
            result, for a caller that unpacks chunk after chunk; new memory takes twice the time.
    """
    buffers = empty_buffers(len(signatures)) if buffers is None else buffers[:, : len(signatures)]
    for table, buffer in zip((_VALUES, _MASKS), buffers, strict=True):
        np.take(table, signatures, out=buffer, mode="clip")  # "raise" would copy the result
    details, mask = (buffer.view(np.float32).reshape(-1, SIDE, SIDE) for buffer in buffers)
    return details, mask


def empty_buffers(count: int) -> np.ndarray:
    """Return memory into which ``unpacked`` writes ``count`` signatures at most."""
    return np.empty((2, count, BYTES), np.complex64)


def turned(images: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a view of images (shape N, side, side) under one of the 8 symmetries of the square."""
    if symmetry & 1:
        images = images[:, ::-1]
    if symmetry & 2:
        images = images[:, :, ::-1]
    return images.transpose(0, 2, 1) if symmetry & 4 else images
