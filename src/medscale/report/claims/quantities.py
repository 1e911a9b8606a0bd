"""Measurement of the quantities that claims are about, from predictions, histories and benchmarks.

Nothing is read from the tables and figures that a claim is to check.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table
from medscale.base.text import amount
from medscale.data.index_file import read_index
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.assessment import RESAMPLES, draws
from medscale.evaluate.paired import compare, smallest_difference
from medscale.evaluate.replicates import Predictions, Replicate, join_predictions, read, same_run
from medscale.evaluate.verdicts import beyond_seeds, independent_difference, verdict
from medscale.measure.scaling.benchmarks import INFERENCE_KEYS, by_way
from medscale.measure.scaling.laws import FEWEST, fit
from medscale.measure.scaling.speedup import rate, ratio, with_suffixes
from medscale.report.claims.planned import Planned
from medscale.report.claims.statements import unknown
from medscale.report.claims.verdicts import Measured
from medscale.report.result.reading import records
from medscale.report.sources import index

POINTS = 100  # a share in percentage points
SIMPLE = "simple"  # the way of loading that the others are compared with
ADJUSTED = "intervals of all adjusted for their number"
TEST_SECONDS = 900


class Files:
    """The files of a study's outputs, read once each.

    Args:
        locate: returns where a file lies, by its path in the folder of all outputs.
        resamples: number of bootstrap resamples of the patients.
    """

    def __init__(self, locate: Callable[[str], Path], resamples: int = RESAMPLES) -> None:
        self.locate, self.resamples = locate, resamples
        self.replicates = cache(self._replicates)
        self.predicted = cache(self._predicted)

    def exists(self, path: str) -> bool:
        """Tell whether a file or folder exists."""
        return self.locate(path).exists()

    def _replicates(self, timings: tuple[str, ...]) -> list[Replicate]:
        """Read the run folders of these files, of one run."""
        replicates = [read(self.locate(path).parent) for path in timings]
        same_run(replicates)
        return replicates

    def _predicted(self, study: str, timings: tuple[str, ...]) -> Predictions:
        table = read_index(self.locate(index(study)))
        return join_predictions(self.replicates(timings), table, "test")


def measure(claim: Planned, files: Files) -> Measured:
    """Measure the quantity of a claim.

    Raises MedscaleError for a damaged file. A quantity that its files cannot give has no value but
    a note.
    """
    return FUNCTIONS[claim.measure](claim, files)


def _replicates(claim: Planned, files: Files, run: str) -> list[Replicate]:
    return files.replicates(tuple(claim.timings(claim.study, run)))


def _predicted(claim: Planned, files: Files, run: str, study: str | None = None) -> Predictions:
    """Return a run's predictions of the test images of a study, by default the claim's."""
    study = study or claim.study
    return files.predicted(study, tuple(claim.timings(study, run)))


def _accuracy_difference(claim: Planned, files: Files) -> Measured:
    """Compare accuracies in pairs; the exact test is adjusted for all runs of the study."""
    family = [
        run
        for run in dict.fromkeys([claim.baseline, claim.run, *claim.family])
        if all(map(files.exists, claim.timings(claim.study, run)))
    ]
    predicted = [_predicted(claim, files, run) for run in family]
    margin = claim.tolerance if claim.compare == "equivalent" else 0.0
    table = compare(family, predicted, 0, margin, draws(predicted[0], files.resamples))
    row = next(row for row in records(table) if row["run"] == claim.run)
    run, base = (_accuracies(predicted[family.index(n)]) for n in (claim.run, claim.baseline))
    replicates = _replicates(claim, files, claim.run)
    seeds = list(dict.fromkeys(replicate.plan.seed for replicate in replicates))
    by_seed = dict(zip(seeds, run, strict=True)), dict(zip(seeds, base, strict=True))
    high, p = float(row["accuracy_high"]), float(row["accuracy_p_holm"])
    words = verdict(str(row["reading"]), high, p, beyond=beyond_seeds(*by_seed))
    note = f"p = {p:.3g} (exact test, adjusted for {amount(len(table), 'run')})"
    measured = Measured(float(row["accuracy"]), float(row["accuracy_low"]), high, words, note)
    return _of_few_patients(measured, predicted)


def _speedup(claim: Planned, files: Files) -> Measured:
    """Return the ratio of epoch times with Welch's interval over replicates."""
    run, base = (_replicates(claim, files, name) for name in (claim.run, claim.baseline))
    if difference := _incomparable(run[0], base[0]):
        return Measured.absence(difference)
    ends = ratio(list(map(_seconds, base)), list(map(_seconds, run)))
    note = "" if len(run) > 1 else "one replicate has no interval"
    return Measured(ends[""], ends["_ci_low"], ends["_ci_high"], note=note)


