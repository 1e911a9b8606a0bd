"""Ensembles: the mean probability of a run's replicates, of a network's runs, and of all runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.replicates import Predictions

METRICS = ("accuracy", "auroc", "nll", "ece")


@dataclass(frozen=True)
class Member:
    """A run that can be part of an ensemble."""

    name: str  # name of the run
    network: str  # name of its network
    predicted: Predictions  # predictions of the test split
    mean: dict[str, float]  # ``METRICS``, means over replicates
    resamples: pd.DataFrame  # resamples.csv: ``METRICS`` on each bootstrap resample (one a row)


def ensembles(runs: Sequence[Member], draw_counts: np.ndarray) -> pd.DataFrame:
    """Compare averaged probabilities (Lakshminarayanan et al., NeurIPS 2017) with single networks.

    Args:
        runs: runs that were evaluated on the same images with the same resamples.
        draw_counts: the resamples of the groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        One row for each ensemble of two or more networks: ``kind`` (replicates, network or all),
        ``of`` (run or network), ``members``. For each of ``METRICS`` follow the value ``<metric>``
        with ``<metric>_low, <metric>_high`` (95 % over patients), the mean of the members
        ``<metric>_single``, and the gain over that mean with its paired interval:
        ``<metric>_gain, <metric>_gain_low, <metric>_gain_high``.
    """
    networks = list(dict.fromkeys(run.network for run in runs))
    sets = [("replicates", run.name, [run]) for run in runs]
    if len(networks) > 1:
        sets += [
            ("network", name, [run for run in runs if run.network == name]) for name in networks
        ]
    sets.append(("all", "", list(runs)))
    rows = []
    for kind, subject, members in sets:
        probabilities = np.concatenate([run.predicted.probabilities for run in members])
        if len(probabilities) > 1 and (kind == "replicates" or len(members) > 1):
            head = {"kind": kind, "of": subject, "members": len(probabilities)}
            rows.append(head | _row(members, probabilities.mean(axis=0), draw_counts))
    return pd.DataFrame(rows)


def _row(
    members: Sequence[Member], probabilities: np.ndarray, draw_counts: np.ndarray
) -> dict[str, float]:
    tested = members[0].predicted
    labels, groups, class_mask = tested.labels, tested.groups, tested.class_mask
    points = metrics.point(labels, probabilities, class_mask)
    resample_values = bootstrap.resample(
        labels, probabilities, groups, draw_counts, complete=False, class_mask=class_mask
    ).overall
    weights = [len(run.predicted.probabilities) for run in members]
    row: dict[str, float] = {}
    for name in METRICS:
        single = float(np.average([run.mean[name] for run in members], weights=weights))
        singles = np.average(
            [run.resamples[name].to_numpy() for run in members], axis=0, weights=weights
        )
        gain, gains = points[name] - single, resample_values[name] - singles
        ends = metrics.interval(name, tested, [points], [resample_values], class_mask)
        row |= bootstrap.with_interval(name, points[name], ends) | {f"{name}_single": single}
        ends = metrics.difference_interval(name, tested, gains, class_mask)
        row |= bootstrap.with_interval(f"{name}_gain", gain, ends)
    return row
