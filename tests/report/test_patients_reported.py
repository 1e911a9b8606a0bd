"""Every report says whether the patients are known, and which classes averages leave out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.table import Table

from medscale.base.files import read_json, write_json, write_parquet
from medscale.data import patients
from medscale.evaluate.evaluation import Evaluation, evaluate
from medscale.evaluate.summary import summarise
from medscale.report.datasheet.make import make, metadata_columns
from medscale.report.names import OVER
from medscale.report.paper.facts import scope
from medscale.report.result.card import model_card
from medscale.report.show import show
from synthetic_runs import configuration, make_index, make_run

RUN = "serial_1cpu"


def evaluate_run(folder: Path, patient_source: str, classes: list[str] | None = None) -> Evaluation:
    """Evaluate a made run whose index knows the patients of all, some or no images."""
    config = configuration("glaucoma", [RUN], seeds=[1])
    index = make_index(folder, classes or ["normal", "glaucoma"], images=120)
    share = {"known": 1.0, "partly": 0.5, "not known": 0.0}[patient_source]
    index["patient"] = index["group"].where(index["id"] < share * len(index), None)
    write_parquet(folder / "index.parquet", index)
    audit = read_json(folder / "audit.json")
    audit["patients"] = patients.summary(index["patient"], "column patient of index.csv")
    write_json(folder / "audit.json", audit)
    return evaluate(
        make_run(folder / "runs", config, RUN, index), folder / "index.parquet", resamples=50
    )


def terminal_text(folder: Path, summary: dict[str, object]) -> str:
    write_json(folder / "summary.json", summary)
    return "\n".join(line for line in show(folder) if not isinstance(line, Table))


@pytest.mark.parametrize(
    ("patient_source", "over", "caution", "divided"),
    [
        ("known", "over patients: the patients are known", False, "whole patients or groups"),
        (
            "partly",
            "over patients or groups of images: the patients are known of",
            True,
            "whole pat",
        ),
        (
            "not known",
            "over groups of images: the patients are not known",
            True,
            "the patients are not known",
        ),
    ],
)
def test_reports_say_whether_patients_are_known(
    tmp_path: Path, patient_source: str, over: str, caution: bool, divided: str
) -> None:
    evaluation = evaluate_run(tmp_path, patient_source)
    summary = summarise(evaluation) | {"gradcam": None}
    assert summary["patients"] == patient_source
    assert over in terminal_text(tmp_path, summary)
    text = terminal_text(tmp_path, summary | {"folds": {"count": 3, "metrics": {}}})
    part = "patient" if patient_source == "known" else "fold"
    assert f"tested by networks that were not trained on its {part};" in text
    card = model_card(summary, evaluation.per_class)
    assert f"bootstrap {over.split(':')[0]}\n" in card
    assert ("Caution: the patients are" in card) == caution
    assert re.search(r"\| glaucoma \| 90 % \| .* \| 0\.\d{3} \(0\.\d{3}–\d\.\d{3}\) \|", card)
    assert not re.search(r"\d\(", card)  # a bracket follows a space
    assert ("patients or groups, seen" in card) == (patient_source != "not known")
    config = configuration("glaucoma", [RUN], seeds=[1])
    pages = make(
        "glaucoma",
        index=str(tmp_path / "index.parquet"),
        counts=str(tmp_path / "audit.json"),
        kind="",
        section=config.study("glaucoma").model_dump(mode="json"),
    )
    sheet = next(iter(pages.documents.values()))
    audit = read_json(tmp_path / "audit.json")
    assert f"- Patients: {patients.sentence(audit['patients'])}" in sheet
    assert divided in sheet


@pytest.mark.parametrize(
    "origin", ["column Patient ID of Data_Entry.csv", "the expression ^p", None]
)
def test_columns_that_identify_patients_are_no_metadata(origin: str | None) -> None:
    """The datasheet and the crate print the values of metadata."""
    columns = ["id", "path", "label", "Patient ID", "MRN", "lesion_id", "age", "view"]
    index = pd.DataFrame(columns=columns)
    assert metadata_columns(index, {"patients": {"from": origin}}) == ["age", "view"]


def test_a_column_that_the_user_names_as_the_patient_is_no_metadata() -> None:
    index = pd.DataFrame(columns=["id", "code", "age"])
    origin = {"patients": {"from": "column code of list.csv"}}
    assert metadata_columns(index, origin) == ["age"]


def test_averages_leave_out_a_class_with_too_few_groups(tmp_path: Path) -> None:
    classes = ["a", "b", "c"]
    evaluation = evaluate_run(tmp_path, "known", classes)
    assert evaluation.not_averaged == []
    folders = [replicate.folder for replicate in evaluation.replicates]
    index = make_index(tmp_path, classes, images=120)
    rare = (index["split"] == "test") & (index["label"] == "c")
    kept_groups = index[rare]["group"].unique()[:3]
    index = index[~rare | index["group"].isin(kept_groups)]
    write_parquet(tmp_path / "index.parquet", index)
    folders = make_run(tmp_path / "runs", configuration("glaucoma", [RUN], seeds=[1]), RUN, index)
    evaluation = evaluate(folders, tmp_path / "index.parquet", resamples=50)
    assert evaluation.not_averaged == ["c"]
    by_class = evaluation.per_class.pivot(index="class", columns="metric", values="mean")
    test = evaluation.scores[evaluation.scores["split"] == "test"].set_index("metric")["mean"]
    for average, metric in (
        ("recall_macro", "recall"),
        ("balanced_accuracy", "recall"),
        ("f1_macro", "f1"),
        ("auroc", "auroc"),
    ):
        assert test[average] == pytest.approx(np.mean(by_class.loc[["a", "b"], metric]))
    summary = summarise(evaluation) | {"gradcam": None}
    omission = "leave out c: the test images have fewer than 4 patients or groups of them"
    assert omission in terminal_text(tmp_path, summary)
    assert f"Averages over classes {omission}" in model_card(summary, evaluation.per_class)


def test_the_paper_tells_unknown_patients_from_those_known_in_part():
    study = {"runs": [], "reported": False, "personal": False, "model": {"name": "medical_cnn"}}
    study |= {"networks": [], "scaling": {"superlinear": [], "prices": []}}
    states = {"a": patients.KNOWN, "b": patients.PARTLY, "c": patients.NOT_KNOWN}
    together = scope(
        [study | {"title": t, "patients": s, "over": OVER[s]} for t, s in states.items()]
    )
    # not "patients or patients or groups of images"
    assert together["over"] == ["patients", "groups of images"]
    assert (together["unknown_patients"], together["partly_known"]) == (["c"], ["b"])
