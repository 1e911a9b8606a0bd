"""Epochs and seconds to a target: censoring, and tests of equal and of unequal convergence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.measure.scaling.convergence import (
    ALPHA,
    EQUAL,
    FASTER,
    NEVER,
    OPEN,
    ROUNDING,
    SLOWER,
    WITHIN,
    Times,
    compare,
    refuse_unreachable,
    times_to,
)
from medscale.measure.scaling.target import Target, factor_of, target_of

REFERENCE = [10, 11, 10, 9, 10]
PLANNED = 20
MARGIN = 0.2


def history(*values: float, metric: str = "val_accuracy", processes: int = 1) -> pd.DataFrame:
    """Return a history with epochs of 11.5 seconds each."""
    times = {"seconds": 10.0, "validation_s": 1.0, "checkpoint_s": 0.5, "processes": processes}
    times |= {"hardware": "a CPU"}
    return pd.DataFrame({metric: values, **{key: [v] * len(values) for key, v in times.items()}})


def times(*epochs: int) -> Times:
    """Return the times of replicates; those that need more than the planned epochs are censored."""
    needed = np.array(epochs)
    observed_epochs = np.minimum(needed, PLANNED)
    return Times(observed_epochs, 11.5 * observed_epochs, needed <= PLANNED)


def test_the_target_is_one_that_each_replicate_of_the_baseline_reaches() -> None:
    reference = [history(0.5, 0.9, 0.7), history(0.6, 0.6, 0.8)]
    target = target_of(reference, "val_accuracy", None, 0.95)
    assert target.value == pytest.approx(0.95 * 0.8)
    assert [target.epoch(h) for h in reference] == [2, 3]
    assert target.words == "validation accuracy of at least 76 %"
    losses = [history(0.9, 0.3, metric="val_loss"), history(0.6, 0.4, metric="val_loss")]
    target = target_of(losses, "val_loss", None, 0.8)
    assert target.value == pytest.approx(0.4 / 0.8)
    assert [target.epoch(h) for h in losses] == [2, 2]
    assert target.words == "validation loss of at most 0.5"
    assert (factor_of("val_loss", 0.8), factor_of("val_accuracy", 0.8)) == (1.25, 0.8)
    assert target_of(reference, "val_accuracy", 0.85, 0.95) == Target("val_accuracy", 0.85)


def test_a_replicate_that_does_not_reach_the_target_is_censored_at_the_planned_epochs() -> None:
    # The second stops early, after two of four epochs: its seconds are those that it took.
    of_run = times_to(
        [history(0.5, 0.8, 0.9), history(0.5, 0.6)], Target("val_accuracy", 0.8), 4, devices=1
    )
    assert of_run.epochs.tolist() == [2, 4]
    assert of_run.seconds.tolist() == [23.0, 23.0]
    assert of_run.reached.tolist() == [True, False]
    assert of_run.last_if_censored.tolist() == [2, np.inf]


def test_seconds_are_unknown_where_an_epoch_ran_on_fewer_devices() -> None:
    changed_history = pd.concat([history(0.5, processes=2), history(0.9, processes=1)])
    histories = [changed_history.reset_index(), history(0.5, 0.9, processes=1)]
    of_run = times_to(histories, Target("val_accuracy", 0.8), 4, devices=2)
    assert of_run.epochs.tolist() == [2, 2]
    assert np.isnan(of_run.seconds).all()


def test_a_slower_run_by_hand() -> None:
    run = [13, 14, 13, 12, 13]
    slower = compare(times(*run), times(*REFERENCE), MARGIN)
    assert slower.difference == pytest.approx(0.3)
    # All of the run's ranks lie above the reference's: one division of ten replicates of 252.
    assert slower.slower_p == pytest.approx(1 / 252)
    assert slower.faster_p == 1
    assert slower.rcp_p == pytest.approx(
        stats.ttest_ind(run, REFERENCE, equal_var=False, alternative="less").pvalue
    )
    # Both variances are 0.5. That of the reference enters the ratio of means by 1.3 squared:
    # 0.5 / 5 + 1.69 * 0.5 / 5 = 0.269, of 10 epochs, with Welch's degrees of freedom.
    law = stats.t(0.269**2 / ((0.1**2 + 0.169**2) / 4))
    half = law.ppf(1 - ALPHA) * np.sqrt(0.269) / 10
    assert (slower.low, slower.high) == pytest.approx((0.3 - half, 0.3 + half))
    assert slower.equal_p == pytest.approx(law.cdf((0.3 - MARGIN) * 10 / np.sqrt(0.269)))
    assert slower.verdict == SLOWER
    assert compare(times(*REFERENCE), times(*run), MARGIN).verdict == FASTER


def test_an_equal_run_and_one_that_differs_within_the_margin() -> None:
    equal = compare(times(*REFERENCE), times(*REFERENCE), MARGIN)
    assert equal.difference == 0
    assert equal.equal_p == pytest.approx(stats.t(8).sf(MARGIN * 10 / np.sqrt(0.2)))
    assert equal.verdict == EQUAL
    within = compare(times(11, 12, 11, 11, 12), times(*REFERENCE), 0.3)
    assert within.slower_p < ALPHA
    assert within.verdict == WITHIN.format(SLOWER)
    wide = compare(times(6, 15, 8, 12, 9), times(*REFERENCE), MARGIN)
    assert wide.difference == 0
    assert wide.verdict == OPEN


def test_replicates_that_agree_have_the_variance_of_rounding() -> None:
    comparison = compare(times(*[5] * 5), times(*[5] * 5), MARGIN)
    error = np.sqrt(2 * ROUNDING / 5)
    assert comparison.equal_p == pytest.approx(stats.t(8).sf(MARGIN * 5 / error))
    assert compare(times(*[2] * 5), times(*[2] * 5), 0.1).verdict == OPEN  # finer than an epoch


def test_censored_replicates_rank_last_and_are_never_equal() -> None:
    run = times(10, 11, 10, 99, 99)
    censored = compare(run, times(*REFERENCE), MARGIN)
    assert censored.difference == pytest.approx((10 + 11 + 10 + 20 + 20) / 50 - 1)  # restricted
    assert np.isnan([censored.equal_p, censored.rcp_p, censored.low, censored.high]).all()
    assert censored.slower_p == compare(run, times(*REFERENCE), 0.9).slower_p
    # An earlier end of the planned epochs changes no rank.
    early = Times(np.array([10, 11, 10, 12, 12]), run.seconds, run.reached)
    assert compare(early, times(*REFERENCE), MARGIN).slower_p == censored.slower_p
    assert censored.verdict == OPEN
    assert compare(times(12, 12, 13, 99, 99), times(*REFERENCE), MARGIN).verdict == SLOWER
    never = compare(times(*[99] * 5), times(*REFERENCE), MARGIN)
    assert never.verdict == NEVER
    assert never.slower_p == pytest.approx(1 / 252)
    comparison = compare(times(9, 9, 10, 10, 99), times(9, 9, 10, 10, 99), MARGIN)
    assert comparison.verdict == OPEN


@pytest.mark.parametrize(
    ("run", "reference", "seeds"), [(1, 1, "1 seed"), (2, 2, "2 seeds"), (5, 4, "4 seeds")]
)
def test_few_seeds_establish_nothing(run: int, reference: int, seeds: str) -> None:
    few = compare(times(*range(3, 3 + run)), times(*range(3, 3 + reference)), MARGIN)
    assert few.verdict == f"none ({seeds})"
    assert np.isnan([few.equal_p, few.slower_p, few.faster_p, few.rcp_p, few.low]).all()


def test_a_target_that_no_replicate_of_the_baseline_reaches_is_refused() -> None:
    reference = [history(0.5, 0.81), history(0.78)]
    target = Target("val_accuracy", 0.8)
    refuse_unreachable(reference, target, "skin", "serial_1gpu")
    with pytest.raises(MedscaleError, match=r"skin\.convergence\.target.* 0\.81, 0\.78\. Set a"):
        refuse_unreachable(reference, Target("val_accuracy", 0.99), "skin", "serial_1gpu")


def test_power_with_five_seeds() -> None:
    """Of simulated runs with a spread of 8 %, slower ones are detected and equal ones are equal."""
    rng = np.random.default_rng(0)

    def verdicts(slowdown: float, trials: int = 100) -> pd.Series:
        epochs = np.ceil(rng.normal(20, 1.6, (trials, 2, 5)) * [[1 + slowdown], [1]]).astype(int)
        is_reached = np.full(5, True)
        pairs = [[Times(e, e * 1.0, is_reached) for e in pair] for pair in epochs]
        return pd.Series([compare(*pair, MARGIN).verdict for pair in pairs])

    assert (verdicts(0.3) == SLOWER).mean() >= 0.95
    equal = verdicts(0.0)
    assert equal.isin([EQUAL, WITHIN.format(SLOWER), WITHIN.format(FASTER)]).mean() >= 0.9
    assert (equal.str.startswith(SLOWER)).mean() <= 0.1
    at_margin = verdicts(MARGIN)
    assert at_margin.isin([EQUAL, WITHIN.format(SLOWER)]).mean() <= 0.1  # nominal: 0.05
