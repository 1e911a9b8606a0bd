"""The chapters convergence and sweep: their tables, verdicts and facts from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from figure_texts import faults
from file_tables import read_tables
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_csv
from medscale.config.configuration import load
from medscale.engine.run import RunSpec
from medscale.measure.scaling.convergence import Times, by_seed, compare
from medscale.report import style
from medscale.report.chapters import chapters_of
from medscale.report.convergence.figures import epochs_to_target
from medscale.report.convergence.tables import convergence
from medscale.report.names import LOOKS
from medscale.report.sources import seed_of
from medscale.report.sweep.make import _choice, chosen, sweep_table
from medscale.report.sweep.make import sweep as sweep_figure
from synthetic_runs import ROOT, configuration, make_chapter, make_study

RUNS = ["serial_1cpu", "ddp_2cpu", "ddp_amp_2gpu"]
FIVE = {"runs": RUNS, "seeds": [1, 2, 3, 4, 5], "target": 0.8}


def write_history(
    folder: Path,
    run: str,
    seed: int,
    epoch_reached: int | None,
    epochs: int = 12,
    best: float = 0.85,
) -> None:
    """Write the history of a replicate that reaches ``best`` in the epoch ``reached``."""
    epoch = np.arange(1, epochs + 1)
    high = np.zeros(epochs, bool) if epoch_reached is None else epoch >= epoch_reached
    times = {"seconds": 5.0, "validation_s": 1.0, "checkpoint_s": 0.0}
    times |= {"processes": RunSpec.parse(run).devices, "hardware": "a CPU"}
    table = pd.DataFrame({"epoch": epoch, "val_accuracy": np.where(high, best, 0.5)})
    table = table.assign(val_loss=1 - table["val_accuracy"], **times)
    write_csv(folder / run / f"seed{seed}" / "history.csv", table)


def write_replicates(folder: Path, run: str, epochs: Sequence[int | None]) -> None:
    for seed, epoch_reached in enumerate(epochs, start=1):
        write_history(folder / "runs" / "glaucoma", run, seed, epoch_reached)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with two replicates of each run."""
    path = tmp_path_factory.mktemp("convergence")
    make_study(path, "glaucoma", ["normal", "glaucoma"], RUNS, recipe={"epochs": 12})
    return path


def table_of(folder: Path, name: str) -> pd.DataFrame:
    table = pd.read_csv(folder / "tables" / "glaucoma" / f"{name}.csv")
    (described,) = [d for d in read_tables() if d.pattern == f"tables/<study>/{name}.csv"]
    assert list(table) == [entry.name for entry in described.entries]
    return table


def test_two_seeds_establish_nothing(folder: Path) -> None:
    make_chapter(folder, configuration("glaucoma", RUNS), "glaucoma", "convergence")
    table = table_of(folder, "convergence").set_index("run")
    assert list(table.index) == RUNS
    assert table["verdict"].tolist() == ["baseline", *["none (2 seeds)"] * 2]
    assert table.loc["serial_1cpu", "reached"] == 2  # the target is derived from these replicates
    assert table["equal_p"].isna().all()
    facts = read_json(folder / "tables" / "glaucoma" / "convergence.json")
    assert not facts["is_established"]
    (verdict,) = facts["verdicts"]
    assert verdict["runs"] == ["DDP, 2 CPU", "DDP + AMP, 2 GPU"]


