"""Coverage of the 95 % intervals: how often they hold the true value of simulated patients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from medscale.base.code import ROOT
from medscale.base.errors import tell_user
from medscale.base.files import write_csv
from medscale.evaluate import bootstrap, metrics, operating, paired
from medscale.evaluate.replicates import Predictions

POPULATION = 60_000  # patients whose metrics count as the truth
SCORES = (
    *("accuracy", "balanced_accuracy", "mcc", "auroc", "auprc", "brier", "nll", "ece"),
    *("calibration_slope", "calibration_intercept"),
)


@dataclass(frozen=True)
class Population:
    """A population of patients, and the distribution of two networks' outputs for them."""

    name: str
    shares: tuple[float, ...]  # of the classes
    images: tuple[int, ...] = (1,)  # of a patient, equally probable
    apart: tuple[float, float] = (1.5, 1.3)  # distance of the classes for both networks
    temperature: float = 0.7  # 1: calibrated; below 1: too certain

    def draw(self, patients: int, rng: np.random.Generator) -> list[Predictions]:
        """Return the predictions of both networks for images of so many patients.

        Half of the variance of a logit is the patient's, and 70 % are common to both networks.
        """
        classes, shares = len(self.shares), np.array(self.shares)
        groups = np.repeat(np.arange(patients), rng.choice(self.images, patients))
        labels = rng.choice(classes, patients, p=shares)[groups]
        sizes = (patients, classes), (len(groups), classes)
        common = [rng.normal(size=size) for size in sizes]
        networks = []
        for apart in self.apart:
            of_patient, of_image = (
                np.sqrt(0.7) * part + np.sqrt(0.3) * rng.normal(size=part.shape) for part in common
            )
            evidence = (of_patient[groups] + of_image) / np.sqrt(2)
            evidence[np.arange(len(labels)), labels] += apart
            odds = np.exp((apart * evidence + np.log(shares)) / self.temperature)
            odds /= odds.sum(axis=1, keepdims=True)
            networks.append(Predictions(np.arange(len(labels)), labels, groups, odds[None]))
        return networks


POPULATIONS = (
    Population("two classes", (0.5, 0.5)),
    Population("two classes, 1 to 8 images", (0.5, 0.5), images=(1, 2, 4, 8)),
    Population("two classes, calibrated", (0.5, 0.5), temperature=1.0),
    Population("disease of 10 %", (0.9, 0.1), apart=(1.8, 1.6)),
    Population("almost perfect", (0.5, 0.5), apart=(3.0, 2.8)),
    Population("four classes", (0.25,) * 4, apart=(2.0, 1.8)),
)


def values(networks: list[Predictions]) -> dict[str, float]:
    """Return the metrics of the first network, its rates, and differences from the second."""
    first, second = (metrics.points(part)[0] for part in networks)
    rates = {name: float(hits[part].mean()) for name, hits, part in _rates(networks[0])}
    differences = {f"{name}_difference": first[name] - second[name] for name in ("accuracy", "ece")}
    areas = {"auroc_difference": first["auroc"] - second["auroc"]}
    return {name: first[name] for name in SCORES} | rates | differences | areas


def intervals(networks: list[Predictions], draws: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the intervals of ``values`` as the evaluation computes them."""
    test = networks[0]
    mask = test.class_mask
    drawn = [metrics.resamples(part, draws, mask)[0].overall for part in networks]
    points = [metrics.points(part, mask) for part in networks]
    ends = {name: metrics.interval(name, test, points[0], drawn[:1], mask) for name in SCORES}
    for name, hits, part in _rates(test):
        resampled = operating.rate(hits, part, test.groups, draws.astype(np.float64))[1]
        patients = len(np.unique(test.groups[part]))
        ends[name] = bootstrap.score_interval(resampled, patients)
    change = drawn[0]["ece"] - drawn[1]["ece"]
    ends["ece_difference"] = metrics.difference_interval("ece", test, change, mask)
    row = paired.compare(["test", "other"], networks, 1, 2.0, draws).iloc[0]
    ends["accuracy_difference"] = row["accuracy_low"] / 100, row["accuracy_high"] / 100
    ends["auroc_difference"] = row["auroc_low"], row["auroc_high"]
    return ends


def _rates(test: Predictions) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield sensitivity and specificity of the last class at a threshold of 0.5."""
    calls = (test.probabilities[0, :, -1] > 0.5).astype(np.float64)
    yield from operating.right_calls(calls, test.labels == test.probabilities.shape[2] - 1)


def coverage(population: Population, patients: int, samples: int) -> dict[str, Any]:
    """Return the percent of the defined intervals that hold the true value, by metric."""
    rng = np.random.default_rng(1)
    truth, cases = values(population.draw(POPULATION, rng)), []
    for number in range(samples):
        networks = population.draw(patients, rng)
        if len(np.unique(networks[0].labels)) == len(population.shares):
            ends = intervals(networks, bootstrap.draw(patients, 1000, number))
            cases.append({name: _holds(*ends[name], true) for name, true in truth.items()})
    shares = pd.DataFrame(cases).mean().mul(100).round(1)
    row: dict[str, Any] = {"population": population.name, "patients": patients}
    return row | {str(name): share for name, share in shares.items()}


def _holds(low: float, high: float, true: float) -> float:
    """Return 1 for an interval that holds the value, 0 for one that does not, NaN without one."""
    return float("nan") if np.isnan(low) else float(low - 1e-12 <= true <= high + 1e-12)


def main(
    samples: int = typer.Option(200, help="simulated test sets of each row"),
    patients: list[int] = typer.Option([20, 50, 100, 300], help="patients of a test set"),
    to: Path = typer.Option(ROOT / "docs" / "intervals.csv"),
) -> None:
    """Simulate test sets of known truth and write how often each interval holds it."""
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    rows = [coverage(part, count, samples) for part in POPULATIONS for count in patients]
    write_csv(to, pd.DataFrame(rows))
    print(f"{to}: percent of {samples} intervals that hold the true value")


if __name__ == "__main__":
    tell_user(typer.run)(main)
