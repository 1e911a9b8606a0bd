"""Claims: quantities by hand, planted data that makes a claim fail, names that do not exist."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_csv, write_json, write_parquet
from medscale.cli.main import main
from medscale.config.configuration import Config, load
from medscale.evaluate import verdicts as differences
from medscale.report.chapters import outputs
from medscale.report.claims import quantities
from medscale.report.claims.chapter import paths
from medscale.report.claims.checking import check, failed, words_of_bounds, words_of_value
from medscale.report.claims.planned import Planned, plan_claims, shown_by
from medscale.report.claims.quantities import Files
from medscale.report.claims.verdicts import FAILS, HOLDS, MISSING, OPEN
from synthetic_runs import ROOT, configuration, make_index, make_run, make_study

ALL = load(ROOT / "config.yaml")
RUNS = ["serial_1cpu", "ddp_2cpu", "serial_1gpu", "ddp_2gpu"]


REPLICATES = {"glaucoma": ["seed1", "seed2"], "glaucoma_published": ["seed1"]}
CLAIM: dict[str, Any] = {
    "statement": "It is faster.",
    "figure": "how_far",
    "study": "glaucoma",
    "measure": "speedup",
    "run": "ddp_2cpu",
    "baseline": "serial_1cpu",
    "compare": "at_least",
    "expected": 4,
    "tolerance": 0,
    "reason": "by hand",
    "minutes": 1,
    "hardware": "a core",
    "demo": {"reason": "the same"},
}


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a small glaucoma study, whose runs have falling skill and rising speed."""
    folder = tmp_path_factory.mktemp("claims")
    make_study(folder, "glaucoma", ["normal", "glaucoma"], RUNS)
    return folder


def claim(**changes: Any) -> Planned:
    """Return a claim about the study of ``study_folder``: two CPUs are no slower than one."""
    return plan_of({"it": CLAIM | {"expected": 1} | changes})[0]


def plan_of(claims: dict[str, Any], config: Config | None = None) -> list[Planned]:
    """Return the claims of a file with this content."""
    config = config or configuration("glaucoma", RUNS)
    with TemporaryDirectory() as folder:  # of its own for each of the processes of the tests
        path = Path(folder) / "claims.yaml"
        path.write_text(yaml.safe_dump({"claims": claims}), encoding="utf-8")
        return plan_claims(config.model_copy(update={"claims": path}))


def files(folder: Path) -> Files:
    return Files(lambda path: folder / path, resamples=100)


def test_a_speedup_is_that_of_the_histories(study_folder: Path):
    verdict = check(claim(), files(study_folder))
    # an epoch takes 4 s and 2 s, each up to 3 % longer
    assert verdict["value"] == pytest.approx(2.0, rel=0.04)
    assert verdict["low"] < verdict["value"] < verdict["high"]
    assert check(claim(expected=1.5), files(study_folder))["verdict"] == HOLDS
    assert check(claim(expected=4), files(study_folder))["verdict"] == FAILS
    other_verdict = check(claim(run="ddp_2gpu"), files(study_folder))
    assert (other_verdict["verdict"], other_verdict["note"]) == (
        MISSING,
        "the kind of device differs between the runs",
    )


def test_a_score_is_that_of_the_predictions_and_one_away_from_it_fails(study_folder: Path):
    summary = read_json(study_folder / "results" / "glaucoma" / "serial_1cpu" / "summary.json")
    score = summary["metrics"]["test"]["accuracy"]
    near = {"measure": "score", "run": "serial_1cpu", "compare": "near"}
    row = check(claim(**near, expected=100 * score["mean"], tolerance=20), files(study_folder))
    assert row["verdict"] == HOLDS
    assert row["value"] == pytest.approx(100 * score["mean"], abs=1e-9)
    assert row["low"] == pytest.approx(100 * score["low"], abs=1e-9)
    assert check(claim(**near, expected=20, tolerance=2), files(study_folder))["verdict"] == FAILS
    area = check(claim(**near, metric="auroc", expected=0.99, tolerance=0.5), files(study_folder))
    assert area["value"] == pytest.approx(summary["metrics"]["test"]["auroc"]["mean"], abs=1e-9)
    with pytest.raises(MedscaleError, match="did you mean 'auroc'"):
        check(claim(**near, metric="aurocc", expected=0.99, tolerance=0.5), files(study_folder))


