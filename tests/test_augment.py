"""Augmentation: what it does to an image, against torchvision, and what a class's size changes."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from medscale.config import Augment
from medscale.data.augment import MEAN, STD, Augmenter, normalize, turn

COUNTS = np.array([90, 10])


def images(n: int = 3, size: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def draws(**changes: float) -> torch.Tensor:
    values = {"angle": 0.0, "x": 1.0, "y": 1.0, "brightness": 1.0, "contrast": 1.0, **changes}
    return torch.tensor([list(values.values())] * 3)


def applied(**changes: float) -> torch.Tensor:
    return Augmenter(Augment(rotate=30, hflip=0.5), COUNTS, 0).apply(images(), draws(**changes))


def test_no_change_changes_nothing() -> None:
    torch.testing.assert_close(applied(), images().float() / 255, rtol=0, atol=2e-6)


def test_flips_mirror() -> None:
    torch.testing.assert_close(applied(x=-1), functional.hflip(images()).float() / 255, rtol=0, atol=2e-5)
    torch.testing.assert_close(applied(y=-1), functional.vflip(images()).float() / 255, rtol=0, atol=2e-5)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    turned = applied(angle=np.pi / 2)
    quarters = [torch.rot90(images(), k, (2, 3)).float() / 255 for k in (1, 3)]
    assert min(float((turned - quarter).abs().max()) for quarter in quarters) < 1e-4


def test_rotation_is_that_of_torchvision_inside_the_circle() -> None:
    smooth = functional.gaussian_blur(images(size=64).float(), [9, 9])
    one = torch.ones(3, 1, 1)
    turned = turn(smooth, one * np.deg2rad(20), one, one)
    likewise = [
        functional.rotate(smooth, sign * 20, interpolation=functional.InterpolationMode.BILINEAR) for sign in (1, -1)
    ]
    inside = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    assert min(float((turned[inside] - other[inside]).abs().max()) for other in likewise) < 1.0  # of 255


def test_brightness_scales_and_contrast_scales_the_distance_from_the_mean() -> None:
    plain = images().double() / 255
    torch.testing.assert_close(applied(brightness=0.7).double(), plain * 0.7, rtol=0, atol=1e-5)
    mean = plain.mean((1, 2, 3), keepdim=True)
    wanted = (mean + 0.6 * (plain - mean)).clamp(0, 1)
    torch.testing.assert_close(applied(contrast=0.6).double(), wanted, rtol=0, atol=1e-5)


def test_values_stay_in_range() -> None:
    bright = applied(brightness=2.0, contrast=3.0)
    assert float(bright.min()) >= 0
    assert float(bright.max()) <= 1


def test_draws_follow_the_settings_and_small_classes_get_more() -> None:
    s = Augment(rotate=20, hflip=0.3, vflip=0.0, brightness=0.2, contrast=0.1, minority=1.5)
    ids, labels = np.arange(4000), np.arange(4000) % 2
    angle, x, y, brightness, contrast = Augmenter(s, COUNTS, 1).draw(1, ids, labels).T
    for code, factor in ((0, 1.0), (1, 1.5)):
        of = labels == code
        assert np.abs(np.rad2deg(angle[of])).max() == pytest.approx(20 * factor, rel=0.01)
        assert (x[of] == -1).mean() == pytest.approx(0.3 * factor, abs=0.04)
        assert np.abs(brightness[of] - 1).max() == pytest.approx(0.2 * factor, rel=0.01)
        assert np.abs(contrast[of] - 1).max() == pytest.approx(0.1 * factor, rel=0.01)
        assert abs(float(angle[of].mean())) < 0.02
    assert (y == 1).all()


def test_a_flip_is_never_raised_above_its_most_random_probability() -> None:
    ids, labels = np.arange(4000), np.ones(4000, dtype=int)
    x = Augmenter(Augment(hflip=0.5, minority=3.0), COUNTS, 1).draw(1, ids, labels)[:, 1]
    assert (x == -1).mean() == pytest.approx(0.5, abs=0.04)


def test_a_draw_depends_on_seed_epoch_and_sample_alone() -> None:
    augmenter = Augmenter(Augment(rotate=20, brightness=0.2), COUNTS, 1)
    ids, labels = np.array([5, 9, 2]), np.array([0, 1, 0])
    whole = augmenter.draw(1, ids, labels)
    assert np.array_equal(whole[[2, 0]], augmenter.draw(1, ids[[2, 0]], labels[[2, 0]]))
    assert not np.array_equal(whole, augmenter.draw(2, ids, labels))
    assert not np.array_equal(whole, Augmenter(augmenter.settings, COUNTS, 2).draw(1, ids, labels))


def test_an_empty_share_passes() -> None:
    empty = Augmenter(Augment(rotate=20), COUNTS, 0).apply(images()[:0], draws()[:0])
    assert empty.shape == (0, 3, 24, 24)


def test_normalization_is_imagenets() -> None:
    wanted = functional.normalize(images().float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(normalize(images().float() / 255), wanted)
