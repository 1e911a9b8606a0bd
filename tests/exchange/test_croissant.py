"""The Croissant metadata of a study are valid and give its records back."""

from __future__ import annotations

from pathlib import Path

import mlcroissant as mlc
import numpy as np
import pytest
from typer.testing import CliRunner

from medscale.base import extras
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_parquet
from medscale.cli import datasets
from medscale.cli import main as cli
from medscale.exchange import croissant
from medscale.report.datasheet.make import UNKNOWN
from synthetic_runs import configuration, make_index

CLASSES = ["normal", "glaucoma"]


def records(path: Path, name: str) -> list[dict]:
    dataset = mlc.Dataset(jsonld=str(path))
    assert not dataset.metadata.ctx.issues.errors
    return [
        {
            key.removeprefix(f"{name}/"): value.decode() if isinstance(value, bytes) else value
            for key, value in record.items()
        }
        for record in dataset.records(name)
    ]


def test_records_of_the_index_are_read_back(tmp_path: Path) -> None:
    data = tmp_path / "data" / "glaucoma"
    facts = {"age": [50.0, None, 70.0], "sex": ["f", None], "flagged": [True, False]}
    index = make_index(data, CLASSES, images=30, metadata=facts)
    index["boxes"] = [[[1.0, 2.0, 3.0, 4.0]] * (number % 3) for number in range(30)]
    write_parquet(data / "index.parquet", index)
    (tmp_path / "own.yaml").write_text(f"workdir: {tmp_path}\n")
    # The point of the sweep has the images of its study.
    command = ["data", "croissant", "glaucoma_lr_0_002", "glaucoma", "--scale", "demo"]
    result = CliRunner().invoke(cli.main, [*command, "--configfile", str(tmp_path / "own.yaml")])
    assert result.exit_code == 0, result.output
    assert "conforms to Croissant 1.1" in result.output
    path = data / "croissant.json"
    image_records = records(path, "images")
    assert [record["id"] for record in image_records] == index["id"].tolist()
    for name in ("path", "label", "split", "group", "sha256"):
        assert [record[name] for record in image_records] == index[name].astype(str).tolist()
    ages = np.array([record["age"] for record in image_records], float)
    np.testing.assert_array_equal(ages, index["age"].to_numpy(float))
    assert [record["flagged"] for record in image_records] == index["flagged"].tolist()
    for record, boxes in zip(image_records, index["boxes"], strict=True):
        assert np.array(list(map(list, record["boxes"]))).tolist() == boxes
    assert {record["name"] for record in records(path, "classes")} == set(CLASSES)
    assert [record["name"] for record in records(path, "splits")] == ["train", "val", "test"]


def test_columns_and_classes_of_any_name_are_described(tmp_path: Path) -> None:
    facts = {"Größe (cm)": [1.5], "a b": ["x"], "a_b": ["y"], 'q"#%20/': ["z"], "ü": [1], "ß": [2]}
    index = make_index(tmp_path, ["not dark", "a/ä"], images=20, metadata=facts)
    path = croissant.write("wide", configuration().study("glaucoma"), tmp_path)
    record = records(path, "images")[0]
    assert record["label"] == index["label"][0]
    values = [record[name] for name in ("Gr__e__cm_", "a_b", "a_b_2", "q___20_", "_", "__2")]
    assert values == [1.5, "x", "y", "z", 1, 2]


def test_the_splits_of_a_cross_validation_are_those_of_its_folds(tmp_path: Path) -> None:
    splits = {"fold": [1, 2], "split_fold_1": ["test", "train"], "split_fold_2": ["val", "test"]}
    index = make_index(tmp_path, CLASSES, images=20, metadata=splits)
    path = croissant.write("wide", configuration().study("glaucoma"), tmp_path)
    assert [r["split_fold_2"] for r in records(path, "images")] == index["split_fold_2"].tolist()
    (images,) = [part for part in read_json(path)["recordSet"] if part["name"] == "images"]
    fields = {field["name"].removeprefix("images/"): field for field in images["field"]}
    assert fields["fold"]["description"] == "fold of the cross-validation that tests the image"
    assert fields["split_fold_2"]["description"].startswith("part of fold 2 of the")
    assert "in its first fold" in fields["split"]["description"]
    assert fields["split_fold_2"]["references"] == fields["split"]["references"]


def test_metadata_that_are_not_valid_are_not_written(tmp_path: Path, monkeypatch) -> None:
    make_index(tmp_path, CLASSES, images=20)
    monkeypatch.setattr(croissant, "_identifiers", lambda names: {n: f"{n} x" for n in names})
    with pytest.raises(MedscaleError, match=r"(?s)Croissant metadata of wide: .*whitespace"):
        croissant.write("wide", configuration().study("glaucoma"), tmp_path)
    assert not (tmp_path / "croissant.json").exists()


def test_answers_are_those_of_the_datasheet_or_not_known(tmp_path: Path) -> None:
    for study, synthetic in (("glaucoma", True), ("hospital", False)):
        data = tmp_path / study
        make_index(data, CLASSES, images=20, metadata={"age": [50, 60]})
        settings = configuration(study, scale="demo" if synthetic else "full").study(study)
        path = croissant.write(study, settings, data)
        content = read_json(path)
        (file,) = content["distribution"]
        assert file["sha256"] == sha256(data / "index.parquet")
        assert content["conformsTo"] == "http://mlcommons.org/croissant/1.1"
        assert content["description"].startswith("All images are synthetic") == synthetic
        assert any("column age" in text for text in content["rai:personalSensitiveInformation"])
        assert "20 images are of 10 patients." in content["rai:dataLimitations"]
        if synthetic:
            assert content["license"].startswith("Each merged set has separate terms")
            assert content["citeAs"].startswith("Kiefer et al.")
            assert len(content["rai:dataBiases"]) > 1
        else:
            assert content["license"] == UNKNOWN
            assert not {"citeAs", "creator", "rai:dataBiases"} & content.keys()


def test_faults_are_named(tmp_path: Path, monkeypatch) -> None:
    settings = configuration().study("glaucoma")
    with pytest.raises(MedscaleError, match=r"index\.parquet does not exist; make it: snakemake"):
        croissant.write("glaucoma", settings, tmp_path)
    command = "snakemake data/glaucoma/index.parquet --profile demo$"
    with pytest.raises(MedscaleError, match=command):
        croissant.write("glaucoma", settings, tmp_path, "--profile demo")
    with pytest.raises(MedscaleError, match="there is no study 'glaucomas'"):
        datasets.croissant(["glaucomas"], "demo", None)
    make_index(tmp_path, CLASSES, images=20)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MedscaleError, match=r"need mlcroissant.*'medscale\[exchange\]'"):
        croissant.write("glaucoma", settings, tmp_path)
    assert not (tmp_path / "croissant.json").exists()
