"""Images that look alike: perceptual hashes of thumbnails, searched by bands, each find checked on the thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import cv2
import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16
SHAPE = (SIDE, SIDE)  # of a thumbnail
RADIUS = 5  # bits of 64 in which the hashes of images that look alike differ at most
BANDS = RADIUS + 2
WIDTH = 64 // BANDS
WINDOW = 64  # hashes, before and after it, that a hash meets among those equal in two bands
TRIES = 256  # times at most that the thumbnail of an image is compared with another
CORRELATION = 0.9  # of the clipped gradients of thumbnails of images that look alike, at least
CLIP = 2.0  # grey levels from pixel to pixel: steeper gradients count no more
BLACK, WHITE = 8, 247  # grey levels; darker or brighter pixels are not compared
SHARE = 0.25  # of the gradients, at least, must be comparable
CONTRAST = 2.0  # grey levels: what varies less, in either direction, shows nothing to compare
SYMMETRIES = (0, 1, 2, 3, 4, 5, 7)  # for `turned`; 6 is 5 seen from the other image
CHUNK = 2048  # thumbnails worked on at a time
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def thumbnail(image: np.ndarray) -> bytes:
    """SIDE x SIDE grey levels of an image (uint8 RGB, shape H,W,3), averaged over areas, row by row."""
    small = cv2.resize(image, SHAPE, interpolation=cv2.INTER_AREA)
    return np.rint(small.astype(np.float32) @ GREY).astype(np.uint8).tobytes()


def turned(thumbnails: np.ndarray, symmetry: int) -> np.ndarray:
    """A view of thumbnails (shape N,SIDE,SIDE) under one of the 8 symmetries of the square; 0 leaves them."""
    if symmetry & 1:
        thumbnails = thumbnails[:, ::-1]
    if symmetry & 2:
        thumbnails = thumbnails[:, :, ::-1]
    return thumbnails.transpose(0, 2, 1) if symmetry & 4 else thumbnails


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Perceptual hashes (Zauner 2010): the signs of the 8 x 8 lowest frequencies of the discrete cosine transform.

    The bits stand in a fixed random order, so that each band has low and high frequencies; the mean's comes last.

    Args:
        thumbnails: uint8, shape N,SIDE,SIDE.

    Returns:
        uint64, shape N.
    """
    order = np.append(1 + np.random.default_rng(0).permutation(63), 0)
    found = np.empty(len(thumbnails), np.uint64)
    for start in range(0, len(thumbnails), CHUNK):
        waves = dctn(thumbnails[start : start + CHUNK].astype(np.float32), axes=(1, 2))[:, :8, :8]
        bits = np.packbits(waves.reshape(-1, 64)[:, order] > 0, axis=1)
        found[start : start + CHUNK] = np.ascontiguousarray(bits).view(">u8")[:, 0]
    return found


def pairs(thumbnails: np.ndarray) -> np.ndarray:
    """Find images that look alike: the same picture, also mirrored, turned, encoded again, resized, or brightened.

    Images of less than CONTRAST (blank, or stripes) look like no other. Time and memory grow with the number of images,
    not of pairs.

    Args:
        thumbnails: uint8, shape N,SIDE,SIDE, an image each.

    Returns:
        int64, shape M,2: positions of two images that look alike. Of images that all look alike not every pair is
        there, but enough to connect them.
    """
    shown = np.flatnonzero(contrast(thumbnails) >= CONTRAST)
    thumbnails = thumbnails[shown]
    versions = [turned(thumbnails, symmetry) for symmetry in SYMMETRIES]
    table, queries = hashes(thumbnails), [hashes(version) for version in versions]
    part, tries, links = (
        np.arange(len(shown)),
        np.zeros(len(shown), np.int64),
        np.empty((0, 2), np.int64),
    )
    for bands in combinations(range(BANDS), 2):
        for version, query in zip(versions, queries, strict=True):
            for near in _near(table, query, bands, part):
                near = near[tries[near[:, 0]] < TRIES]
                tries += np.bincount(near[:, 0], minlength=len(shown))
                found = near[_alike(version, thumbnails, near)]
                if len(found):
                    links = np.concatenate([links, found])
                    part[:] = components(
                        len(shown), links
                    )  # _near passes over what is connected by now
    return shown[links]


