"""Ensembles: the mean probability of a run's replicates, of a network's runs, and of all runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.replicates import Predicted

METRICS = ("accuracy", "auroc", "nll", "ece")


@dataclass(frozen=True)
class Member:
    """A run that can be part of an ensemble."""

    name: str  # name of the run
    network: str  # name of its network
    predicted: Predicted  # predictions of the test split
    mean: dict[str, float]  # each of ``METRICS``, mean over replicates
    resamples: pd.DataFrame  # the same on each bootstrap resample, a row for each (resamples.csv)


def ensembles(runs: Sequence[Member], drawn: np.ndarray) -> pd.DataFrame:
    """Compare averaged probabilities (Lakshminarayanan et al., NeurIPS 2017) with single networks.

    Args:
        runs: evaluated on the same images with the same resamples.
        drawn: those resamples of the groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        A row for each ensemble of two networks or more: ``kind`` (replicates, network or all),
        ``of`` (run or network), ``members``, and for each of ``METRICS`` its value ``<metric>``
        with ``<metric>_low, <metric>_high`` (95 % over patients), the mean of its members
        ``<metric>_single``, and ``<metric>_gain, <metric>_gain_low, <metric>_gain_high``: the
        value minus that mean, with its paired interval.
    """
    networks = list(dict.fromkeys(run.network for run in runs))
    sets = [("replicates", run.name, [run]) for run in runs]
    if len(networks) > 1:
        sets += [
            ("network", name, [run for run in runs if run.network == name]) for name in networks
        ]
    if len(runs) > 1:
        sets.append(("all", "", list(runs)))
    rows = []
    for kind, of, members in sets:
        odds = np.concatenate([run.predicted.probabilities for run in members])
        if len(odds) > 1 and (kind == "replicates" or len(members) > 1):
            head = {"kind": kind, "of": of, "members": len(odds)}
            rows.append(head | _row(members, odds.mean(axis=0), drawn))
    return pd.DataFrame(rows)


def _row(members: Sequence[Member], odds: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    labels, groups = members[0].predicted.labels, members[0].predicted.groups
    averaged = bootstrap.averaged_classes(labels, groups, odds.shape[1])
    points = metrics.point(labels, odds, averaged)
    resampled = bootstrap.resample(
        labels, odds, groups, drawn, complete=False, averaged=averaged
    ).overall
    weights = [len(run.predicted.probabilities) for run in members]
    row: dict[str, float] = {}
    for name in METRICS:
        single = float(np.average([run.mean[name] for run in members], weights=weights))
        singles = np.average(
            [run.resamples[name].to_numpy() for run in members], axis=0, weights=weights
        )
        low, high = bootstrap.interval(resampled[name])
        gain_low, gain_high = bootstrap.interval(resampled[name] - singles)
        row |= {
            name: points[name],
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_single": single,
            f"{name}_gain": points[name] - single,
            f"{name}_gain_low": gain_low,
            f"{name}_gain_high": gain_high,
        }
    return row
