"""Near-duplicates: copies are found, other images of the same kind are not, in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import cv2
import numpy as np
import pytest

from bench.lookalike import COPIES, CROPS
from medscale.data import lookalike, neighbours, spectrum
from medscale.data.lookalike import analysed, components, near_duplicates, pairs, same_scene
from medscale.data.neighbours import nearest, ordered, pairs_of
from medscale.data.registration import linear_step
from medscale.data.signature import BYTES, SIDE, signature, turned, unpacked


def photograph(seed: int, cells: int = 12) -> np.ndarray:
    """Return a random smooth picture with a little noise (uint8 RGB, 90 x 120)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (cells, cells + 4, 3)).astype(np.float32)
    pixels = cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)
    return np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


def fundus(seed: int, border: int = 0) -> np.ndarray:
    """Return a bright disc on black with the same shading and other content for each seed."""
    side = 160
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    shading = 140 - 60 * (x**2 + y**2)
    content = cv2.resize(photograph(seed, 20), (side, side)).astype(np.float32) / 4
    disc = np.where((x**2 + y**2 < 0.95)[..., None], shading[..., None] + content, 0)
    return np.pad(disc.astype(np.uint8), [(border, border), (border, border), (0, 0)])


def signatures(images: list[np.ndarray]) -> list[bytes]:
    return [signature(image) for image in images]


