"""The study's crate: complete, conforming to its profiles, refused where something is missing."""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from made_runs import make_study, report, report_shared
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_text
from medscale.workflow.crate import export
from medscale.workflow.graph import Graph

METADATA = "ro-crate-metadata.json"
RUNS = ["serial_1cpu", "ddp_2gpu"]
needs_validator = pytest.mark.skipif(
    find_spec("rocrate_validator") is None, reason="roc-validator is not installed"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SimpleNamespace:
    """A study of two runs made to its end, and its crate."""
    folder = tmp_path_factory.mktemp("study")
    results = make_study(folder, "glaucoma", ["normal", "glaucoma"], RUNS, images=80)
    report(folder, "glaucoma", results)
    report_shared(folder, results)
    for run in RUNS:
        for seed in (1, 2):
            (folder / "runs" / "glaucoma" / run / f"seed{seed}" / "model.safetensors").write_bytes(
                b"weights"
            )
    write_text(folder / "config.resolved.json", "{}\n")
    write_text(folder / "paper" / "paper.pdf", "a paper\n")
    studies = {"glaucoma": {"runs": RUNS}, "glaucoma_published": None}
    study = Graph(
        {"scale": "demo", "workdir": str(folder), "only": ["glaucoma"], "studies": studies}
    )
    crate = folder / "crate"
    export(study, crate)
    return SimpleNamespace(folder=folder, study=study, crate=crate)


def graph(crate: Path) -> dict[str, dict]:
    return {one["@id"]: one for one in read_json(crate / METADATA)["@graph"]}


def test_each_file_described_is_there_with_its_digest_and_images_are_not(made):
    files = [
        one
        for one in graph(made.crate).values()
        if "File" in one["@type"] and one["@id"] != "Snakefile"
    ]
    assert len(files) > 20
    for one in files:
        assert one["sha256"] == sha256(made.crate / one["@id"]), one["@id"]
    there = {path.name for path in made.crate.rglob("*")}
    assert {
        "paper.pdf",
        "summary.json",
        "predictions.parquet",
        "datasheet.md",
        "train.py",
        "roc.pdf",
    } <= there
    assert not {"index.parquet", "model.safetensors", "images-00000.npy", "__pycache__"} & there


def test_a_training_is_described_by_what_went_in_what_came_out_and_its_circumstances(made):
    entities = graph(made.crate)
    action = entities["#runs/glaucoma/ddp_2gpu/seed2"]
    assert action["@type"] == "CreateAction"
    assert action["instrument"] == {"@id": "scripts/train.py"}
    assert {"@id": "runs/glaucoma/ddp_2gpu/seed2/spec.json"} in action["object"]
    assert {"@id": "runs/glaucoma/ddp_2gpu/seed2/predictions.parquet"} in action["result"]
    assert action["endTime"] == "2026-01-01T12:00:00+00:00"
    assert action["startTime"] < action["endTime"]
    told = {
        entities[ref["@id"]]["name"]: entities[ref["@id"]]["value"] for ref in action["environment"]
    }
    assert told["seed"] == "2"
    assert told["commit"] == "0" * 40
    assert told["torch"] == "2.14.0"
    assert "CPU processes in place of GPUs" in action["description"]
    assert "demonstration" in entities["./"]["description"]
    assert (
        "4 of 4 replicates were trained by another state of the code"
        in entities["./"]["description"]
    )
    assert "agent" not in action


@needs_validator
@pytest.mark.slow
def test_the_crate_conforms_to_its_profiles_and_a_broken_one_does_not(made, tmp_path):
    from medscale.workflow.crate.check import problems

    export(made.study, tmp_path / "told", agent="Ada Lovelace", check=True)
    crate = tmp_path / "told"
    # This version has no known address; the other two warnings are about the classes themselves.
    excused = ("The Application SHOULD have a url", "The organization SHOULD have a URL")
    excused += ("The SoftwareApplication id SHOULD be an absolute URI (http",)
    assert [
        problem for problem in problems(crate, recommended=True) if not problem.startswith(excused)
    ] == []
    text = json.loads((crate / METADATA).read_text(encoding="utf-8"))
    for one in text["@graph"]:
        if one["@id"] == "#study":
            del one["instrument"]
    (crate / METADATA).write_text(json.dumps(text), encoding="utf-8")
    assert any("instrument" in problem for problem in problems(crate))


def test_an_archive_holds_the_same_and_weights_where_they_are_wanted(made, tmp_path):
    count = export(made.study, tmp_path / "study.zip", weights=True)
    names = zipfile.ZipFile(tmp_path / "study.zip").namelist()
    assert METADATA in names
    assert "runs/glaucoma/ddp_2gpu/seed1/model.safetensors" in names
    assert count == len([name for name in names if not name.endswith("/")])
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]


def test_what_is_missing_is_named_and_nothing_half_written_stays(made, tmp_path):
    paper = made.folder / "paper" / "paper.pdf"
    content = paper.read_bytes()
    paper.unlink()
    try:
        with pytest.raises(MedscaleError, match=r"paper\.pdf is missing"):
            export(made.study, tmp_path / "out")
    finally:
        paper.write_bytes(content)
    assert list(tmp_path.iterdir()) == []
    empty = Graph({"scale": "demo", "workdir": str(tmp_path)})
    with pytest.raises(MedscaleError, match="no result to pack"):
        export(empty, tmp_path / "out")


def test_a_folder_with_other_files_is_left_alone_and_a_crate_is_replaced(made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(MedscaleError, match="no crate"):
        export(made.study, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    (made.crate / "stale.txt").write_text("old")
    export(made.study, made.crate)
    assert not (made.crate / "stale.txt").exists()