def test_five_seeds_have_verdicts_and_censored_replicates_count(folder: Path) -> None:
    write_replicates(folder, "serial_1cpu", [6, 6, 7, 5, 6])
    write_replicates(folder, "ddp_2cpu", [6, 7, 6, 6, 5])
    write_replicates(folder, "ddp_amp_2gpu", [9, None, 8, None, 9])
    config = configuration("glaucoma", RUNS, convergence=FIVE, recipe={"epochs": 12})
    make_chapter(folder, config, "glaucoma", "convergence")
    table = table_of(folder, "convergence").set_index("run")
    assert table["verdict"].tolist() == ["baseline", "equal within the margin", "slower"]
    slow = table.loc["ddp_amp_2gpu"]
    assert (slow["reached"], slow["replicates"]) == (3, 5)
    assert slow["planned"] == 12
    assert slow["epochs_by_replicate"] == "9 >12 8 >12 9"
    assert slow["epochs"] == pytest.approx((9 + 8 + 9 + 2 * 12) / 5)
    assert slow["seconds"] == pytest.approx(6.0 * (9 + 8 + 9 + 2 * 12) / 5)
    text = (folder / "tables" / "glaucoma" / "convergence.tex").read_text(encoding="utf-8")
    # epochs, seconds and difference of the censored run
    assert text.count(r"\ensuremath{\geq}") == 3
    assert "seconds" in text
    assert "minutes" not in text  # 50 s would be 0.833 minutes
    facts = read_json(folder / "tables" / "glaucoma" / "convergence.json")
    assert facts["target"] == "validation accuracy of at least 80 %"
    assert (facts["is_derived"], facts["is_established"]) == (False, True)
    assert facts["censored"] == ["DDP + AMP, 2 GPU"]
    assert (folder / "figures" / "glaucoma" / "convergence.pdf").stat().st_size > 1000


def test_a_difference_is_a_bound_if_the_run_is_censored_and_none_if_the_baseline_is() -> None:
    row = {"run": "serial_1cpu", "stand_in": False, "format": "fp32", "global_batch": 32}
    row |= {"epochs": 6.0, "seconds": 9.0, "replicates": 5, "reached": 5, "verdict": "baseline"}
    row |= dict.fromkeys(("difference", "difference_low", "difference_high"), np.nan)
    row |= dict.fromkeys(("slower_p", "faster_p", "rcp_p", "equal_p"), np.nan)
    other = row | {"run": "ddp_2cpu", "reached": 4, "verdict": "slower", "difference": 0.42}
    rows = pd.DataFrame([row, other])
    assert r"\ensuremath{\geq}42" in convergence(rows)
    rows.loc[0, "reached"] = 4
    assert "42" not in convergence(rows)


def test_folds_of_one_seed_are_one_replicate(tmp_path: Path) -> None:
    folds = [f"seed1_fold{number}" for number in range(1, 6)]
    reached = Times(np.arange(4.0, 9), np.arange(5.0), np.array([True, True, True, True, False]))
    by = by_seed(reached, [seed_of(tmp_path / name / "history.csv") for name in folds])
    assert (by.epochs.tolist(), by.seconds.tolist(), by.reached.tolist()) == ([6.0], [2.0], [False])
    assert compare(by, by, 0.2).verdict == "none (1 seed)"


def test_a_censored_replicate_is_drawn_at_its_last_epoch() -> None:
    is_reached = np.array([True, True, False])
    slow = Times(np.array([9, 10, 12]), np.array([9.0, 10.0, 12.0]) * 60, is_reached)
    fast = Times(np.array([5, 6, 6]), np.array([5.0, 6.0, 6.0]) * 60, np.full(3, True))
    with style.house():
        figure = epochs_to_target({"serial_1cpu": fast, "ddp_2cpu": slow}, "serial_1cpu", 0.2)
        assert not faults(figure)
    hollow = [line for line in figure.axes[0].lines if line.get_marker() == ">"]
    assert [list(line.get_xdata()) for line in hollow] == [[], [12.0]]
    means = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert means == pytest.approx([17 / 3, 31 / 3])


def test_a_target_beyond_the_baseline_stops_the_chapter(folder: Path) -> None:
    config = configuration("glaucoma", RUNS, convergence={"target": 0.999})
    with pytest.raises(MedscaleError, match="no replicate of the baseline serial_1cpu reaches"):
        make_chapter(folder, config, "glaucoma", "convergence")


def sweep_settings() -> dict[str, Any]:
    sweep = {"runs": ["ddp_2cpu", "serial_1cpu_bs64"], "lr": [5e-4, 1e-3, 2e-3], "seeds": [1, 2]}
    return {"runs": ["serial_1cpu"], "sweep": {**sweep, "lr_scaling": None}}


