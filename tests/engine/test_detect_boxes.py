"""Boxes of detection: of the index, flipped, suppressed, and refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medscale.base.errors import MedscaleError
from medscale.data.boxes import SIDES, pad, relative
from medscale.engine.detect.loader import flip
from medscale.engine.detect.task import suppress


@pytest.mark.parametrize(
    ("box_list", "message"),
    [
        ([[0.0, 0.0, 0.0, 5.0]], "no area"),
        ([[200.0, 0.0, 5.0, 5.0]], "no area inside their image"),
        ([[0.0, 0.0, float("nan"), 5.0]], "no area"),
        ([[0.0, 0.0, 5.0]], "four numbers"),
        (None, "must hold lists of boxes"),
    ],
)
def test_a_wrong_box_is_named(box_list, message):
    index = pd.DataFrame({"id": [7], "width": [100], "height": [50], "boxes": [box_list]})
    with pytest.raises(MedscaleError, match=message):
        relative(index, "index.parquet")


def test_an_index_without_boxes_is_refused_and_what_lies_outside_is_cut_off():
    with pytest.raises(MedscaleError, match="no column `boxes`"):
        relative(pd.DataFrame({"id": [0], "width": [10], "height": [10]}), "index.parquet")
    index = pd.DataFrame(
        {"id": [0], "width": [10], "height": [10], "boxes": [[[8.0, -1.0, 4.0, 3.0]]]}
    )
    assert relative(index, "x")[SIDES].iloc[0].tolist() == pytest.approx([0.8, 0.0, 0.2, 0.2])


def test_padding_follows_the_order_of_the_images():
    table = pd.DataFrame(
        {"id": [5, 2, 5], "x": [0.1, 0.2, 0.3], "y": 0.0, "width": 0.1, "height": 0.1}
    )
    out = pad(table, np.array([2, 3, 5]))
    assert out.shape == (3, 2, 4)
    assert out[:, :, 0].tolist() == [pytest.approx([0.2, 0]), [0, 0], pytest.approx([0.1, 0.3])]
    assert pad(table.iloc[:0], np.array([1])).shape == (1, 1, 4)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 40), st.integers(1, 20))
def test_a_flipped_box_holds_the_same_pixels(x, width, y, height):
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, y : y + height, x : x + width] = 1
    box = torch.tensor([[[x, y, width, height], [0, 0, 0, 0]]]) / 64
    images, flipped_boxes = flip(image, box, torch.tensor([True]))
    left, top, wide, high = (flipped_boxes[0, 0] * 64).round().int().tolist()
    assert images[0, :, top : top + high, left : left + wide].min() == 1
    assert images.sum() == image.sum()
    assert flipped_boxes[0, 1].tolist() == [0, 0, 0, 0], "padding has become a box"
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            flip(images, flipped_boxes, torch.tensor([False])), (images, flipped_boxes), strict=True
        )
    )
    assert torch.allclose(flip(images, flipped_boxes, torch.tensor([True]))[1], box)


def test_of_boxes_that_overlap_by_more_than_half_the_most_confident_is_kept():
    boxes = [  # left, top, right, bottom, confidence
        [0.0, 0.0, 0.4, 0.19, 0.7],  # 0.475 of the union with the fourth
        [0.6, 0.0, 0.9, 0.3, 0.009],
        [0.0, 0.0, 0.4, 0.3, 0.8],  # 0.75 of the union with the fourth
        [0.0, 0.0, 0.4, 0.4, 0.9],
        [0.5, 0.5, 0.5, 0.9, 0.99],  # without area
        [0.6, 0.5, 0.9, 0.9, 0.011],
    ]
    table = torch.tensor(boxes)
    kept = [[0.0, 0.0, 0.4, 0.4, 0.9], [0.0, 0.0, 0.4, 0.19, 0.7], [0.6, 0.5, 0.3, 0.4, 0.011]]
    torch.testing.assert_close(suppress(table[:, :4], table[:, 4]), torch.tensor(kept))
    corner = torch.cartesian_prod(torch.arange(12), torch.arange(12)) / 12
    confidence = torch.linspace(0.1, 0.9, 144)
    most = suppress(torch.cat([corner, corner + 0.05], 1), confidence)
    assert most[:, 4].tolist() == confidence.flip(0)[:100].tolist()
