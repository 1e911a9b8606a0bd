"""The chapter on images of another origin: external sets, and sources that were held out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medscale.base.files import read_json
from medscale.config.configuration import load
from medscale.config.sections import Evaluate
from medscale.evaluate.assessment import assess
from medscale.evaluate.external import shift, validation_fit
from medscale.evaluate.replicates import Predictions
from medscale.report.external.make import ENDS, METRICS, _held_out_row, _summary
from medscale.report.result.external import External, write_external
from medscale.report.result.reading import read_result
from synthetic_runs import ROOT, make_chapter, make_index, make_study, probabilities

TWO = ["normal", "glaucoma"]


def make_external(folder: Path, result: Path, name: str, *, only: str | None = None) -> None:
    """Write an external evaluation of a made result whose predictions are worse outside."""
    index = make_index(folder / "data" / name, TWO, images=90, seed=5)
    if only is not None:
        index["label"] = pd.Categorical([only] * len(index), categories=TWO)
    inside, labels = read_result(result), index["label"].cat.codes.to_numpy(np.int64)
    odds = np.stack([probabilities(labels, 2, 0.5, seed) for seed in (8, 9)]).astype(np.float64)
    groups = pd.factorize(index["group"])[0].astype(np.int64)
    outside = assess(
        Predictions(index["id"].to_numpy(), labels, groups, odds),
        index,
        TWO,
        [1, 2],
        validation_fit(inside.summary, inside.operating),
        Evaluate(),
        resamples=100,
    )
    external = External(
        title="Clinic B & C" if only is None else "Screening",
        study="glaucoma",
        run=inside.summary["run"],
        seeds=[1, 2],
        marks=inside.summary["marks"],
        missing=[],
        notes=["One note: 100 % true."],
        copies={"train": 2, "val": 0, "test": 0},
        same_patients={"train": 3, "val": 0, "test": 1},
        inputs={},
        assessment=outside,
        inside=inside,
        shift=shift(inside.summary, outside),
        predictions=pd.DataFrame({"path": index["path"]}),
    )
    write_external(external, folder / "external" / name / "serial_1cpu", {"audit.json": b"{}"})


def test_inside_stands_beside_outside(tmp_path: Path) -> None:
    sources = {"source": ["BEH", "G1020"]}
    runs = ["serial_1cpu", "serial_1gpu"]
    variant = {"variant_of": "glaucoma", "split": {"held_out": ["BEH"]}, "runs": runs}
    clinic = {"title": "Clinic B & C", "source": {"kind": "folder", "path": "b"}}
    healthy = {"title": "Screening", "source": {"kind": "folder", "path": "c"}}
    settings = {"external": [clinic, healthy], "runs": ["serial_1cpu"], "baseline": "serial_1cpu"}
    results = [
        make_study(tmp_path, "glaucoma", TWO, runs, metadata=sources)[0],
        make_study(tmp_path, "site_beh", TWO, runs)[0],
    ]
    make_external(tmp_path, results[0], "glaucoma_external1")
    make_external(tmp_path, results[0], "glaucoma_external2", only="normal")
    studies = {"glaucoma": settings, "site": variant}
    config = load(ROOT / "config.yaml", {"scale": "demo", "studies": studies})
    make_chapter(tmp_path, config, "glaucoma", "external")
    tables = tmp_path / "tables" / "glaucoma"
    table = pd.read_csv(tables / "external.csv")
    assert table["run"].tolist() == ["serial_1cpu", "serial_1cpu", *runs]
    table = table[table["run"] == "serial_1cpu"].set_index("set")
    assert table["kind"].to_dict() == {
        "Clinic B & C": "external set",
        "Screening": "external set",
        "source: BEH": "held out",
    }
    clinic_row, source_row = table.loc["Clinic B & C"], table.loc["source: BEH"]
    inside, variant_result = (read_result(folder) for folder in results)
    assert clinic_row["auroc_inside"] == pytest.approx(inside.score("auroc")["mean"])
    assert clinic_row["auroc_outside"] < clinic_row["auroc_inside"]
    assert clinic_row["auroc_difference_high"] < 0
    part = inside.subgroups.query("by == 'source' and part == 'BEH' and metric == 'auroc'")
    assert source_row["auroc_inside"] == pytest.approx(part["mean"].item())
    assert source_row["auroc_outside"] == pytest.approx(variant_result.score("auroc")["mean"])
    assert r"Clinic B \& C" in (tables / "external.tex").read_text(encoding="utf-8")
    points = pd.read_csv(tables / "external_points.csv")
    assert points["threshold"].tolist() == inside.operating["threshold"].tolist() * 2
    facts = read_json(tables / "external.json")
    assert (facts["sets"][0]["copies"]["train"], facts["sets"][0]["overlap"]) == (2, 4)
    assert (facts["sets"][0]["patients"], facts["sets"][0]["groups"]) == ("known", 45)
    assert facts["sets"][0]["same_patients"] == {"train": 3, "val": 0, "test": 1}
    assert facts["sources"] == ["source: BEH"]  # one source, which two runs held out
    of_healthy = facts["sets"][1]
    assert of_healthy["points"][0]["sensitivity_outside"] is None
    assert 0 < of_healthy["points"][0]["specificity_outside"] < 1
    balanced = of_healthy["scores"]["balanced_accuracy"]
    assert balanced["outside"]["mean"] < 1
    assert balanced["difference"]["mean"] is None  # of one class outside, of two inside
    for name in ("external", "external_scores"):
        assert (tmp_path / "figures" / "glaucoma" / f"{name}.pdf").stat().st_size > 1000


@pytest.mark.parametrize(
    ("codes", "confusion", "left_out", "balanced"),
    [
        ("[0, 1, 2]", [[9, 0, 0], [0, 9, 0], [0, 0, 9]], [], -0.25),
        ("[0, 1]", [[9, 0, 0], [0, 9, 0], [0, 0, 9]], [], np.nan),  # the study's test images lack c
        ("[0, 1]", [[9, 0, 0], [0, 9, 0], [0, 0, 0]], [], -0.25),  # the source has no c at all
        ("[0, 1]", [[9, 0, 0], [0, 9, 0], [0, 0, 1]], ["c"], -0.25),
        ("[0, 1]", [[9, 0, 0], [0, 2, 0], [0, 0, 9]], ["b"], np.nan),
    ],
)
def test_averages_of_a_held_out_source_are_compared_over_the_same_classes(
    codes: str, confusion: list[list[int]], left_out: list[str], balanced: float
) -> None:
    ends = {"mean": 0.75, "low": 0.5, "high": 1.0}
    parts = [
        {"by": "source", "part": "B", "metric": metric, "classes": codes, **ends}
        for metric in METRICS
    ]
    result = SimpleNamespace(subgroups=pd.DataFrame(parts))
    summary = {"study": "held", "run": {"name": "serial_1cpu"}, "classes": ["a", "b", "c"]}
    summary |= {"confusion": confusion, "not_averaged": left_out}
    summary["counts"] = {"test": {"images": 27, "groups": 27}}
    score = {"mean": 0.5, "low": 0.25, "high": 0.75}
    variant = SimpleNamespace(summary=summary, score=lambda _: score)
    row = _held_out_row(variant, result, {"held": ["source", "B"]})
    assert row["accuracy_difference"] == -0.25
    assert row["balanced_accuracy_difference"] == pytest.approx(balanced, nan_ok=True)
    assert row["auroc_difference"] == pytest.approx(balanced, nan_ok=True)


def test_a_source_is_named_as_the_worst_only_if_its_area_falls() -> None:
    ends = {f"auroc_outside{end}": 0.8 for end in ENDS}
    rows = pd.DataFrame(
        [
            {"kind": "held out", "set": name, "run": "serial_1cpu", "auroc_inside": inside} | ends
            for name, inside in (("A", 0.82), ("B", 0.9), ("C", np.nan), ("D", 0.7))
        ]
    )
    rows["auroc_difference"] = rows["auroc_outside"] - rows["auroc_inside"]
    worst = _summary(rows)["worst"]
    assert (worst["set"], worst["inside"], worst["outside"]["mean"]) == ("B", 0.9, 0.8)
    assert _summary(rows.iloc[2:]) == {"sources": ["C", "D"], "worst": None}
