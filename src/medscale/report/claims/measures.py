"""The quantities that claims are about: for each its unit, its inputs and the fields that it needs.

``quantities.FUNCTIONS`` computes them. This module imports nothing heavy, as Snakemake reads it at
each start.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """The declaration of a quantity."""

    words: str  # the quantity in words
    unit: str  # unit of expected values and tolerances; empty for a ratio
    digits: int  # decimals that are printed
    needs: tuple[str, ...] = ("study", "run")  # fields that a claim must have
    paired: bool = False  # whether run and baseline are compared on the same test images
    baseline: bool = False  # whether the baseline's replicates are read
    index: bool = True  # whether the index is read, by which predictions are joined
    series: bool = False  # whether the runs on other numbers of devices are read
    further: tuple[str, ...] = ()  # patterns of further outputs; {study} and {run} are replaced
    replicates: bool = True  # whether the run's replicates are read


MEASURES = {
    "accuracy_difference": Measure(
        "accuracy minus the baseline's", "points", 1, paired=True, baseline=True
    ),
    "speedup": Measure("seconds of an epoch, baseline over run", "", 2, baseline=True, index=False),
    "score": Measure("metric on the test images", "", 3),
    "split_effect": Measure(
        "accuracy with the variant's split minus the study's",
        "points",
        1,
        needs=("study", "run", "variant"),
    ),
    "serial_part": Measure("serial part by Amdahl's law", "", 3, index=False, series=True),
    "first_loss_difference": Measure(
        "largest difference from the baseline in the first epoch's training loss",
        "",
        4,
        baseline=True,
        index=False,
    ),
    "memory_ratio": Measure(
        "memory of a GPU in training, baseline over run", "", 2, baseline=True, index=False
    ),
    "recomputed_difference": Measure(
        "largest difference between a metric of summary.json and the same from the predictions",
        "",
        9,
        further=("results/{study}/{run}",),
    ),
    "loading_gain": Measure(
        "images a second of the fastest way of loading over simple loading",
        "",
        2,
        needs=("study",),
        index=False,
        further=("measured/{study}/loading.csv",),
        replicates=False,
    ),
    "inference_rate": Measure(
        "images a second of the fastest way of inference",
        "images/s",
        0,
        needs=("study",),
        index=False,
        further=("measured/{study}/inference.csv",),
        replicates=False,
    ),
    "software_test": Measure(
        "1 where the test passes", "", 0, needs=("test",), index=False, replicates=False
    ),
}