def components(count: int, links: np.ndarray) -> np.ndarray:
    """Number of the part that each of ``count`` nodes belongs to when ``links`` (shape M,2) connect them."""
    edges = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def meetings(
    table: np.ndarray, queries: np.ndarray, bands: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of hashes that are equal in two bands, as positions in ``queries`` and in ``table``.

    Two hashes within RADIUS bits are equal in two of the BANDS bands at least: so they meet under some two bands
    (multi-index hashing, Norouzi et al. 2012; bands chosen as by Manku et al. 2007). Where more than WINDOW hashes are
    equal in the bands, a query meets the WINDOW before and after it in the order of the other bits (sorted
    neighbourhood, Hernández & Stolfo 1995), so that look-alikes without end cost no more than time in proportion.
    """
    keys, wanted = _keys(table, bands), _keys(queries, bands)
    order, asked = np.argsort(keys), np.argsort(wanted)
    keys, wanted = keys[order], wanted[asked]
    place = np.searchsorted(keys, wanted)
    for step, at in ((1, place), (-1, place - 1)):
        query = np.arange(len(queries))
        for _ in range(WINDOW):
            inside = (at >= 0) & (at < len(keys))
            inside[inside] = (keys[at[inside]] ^ wanted[query[inside]]) >> np.uint64(
                64 - 2 * WIDTH
            ) == 0
            query, at = query[inside], at[inside]
            if not len(query):
                break
            yield asked[query], order[at]
            at = at + step


def _keys(table: np.ndarray, bands: tuple[int, int]) -> np.ndarray:
    """64 bits of each hash: two bands, then the first of its others."""
    mask = np.uint64(2**WIDTH - 1)
    first, second = ((table >> np.uint64(64 - (band + 1) * WIDTH)) & mask for band in bands)
    return (
        (first << np.uint64(64 - WIDTH))
        | (second << np.uint64(64 - 2 * WIDTH))
        | (table >> np.uint64(2 * WIDTH))
    )


def _near(
    table: np.ndarray, queries: np.ndarray, bands: tuple[int, int], part: np.ndarray
) -> Iterator[np.ndarray]:
    """Pairs (shape M,2) that meet, differ in RADIUS bits at most and are not connected yet, some CHUNK at a time."""
    waiting: list[np.ndarray] = []
    for query, other in meetings(table, queries, bands):
        near = np.bitwise_count(queries[query] ^ table[other]) <= RADIUS
        query, other = query[near], other[near]
        new = part[query] != part[other]
        waiting.append(np.column_stack([query[new], other[new]]))
        if sum(map(len, waiting)) >= CHUNK:
            yield np.concatenate(waiting)
            waiting = []
    if any(map(len, waiting)):
        yield np.concatenate(waiting)


def _alike(first: np.ndarray, second: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether the thumbnails of the chosen pairs (shape M,2) correlate by CORRELATION at least: bool, shape M.

    Compared are gradients, clipped, where both thumbnails are neither black nor white: so neither brightness counts,
    nor does a form that all images of a kind share (the rim of a fundus, the lungs) outweigh what is in it.
    """
    found = np.empty(len(chosen), bool)
    for start in range(0, len(chosen), CHUNK):
        one, other = chosen[start : start + CHUNK].T
        (steps, seen), (others, seen_too) = _steps(first[one]), _steps(second[other])
        length = np.sqrt((steps**2 * seen_too).sum(1) * (others**2 * seen).sum(1))
        enough = (seen * seen_too).mean(1) >= SHARE
        found[start : start + CHUNK] = (
            enough & ((steps * others).sum(1) >= CORRELATION * length) & (length > 0)
        )
    return found


def _steps(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clipped gradients down the columns and along the rows, 0 beside black or white; and 1 where they are not so."""
    pixels = thumbnails.astype(np.float32)
    seen = (pixels > BLACK) & (pixels < WHITE)
    rows = [
        np.clip(np.diff(pixels, axis=axis), -CLIP, CLIP).reshape(len(pixels), -1) for axis in (1, 2)
    ]
    both = [(seen[:, 1:] & seen[:, :-1]), (seen[:, :, 1:] & seen[:, :, :-1])]
    mask = np.concatenate([one.reshape(len(pixels), -1) for one in both], axis=1).astype(np.float32)
    return np.concatenate(rows, axis=1) * mask, mask


def contrast(thumbnails: np.ndarray) -> np.ndarray:
    """Standard deviation of each thumbnail within its rows or its columns, whichever is less, in grey levels."""
    found = np.empty(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails), CHUNK):
        pixels = thumbnails[start : start + CHUNK].astype(np.float32)
        within = [(pixels - pixels.mean(axis, keepdims=True)).std((1, 2)) for axis in (1, 2)]
        found[start : start + CHUNK] = np.minimum(*within)
    return found
