"""The evaluation of a result folder on an external set of images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import medscale
from file_tables import read_tables
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.cli import main as cli
from medscale.serve import external
from raw_study import FP32, values


def test_the_test_images_as_an_external_set_have_the_scores_of_the_test_split(
    study_result, tmp_path
):
    test = study_result.index[study_result.index["split"] == "test"]
    names = {"dark": "DARK", "light": "light", "odd": "Odd!"}
    for path, label in zip(test["path"], test["label"], strict=True):
        copy = tmp_path / "clinic" / names[label] / Path(path).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study_result.raw / path, copy)
    (tmp_path / "clinic" / "unclear").mkdir()
    shutil.copy(study_result.raw / test["path"].iloc[0], tmp_path / "clinic" / "unclear" / "1.png")
    out = tmp_path / "outside"
    command = ["evaluate", str(study_result.result), str(tmp_path / "clinic"), "--out", str(out)]
    command += ["--index", str(study_result.folder / "index.parquet"), "--prevalence", "odd=0.02"]
    answer = CliRunner().invoke(cli.main, command)
    assert answer.exit_code == 0, answer.output
    summary, inside = (
        read_json(out / "summary.json"),
        read_json(study_result.result / "summary.json"),
    )
    assert summary["counts"]["test"]["images"] == len(test)
    for metric in inside["metrics"]["test"]:
        values = [run["metrics"]["test"][metric]["values"][0] for run in (summary, inside)]
        if None not in values and "calibration_" not in metric:  # of 15 images, hardly defined
            assert values[0] == pytest.approx(values[1], abs=1e-4), metric
    limits = [
        [row[f"threshold_{n}"] for row in run["operating"] for n in (1, 2)]
        for run in (summary, inside)
    ]
    np.testing.assert_allclose(*np.array(limits, float), rtol=1e-12)
    assert summary["calibration"]["temperatures"] == inside["calibration"]["temperatures"]
    odd = next(row for row in summary["operating"] if row["class"] == "odd")
    assert (odd["prevalence"], odd["stated"]) == (0.02, True)
    assert summary["copies"] == {"train": 0, "val": 0, "test": len(test)}
    assert f"{len(test)} of test" in " ".join(answer.output.split())
    assert "left out: unclear" in " ".join(answer.output.split())
    table = pd.read_csv(out / "predictions.csv")
    assert table.groupby("seed").size().to_dict() == {1: len(test), 2: len(test)}
    from_headers = study_result.table.loc[test["id"], ["p_0", "p_1", "p_2"]].to_numpy()
    order = [Path(path).name for path in test["path"]]
    first = table[table["seed"] == 1]
    first.index = pd.Index([Path(path).name for path in first["path"]])
    assert first.loc[order, ["p_0", "p_1", "p_2"]].to_numpy() == pytest.approx(
        from_headers, abs=1e-4
    )
    assert {path.suffix for path in out.iterdir()} == {".json", ".csv", ".pdf"}
    for section in read_tables():
        if section.pattern.startswith("external/"):
            file = out / Path(section.pattern).name
            names = read_json(file) if file.suffix == ".json" else pd.read_csv(file).columns
            unlisted = [n for n in names if not any(entry.fits(n) for entry in section.entries)]
            assert not set(unlisted) - set(inside), file
            required = [entry for entry in section.entries if not entry.optional]
            assert all(any(entry.fits(n) for n in names) for entry in required), file


def test_an_external_set_needs_no_index_and_says_what_is_not_known(study_result, tmp_path):
    shutil.copytree(study_result.raw / "odd", tmp_path / "clinic" / "rare")
    command = [
        "evaluate",
        str(study_result.result),
        str(tmp_path / "clinic"),
        "--label",
        "rare=odd",
    ]
    answer = CliRunner().invoke(cli.main, [*command, "--out", str(tmp_path / "outside")])
    assert answer.exit_code == 0, answer.output
    words = " ".join(answer.output.split())
    assert "is a copy" not in words
    assert "copies of training images is not known" in words
    assert "Whether patients of the study are among these is not known." in words
    assert "No image is of class dark, light" in words
    shown = CliRunner().invoke(cli.main, ["show", str(tmp_path / "outside")])
    assert shown.exit_code == 0, shown.output
    assert " ".join(shown.output.split()) in words
    listing = CliRunner().invoke(cli.main, ["show", str(tmp_path)])
    assert "outside" in listing.output
    assert "On the external images, with 95 % intervals." in listing.output
    facts = CliRunner().invoke(cli.main, ["show", "--json", str(tmp_path / "outside")])
    assert json.loads(facts.stdout)["results"][0]["title"] == "clinic"
    summary = read_json(tmp_path / "outside" / "summary.json")
    assert summary["missing"] == ["dark", "light"]
    count = summary["counts"]["test"]["images"]
    of = f"(of {count - len([*tmp_path.glob('clinic/rare/*.dcm')])} of {count} images)"
    assert f"metadata that the network takes and that are unknown: age {of}, sex {of}" in words


@pytest.mark.parametrize(
    ("option", "pairs"),
    [("--label", ("rare=odd", "rare=dark")), ("--prevalence", ("odd=0.1", "odd = 0.2"))],
)
def test_a_name_with_two_values_is_refused(study_result, tmp_path, option, pairs):
    command = ["evaluate", str(study_result.result), str(study_result.raw)]
    command += [word for pair in pairs for word in (option, pair)]
    answer = CliRunner().invoke(cli.main, [*command, "--out", str(tmp_path / "outside")])
    assert isinstance(answer.exception, MedscaleError)
    name = pairs[0].partition("=")[0]
    assert str(answer.exception) == f"{option} gives {name} more than once; give one value"


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        (["odds=0.1"], "evaluate.prevalence names 'odds'; state the prevalence of: "),
        (["odd=0.9", "dark=0.4"], "the values of evaluate.prevalence sum to 1.3: they are shares"),
    ],
)
def test_a_wrong_prevalence_is_refused_before_an_image_is_read(
    study_result, tmp_path, monkeypatch: pytest.MonkeyPatch, shares: list[str], text: str
) -> None:
    monkeypatch.delattr("medscale.serve.evaluate_command.build_index")
    command = ["evaluate", str(study_result.result), str(study_result.raw)]
    command += [part for share in shares for part in ("--prevalence", share)]
    answer = CliRunner().invoke(cli.main, [*command, "--out", str(tmp_path / "outside")])
    assert isinstance(answer.exception, MedscaleError)
    assert text in str(answer.exception)


def test_metadata_are_those_of_the_index_and_foreign_words_are_reported(
    study_result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "BATCH", 3)
    predictor, raw = medscale.load(study_result.result, "all"), study_result.raw
    rows = study_result.index[study_result.index["path"].str.endswith(".dcm")].reset_index()
    assert external._unknown(predictor.inference, external._facts(predictor.inference, rows)) == []
    # The headers have other ages; no training image has "f".
    ages = [None, *range(20, 19 + len(rows))]
    rows["age"], rows["sex"] = np.array(ages, float), "f"
    facts = external._facts(predictor.inference, rows)
    of_index = external._probabilities(predictor, raw, rows, facts).mean(axis=0)
    predictions = predictor.predict(
        [raw / path for path in rows["path"]],
        [{"age": age, "sex": None} for age in ages],
        calibrated=False,
    )
    np.testing.assert_allclose(of_index, values(predictions), atol=FP32)
    (note,) = external._unknown(predictor.inference, facts)
    assert f"age (of 1 of {len(rows)} images), sex (of {len(rows)} of" in note