def worse(folder: Path, run: str) -> None:
    """Turn a third of the test predictions of a run into their opposite."""
    for path in (folder / "runs" / "glaucoma" / run).glob("seed*/predictions.parquet"):
        table = pd.read_parquet(path)
        chosen = table["id"] % 3 == 0
        table.loc[chosen, ["p_0", "p_1"]] = table.loc[chosen, ["p_1", "p_0"]].to_numpy()
        write_parquet(path, table)


@pytest.fixture
def copy_of_study(study_folder: Path, tmp_path: Path) -> Path:
    """A copy of the made study that a test may damage."""
    shutil.copytree(study_folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_planted_damage_makes_claims_of_accuracy_and_of_the_tables_fail(copy_of_study: Path):
    equal = claim(
        measure="accuracy_difference",
        run="ddp_2gpu",
        baseline="serial_1gpu",
        compare="equivalent",
        expected=None,
        tolerance=None,
    )
    loss = claim(
        measure="accuracy_difference", run="ddp_2gpu", baseline="serial_1gpu", expected=-10
    )
    large_loss = loss.model_copy(update={"expected": -20.0, "lowest": -20.0})
    same_claim = claim(
        measure="recomputed_difference",
        run="ddp_2gpu",
        baseline=None,
        compare="at_most",
        expected=0,
        tolerance=1e-9,
    )
    before = [check(claim_text, files(copy_of_study)) for claim_text in (equal, loss, same_claim)]
    # 24 patients: equal answers to all images exclude a loss of 20 points, and none of 10.
    assert [row["verdict"] for row in before][1:] == [OPEN, HOLDS]
    assert check(large_loss, files(copy_of_study))["verdict"] == HOLDS
    assert before[0]["verdict"] != FAILS
    assert before[2]["value"] < 1e-12
    worse(copy_of_study, "ddp_2gpu")
    after = [check(claim_text, files(copy_of_study)) for claim_text in (equal, loss, same_claim)]
    assert [row["verdict"] for row in after] == [FAILS, FAILS, FAILS]
    assert after[0]["value"] == pytest.approx(-25, abs=10)


def test_the_first_loss_and_the_memory_are_those_of_the_records(copy_of_study: Path):
    steps = claim(measure="first_loss_difference", compare="at_most", expected=0, tolerance=0.02)
    assert check(steps, files(copy_of_study))["verdict"] == HOLDS
    memory = claim(measure="memory_ratio", compare="near", expected=2, tolerance=0.3)
    row = check(memory, files(copy_of_study))
    assert (row["verdict"], row["note"]) == (MISSING, "no GPU memory was recorded of serial_1cpu")
    for run, peak in (("serial_1cpu", 8200.0), ("ddp_2cpu", 4100.0)):
        for seed in (1, 2):
            folder = copy_of_study / "runs" / "glaucoma" / run / f"seed{seed}"
            timing = read_json(folder / "timing.json")
            timing["peak_memory_mb"]["device"] = [peak]
            write_json(folder / "timing.json", timing)
            history = pd.read_csv(folder / "history.csv")
            history["train_loss"] += 0.5 * (run == "ddp_2cpu")
            write_csv(folder / "history.csv", history)
    assert check(memory, files(copy_of_study))["value"] == 2.0
    row = check(steps, files(copy_of_study))
    assert row["verdict"] == FAILS
    assert row["value"] == pytest.approx(0.5, abs=0.02)


def test_benchmarks_are_read_by_their_best_way(tmp_path: Path):
    rows = [
        {"repeat": r, "way": way, "processes": n, "cores": n, "oversubscribed": False}
        | {"images": 100, "startup_s": 0.0, "seconds": s + 0.01 * r, "wait_s": 0.0, "batches": 4}
        for r in (1, 2)
        for way, n, s in (("simple", 1, 8.0), ("loader", 2, 4.0), ("loader", 4, 2.0))
    ]
    write_csv(tmp_path / "measured" / "skin" / "loading.csv", pd.DataFrame(rows))
    gain = next(c for c in plan_claims(ALL) if c.name == "faster_loading_skin")
    row = check(gain, files(tmp_path))
    assert row["value"] == pytest.approx(4.0, rel=0.01)
    note = "loader, best of 2; intervals of all adjusted for their number"
    assert (row["verdict"], row["note"]) == (HOLDS, note)
    # By hand: the logarithm of 3.978 has a standard error of 0.00256 with 1.13 degrees of freedom.
    # Of two ways, each interval leaves out 1.25 % at each end: 18.2 standard errors.
    assert (row["low"], row["high"]) == pytest.approx((3.797, 4.167), abs=1e-3)
    published_claim = next(c for c in plan_claims(ALL) if c.name == "published_skin_loading")
    assert check(published_claim, files(tmp_path))["verdict"] in (HOLDS, OPEN)
    slow = pd.DataFrame(rows).assign(seconds=8.0)
    write_csv(tmp_path / "measured" / "skin" / "loading.csv", slow)
    assert check(published_claim, files(tmp_path))["verdict"] == FAILS


def test_the_rate_of_inference_has_an_interval_over_repetitions(tmp_path: Path):
    keys = {"run": "serial_1gpu", "device": "cuda", "format": "fp32", "threads": 0, "batch": 8}
    rows = [
        keys | {"way": way, "kind": kind, "repeat": r, "images": 100, "seconds": s + 0.01 * r}
        for r in (1, 2, 3)
        for way, kind, s in (
            ("eager", "throughput", 0.23),
            ("onnx", "throughput", 0.13),
            ("onnx", "decoded", 0.01),
        )
    ]
    path = tmp_path / "measured" / "dermatology" / "inference.csv"
    write_csv(path, pd.DataFrame(rows))
    rate = next(c for c in plan_claims(ALL) if c.name == "published_dermatology_inference")
    row = check(rate, files(tmp_path))
    assert row["value"] == pytest.approx(100 / 0.15)
    assert row["note"] == "onnx, best of 2; intervals of all adjusted for their number"
    # By hand: 0.14, 0.15 and 0.16 s have a standard error of 0.01 / sqrt(3), which is 3.85 % of the
    # mean. Of two ways, each interval leaves out 1.25 % at each end: 6.205 standard errors.
    half = 6.205 * 0.01 / 3**0.5 / 0.15
    ends = [100 / 0.15 * math.exp(sign * half) for sign in (-1, 1)]
    assert [row["low"], row["high"]] == pytest.approx(ends, rel=1e-3)
    assert (rate.lowest, row["verdict"]) == (600, OPEN)  # although each pass is faster
    write_csv(path, pd.DataFrame(rows).query("repeat == 1"))
    assert check(rate, files(tmp_path))["verdict"] == OPEN


def test_the_serial_part_of_a_series_by_hand(tmp_path: Path):
    runs = ["serial_1cpu", "ddp_2cpu", "ddp_4cpu"]
    config = configuration("glaucoma", runs)
    index = make_index(tmp_path / "data" / "glaucoma", ["normal", "glaucoma"], images=60)
    for run, devices in zip(runs, (1, 2, 4), strict=True):
        make_run(tmp_path / "runs", config, run, index)
        for seed in (1, 2):  # Amdahl's law with a serial part of 0.1
            path = tmp_path / "runs" / "glaucoma" / run / f"seed{seed}" / "history.csv"
            history = pd.read_csv(path).assign(seconds=10 * (0.1 + 0.9 / devices))
            write_csv(path, history)
    fields = yaml.safe_load((ROOT / "claims.yaml").read_text())["claims"]
    law = fields["serial_part_glaucoma_cpu"] | {"run": "ddp_4cpu", "demo": {"reason": "made"}}
    (low,) = plan_of({"it": law}, config)
    assert low.series == runs
    assert check(low, files(tmp_path))["value"] == pytest.approx(0.1, abs=1e-3)
    assert check(low, files(tmp_path))["verdict"] == FAILS
    (high,) = plan_of({"it": law | {"expected": 0.2}}, config)
    assert check(high, files(tmp_path))["verdict"] == HOLDS


def test_a_leaking_split_is_compared_by_independent_intervals(study_folder: Path, tmp_path: Path):
    shutil.copytree(study_folder, tmp_path / "two")
    for place in ("data", "runs"):
        shutil.copytree(
            study_folder / place / "glaucoma", tmp_path / "two" / place / "glaucoma_published"
        )
    config = load(ROOT / "config.yaml", {"scale": "demo"})
    leak = next(c for c in plan_claims(config) if c.name == "leak_glaucoma")
    leak = leak.model_copy(update={"replicates": REPLICATES})
    row = check(leak, files(tmp_path / "two"))
    assert row["verdict"] == OPEN  # the same predictions: no effect
    assert row["low"] < 0 < row["high"]
    worse(tmp_path / "two", "serial_1cpu")
    row = check(leak, files(tmp_path / "two"))
    assert row["verdict"] == HOLDS
    score = {"mean": 0.7, "low": 0.66, "high": 0.74}
    base = {"mean": 0.5, "low": 0.47, "high": 0.53}
    change = differences.independent_difference(score, base)
    assert [change[end] for end in ("mean", "low", "high")] == pytest.approx([0.2, 0.15, 0.25])


def test_what_is_not_measured_names_target_and_reason(study_folder: Path):
    missing = check(claim(run="ddp_4cpu", demo="another reason"), files(study_folder))
    assert (missing["verdict"], missing["note"]) == (MISSING, "not at demo scale: another reason")
    other_claim = claim(run="ddp_4cpu")
    row = check(other_claim, files(study_folder))
    assert (row["verdict"], row["note"]) == (MISSING, "ddp_4cpu not among the runs of the study")
    assert other_claim.targets == ["results/glaucoma/ddp_4cpu", "results/glaucoma/serial_1cpu"]
    assert paths([other_claim]) == []


def test_a_claim_about_a_test_runs_it_where_it_is_named(
    study_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    passing = "tests/engine/test_run.py"
    sound = claim(study=None, measure="software_test", test=passing, run=None, baseline=None)
    assert check(sound, files(study_folder))["verdict"] == MISSING
    row = check(sound, files(study_folder), run_tests=True)
    assert (row["verdict"], row["value"]) == (HOLDS, 1.0)
    for status, verdict in ((1, FAILS), (4, MISSING)):  # 4: pytest does not know the test
        process = subprocess.CompletedProcess([], status, stdout="the last line", stderr="")
        monkeypatch.setattr(quantities.subprocess, "run", lambda *_, process=process, **__: process)
        assert check(sound, files(study_folder), run_tests=True)["verdict"] == verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": "sped"}, "did you mean 'speedup'"),
        ({"study": "glaukoma"}, "did you mean 'glaucoma'"),
        ({"run": "dpp_2cpu"}, "dpp"),
        ({"figure": None}, "figure or the table"),
        ({"run": None}, "needs run"),
        ({"expected": None}, "needs expected and tolerance"),
        ({"compare": "equivalent"}, "neither expected nor .*: leave both out"),
        ({"expected": {"value": "minutes"}}, "no number"),
        ({"expected": {"value": "minuts"}}, "did you mean 'minutes'"),
        ({"expected": {"value": "a", "ratio": ["a", "b"]}}, "one of value, ratio"),
        ({"demo": {"run": "ddp_2gpu", "reason": "x"}}, "needs another statement"),
        ({"colour": "red"}, "Extra inputs"),
        ({"measure": "software_test", "test": None, "study": None}, "needs test"),
    ],
)
def test_wrong_claims_are_refused(changes, message):
    with pytest.raises(MedscaleError, match=message):
        claim(**changes)


