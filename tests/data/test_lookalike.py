"""Look-alikes: the search misses no hash that is near, finds planted copies, and joins nothing else."""

from __future__ import annotations

from itertools import combinations
from time import perf_counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.lookalike import COPIES, thumbnails
from medscale.data import lookalike
from medscale.data.lookalike import (
    BANDS,
    RADIUS,
    SHAPE,
    WINDOW,
    components,
    hashes,
    meetings,
    pairs,
    turned,
)


def photograph(seed: int) -> np.ndarray:
    """A random picture (uint8 RGB, 90 x 120), smooth but for a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (9, 12, 3)).astype(np.float32)
    pixels = cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)
    return np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


def clusters(found: np.ndarray, count: int) -> list[list[int]]:
    """Members of each cluster of more than one, in order."""
    part = components(count, found)
    return [
        np.flatnonzero(part == one).tolist() for one in np.unique(part) if (part == one).sum() > 1
    ]


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [photograph(seed) for seed in range(60)]


@pytest.mark.parametrize("kind", COPIES)
def test_each_copy_is_joined_with_its_original_alone(
    originals: list[np.ndarray], kind: str
) -> None:
    images = [*originals, *(COPIES[kind](image) for image in originals)]
    assert clusters(pairs(thumbnails(images)), len(images)) == [[n, n + 60] for n in range(60)]


@settings(max_examples=150, deadline=None)
@given(
    table=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    changes=st.lists(
        st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=RADIUS + 2)), max_size=12
    ),
)
def test_hashes_within_the_radius_meet_as_in_brute_force(
    table: list[int], changes: list[tuple[int, set[int]]]
) -> None:
    near = [table[at % len(table)] ^ sum(1 << bit for bit in bits) for at, bits in changes]
    codes = np.array([*table, *near], np.uint64)
    assert len(codes) <= WINDOW
    met = {
        (int(query), int(other))
        for bands in combinations(range(BANDS), 2)
        for queries, others in meetings(codes, codes, bands)
        for query, other in zip(queries, others, strict=True)
    }
    every = {
        (i, j)
        for i, one in enumerate(codes)
        for j, two in enumerate(codes)
        if (one ^ two).bit_count() <= RADIUS
    }
    assert every <= met


def test_the_symmetries_are_those_of_the_square() -> None:
    square = np.arange(9).reshape(1, 3, 3)
    every = {turned(square, symmetry).tobytes() for symmetry in range(8)}
    by_numpy = {
        np.rot90(one, turns, (1, 2)).tobytes()
        for one in (square, square[:, ::-1])
        for turns in range(4)
    }
    assert every == by_numpy
    assert len(every) == 8
    for symmetry in set(range(8)) - set(lookalike.SYMMETRIES):
        back = [
            other for other in range(8) if (turned(turned(square, symmetry), other) == square).all()
        ]
        assert set(back) <= set(lookalike.SYMMETRIES)


def test_a_hash_is_not_changed_by_brightness_and_small_noise(originals: list[np.ndarray]) -> None:
    pixels = thumbnails(originals).astype(float)
    first, second = (
        hashes(pixels.astype(np.uint8)),
        hashes(np.clip(0.9 * pixels + 10, 0, 255).astype(np.uint8)),
    )
    assert np.bitwise_count(first ^ second).max() <= RADIUS
    different = np.bitwise_count(first[:, None] ^ first[None])[np.triu_indices(60, 1)]
    assert np.median(different) > 20


def test_blank_and_striped_images_look_like_no_other() -> None:
    rng = np.random.default_rng(0)
    blank = [np.full((40, 40, 3), level, np.uint8) for level in (0, 128, 128, 255)]
    noisy = [
        np.clip(128 + rng.normal(0, 2, (40, 40, 3)), 0, 255).astype(np.uint8) for _ in range(4)
    ]
    stripes = [np.tile(np.linspace(0, 200, 40)[:, None, None], (1, 40, 3)).astype(np.uint8)] * 2
    assert not len(pairs(thumbnails([*blank, *noisy, *stripes])))
    assert pairs(np.empty((0, *SHAPE), np.uint8)).shape == (0, 2)


def test_one_form_with_other_content_is_not_joined() -> None:
    """Bright discs on black, as fundus photographs are: the rim is the same, what is in it is not."""
    disc = cv2.circle(np.zeros((128, 128, 3), np.uint8), (64, 64), 60, (1, 1, 1), -1)
    inner = [cv2.resize(photograph(seed), (128, 128)) // 4 for seed in range(40)]
    images = [disc * (90 + one) for one in inner]
    assert not len(pairs(thumbnails(images)))


def test_equal_images_without_end_are_one_cluster_in_bounded_time(
    originals: list[np.ndarray],
) -> None:
    rng = np.random.default_rng(0)
    one, others = thumbnails(originals)[:1].astype(int), thumbnails(originals)[1:]
    many = np.clip(one + rng.integers(-1, 2, (5000, *SHAPE)), 0, 255).astype(np.uint8)
    start = perf_counter()
    found = pairs(np.concatenate([others, many]))
    assert clusters(found, 5059) == [list(range(59, 5059))]
    assert len(found) < 20 * 5000  # 12 million pairs are alike
    assert perf_counter() - start < 30


def test_time_and_finds_grow_with_the_images_not_with_their_pairs() -> None:
    """Planted mirrored copies among many random pictures are all found, and no others."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4000, 8, 8), np.uint8)
    pictures = np.stack([cv2.resize(one, SHAPE, interpolation=cv2.INTER_LINEAR) for one in coarse])
    planted = pictures[:400, :, ::-1] ^ rng.integers(0, 2, (400, *SHAPE), np.uint8)
    assert clusters(pairs(np.concatenate([pictures, planted])), 4400) == [
        [n, n + 4000] for n in range(400)
    ]
