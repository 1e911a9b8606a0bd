"""The verdict on a claim from an interval and the accepted values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medscale.base.errors import MedscaleError
from medscale.evaluate import verdicts as differences
from medscale.evaluate.replicates import Predictions
from medscale.report.claims import quantities
from medscale.report.claims.statements import Published, accepted, published
from medscale.report.claims.verdicts import FAILS, HOLDS, MISSING, OPEN, Measured, judge

NAN = math.nan


@pytest.mark.parametrize(
    ("ends", "bounds", "verdict"),
    [
        ((3.1, 2.9, 3.3), (2.0, None), HOLDS),
        ((3.1, 1.9, 3.3), (2.0, None), OPEN),
        ((1.5, 1.2, 1.9), (2.0, None), FAILS),
        ((0.5, 0.4, 0.6), (None, 0.7), HOLDS),
        ((0.8, 0.71, 0.9), (None, 0.7), FAILS),
        ((3.3, 3.0, 3.6), (2.8, 3.8), HOLDS),
        ((3.3, 2.7, 3.6), (2.8, 3.8), OPEN),
        ((4.0, 3.9, 4.1), (2.8, 3.8), FAILS),
        ((2.0, 2.0, 2.0), (2.0, None), HOLDS),  # exact, on the bound
        ((3.1, NAN, NAN), (2.0, None), OPEN),  # without an interval nothing is established
        ((NAN, NAN, NAN), (2.0, None), MISSING),
    ],
)
def test_an_interval_and_the_accepted_values_give_the_verdict(ends, bounds, verdict):
    assert judge(Measured(*ends), *bounds, equality=False) == verdict


@pytest.mark.parametrize(
    ("value", "unseen", "verdict"),
    [(0.0, 5.5, HOLDS), (0.0, 7.0, OPEN), (-12.0, 7.0, FAILS), (-5.0, 7.0, HOLDS)],
)
def test_equal_answers_of_few_patients_establish_no_bound(value, unseen, verdict):
    measured = Measured(value, value, value, unseen=unseen)
    assert judge(measured, -5.6, None, equality=False) == verdict


@pytest.mark.parametrize(("patients", "verdict"), [(51, OPEN), (64, OPEN), (65, HOLDS)])
def test_the_fewest_patients_that_exclude_a_loss(patients, verdict):
    # By hand: 0.944 ** 64 = 0.02503 and 0.944 ** 65 = 0.0236.
    labels = np.arange(patients) % 2
    predicted = Predictions(np.arange(patients), labels, np.arange(patients), np.eye(2)[[labels]])
    measured = quantities._of_few_patients(Measured(0.0, 0.0, 0.0), [predicted])
    assert judge(measured, -5.6, None, equality=False) == verdict
    assert measured.note.startswith(f"{patients} test patients or groups exclude no difference")


@pytest.mark.parametrize(
    ("reading", "high", "p", "beyond", "words", "verdict"),
    [
        ("equal within the margin", 1.0, 0.9, True, "equal", HOLDS),
        ("interval leaves out 0, within the margin", 1.9, 0.01, True, differences.WITHIN, HOLDS),
        ("undecided", 4.0, 0.5, True, "inconclusive", OPEN),
        ("interval leaves out 0", -0.5, 0.01, True, "lower", FAILS),
        ("interval leaves out 0", 5.0, 0.01, True, "higher", FAILS),
        ("interval leaves out 0", -0.5, 0.2, True, "not established", OPEN),
        ("interval leaves out 0", -0.5, 0.01, False, "not established", OPEN),
    ],
)
def test_a_claim_of_equality_takes_the_verdict_of_the_paper(
    reading, high, p, beyond, words, verdict
):
    assert differences.verdict(reading, high, p, beyond=beyond) == words
    measured = Measured(0.0, -1.0, high, words)
    assert judge(measured, -2.0, 2.0, equality=True) == verdict


def test_accepted_values_are_bounded_on_the_side_that_matters():
    assert accepted("at_least", 3.0, 0.5) == (2.5, None)
    assert accepted("at_most", 3.0, 0.5) == (None, 3.5)
    assert accepted("near", 3.0, 0.5) == (2.5, 3.5)


def test_published_figures_by_hand():
    figures = {"minutes": {1: 8.0, 4: 2.0}, "seconds": {1: [360, 430]}, "speedup": 3.3}
    assert published(Published(ratio=["minutes / 1", "minutes / 4"]), figures) == 4.0
    assert published(Published(difference=["minutes / 4", "minutes / 1"]), figures) == 6.0
    assert published(Published(value="seconds / 1"), figures) == 395.0
    with pytest.raises(MedscaleError, match="did you mean 'speedup'"):
        published(Published(value="speedupp"), figures)
    with pytest.raises(MedscaleError, match="is no number"):
        published(Published(value="minutes"), figures)
