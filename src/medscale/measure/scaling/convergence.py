"""Convergence of a run against the baseline's: epochs and seconds to a target, with tests.

The rules are those of MLPerf Training (Mattson et al. 2020; training_rules.adoc of
mlcommons/training_policies): the target is fixed before the comparison, a result has several
replicates, and a replicate that does not reach the target counts. The one-sided t-test of mean
epochs is that of MLPerf's reference convergence points (``rcp_checker`` of mlcommons/logging). In
addition, two one-sided tests within a margin establish equality (Schuirmann 1987); a difference
that is not significant does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.base.text import amount
from medscale.measure.scaling.target import METRICS, Target, best, seconds_of

FEWEST = 5  # seeds that a verdict needs, as in MLPerf's image classification
NAN = float("nan")
ALPHA = 0.05  # of each test
# Variance of the rounding to whole epochs (Sheppard 1898): the smallest that replicates can have.
ROUNDING = 1 / 12
# Permutations of the Mann-Whitney test: all of them for up to eight replicates in each group, and
# otherwise a sample of this size with a fixed seed.
DIVISIONS = stats.PermutationMethod(n_resamples=20_000, rng=0)

EQUAL, OPEN, NEVER = "equal within the margin", "undecided", "target not reached"
SLOWER, FASTER = "slower", "faster"
WITHIN = "{}, within the margin"


@dataclass(frozen=True)
class Times:
    """Epochs and seconds to the target of a run's replicates; of a cross-validation, by seed.

    A replicate that does not reach the target is censored on the right: it has the planned epochs,
    even if its training stopped early, and the seconds of its whole training.
    """

    epochs: np.ndarray  # float64, shape S for S replicates
    seconds: np.ndarray  # float64, shape S; NaN if one of these epochs ran on fewer devices
    reached: np.ndarray  # bool, shape S

    @property
    def last_if_censored(self) -> np.ndarray:
        """Epochs in which censored replicates come after all others, float64, shape S."""
        return np.where(self.reached, self.epochs, np.inf)


class Comparison(NamedTuple):
    """Epochs to the target of a run against the baseline's."""

    # relative difference of the restricted mean epochs, with the ends of its 90 % interval
    difference: float
    low: float
    high: float
    # p-values, each with the statement that a small value establishes, and its test
    equal_p: float  # the difference is within the margin: two one-sided t-tests; NaN if censored
    slower_p: float  # the run needs more epochs: one-sided Mann-Whitney, censored replicates last
    faster_p: float  # the run needs fewer epochs: the same test
    rcp_p: float  # the run needs fewer epochs: t-test of MLPerf's checker; NaN if censored
    verdict: str


def times_to(
    histories: Sequence[pd.DataFrame], target: Target, planned: int, devices: int
) -> Times:
    """Return the epochs and seconds that each replicate needs to reach the target.

    Args:
        histories: history.csv of each replicate.
        target: value of a validation metric.
        planned: number of epochs of a whole training.
        devices: number of devices of the run's name.
    """
    epochs = [target.epoch(history) for history in histories]
    return Times(
        np.array([planned if epoch is None else epoch for epoch in epochs], dtype=np.float64),
        np.array(
            [
                seconds_of(history, len(history) if epoch is None else epoch, devices)
                for history, epoch in zip(histories, epochs, strict=True)
            ]
        ),
        np.array([epoch is not None for epoch in epochs]),
    )


def by_seed(times: Times, seeds: Sequence[int]) -> Times:
    """Return the times of each seed: of a cross-validation the means over the seed's folds.

    Folds of one seed share training images, so only seeds are independent replicates. A seed
    reaches the target where the trainings on all of its folds do.

    Args:
        times: of all trainings of a run.
        seeds: the seed of each training, in the same order.
    """
    numbers = np.array(seeds)
    trainings = [numbers == seed for seed in dict.fromkeys(seeds)]
    return Times(
        np.array([times.epochs[of_seed].mean() for of_seed in trainings]),
        np.array([times.seconds[of_seed].mean() for of_seed in trainings]),
        np.array([times.reached[of_seed].all() for of_seed in trainings]),
    )


def refuse_unreachable(
    reference: Sequence[pd.DataFrame], target: Target, study: str, baseline: str
) -> None:
    """Raise MedscaleError if no replicate of the baseline reaches the target."""
    if any(target.epoch(history) is not None for history in reference):
        return
    values = ", ".join(f"{best(target.metric, history):.4g}" for history in reference)
    raise MedscaleError(
        f"studies.{study}.convergence.target: no replicate of the baseline {baseline} reaches a "
        f"{METRICS[target.metric]} of {target.value:g}; their best values are {values}. Set a "
        "target that the baseline reaches, or null to derive one from these values"
    )


def compare(run: Times, reference: Times, margin: float) -> Comparison:
    """Compare the epochs to the target of a run with those of the baseline.

    With fewer than ``FEWEST`` seeds on either side there are neither p-values nor an interval, and
    the verdict is "none", with the number of seeds.

    Args:
        run: the times of the run, by seed.
        reference: the times of the baseline, by seed.
        margin: relative difference of the means within which convergence counts as equal.
    """
    mean = float(reference.epochs.mean())
    difference = float(run.epochs.mean()) / mean - 1
    fewest = min(len(run.epochs), len(reference.epochs))
    if fewest < FEWEST:
        return untested_comparison(f"none ({amount(fewest, 'seed')})", difference)
    slower_p, faster_p = (
        float(
            stats.mannwhitneyu(
                run.last_if_censored,
                reference.last_if_censored,
                alternative=alternative,
                method=DIVISIONS,
            ).pvalue
        )
        for alternative in ("greater", "less")
    )
    is_complete = bool(run.reached.all() and reference.reached.all())
    error, freedom = _welch(run.epochs, reference.epochs)
    same_means = stats.t(freedom, scale=error / mean)
    # The mean of the reference is uncertain too, and divides: the error of a ratio (delta method).
    error, freedom = _welch(run.epochs, (1 + difference) * reference.epochs)
    law = stats.t(freedom, scale=error / mean)
    half = float(law.ppf(1 - ALPHA)) if is_complete else NAN
    equal_p = max(float(law.cdf(difference - margin)), float(law.sf(difference + margin)))
    return Comparison(
        difference,
        difference - half,
        difference + half,
        equal_p if is_complete else NAN,
        slower_p,
        faster_p,
        float(same_means.cdf(difference)) if is_complete else NAN,
        _verdict(run, is_complete and equal_p < ALPHA, slower_p, faster_p),
    )


def untested_comparison(verdict: str, difference: float = NAN) -> Comparison:
    """Return a comparison without interval and p-values."""
    return Comparison(difference, NAN, NAN, NAN, NAN, NAN, NAN, verdict)


def _welch(run: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return standard error and degrees of freedom of a difference of means (Welch 1947)."""
    parts = np.array([max(float(x.var(ddof=1)), ROUNDING) / len(x) for x in (run, reference)])
    freedom = parts.sum() ** 2 / (parts**2 / [len(run) - 1, len(reference) - 1]).sum()
    return float(np.sqrt(parts.sum())), float(freedom)


def _verdict(run: Times, is_equal: bool, slower_p: float, faster_p: float) -> str:
    if not run.reached.any():
        return NEVER
    apart = SLOWER if slower_p < ALPHA else FASTER if faster_p < ALPHA else ""
    if is_equal:
        return WITHIN.format(apart) if apart else EQUAL
    return apart or OPEN
