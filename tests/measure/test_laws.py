"""Tests of the scaling laws: known laws are recovered, too few points refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq, minimize_scalar

from medscale.base.errors import MedscaleError
from medscale.measure.scaling.advice import is_undecided
from medscale.measure.scaling.laws import Value, capacity, fit, fits, preferred_law, serial_fraction

COUNTS = np.repeat([1, 2, 4, 8, 16, 32], 3).astype(float)


@pytest.mark.parametrize(
    ("law", "serial", "crosstalk"),
    [("amdahl", 0.08, 0.0), ("gustafson", 0.15, 0.0), ("usl", 0.03, 0.002), ("usl", 0.3, 0.0004)],
)
def test_a_known_law_is_recovered(law, serial, crosstalk):
    exact = fit(law, COUNTS, 70 * capacity(law, COUNTS, serial, crosstalk))
    assert exact.serial.value == pytest.approx(serial, rel=0.01)
    assert exact.crosstalk.value == pytest.approx(crosstalk, rel=0.01)
    assert exact.single == pytest.approx(70, rel=0.01)
    noise = np.exp(np.random.default_rng(3).normal(0, 0.03, len(COUNTS)))
    noisy = fit(law, COUNTS, 70 * capacity(law, COUNTS, serial, crosstalk) * noise)
    assert noisy.serial.low <= serial <= noisy.serial.high
    assert noisy.crosstalk.low <= crosstalk <= noisy.crosstalk.high
    assert noisy.serial.high - noisy.serial.low < 0.2


def test_the_laws_by_hand():
    n = np.array([1.0, 4.0])
    assert capacity("amdahl", n, 0.1, 0.0).tolist() == pytest.approx([1, 4 / 1.3])
    assert capacity("gustafson", n, 0.15, 0.0).tolist() == pytest.approx([1, 0.15 + 0.85 * 4])
    assert capacity("usl", n, 0.1, 0.02).tolist() == pytest.approx([1, 4 / (1.3 + 0.02 * 12)])
    # Efficiency is one half where 1 + s (n - 1) = 2, and where a + (1 - a) n = n / 2.
    for law, serial, half in (
        ("amdahl", 0.1, 11),
        ("gustafson", 0.8, 8 / 3),
        ("gustafson", 0.4, 0),
    ):
        law_fit = fit(law, COUNTS, capacity(law, COUNTS, serial, 0.0))
        assert law_fit.half.value == pytest.approx(half or math.inf, rel=1e-3)
        assert math.isinf(law_fit.best.value)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(60):
        observed_capacity = capacity("amdahl", COUNTS, 0.1, 0.0) * np.exp(
            rng.normal(0, 0.05, len(COUNTS))
        )
        law_fit = fit("amdahl", COUNTS, observed_capacity)
        inside += law_fit.serial.low <= 0.1 <= law_fit.serial.high
    assert inside >= 52  # of 60; fewer than 52 has a probability below 0.01 at 95 %


def test_intervals_hold_both_parameters_of_precise_times():
    rng, inside = np.random.default_rng(0), np.zeros(2)
    for _ in range(30):
        noise = np.exp(rng.normal(0, 0.005, len(COUNTS)))
        law_fit = fit("usl", COUNTS, capacity("usl", COUNTS, 0.3, 0.01) * noise)
        values = (law_fit.serial, law_fit.crosstalk)
        inside += [v.low <= x <= v.high for v, x in zip(values, (0.3, 0.01), strict=True)]
    assert (inside >= 25).all()  # of 30; fewer than 25 has a probability below 0.01 at 95 %


@pytest.mark.parametrize("serial", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("noise", [0.0005, 0.005, 0.05])
def test_an_interval_ends_where_the_sum_of_squares_reaches_its_limit(serial, noise):
    # Repeated times of a GPU differ by less than 1 %, and the interval is then narrow. Its ends
    # are computed here by another way: as roots, with the formula of the law written out.
    rng = np.random.default_rng(5)
    logs = np.log(COUNTS / (1 + serial * (COUNTS - 1))) + rng.normal(0, noise, len(COUNTS))

    def squares(s):
        deviations = logs - np.log(COUNTS / (1 + s * (COUNTS - 1)))
        return ((deviations - deviations.mean()) ** 2).sum()

    best = minimize_scalar(squares, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    freedom = len(COUNTS) - 2
    limit = squares(best) * (1 + stats.t.ppf(0.975, freedom) ** 2 / freedom)
    low = brentq(lambda s: squares(s) - limit, 0, best) if squares(0) > limit else 0
    high = brentq(lambda s: squares(s) - limit, best, 1)
    interval = fit("amdahl", COUNTS, np.exp(logs)).serial
    assert [interval.value, interval.low, interval.high] == pytest.approx(
        [best, low, high], abs=0.01 * (high - low)
    )


@settings(max_examples=8, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(1e-4, 0.05))
def test_the_fastest_number_is_where_the_law_turns(serial, crosstalk):
    law_fit = fit("usl", COUNTS, capacity("usl", COUNTS, serial, crosstalk))
    best = law_fit.best.value
    assert law_fit.best.low <= best <= law_fit.best.high
    at = capacity("usl", np.array([best]), law_fit.serial.value, law_fit.crosstalk.value)[0]
    for device_count in (0.9 * best, 1.1 * best):
        if device_count >= 1:
            assert capacity(
                "usl", np.array([device_count]), law_fit.serial.value, law_fit.crosstalk.value
            )[0] <= at * (1 + 1e-9)
    half = law_fit.half.value
    assert capacity("usl", np.array([half]), law_fit.serial.value, law_fit.crosstalk.value)[
        0
    ] / half == pytest.approx(0.5)


def test_two_points_make_no_law_and_three_no_usl():
    with pytest.raises(MedscaleError, match="at least 3 different numbers of devices, not 2"):
        fit("amdahl", [1, 1, 2, 2], [1, 1.1, 1.9, 2])
    with pytest.raises(MedscaleError, match="at least 4"):
        fit("usl", [1, 2, 4], [1, 2, 3])
    assert fits([1, 2, 2], [1, 2, 2]) == {}
    assert set(fits([1, 2, 4], [1, 2, 3])) == {"amdahl", "gustafson"}
    assert preferred_law({}) is None


@pytest.mark.parametrize(
    "throughput", [[0.0, 1, 2], [-1.0, 1, 2], [math.nan, 1, 2], [math.inf, 1, 2]]
)
def test_impossible_measurements_are_refused(throughput):
    with pytest.raises(MedscaleError, match="above 0"):
        fit("amdahl", [1, 2, 4], throughput)


def test_odd_series_stay_within_bounds():
    n = [1, 2, 4, 8]
    linear, worse, above = (
        fit("usl", n, n),
        fit("usl", n, [8, 4, 2, 1]),
        fit("amdahl", n, [1, 3, 7, 15]),
    )
    assert linear.serial.value == pytest.approx(0, abs=1e-6)
    assert math.isinf(linear.half.value) or linear.half.value > 1000
    assert worse.best.value == pytest.approx(1, abs=0.2)
    assert above.serial.value == 0
    flat = fit("amdahl", n, [5, 5, 5, 5])
    assert flat.serial.value == pytest.approx(1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_devices_that_gain_nothing_have_a_best_number(noise):
    """Without crosstalk and with nothing but serial work, one device is as fast as any number."""
    errors = np.exp(np.random.default_rng(0).normal(0, noise, 8))
    flat = fit("usl", np.repeat([1, 2, 4, 8], 2), 100 * errors)
    assert flat.serial.high == 1
    assert flat.crosstalk.low == 0
    assert flat.best.low == 1
    if noise:  # with less serial work and without crosstalk, no number is too large
        assert flat.best.high == math.inf
    else:
        assert flat.best.value == 1


def test_the_law_with_fewer_parameters_is_preferred_where_the_other_adds_nothing():
    noise = np.exp(np.random.default_rng(1).normal(0, 0.02, len(COUNTS)))
    assert preferred_law(fits(COUNTS, capacity("amdahl", COUNTS, 0.1, 0.0) * noise)).law == "amdahl"
    assert preferred_law(fits(COUNTS, capacity("usl", COUNTS, 0.02, 0.004) * noise)).law == "usl"


def test_the_criterion_of_hurvich_and_tsai_by_hand():
    noise = np.exp(np.random.default_rng(1).normal(0, 0.02, 6))
    law_fits = fits(COUNTS[::3], capacity("amdahl", COUNTS[::3], 0.1, 0.0) * noise)
    # The parameters are the serial part, the throughput of one device, the variance, and crosstalk.
    for law, k, correction in (("amdahl", 3, 24 / 2), ("gustafson", 3, 24 / 2), ("usl", 4, 40 / 1)):
        likelihood = 6 * math.log(law_fits[law].error ** 2)
        assert law_fits[law].aicc == pytest.approx(likelihood + 2 * k + correction)
    assert math.isinf(fit("amdahl", [1, 2, 4, 4], [1, 1.9, 3.5, 3.4]).aicc)


def test_the_serial_fraction_of_karp_and_flatt():
    assert serial_fraction(4 / (1 + 0.1 * 3), 4) == pytest.approx(0.1)
    assert serial_fraction(4.5, 4) < 0
    assert serial_fraction(0.5, 2) > 1


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.04, 0.6, True), (0.06, 0.6, False), (0.04, 0.4, False)]
)
def test_a_law_is_undecided_if_its_serial_part_may_be_small_and_large(low, high, expected):
    law_fit = fit("amdahl", COUNTS, capacity("amdahl", COUNTS, 0.3, 0.0))
    assert is_undecided(replace(law_fit, serial=Value(0.3, low, high))) == expected
