"""Images that look alike: a perceptual hash of each thumbnail, searched band by band, then checked on the thumbnails."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16  # pixels a side of a thumbnail, and bits a side of its hash
SHAPE = (SIDE, SIDE)
BITS = SIDE * SIDE
RADIUS = 16  # bits in which the hashes of two images that look alike may differ
BANDS = RADIUS + 1  # hashes that differ in RADIUS bits are equal in one band at least
WIDTH = BITS // BANDS
WINDOW = 64  # hashes with an equal band that one hash is compared with, to either side
CORRELATION = 0.97  # of the thumbnails of two images that look alike, at least
FLAT = 2.0  # grey levels: a thumbnail that deviates less from its mean shows nothing to compare
CHUNK = 8192
SYMMETRIES = (0, 1, 2, 3, 4, 5, 7)  # a quarter turn is met from its other side (6)
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def thumbnail(image: np.ndarray) -> bytes:
    """The grey thumbnail of an image (uint8 RGB, shape H,W,3), averaged over areas: SIDE x SIDE bytes, row by row."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.rint(small.astype(np.float32) @ GREY).astype(np.uint8).tobytes()


def turned(thumbnails: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the 8 flips and quarter turns of the square (0 is none), of arrays of shape N,SIDE,SIDE."""
    if symmetry & 1:
        thumbnails = thumbnails[:, ::-1]
    if symmetry & 2:
        thumbnails = thumbnails[:, :, ::-1]
    return thumbnails.transpose(0, 2, 1) if symmetry & 4 else thumbnails


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Perceptual hashes: the signs of the discrete cosine transform's coefficients (Zauner 2010, with 256 bits for 64).

    The bits are in a fixed random order, so that each band of them has low and high frequencies.

    Args:
        thumbnails: uint8, shape N,SIDE,SIDE.

    Returns:
        uint8, shape N,BITS/8.
    """
    order = np.random.default_rng(0).permutation(BITS)
    packed = np.empty((len(thumbnails), BITS // 8), np.uint8)
    for start in range(0, len(thumbnails), CHUNK):
        pixels = thumbnails[start : start + CHUNK].astype(np.float32)
        waves = dctn(pixels - pixels.mean((1, 2), keepdims=True), axes=(1, 2), norm="ortho", overwrite_x=True)
        packed[start : start + CHUNK] = np.packbits(waves.reshape(-1, BITS)[:, order] > 0, axis=1)
    return packed


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Bits in which hashes of shape N,BITS/8 differ, pair by pair: int64, shape N."""
    return np.bitwise_count(first.view(np.uint64) ^ second.view(np.uint64)).sum(1, dtype=np.int64)


def meetings(table: np.ndarray, queries: np.ndarray, band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of hashes that are equal in a band, as positions in ``queries`` and in ``table`` (multi-index hashing).

    Two hashes within RADIUS bits are equal in one of BANDS bands at least (Norouzi et al. 2012). Where more than WINDOW
    hashes are equal in the band, a query meets the WINDOW before and after it in the order of the bits that follow
    (sorted neighbourhood, Hernández & Stolfo 1995), so that the work stays in proportion to the number of hashes.
    """
    keys = _keys(table, band)
    order = np.argsort(keys, kind="stable")
    keys, wanted = keys[order], _keys(queries, band)
    place = np.searchsorted(keys, wanted)
    for step, at in ((1, place), (-1, place - 1)):
        query = np.arange(len(queries))
        for _ in range(WINDOW):
            inside = np.flatnonzero((at >= 0) & (at < len(keys)))
            query, at = query[inside], at[inside]
            equal = np.flatnonzero((keys[at] ^ wanted[query]) >> np.uint64(64 - WIDTH) == 0)
            query, at = query[equal], at[equal]
            if not len(query):
                break
            yield query, order[at]
            at = at + step


def _keys(packed: np.ndarray, band: int) -> np.ndarray:
    """64 bits of each hash from where a band begins, around the end: uint64, shape N."""
    start = band * WIDTH
    octets = packed[:, np.arange(start // 8, start // 8 + 9) % packed.shape[1]]
    bits = np.unpackbits(octets, axis=1)[:, start % 8 : start % 8 + 64]
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8").astype(np.uint64).ravel()


def pairs(thumbnails: np.ndarray) -> np.ndarray:
    """Find the images that look alike, however they are turned or flipped.

    Args:
        thumbnails: uint8, shape N,SIDE,SIDE, an image each.

    Returns:
        int64, shape M,2: positions of two images that look alike, the lower one first. Not every such pair is there, but
        images joined by some chain of them are joined by a chain of those returned.
    """
    shown = np.flatnonzero(_contrast(thumbnails) >= FLAT)
    thumbnails = thumbnails[shown]
    table = hashes(thumbnails)
    versions = [turned(thumbnails, symmetry) for symmetry in SYMMETRIES]
    queries = [hashes(version) for version in versions]
    part = np.arange(len(shown))
    links = np.empty((0, 2), np.int64)
    for band in range(BANDS):
        found = [_alike(version, thumbnails, _near(query, table, band, part)) for version, query in zip(versions, queries, strict=True)]
        links = np.concatenate([links, *found])
        part = components(len(shown), links)
    return shown[np.unique(np.sort(links, axis=1), axis=0)]


def components(count: int, links: np.ndarray) -> np.ndarray:
    """Number of the connected part of each of ``count`` nodes, int64, shape count."""
    edges = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _near(queries: np.ndarray, table: np.ndarray, band: int, part: np.ndarray) -> np.ndarray:
    """Pairs within RADIUS that are equal in a band and not connected yet: int64, shape M,2."""
    found = [np.empty((0, 2), np.int64)]
    for query, other in meetings(table, queries, band):
        new = np.flatnonzero(part[query] != part[other])
        query, other = query[new], other[new]
        near = distance(queries[query], table[other]) <= RADIUS
        found.append(np.column_stack([query[near], other[near]]))
    return np.concatenate(found)


def _alike(versions: np.ndarray, thumbnails: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Those of the pairs whose thumbnails correlate by CORRELATION at least."""
    kept = [
        chunk[(_standard(versions[chunk[:, 0]]) * _standard(thumbnails[chunk[:, 1]])).sum(1) >= CORRELATION]
        for chunk in np.array_split(near, -(-len(near) // CHUNK) or 1)
    ]
    return np.concatenate(kept)


def _standard(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails as float32 vectors of mean 0 and length 1, shape N,BITS."""
    vectors = thumbnails.reshape(-1, BITS).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _contrast(thumbnails: np.ndarray) -> np.ndarray:
    """Standard deviation of each thumbnail in grey levels, shape N."""
    chunks = np.array_split(thumbnails, -(-len(thumbnails) // CHUNK) or 1)
    return np.concatenate([chunk.std((1, 2), dtype=np.float32) for chunk in chunks])