def details_of(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return details and masks of images, see ``unpacked``."""
    return unpacked(np.frombuffer(b"".join(signatures(images)), np.uint8).reshape(-1, BYTES))


def clusters(links: np.ndarray, count: int) -> list[list[int]]:
    """Return the members of each cluster of several images, in order."""
    part = components(count, links)
    members = [np.flatnonzero(part == number).tolist() for number in np.unique(part)]
    return [positions for positions in members if len(positions) > 1]


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [photograph(seed) for seed in range(150)]


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of pairs that each call of a comparison of signatures takes."""
    counts = []

    def counted_comparisons(
        compare: Callable[[list[bytes], np.ndarray, np.ndarray], np.ndarray],
    ) -> Callable[[list[bytes], np.ndarray, np.ndarray], np.ndarray]:
        def count_compared(
            codes: list[bytes], spectra: np.ndarray, candidates: np.ndarray
        ) -> np.ndarray:
            counts.append(len(candidates))
            return compare(codes, spectra, candidates)

        return count_compared

    for compare in (near_duplicates, same_scene):
        monkeypatch.setattr(lookalike, compare.__name__, counted_comparisons(compare))
    return counts


@pytest.mark.parametrize("kind", [*COPIES, "cropped by 2 %"])
def test_each_copy_is_joined_with_its_original_alone(
    originals: list[np.ndarray], kind: str
) -> None:
    copy = {**COPIES, **CROPS}[kind]
    images = [*originals, *(copy(image) for image in originals)]
    assert clusters(pairs(signatures(images)), 300) == [[n, n + 150] for n in range(150)]


def test_few_images_are_compared_with_each_other(originals: list[np.ndarray]) -> None:
    images = [*originals[:20], *(image[:, ::-1] for image in originals[:20])]
    assert clusters(pairs(signatures(images)), 40) == [[n, n + 20] for n in range(20)]
    assert pairs([]).shape == (0, 2)
    assert pairs(signatures(originals[:1])).shape == (0, 2)


def test_discs_with_the_same_rim_and_other_content_are_not_joined() -> None:
    images = [fundus(seed) for seed in range(120)]
    assert not len(pairs(signatures(images)))


def test_a_wider_dark_border_changes_nothing() -> None:
    images = [fundus(seed) for seed in range(60)] + [fundus(seed, 40) for seed in range(60)]
    assert clusters(pairs(signatures(images)), 120) == [[n, n + 60] for n in range(60)]


def test_blank_and_striped_images_are_no_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    blank = [np.full((40, 40, 3), level, np.uint8) for level in (0, 128, 128, 255)]
    stripes = []
    for _ in range(6):
        line = np.repeat(rng.integers(40, 200, 20), 4)[:, None, None]
        stripes.append(np.tile(line, (1, 80, 3)).astype(np.uint8))
    images = [*blank, *stripes, *(image.transpose(1, 0, 2) for image in stripes)]
    assert not len(pairs(signatures(images)))


def test_a_signature_ignores_brightness_and_contrast(originals: list[np.ndarray]) -> None:
    first = details_of(originals[:1])[0]
    second = details_of([cv2.convertScaleAbs(originals[0], alpha=0.8, beta=20)])[0]
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.98
    assert len(signature(originals[0])) == BYTES


def test_dark_pixels_are_not_compared() -> None:
    details, mask = details_of([fundus(0)])
    assert mask[0, 0, 0] == 0
    assert mask[0, SIDE // 2, SIDE // 2] == 1
    assert not details[mask == 0].any()


def test_the_symmetries_are_those_of_the_square() -> None:
    square = np.arange(9).reshape(1, 3, 3)
    symmetries = {turned(square, symmetry).tobytes() for symmetry in range(8)}
    by_numpy = {
        np.rot90(image, turns, (1, 2)).tobytes()
        for image in (square, square[:, ::-1])
        for turns in range(4)
    }
    assert symmetries == by_numpy
    assert len(symmetries) == 8


def test_descriptors_do_not_change_under_the_symmetries(originals: list[np.ndarray]) -> None:
    image = cv2.resize(originals[0], (SIDE, SIDE))
    versions = [np.ascontiguousarray(turned(image[None], s)[0]) for s in range(4)]
    versions += [np.ascontiguousarray(version.transpose(1, 0, 2)) for version in versions]
    values = spectrum.descriptors(analysed(signatures(versions))[1])
    scale = np.abs(values).max()
    assert np.abs(values - values[0]).max() < 0.05 * scale


def test_the_index_finds_the_pairs_that_comparing_all_pairs_finds(
    originals: list[np.ndarray],
) -> None:
    images = [*originals, *(COPIES["20 % darker"](image[::-1]) for image in originals)]
    codes = signatures(images)
    every = np.array(list(combinations(range(300), 2)))
    alike = every[near_duplicates(codes, analysed(codes)[1], every)]
    assert clusters(pairs(codes), 300) == clusters(alike, 300)


def test_a_dataset_of_copies_is_one_cluster_with_few_comparisons(
    originals: list[np.ndarray], comparisons: list[int]
) -> None:
    rng = np.random.default_rng(0)
    copies = [
        np.clip(originals[0].astype(int) + rng.integers(-1, 2, (90, 120, 3)), 0, 255)
        for _ in range(1500)
    ]
    codes = signatures([*originals[1:60], *(copy.astype(np.uint8) for copy in copies)])
    assert clusters(pairs(codes), 1559) == [list(range(59, 1559))]
    assert sum(comparisons) < 8 * 1559  # a million pairs are alike


def test_comparisons_grow_with_the_images_not_with_their_pairs(comparisons: list[int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3000, 14, 14, 3), np.uint8)
    pictures = [cv2.resize(cells, (64, 64), interpolation=cv2.INTER_CUBIC) for cells in coarse]
    copies = [picture[:, ::-1] for picture in pictures[:300]]
    codes = signatures([*pictures, *copies])
    assert clusters(pairs(codes), 3300) == [[n, n + 3000] for n in range(300)]
    assert sum(comparisons) < 8 * 3300


def move(image: np.ndarray) -> np.ndarray:
    """Return an image photographed in another frame: shifted, larger and turned a little."""
    warp = cv2.getRotationMatrix2D((60, 45), 2, 1.04)
    warp[:, 2] += (6, -4)
    return cv2.warpAffine(image, warp, (120, 90), borderMode=cv2.BORDER_REFLECT)


def test_one_scene_in_two_frames_is_joined(originals: list[np.ndarray]) -> None:
    scenes = originals[:80]
    frames = [move(image[:, ::-1]) for image in scenes]
    codes = signatures([*scenes, *frames])
    shifted = np.column_stack([np.arange(80), np.arange(80, 160)])
    assert near_duplicates(codes, analysed(codes)[1], shifted).mean() < 0.1
    assert clusters(pairs(codes), 160) == [[n, n + 80] for n in range(80)]


def test_clusters_of_several_copies_in_two_frames_become_one(originals: list[np.ndarray]) -> None:
    scene = originals[0]
    frame = move(scene)
    copies = [COPIES[kind](image) for image in (scene, frame) for kind in list(COPIES)[:7]]
    assert clusters(pairs(signatures([*originals[1:60], *copies])), 73) == [list(range(59, 73))]


def nearest_pairs(points: np.ndarray) -> set[tuple[int, int]]:
    near = nearest(points, 3, seed=0)
    return set(map(tuple, pairs_of(np.arange(len(points)), near).tolist()))


def test_the_nearest_neighbours_of_a_few_points_are_exact() -> None:
    points = np.random.default_rng(0).standard_normal((200, 8), np.float32)
    apart = ((points[:, None] - points) ** 2).sum(axis=2) + np.diag(np.full(200, np.inf))
    expected = apart.argsort(axis=1)[:, :3]
    assert (nearest(points, 3, seed=0) == expected).all()
    queries = np.array([3, 17, 150])
    assert (nearest(points, 3, seed=0, queries=queries) == expected[queries]).all()
    assert nearest_pairs(points) == {
        (min(row, int(neighbour)), max(row, int(neighbour)))
        for row in range(200)
        for neighbour in expected[row]
    }
    assert nearest_pairs(points[:1]) == set()
    assert nearest_pairs(points[:2]) == {(0, 1)}


def test_pairs_are_put_in_order_and_counted_once() -> None:
    pairs_in_disorder = np.array([[5, 2], [0, 7], [2, 5], [0, 1]])
    assert ordered(pairs_in_disorder).tolist() == [[0, 1], [0, 7], [2, 5]]
    assert ordered(np.empty((0, 2), np.int64)).shape == (0, 2)


def test_linear_steps_find_the_affine_map_between_two_images() -> None:
    smooth = [cv2.GaussianBlur(photograph(n)[:, :, 0], (0, 0), 3) for n in range(5)]
    images = np.stack([image[13:77, 28:92] for image in smooth]).astype(np.float32)
    true_map = np.array([[1.02, -0.03, 1.5], [0.03, 1.02, -2.0]], np.float32)
    source = cv2.invertAffineTransform(true_map) + np.float32([[0, 0, 28], [0, 0, 13]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved_images = np.stack(
        [
            cv2.warpAffine(image.astype(np.float32), source, (64, 64), flags=flags)
            for image in smooth
        ]
    )
    warps = np.tile(np.eye(2, 3, dtype=np.float32), (5, 1, 1))
    for _ in range(6):
        # Gain and offset are free.
        fits, warps = linear_step(images, 0.7 * moved_images + 20, warps)
    assert (np.abs(warps - true_map).max(axis=(0, 1)) < [0.002, 0.002, 0.1]).all()
    assert (fits > 0.99).all()
    different_fits, _ = linear_step(images, np.roll(moved_images, 1, axis=0), warps)
    assert (different_fits < 0.75).all()
    no_fits, no_warps = linear_step(images[:0], moved_images[:0], warps[:0])
    assert no_fits.shape == (0,)
    assert no_warps.shape == (0, 2, 3)


def test_near_pairs_are_found_among_many_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "LEAF", 128)
    monkeypatch.setattr(neighbours, "EXACT", 128)
    points = np.random.default_rng(0).standard_normal((2000, 8), np.float32)
    doubled_points = np.concatenate([points, points + 0.01])
    near_pairs = nearest_pairs(doubled_points)
    assert sum((n, n + 2000) in near_pairs for n in range(2000)) > 0.98 * 2000
    assert len(near_pairs) <= 3 * 4000
    queries = np.arange(0, 4000, 40)
    near = nearest(doubled_points, 3, seed=0, queries=queries)
    partners = (queries + 2000) % 4000
    assert (near == partners[:, None]).any(axis=1).mean() > 0.95


def test_a_scene_is_joined_where_copies_fill_its_neighbours(originals: list[np.ndarray]) -> None:
    """Four copies of each frame are nearer than the other frame: clusters are searched again."""
    kinds = list(COPIES)[:4]
    frames = [frame for image in originals[:20] for frame in (image, move(image))]
    images = [COPIES[kind](frame) for frame in frames for kind in kinds]
    expected = [list(range(8 * n, 8 * n + 8)) for n in range(20)]
    assert clusters(pairs(signatures(images)), 160) == expected


def test_shifts_are_those_of_the_symmetry_with_the_largest_correlation(
    originals: list[np.ndarray],
) -> None:
    image = cv2.resize(originals[0], (120, 120))
    moved_image = np.roll(image, (6, -8), (0, 1))  # 120 pixels are 64 of a signature
    for symmetry in range(8):
        turned_image = np.ascontiguousarray(
            turned(moved_image.transpose(2, 0, 1), symmetry).transpose(1, 2, 0)
        )
        codes = signatures([image, turned_image])
        pair = np.array([[0, 1]])
        peaks, symmetries, shifts = spectrum.shifted(analysed(codes)[1], pair)
        restored = turned(turned(np.arange(16).reshape(1, 4, 4), symmetry), symmetries[0])
        assert (restored[0] == np.arange(16).reshape(4, 4)).all()
        assert peaks[0] > 0.8
        assert np.abs(np.abs(shifts[0]) - [3.2, 4.3]).max() < 1
