"""Augmentation: its effects on an image, agreement with torchvision and of both devices."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from medscale.data.augment import MEAN, STD, Augmenter, Changes, _matrix, normalize, sample
from medscale.engine.plan import Augment, Crop

COUNTS = np.array([90, 10])
SIZE = 24
DEVICES = ("host", "device")


def images(n: int = 3, size: int = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


def changes(
    size: int = SIZE, angle: float = 0.0, x: float = 1.0, y: float = 1.0, **tone: float
) -> Changes:
    unit = np.ones(3)
    matrix = _matrix(
        angle * unit,
        x * unit,
        y * unit,
        (size * unit, size * unit),
        (size / 2 * unit, size / 2 * unit),
        (size, size),
    )
    values = {"brightness": 1.0, "contrast": 1.0, "gamma": 1.0, "noise": 0.0, **tone}
    return Changes(
        matrix,
        **{k: torch.full((3,), v) for k, v in values.items()},
        start=torch.zeros(3, dtype=torch.int64),
    )


def apply_changes(
    path: str, augment: Augment, settings: Changes, source: torch.Tensor | None = None
) -> torch.Tensor:
    """In [0, 1], by either path: the one for devices also runs on a CPU."""
    augmenter = Augmenter(augment, COUNTS, 0)
    source = images() if source is None else source
    if path == "host":
        return augmenter._on_host(source, settings, exact=augmenter._exact, normal=False)
    return augmenter._on_device(source, settings, exact=augmenter._exact)


def plain() -> torch.Tensor:
    return images().permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("path", DEVICES)
@pytest.mark.parametrize("rotate", [0, 30])
def test_no_change_changes_nothing(path: str, rotate: int) -> None:
    torch.testing.assert_close(
        apply_changes(path, Augment(rotate=rotate), changes()), plain(), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("path", DEVICES)
@pytest.mark.parametrize("rotate", [0, 30])
def test_flips_mirror(path: str, rotate: int) -> None:
    s = Augment(rotate=rotate, hflip=0.5)
    torch.testing.assert_close(
        apply_changes(path, s, changes(x=-1)), functional.hflip(plain()), rtol=0, atol=2e-5
    )
    torch.testing.assert_close(
        apply_changes(path, s, changes(y=-1)), functional.vflip(plain()), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("path", DEVICES)
def test_a_quarter_turn_is_a_quarter_turn(path: str) -> None:
    rotated = apply_changes(path, Augment(rotate=30), changes(angle=np.pi / 2))
    quarters = [torch.rot90(plain(), k, (2, 3)) for k in (1, 3)]
    assert min(float((rotated - quarter).abs().max()) for quarter in quarters) < 1e-4


def test_rotation_is_that_of_torchvision_inside_the_circle() -> None:
    smooth = functional.gaussian_blur(images(size=64).permute(0, 3, 1, 2).float(), [9, 9])
    rotated = sample(smooth, changes(64, angle=np.deg2rad(20)).matrix, (64, 64))
    likewise = [
        functional.rotate(smooth, sign * 20, interpolation=functional.InterpolationMode.BILINEAR)
        for sign in (1, -1)
    ]
    inside = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    assert (
        min(float((rotated[inside] - reference[inside]).abs().max()) for reference in likewise)
        < 1.0
    )  # of 255


def test_both_paths_agree_within_rounding() -> None:
    source = (
        functional.gaussian_blur(images(40, 64).permute(0, 3, 1, 2), [5, 5])
        .permute(0, 2, 3, 1)
        .contiguous()
    )
    s = Augment(
        rotate=30,
        hflip=0.5,
        vflip=0.5,
        brightness=0.3,
        contrast=0.3,
        gamma=0.3,
        crop=Crop(size=48, mode="resized"),
    )
    augmenter, ids = Augmenter(s, COUNTS, 0), np.arange(40)
    draws = augmenter.draw(0, ids, ids % 2, (64, 64))
    difference = (
        apply_changes("host", s, draws, source) - apply_changes("device", s, draws, source)
    ).abs()
    assert float(difference.mean()) < 0.5 / 255
    assert float(difference.max()) < 6 / 255


@pytest.mark.parametrize("path", DEVICES)
def test_brightness_scales_and_contrast_scales_the_distance_from_the_mean(path: str) -> None:
    dimmed = apply_changes(path, Augment(brightness=0.5), changes(brightness=0.7))
    torch.testing.assert_close(dimmed, plain() * 0.7, rtol=0, atol=1e-5)
    mean = plain().mean((1, 2, 3), keepdim=True)
    expected = (mean + 0.6 * (plain() - mean)).clamp(0, 1)
    torch.testing.assert_close(
        apply_changes(path, Augment(contrast=0.5), changes(contrast=0.6)),
        expected,
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("path", DEVICES)
def test_gamma_is_that_of_torchvision(path: str) -> None:
    expected = functional.adjust_gamma(plain(), 1.4)
    torch.testing.assert_close(
        apply_changes(path, Augment(gamma=0.5), changes(gamma=1.4)), expected, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("path", DEVICES)
def test_values_stay_in_range(path: str) -> None:
    bright = apply_changes(path, Augment(brightness=1), changes(brightness=2.0, contrast=3.0))
    assert float(bright.min()) >= 0
    assert float(bright.max()) <= 1


def test_noise_has_its_strength_and_belongs_to_the_sample() -> None:
    augmenter = Augmenter(Augment(noise=0.1), COUNTS, 3)
    grey, ids = torch.full((20, 32, 32, 3), 128, dtype=torch.uint8), np.arange(20)
    draws = augmenter.draw(0, ids, ids % 2, (32, 32))
    crops = augmenter.apply(grey, draws) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(
        MEAN
    ).view(3, 1, 1)
    spread = (crops - 128 / 255).std((1, 2, 3))
    torch.testing.assert_close(spread, draws.noise, rtol=0.1, atol=1e-4)
    assert float((crops[0] - crops[1]).abs().max()) > 0.01
    alone = augmenter.draw(0, ids[[7]], ids[[7]] % 2, (32, 32))
    torch.testing.assert_close(
        augmenter.apply(grey[[7]], alone), augmenter.apply(grey, draws)[[7]], rtol=0, atol=0
    )


@pytest.mark.parametrize("path", DEVICES)
def test_a_random_crop_shows_whole_pixels_of_its_place(path: str) -> None:
    s = Augment(crop=Crop(size=16), hflip=0.5)
    ids = np.arange(30)
    draws = Augmenter(s, COUNTS, 0).draw(2, ids, ids % 2, (SIZE, SIZE))
    for number, crop in enumerate(apply_changes(path, s, draws, images(30))):
        whole = images(30)[number].permute(2, 0, 1).float() / 255
        places = [
            version[:, y : y + 16, x : x + 16]
            for version in (whole,)
            for y in range(SIZE - 15)
            for x in range(SIZE - 15)
        ]
        assert any(
            torch.allclose(crop, p, atol=2e-5) or torch.allclose(crop.flip(2), p, atol=2e-5)
            for p in places
        )


def test_changes_are_independent_and_crops_reach_each_place_equally_often() -> None:
    s = Augment(crop=Crop(size=16), brightness=0.2, contrast=0.2, gamma=0.2, noise=0.1, hflip=0.5)
    size, ids = (20, 18), np.arange(5000)
    draws = Augmenter(s, COUNTS, 0).draw(0, ids, np.zeros_like(ids), size)
    flipped = draws.matrix[:, 0, 0] < 0
    left = (draws.matrix[:, 0, 2] - 15 * flipped).round()
    top = draws.matrix[:, 1, 2].round()
    for place, whole in ((top, size[0]), (left, size[1])):
        counts = torch.bincount(place.long())
        assert len(counts) == whole - 16 + 1
        assert float((counts / counts.float().mean() - 1).abs().max()) < 0.1
    parts = [left, top, flipped, draws.brightness, draws.contrast, draws.gamma, draws.noise]
    parts.append(draws.start)
    correlations = torch.corrcoef(torch.stack([part.float() for part in parts]))
    assert float((correlations - torch.eye(len(parts))).abs().max()) < 0.06


def test_a_resized_crop_covers_what_it_may() -> None:
    s = Augment(crop=Crop(size=16, mode="resized", smallest=0.25))
    ids = np.arange(4000)
    matrix = Augmenter(s, COUNTS, 0).draw(0, ids, ids % 2, (SIZE, SIZE)).matrix
    width, height = matrix[:, 0, 0] * 16, matrix[:, 1, 1] * 16
    area = width * height / SIZE**2
    assert float(area.min()) > 0.24
    assert 0.9 < float(area.max()) <= 1.0001
    ratio = width / height
    assert float(ratio.max()) == pytest.approx(4 / 3, rel=0.02)
    assert float(ratio.min()) == pytest.approx(3 / 4, rel=0.02)
    assert float(torch.corrcoef(torch.stack([area, ratio.log()]))[0, 1].abs()) < 0.06
    left_edge = matrix[:, 0, 2] + 0.5 - 0.5 * matrix[:, 0, 0]
    assert float(left_edge.min()) > -1e-3
    assert float((left_edge + width).max()) < SIZE + 1e-3


def test_evaluation_sees_the_middle() -> None:
    augmenter = Augmenter(
        Augment(rotate=20, noise=0.1, crop=Crop(size=16, mode="resized")), COUNTS, 0
    )
    crop = augmenter.apply(images(), augmenter.neutral(3, (SIZE, SIZE)), training=False)
    torch.testing.assert_close(
        crop, normalize(plain()[:, :, 4:20, 4:20].clone()), rtol=0, atol=1e-5
    )


def test_draws_follow_the_settings_and_small_classes_get_more() -> None:
    s = Augment(
        rotate=20, hflip=0.3, vflip=0.0, brightness=0.2, contrast=0.1, gamma=0.2, minority=1.5
    )
    ids, labels = np.arange(4000), np.arange(4000) % 2
    draws = Augmenter(s, COUNTS, 1).draw(1, ids, labels, (SIZE, SIZE))
    mirrored = draws.matrix[:, 0, 0] < 0
    angle = np.rad2deg(torch.atan2(-draws.matrix[:, 0, 1], draws.matrix[:, 1, 1]).numpy())
    for code, factor in ((0, 1.0), (1, 1.5)):
        of = labels == code
        assert np.abs(angle[of]).max() == pytest.approx(20 * factor, rel=0.01)
        assert mirrored[of].float().mean() == pytest.approx(0.3 * factor, abs=0.04)
        assert (draws.brightness[of] - 1).abs().max() == pytest.approx(0.2 * factor, rel=0.01)
        assert (draws.contrast[of] - 1).abs().max() == pytest.approx(0.1 * factor, rel=0.01)
        assert draws.gamma[of].max() == pytest.approx(1 + 0.2 * factor, rel=0.01)
        assert abs(float(angle[of].mean())) < 1
    assert (draws.matrix[:, 1, 1] > 0).all()


def test_a_flip_is_never_raised_above_its_most_random_probability() -> None:
    ids, labels = np.arange(4000), np.ones(4000, dtype=int)
    draws = Augmenter(Augment(hflip=0.5, minority=3.0), COUNTS, 1).draw(
        1, ids, labels, (SIZE, SIZE)
    )
    assert (draws.matrix[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.04)


def test_a_draw_depends_on_seed_epoch_and_sample_alone() -> None:
    s = Augment(rotate=20, brightness=0.2, noise=0.1)
    ids, labels = np.array([5, 9, 2]), np.array([0, 1, 0])

    def matrix(seed: int, epoch: int, sample_ids: list[int]) -> torch.Tensor:
        return (
            Augmenter(s, COUNTS, seed)
            .draw(epoch, ids[sample_ids], labels[sample_ids], (SIZE, SIZE))
            .matrix
        )

    whole = matrix(1, 1, [0, 1, 2])
    assert torch.equal(whole[[2, 0]], matrix(1, 1, [2, 0]))
    assert not torch.equal(whole, matrix(1, 2, [0, 1, 2]))
    assert not torch.equal(whole, matrix(2, 1, [0, 1, 2]))


def test_an_empty_share_passes() -> None:
    augmenter = Augmenter(Augment(rotate=20, noise=0.1), COUNTS, 0)
    no_ids = np.arange(0)
    empty = augmenter.apply(images()[:0], augmenter.draw(0, no_ids, no_ids, (SIZE, SIZE)))
    assert empty.shape == (0, 3, SIZE, SIZE)


def test_normalization_is_imagenets() -> None:
    expected = functional.normalize(plain(), list(MEAN), list(STD))
    torch.testing.assert_close(normalize(plain()), expected)