def _score(claim: Planned, files: Files) -> Measured:
    score = _metric(_predicted(claim, files, claim.run), claim, files)
    scale = POINTS if metrics.in_percent(claim.metric) else 1
    return _scaled(score, scale)


def _split_effect(claim: Planned, files: Files) -> Measured:
    """Compare accuracies on different test images, as independent samples."""
    predicted = [
        _predicted(claim, files, claim.run, study) for study in (claim.variant, claim.study)
    ]
    change = independent_difference(*(_metric(part, claim, files) for part in predicted))
    return _of_few_patients(_scaled(change, POINTS), predicted)


def _serial_part(claim: Planned, files: Files) -> Measured:
    pairs = [
        (replicate.plan.run.devices, replicate.timing["train_images"] / _seconds(replicate))
        for run in claim.series
        for replicate in _replicates(claim, files, run)
    ]
    devices, rates = zip(*pairs, strict=True)
    if len(set(devices)) < FEWEST["amdahl"]:
        return Measured.absence(
            f"Amdahl's law is fitted to at least {FEWEST['amdahl']} numbers of devices"
        )
    serial = fit("amdahl", devices, rates).serial
    return Measured(serial.value, serial.low, serial.high)


def _first_loss_difference(claim: Planned, files: Files) -> Measured:
    run, base = (_replicates(claim, files, name) for name in (claim.run, claim.baseline))
    if run[0].plan.global_batch != base[0].plan.global_batch:
        return Measured.absence("the global batches differ, so that the steps do too")
    pairs = zip(run, base, strict=True)  # replicates of the same seed see the same images
    losses = [[float(r.history["train_loss"].iloc[0]) for r in pair] for pair in pairs]
    return Measured.exact(max(abs(loss - of_base) for loss, of_base in losses))


def _memory_ratio(claim: Planned, files: Files) -> Measured:
    memory = []
    for name in (claim.baseline, claim.run):
        replicates = _replicates(claim, files, name)
        peaks = [replicate.timing["peak_memory_mb"]["device"] for replicate in replicates]
        if not all(peaks):
            return Measured.absence(f"no GPU memory was recorded of {name}")
        memory.append([float(max(peak)) for peak in peaks])
    ends = ratio(memory[0], memory[1])
    return Measured(ends[""], ends["_low"], ends["_high"], note="range over replicates")


def _recomputed_difference(claim: Planned, files: Files) -> Measured:
    """Compare the metrics of summary.json with those recomputed from the predictions."""
    folder = files.locate(f"results/{claim.study}/{claim.run}")
    stated = read_json(folder / "summary.json")["metrics"]["test"]
    predicted = _predicted(claim, files, claim.run)
    averaged = predicted.class_mask
    points = metrics.points(predicted, averaged)
    worst = 0.0
    for name in metrics.names(predicted.probabilities.shape[2]):
        value = float(np.mean([point[name] for point in points]))
        in_file = stated[name]["mean"]
        if in_file is not None or value == value:
            apart = abs(value - (np.nan if in_file is None else in_file))
            worst = max(worst, float("inf") if apart != apart else apart)
    return Measured.exact(worst, note=f"{len(stated)} metrics")


def _loading_gain(claim: Planned, files: Files) -> Measured:
    table = by_way(read_table(files.locate(f"measured/{claim.study}/loading.csv")), SIMPLE)
    best = _best(table[table["way"] != SIMPLE], "gain", ("gain_ci_low", "gain_ci_high"), "way")
    return replace(best, note=f"{best.note}; {ADJUSTED}")


def _inference_rate(claim: Planned, files: Files) -> Measured:
    rows = read_table(files.locate(f"measured/{claim.study}/inference.csv"))
    rows = rows[rows["kind"] == "throughput"].assign(per_image=rows["seconds"] / rows["images"])
    groups = rows.groupby(INFERENCE_KEYS)
    ways = [(part["way"].iloc[0], part["per_image"].tolist()) for _, part in groups]
    rates = [{"way": w} | with_suffixes("rate", rate(times, len(ways))) for w, times in ways]
    best = _best(pd.DataFrame(rates), "rate", ("rate_ci_low", "rate_ci_high"), "way")
    return replace(best, note=f"{best.note}; {ADJUSTED}")