def test_the_learning_rate_of_each_batch_is_chosen_by_validation(tmp_path: Path) -> None:
    config = load(
        ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": sweep_settings()}}
    )
    best = {"glaucoma_lr_0_0005": 0.8, "glaucoma": 0.9, "glaucoma_lr_0_002": 0.7}
    for study, accuracy in best.items():
        for seed in (1, 2):
            runs = tmp_path / "runs" / study
            write_history(runs, "ddp_2cpu", seed, 4, best=accuracy + 0.02 * seed)
            write_history(runs, "serial_1cpu_bs64", seed, 4, best=max(1.6 - accuracy, 0.8))
    for seed in (1, 2):
        write_history(tmp_path / "runs" / "glaucoma", "serial_1cpu", seed, 4)
    make_chapter(tmp_path, config, "glaucoma", "sweep")
    table = table_of(tmp_path, "sweep")
    assert len(table) == 6
    picked = table[table["chosen"]].set_index("run")
    assert picked["lr"].to_dict() == {"ddp_2cpu": 1e-3, "serial_1cpu_bs64": 2e-3}
    assert picked.loc["ddp_2cpu", "value"] == pytest.approx(0.93)
    assert picked.loc["serial_1cpu_bs64", "global_batch"] == 64
    facts = read_json(tmp_path / "tables" / "glaucoma" / "sweep.json")
    assert [choice["configured"] for choice in facts["chosen"]] == [1e-3, 1e-3]
    assert [choice["edge"] for choice in facts["chosen"]] == ["", "largest"]
    assert {(choice["tried"], choice["tied"]) for choice in facts["chosen"]} == {(3, 1)}
    tied = table[(table["run"] == "serial_1cpu_bs64") & (table["lr"] < 2e-3)]
    choice = _choice("glaucoma", tied, dict(tied.iloc[0]))
    assert (choice["tied"], choice["tried"]) == (2, 2)  # both 0.8
    assert facts["chosen"][1]["result"] == "results/glaucoma_lr_0_002/serial_1cpu_bs64"
    text = (tmp_path / "tables" / "glaucoma" / "sweep.tex").read_text(encoding="utf-8")
    assert ("(range)" in text, "scaling" in text) == (True, False)
    text = sweep_table(table.assign(replicates=1, lr=0.1, lr_scaling="linear"), "val_accuracy")
    assert ("(range)" in text, "scaling" in text) == (False, True)
    with style.house():
        figure = sweep_figure(table, "val_accuracy")
        assert not faults(figure)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["DDP, 2 CPU: 32 images a step", "serial, 1 CPU, batch 64: 64 images a step"]
    many = pd.concat([table.assign(run=f"serial_1cpu_bs{n}") for n in range(1, len(LOOKS) + 2)])
    with style.house():
        (axes,) = sweep_figure(many, "val_accuracy").axes
    assert len(axes.containers) == len(LOOKS) + 1  # a line for each run


def test_equal_values_are_distinguished_by_the_validation_loss() -> None:
    rows = pd.DataFrame({"run": list("aab"), "value": [0.9, 0.9, 0.5], "loss": [0.4, 0.3, 0.9]})
    assert sorted(chosen(rows, "val_accuracy")) == [1, 2]
    assert sorted(chosen(rows.assign(value=rows["loss"]), "val_loss")) == [1, 2]


def test_a_sweep_reads_no_result(tmp_path: Path) -> None:
    config = load(
        ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": sweep_settings()}}
    )
    (chapter,) = [c for c in chapters_of(config, "glaucoma") if c.name == "sweep"]
    paths = [path for paths in chapter.inputs(config, "glaucoma").values() for path in paths]
    assert paths
    assert {Path(path).name for path in paths} == {"history.csv"}
    assert "convergence" not in [c.name for c in chapters_of(config, "glaucoma")]  # one run alone
