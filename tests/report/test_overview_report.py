"""The chapter overview: the linear reference, batch normalization, and the published figures."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medscale.data.patients import NOT_KNOWN
from medscale.report.overview.facts import _baseline, _notes
from medscale.report.overview.figures import curves, speedup
from medscale.report.overview.linear import Linear, rows
from medscale.report.overview.linear import facts as linear_facts
from medscale.report.overview.parity import parity
from medscale.report.overview.tables import data, reported
from medscale.report.result.figures import draw_curves


def test_runs_are_better_than_the_linear_reference_or_not_by_the_interval_of_the_difference():
    spread = np.linspace(-0.05, 0.05, 401)
    scores = {"auroc": {"mean": 0.8, "low": 0.7, "high": 0.9}}
    summary = {"paired_with": "x", "smallest_class": 30, "metrics": {"test": scores}}
    majority = {"class": "a", "share": 0.6}
    linear = Linear(
        summary | {"method": "PCA", "majority": majority},
        pd.DataFrame({"auroc": np.full(401, 0.8)}),
    )

    def run(name: str, auroc: float | None) -> Any:
        resamples = pd.DataFrame({"auroc": spread + (np.nan if auroc is None else auroc)})
        score = {"mean": auroc}
        of_run = {"bootstrap": {"paired_with": "x"}}
        return SimpleNamespace(
            name=name, summary=of_run, score=lambda _: score, resamples=resamples
        )

    runs = [run("ddp_2cpu", 0.9), run("ddp_4cpu", 0.84), run("ddp_8cpu", 0.7)]
    of_study = linear_facts([*runs, run("serial_1cpu", None)], linear)
    labels = {key: [row["label"] for row in of_study[key]] for key in ("worse", "not_better")}
    assert labels == {"worse": ["DDP, 8 CPU"], "not_better": ["DDP, 4 CPU", "serial, 1 CPU"]}
    assert [row["label"] for row in of_study["not_beaten_by"]] == [
        *("DDP, 4 CPU", "DDP, 8 CPU", "serial, 1 CPU")
    ]
    worse = of_study["worse"][0]
    ends = (worse["mean"], worse["low"], worse["high"])
    assert ends == pytest.approx((-0.1, -0.1475, -0.0525))
    assert math.isnan(of_study["not_better"][1]["mean"])
    reference, most_frequent = rows(linear, ["auroc"])
    assert (reference["auroc_mean"], reference["auroc_high"]) == (0.8, 0.9)
    assert (most_frequent["accuracy_mean"], "auroc_mean" in most_frequent) == (0.6, False)


@pytest.mark.parametrize(
    ("run", "recipe", "images"),
    [
        ("serial_1gpu", {}, 64),
        ("ddp_4gpu", {}, 16),
        ("ddp_4gpu", {"accumulate": 2}, 8),
        ("ddp_4gpu", {"sync_batchnorm": True}, 64),
        ("ddp_4gpu", {"sync_batchnorm": True, "accumulate": 2}, 32),
        ("ddp_mp_4gpu", {}, 8),  # two replicas of two stages, four micro-batches each
        ("ddp_mp_4gpu", {"sync_batchnorm": True}, 8),  # which a pipeline does not have
    ],
)
def test_batch_normalization_takes_the_images_of_a_replica_or_of_a_micro_batch(run, recipe, images):
    curves = pd.DataFrame({"quantity": "train_loss", "epoch": [2, 1], "mean": [0.3, 0.9]})
    summary = {"format": "fp32", "global_batch": 64, "parallel": {"microbatches": 4}}
    summary |= {"recipe": {"accumulate": 1, "sync_batchnorm": False} | recipe, "seeds": [1]}
    summary |= {"learning_rate": 0.1, "augment": {}, "model": {}}
    base, longer = (
        SimpleNamespace(
            name=run, summary=summary, normalizes=True, score=lambda _: {"mean": 0.8}, curves=table
        )
        for table in (curves, curves.assign(mean=[0.1, 0.8]))
    )
    longer.name = f"{run}_bs64"
    table = parity([base, longer], run)
    assert table["images"].tolist() == [images, images]
    # from 0.9 to 0.8 in the first epoch, from 0.3 to 0.1 in the second
    assert table[["first", "largest"]].iloc[1].tolist() == pytest.approx([0.1, 0.2])
    longer.summary = summary | {"recipe": summary["recipe"] | {"tf32": True}}  # a step's speed
    assert parity([base, longer], run)["same_steps"].tolist() == [True, True]
    longer.summary = summary | {"recipe": summary["recipe"] | {"weight_decay": 0.1}}
    table = parity([base, longer], run)
    assert table["same_steps"].tolist() == [True, False]
    assert table[["first", "largest", "accuracy"]].iloc[1].isna().all()


def test_published_figures_stand_beside_ours_in_units_that_can_be_read():
    columns = ["item", "quantity", "unit", "reported", "reported_high", "meant", "run", "ours"]
    columns += ["format", "speedup_reported", "speedup_ours", "against"]
    nan, two, serial = np.nan, "ddp_2cpu", "serial_1gpu"
    training, times = "whole training", "time an epoch"
    ddp, epoch, words = "minutes / ddp_cpu / 2", "epoch / ddp_1gpu", "study / confusions"
    table = pd.DataFrame(
        [
            (ddp, training, "min", 383.4, nan, two, two, 0.0985, "fp32", 1.97, 1.26, "ddp_1cpu"),
            (epoch, times, "s", 360.0, 430.0, "ddp_1gpu", serial, 0.68, "tf32", nan, nan, ""),
            (words, "confused images", "images", 12.0, nan, "", "", nan, "", nan, nan, ""),
        ],
        columns=columns,
    )
    body = [line.split(" & ") for line in reported(table).splitlines() if " & " in line][1:]
    assert [[cell.strip(" \\") for cell in row[2:]] for row in body] == [
        ["383.4", r"5.91\,s", "fp32", "", "1.97", "1.26", "DDP, 1 CPU"],
        ["360--430", "0.680", "tf32", "serial, 1 GPU", "--", "--", ""],
    ]
    alone = reported(table[2:])  # nothing has a counterpart: all are shown
    assert "study & confused images (images) & 12" in alone


def test_the_recall_of_the_positive_class_is_the_sensitivity_of_the_baseline():
    names = ["healthy", "ill"]
    per_class = pd.DataFrame(
        {
            "class": [*names, *names],
            "metric": ["recall", "recall", "precision", "precision"],
            "mean": [0.9, 0.7, 0.5, 0.4],
            "low": [0.8, 0.6, 0.3, 0.2],
            "high": [0.95, 0.75, 0.6, 0.5],
        }
    )
    summary = {"format": "tf32", "metrics": {"test": {"accuracy": {"mean": 0.8}}}}
    runs: list[Any] = [
        SimpleNamespace(name=run, summary=summary | {"run": run}, classes=names, per_class=table)
        for run, table in (("ddp_2gpu", per_class[:0]), ("serial_1gpu", per_class))
    ]
    of_baseline = _baseline(runs, "serial_1gpu")
    assert of_baseline["label"] == "serial, 1 GPU, tf32"
    assert of_baseline["scores"] == {"accuracy": {"mean": 0.8}}
    assert of_baseline["specificity"] == {"mean": 0.9, "low": 0.8, "high": 0.95}
    assert of_baseline["sensitivity"] == {"mean": 0.7, "low": 0.6, "high": 0.75}
    runs[1].classes = [*names, "other"]
    assert _baseline(runs, "serial_1gpu").keys() == {"label", "scores"}


def test_a_remark_on_times_is_made_once_for_all_its_runs():
    runs = ["serial_1gpu", "ddp_2gpu", "ddp_4gpu", "ddp_8gpu"]
    times = pd.DataFrame({"run": runs, "note": ["", "other card", "moved", "other card"]})
    assert _notes(times) == [
        {"note": "other card", "runs": ["DDP, 2 GPU", "DDP, 8 GPU"]},
        {"note": "moved", "runs": ["DDP, 4 GPU"]},
    ]


def test_the_table_of_images_adds_up():
    counts = pd.DataFrame({"train": [7, 5], "val": [2, 1], "test": [4, 3]}, index=["a", "b"])
    text = data(counts, {"train": 6, "val": 3, "test": 5, "all": 13}, NOT_KNOWN)
    body = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]
    assert body[1:] == [
        ["a", "7", "2", "4", "13"],
        ["b", "5", "1", "3", "9"],
        ["all images", "12", "3", "7", "22"],
        ["groups", "6", "3", "5", "13"],
    ]
    assert "patients or groups" in data(counts, {"train": 6, "val": 3, "test": 5, "all": 13}, "x")


@pytest.mark.parametrize(("epochs", "markers"), [(1, True), (2, False)])
def test_a_training_of_one_epoch_is_seen_in_the_curves(epochs: int, markers: bool):
    quantities = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    points = [(name, epoch + 1) for name in quantities for epoch in range(epochs)]
    table = pd.DataFrame(points, columns=["quantity", "epoch"]).assign(mean=0.5, low=0.4, high=0.6)
    run: Any = SimpleNamespace(name="serial_1cpu", curves=table)
    axes = Figure().subplots()
    draw_curves(axes, table, "loss")
    for panel in [*curves([run]).axes, axes]:
        assert [bool(line.get_marker()) for line in panel.lines] == [markers] * len(panel.lines)
        assert panel.lines
        low, high = panel.get_xlim()
        ticks = [tick for tick in panel.get_xticks() if low <= tick <= high]
        assert all(tick == round(tick) for tick in ticks)


@pytest.mark.parametrize("runs", [["serial_1cpu"], ["serial_1cpu", "ddp_2cpu", "fsdp_2cpu"]])
def test_the_runs_of_a_speedup_figure_stand_at_their_devices(runs):
    devices = [int(name.split("_")[1][0]) for name in runs]
    values = {"speedup": 1.5, "speedup_low": np.nan, "speedup_high": np.nan, "device": "cpu"}
    values |= {"amp": False, "stand_in": False, "baseline": "serial_1cpu"}
    figure = speedup(pd.DataFrame({"run": runs, "devices": devices, **values}))
    serial = figure.axes[0].containers[0][0]
    shift = 0.03 if len(runs) > 1 else 0  # of an octave, so that no line hides another
    assert serial.get_xdata()[0] == pytest.approx(2**-shift)