def _software_test(claim: Planned, files: Files) -> Measured:
    """Run a test of the software with pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", claim.test]
    try:
        process = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=TEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Measured.absence(f"{claim.test} took longer than {TEST_SECONDS} s")
    lines = process.stdout.strip().splitlines() or process.stderr.strip().splitlines() or [""]
    if process.returncode not in (0, 1):  # pytest is missing, or collected no test
        return Measured.absence(f"{claim.test} did not run: {lines[-1]}")
    return Measured.exact(float(process.returncode == 0), note=lines[-1])


FUNCTIONS: Mapping[str, Callable[[Planned, Files], Measured]] = {
    "accuracy_difference": _accuracy_difference,
    "speedup": _speedup,
    "score": _score,
    "split_effect": _split_effect,
    "serial_part": _serial_part,
    "first_loss_difference": _first_loss_difference,
    "memory_ratio": _memory_ratio,
    "recomputed_difference": _recomputed_difference,
    "loading_gain": _loading_gain,
    "inference_rate": _inference_rate,
    "software_test": _software_test,
}


def _seconds(replicate: Replicate) -> float:
    """Return the median seconds of an epoch on all devices, without the first (history.csv)."""
    return statistics.median(replicate.timed_epochs()["seconds"].tolist())


def _incomparable(run: Replicate, base: Replicate) -> str:
    """Return why the times of two runs cannot be compared; empty if they can."""
    checks: dict[str, Callable[[Replicate], Any]] = {
        "the network": lambda replicate: replicate.plan.model,
        "the kind of device": lambda replicate: (replicate.plan.backend, replicate.plan.stand_in),
        "the number of training images": lambda replicate: replicate.timing["train_images"],
    }
    for words, value in checks.items():
        if value(run) != value(base):
            return f"{words} differs between the runs"
    return ""


def _of_few_patients(measured: Measured, predicted: list[Predictions]) -> Measured:
    """Return a difference in accuracy with the points that the smallest test set cannot exclude."""
    patients = min(len(np.unique(part.groups)) for part in predicted)
    unseen = smallest_difference(patients)
    if not measured.low <= 0 <= measured.high or min(-measured.low, measured.high) >= unseen:
        return measured
    note = f"{patients} test patients or groups exclude no difference below {unseen:.1f} points"
    return replace(measured, unseen=unseen, note="; ".join(filter(None, [measured.note, note])))


def _accuracies(predicted: Predictions) -> list[float]:
    right = predicted.probabilities.argmax(axis=2) == predicted.labels
    return [float(value) for value in right.mean(axis=1)]


def _metric(predicted: Predictions, claim: Planned, files: Files) -> dict[str, float]:
    """Return a metric's mean over replicates with its bootstrap interval, as a share."""
    names = metrics.names(predicted.probabilities.shape[2])
    if claim.metric not in names:
        raise MedscaleError(f"claims.{claim.name}: metric: {unknown(claim.metric, names)}")
    drawn, averaged = draws(predicted, files.resamples), predicted.class_mask
    points = metrics.points(predicted, averaged)
    quick = bootstrap.decisions(
        predicted.labels, predicted.probabilities[0], predicted.groups, drawn[:1], averaged
    ).overall
    if claim.metric in quick:  # the areas take most of the time
        resampled = [
            bootstrap.decisions(predicted.labels, probabilities, predicted.groups, drawn, averaged)
            for probabilities in predicted.probabilities
        ]
    else:
        resampled = metrics.resamples(predicted, drawn, averaged)
    values = [sample.overall for sample in resampled]
    low, high = metrics.interval(claim.metric, predicted, points, values, averaged)
    mean = float(np.mean([point[claim.metric] for point in points]))
    return {"mean": mean, "low": low, "high": high}


def _best(table: Any, column: str, ends: tuple[str, str], name: str) -> Measured:
    """Return the largest value of a column with its interval and the name of its row."""
    if table.empty:
        return Measured.absence("the benchmark has no such row")
    row = max(records(table), key=lambda row: float(row[column]))
    low, high = (float(row[end]) for end in ends)
    return Measured(float(row[column]), low, high, note=f"{row[name]}, best of {len(table)}")


def _scaled(score: Mapping[str, float], scale: float) -> Measured:
    """Return a score, of which ``mean, low, high`` are given, in another unit."""
    return Measured(scale * score["mean"], scale * score["low"], scale * score["high"])
