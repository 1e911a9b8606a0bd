"""Scores of predicted boxes, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medscale.engine.detect.task import MOST_BOXES, SMALLEST_CONFIDENCE, suppress
from medscale.evaluate import boxes
from medscale.evaluate.boxes import BoxMatches


def test_the_less_confident_of_two_boxes_that_overlap_goes():
    corners = torch.tensor(
        [[0, 0, 0.5, 0.5], [0.02, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.3, 0.3, 0.3, 0.9]]
    )
    remaining = suppress(corners, torch.tensor([0.6, 0.8, 0.3, 0.9]))
    assert remaining[:, 4].tolist() == pytest.approx([0.8, 0.3])
    assert remaining[1].tolist() == pytest.approx([0.6, 0.6, 0.3, 0.3, 0.3])
    assert len(suppress(corners, torch.full((4,), SMALLEST_CONFIDENCE / 2))) == 0
    start = torch.linspace(0, 0.99, 200)[:, None] * torch.ones(1, 2)
    assert (
        len(suppress(torch.cat([start, start + 0.001], 1), torch.full((200,), 0.5))) == MOST_BOXES
    )


def matched(truth, image, confidence, limits) -> BoxMatches:
    """Boxes with given hits; ``limits``: challenge limits that each hits (9: also COCO's)."""
    hits = np.array([[k < n for k in range(8)] + [n > 2] for n in limits], bool).reshape(-1, 9)
    return BoxMatches(np.array(truth), np.array(image, int), np.array(confidence, float), hits)


def test_overlap_is_intersection_over_union():
    boxes_a = np.array([[0.0, 0.0, 0.4, 0.4]])
    boxes_b = np.array([[0.2, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.1, 0.1]])
    assert boxes.overlap(boxes_a, boxes_b)[0].tolist() == pytest.approx([1 / 3, 1, 0])


def test_a_true_box_is_hit_once_by_the_most_confident():
    true = np.array([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]])
    predicted = np.array([[0.0, 0.0, 0.4, 0.3], [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.4, 0.25]])
    box_hits = boxes.hits(predicted, true)  # IoU 0.75, 1 and 0.625
    assert box_hits[0].tolist() == [True] * 7 + [False, True], "0.75 is not above 0.75"
    assert box_hits[1].tolist() == [False] * 7 + [True, False], "what the first box took is taken"
    assert box_hits[2].tolist() == [True] * 5 + [False] * 3 + [True]
    assert not boxes.hits(predicted, np.empty((0, 4))).any()


def test_half_an_overlap_is_a_hit_for_coco_and_none_for_the_challenge():
    box_hits = boxes.hits(np.array([[0.0, 0.0, 0.5, 0.25]]), np.array([[0.0, 0.0, 0.5, 0.5]]))
    assert box_hits[0].tolist() == [True, True, False, False, False, False, False, False, True]


def test_average_precision_by_hand():
    # Three true boxes in two images; hit, miss, hit, and the third is never found.
    matches = matched([2, 1], [0, 1, 1], [0.9, 0.8, 0.7], [9, 0, 9])
    value = boxes.average_precision(matches, np.ones((1, 2), int))[0]
    assert value == pytest.approx(
        (34 * 1.0 + 33 * 2 / 3) / 101
    )  # recall 0..0.33 at 1, ..0.66 at 2/3, then none
    assert boxes.average_precision(matched([1], [0], [0.5], [9]), np.ones((1, 1), int))[0] == 1
    assert boxes.average_precision(matched([1], [], [], []), np.ones((1, 1), int))[0] == 0
    assert np.isnan(boxes.average_precision(matched([0], [0], [0.5], [0]), np.ones((1, 1), int))[0])


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_of_random_boxes_is_that_of_cocos_procedure_step_by_step(seed):
    """Lin et al. (2014) written out with torchvision's overlaps, as pycocotools is missing."""
    from torchvision.ops import box_iou

    rng = np.random.default_rng(seed)
    true = [
        np.hstack([rng.random((n, 2)) / 2, 0.2 + 0.3 * rng.random((n, 2))])
        for n in rng.integers(0, 4, 12)
    ]
    near = [
        image_boxes[rng.integers(0, len(image_boxes), 3)]
        if len(image_boxes)
        else np.full((3, 4), 0.3)
        for image_boxes in true
    ]
    guessed = [np.abs(image_boxes + rng.normal(0, 0.05, image_boxes.shape)) for image_boxes in near]
    image = np.repeat(np.arange(12), 3)
    confidence = rng.random(36)
    order = np.argsort(-confidence)
    matched_boxes: set[tuple[int, int]] = set()
    is_hit = []
    for at in order:
        guess_corners, true_corners = (
            torch.from_numpy(np.hstack([b[:, :2], b[:, :2] + b[:, 2:]]))
            for b in (guessed[image[at]][at % 3][None], true[image[at]])
        )
        shares = box_iou(guess_corners, true_corners)[0].tolist()
        free = [
            (share, k)
            for k, share in enumerate(shares)
            if share >= 0.5 and (image[at], k) not in matched_boxes
        ]
        is_hit.append(bool(free))
        if free:
            matched_boxes.add((int(image[at]), max(free)[1]))
    hit, boxes_there = np.cumsum(is_hit), sum(map(len, true))
    precision, recall = hit / np.arange(1, 37), hit / boxes_there
    expected = np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)])
    flags = np.stack(
        [
            boxes.hits(g[np.argsort(-confidence[3 * n : 3 * n + 3])], t)
            for n, (g, t) in enumerate(zip(guessed, true, strict=True))
        ]
    )
    ranked = np.empty((36, flags.shape[2]), bool)
    for n in range(12):
        ranked[3 * n + np.argsort(-confidence[3 * n : 3 * n + 3])] = flags[n]
    matches = BoxMatches(
        np.array([len(image_boxes) for image_boxes in true]),
        image[order],
        confidence[order],
        ranked[order],
    )
    assert boxes.average_precision(matches, np.ones((1, 12), int))[0] == pytest.approx(expected)
    assert 0.05 < expected < 1