def test_an_unknown_figure_or_table_is_refused_with_the_closest_name():
    with pytest.raises(MedscaleError, match="did you mean 'at_what_cost'"):
        shown_by(claim(figure="at_what_costs"), outputs())
    with pytest.raises(MedscaleError, match="did you mean 'verdicts'"):
        shown_by(claim(figure=None, table="verdict"), outputs())
    assert shown_by(claim(figure=None, table="timing"), outputs()) == "tables/glaucoma/timing.csv"


def test_a_persons_study_has_none_of_the_projects_claims():
    own_source = {"kind": "folder", "path": "raw", "synthetic": False, "options": {}}
    config = configuration("glaucoma", RUNS, source=own_source, preprocess={"size": 96})
    assert plan_claims(config) == []
    fields = claim().model_dump()
    assert fields["name"] == "it"
    assert len(plan_of({"it": yaml.safe_load(yaml.safe_dump(CLAIM))}, config)) == 1


def test_the_command_prints_verdicts_and_fails_where_a_claim_does(
    study_folder: Path, tmp_path: Path
):
    claims = {
        "slow": CLAIM,
        "fast": CLAIM | {"expected": 1},
        "theirs": CLAIM | {"origin": "published"},
        "later": CLAIM | {"run": "ddp_4cpu"},
    }
    file, settings = tmp_path / "claims.yaml", tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"claims": claims}), encoding="utf-8")
    changes = {
        "scale": "demo",
        "only": ["glaucoma"],
        "workdir": str(study_folder),
        "claims": str(file),
    }
    settings.write_text(yaml.safe_dump(changes), encoding="utf-8")

    def verify(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["verify", "--configfile", str(settings), *arguments])
        return result.exit_code, result.output

    code, text = verify()
    assert code == 1
    assert "3 claims of this paper: 1 holds, 1 does not hold, 1 not measured" in text
    assert "snakemake results/glaucoma/ddp_4cpu results/glaucoma/serial_1cpu" in text
    assert "min by the cost model" in " ".join(text.split())
    assert "glaucoma/serial_1cpu --configfile" in " ".join(text.split())
    code, text = verify("--json", "fast", "theirs")
    assert code == 0  # a published conclusion does not count
    rows = {row["name"]: row for row in json.loads(text)["claims"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {"fast": HOLDS, "theirs": FAILS}
    assert rows["fast"]["lowest"] == 1
    assert rows["fast"]["value"] == pytest.approx(2.0, rel=0.04)
    result = CliRunner().invoke(main, ["verify", "--configfile", str(settings), "fats"])
    assert "did you mean 'fast'" in str(result.exception)


def test_only_claims_of_the_paper_fail_and_values_have_words():
    row = claim().model_dump() | {"verdict": FAILS, "value": 1.234, "low": 1.0, "high": 1.5}
    assert failed(row)
    assert not failed(row | {"origin": "published"})
    assert words_of_value(row) == "1.23 (1.00 to 1.50)"
    assert words_of_value(row | {"low": math.nan}) == "1.23"
    assert words_of_value(row | {"value": math.nan}) == ""
    assert words_of_bounds(row) == "at least 1"
    near = claim(measure="score", compare="near", expected=90, tolerance=2).model_dump()
    assert words_of_bounds(near) == "88 to 92"