@given(st.integers(0, 2**32 - 1))
def test_weights_are_copies_of_images(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 5)
    image = np.sort(rng.integers(0, 5, 12))
    limits = np.where(rng.random(12) < 0.5, 9, rng.integers(0, 3, 12))
    for number in range(5):  # no more hits than true boxes
        at = np.flatnonzero(image == number)
        limits[at[truth[number] :]] = 0
    order, confidence = rng.permutation(12), np.sort(rng.random(12))[::-1]
    by_weight = matched(truth, image[order], confidence, limits[order])
    times = rng.integers(0, 3, 5)
    copies = np.repeat(np.arange(5), times)
    rows = [(c, k, n) for n, k in enumerate(copies) for c in np.flatnonzero(by_weight.image == k)]
    rows.sort(key=lambda row: row[0])
    at = np.array([c for c, _, _ in rows], int)
    many = BoxMatches(
        truth[copies],
        np.array([n for *_, n in rows], int),
        by_weight.confidence[at],
        by_weight.hits[at],
    )
    if not len(copies):
        return
    weighted = boxes.evaluate(by_weight, 0.4, times[None])
    copied = boxes.evaluate(many, 0.4, np.ones((1, len(copies)), int))
    for name in boxes.NAMES:
        assert weighted[name][0] == pytest.approx(copied[name][0], nan_ok=True), name


def test_the_challenge_s_score_by_hand():
    # 0: hit at all limits; 1: a hit at four of eight and a false alarm; 2: empty with an alarm;
    # 3: empty; 4: missed.
    matches = matched([1, 1, 0, 0, 1], [0, 1, 2, 1, 4], [0.9, 0.8, 0.7, 0.6, 0.1], [8, 4, 0, 0, 8])
    scores = boxes.challenge(matches, 0.5)
    assert scores[:3].tolist() == pytest.approx([1.0, (4 * 1 / 2 + 4 * 0) / 8, 0.0])
    assert np.isnan(scores[3]), "an empty image without a prediction is skipped"
    assert scores[4] == 0
    mean = boxes.evaluate(matches, 0.5, np.ones((1, 5), int))["map_challenge"][0]
    assert mean == pytest.approx((1 + 0.25 + 0 + 0) / 4)
    assert boxes.evaluate(matches, 0.75, np.ones((1, 5), int))["map_challenge"][0] == pytest.approx(
        (1 + 0.5 + 0) / 3
    )


def test_the_threshold_is_the_best_on_the_split_it_is_chosen_on():
    matches = matched([1, 0, 0], [0, 1, 2], [0.805, 0.605, 0.305], [8, 0, 0])
    assert boxes.best_threshold(matches) == 0.8
    assert boxes.challenge(matches, 0.8)[0] == 1


def test_precision_and_recall_at_the_threshold():
    matches = matched([2, 1], [0, 1, 1], [0.9, 0.8, 0.2], [9, 0, 9])
    values = boxes.evaluate(matches, 0.5, np.ones((1, 2), int))
    assert (values["precision"][0], values["recall"][0]) == (0.5, pytest.approx(1 / 3))
    assert np.isnan(boxes.evaluate(matches, 0.95, np.ones((1, 2), int))["precision"][0])
