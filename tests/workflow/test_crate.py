"""The study's crate: complete, conforming to its profiles, refused where something is missing."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_json, write_parquet, write_text
from medscale.base.provenance import SITE
from medscale.cli.results import leaks
from medscale.data.index_file import index_digest
from medscale.report import style
from medscale.report.datasheet.make import make as make_datasheet
from medscale.workflow.crate import export
from medscale.workflow.crate.describe import Description
from medscale.workflow.crate.kinds import FILE_NAMES, IMAGES, WEIGHTS
from medscale.workflow.crate.pack import _code, _write_settings
from medscale.workflow.crate.scan import hosts, names_of_studies, scan
from medscale.workflow.graph import Graph
from medscale.workflow.restored import read_config
from synthetic_runs import changes, make_study, report, report_shared

METADATA = "ro-crate-metadata.json"
RUNS = ["serial_1cpu", "ddp_2gpu"]
needs_validator = pytest.mark.skipif(
    find_spec("rocrate_validator") is None, reason="roc-validator is not installed"
)


@pytest.fixture(scope="module")
def crate_study(tmp_path_factory) -> SimpleNamespace:
    """A study of two runs made to its end, and its crate."""
    folder = tmp_path_factory.mktemp("study")
    metadata = {"age": [61, None, 47.5], "clinic": [f"ward {n}" for n in range(9)]}
    results = make_study(
        folder, "glaucoma", ["normal", "glaucoma"], RUNS, images=80, metadata=metadata, drawn=True
    )
    report(folder, "glaucoma", results)
    report_shared(folder, results)
    for run in RUNS:
        for seed in (1, 2):
            (folder / "runs" / "glaucoma" / run / f"seed{seed}" / "model.safetensors").write_bytes(
                b"weights"
            )
    shutil.copyfile(folder / "glaucoma.resolved.json", folder / "config.resolved.json")
    write_text(folder / "paper" / "paper.pdf", "a paper\n")
    study = Graph(changes("glaucoma", RUNS) | {"workdir": str(folder)})
    for run in RUNS:
        for name in ("gradcam.pdf", "gradcam_heat.npy", "gradcam_images.npy", "seed2.safetensors"):
            (folder / "results" / "glaucoma" / run / name).write_bytes(b"pixels or weights")
        (folder / "results" / "glaucoma" / run / "notes.txt").write_text("of Ada Lovelace")
    crate = folder / "crate"
    _, left_out = export(study, crate)
    return SimpleNamespace(folder=folder, study=study, crate=crate, left_out=left_out)


def graph(crate: Path) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in read_json(crate / METADATA)["@graph"]}


def test_each_file_described_is_there_with_its_digest_and_images_are_not(crate_study):
    files = [
        entity
        for entity in graph(crate_study.crate).values()
        if "File" in entity["@type"] and entity["@id"] != "Snakefile"
    ]
    assert len(files) > 20
    for entity in files:
        assert entity["sha256"] == sha256(crate_study.crate / entity["@id"]), entity["@id"]
    names = {path.name for path in crate_study.crate.rglob("*")}
    assert {
        *("summary.json", "predictions.parquet", "datasheet.md", "audit.json", "train.py"),
        *("roc.pdf", "accuracy.pdf", "how_far.pdf", "model_card.md"),
    } <= names
    assert not {"images-00000.npy", "__pycache__", "notes.txt"} & names


def paths(crate: Path) -> set[str]:
    return {file.relative_to(crate).as_posix() for file in crate.rglob("*") if file.is_file()}


def test_weights_images_and_file_names_stay_out_unless_they_are_requested(crate_study, tmp_path):
    crate_paths = paths(crate_study.crate)
    results = [f"results/glaucoma/{run}" for run in RUNS]
    gallery = ("gradcam.pdf", "gradcam_heat.npy", "gradcam_images.npy")
    private = {
        WEIGHTS: {f"runs/glaucoma/{run}/seed{n}/model.safetensors" for run in RUNS for n in (1, 2)},
        IMAGES: {f"{result}/{name}" for result in results for name in gallery},
        FILE_NAMES: set(),  # the audit has the names then
    }
    private[WEIGHTS] |= {f"{result}/seed{n}.safetensors" for result in results for n in (1, 2)}
    private[IMAGES] |= {"paper/paper.pdf", "figures/glaucoma/samples.pdf"}
    assert not set().union(*private.values()) & crate_paths
    assert crate_study.left_out == {WEIGHTS: 8, IMAGES: 8, FILE_NAMES: 1, "other": 2}
    description = graph(crate_study.crate)["./"]["description"]
    assert "Left out: 1 of file names, 8 of images, 2 of other, 8 of weights." in description
    audit = "data/glaucoma/audit.csv"
    original = (crate_study.folder / audit).read_bytes()
    for kind, files in private.items():
        export(crate_study.study, tmp_path / "crate", request=[kind])
        assert paths(tmp_path / "crate") == crate_paths | files
        is_original = (tmp_path / "crate" / audit).read_bytes() == original
        assert is_original == (kind == FILE_NAMES)


def test_the_index_of_a_crate_names_nobody_and_gives_the_same_datasheet(private, tmp_path):
    export(private.study, tmp_path / "crate")
    original, copy = (
        folder / "data" / "glaucoma" / "index.parquet"
        for folder in (private.folder, tmp_path / "crate")
    )
    before, after = pd.read_parquet(original), pd.read_parquet(copy)
    facts = {"width", "height", "age", "clinic"}
    assert set(after) == {"id", "label", "split", "group", "sha256"} | facts
    codes = [pd.factorize(table["sha256"])[0].tolist() for table in (before, after)]
    assert codes[0] == codes[1]  # copies stay copies
    assert not set(before["sha256"]) & set(after["sha256"])
    for column in ("id", "label", "split"):
        assert after[column].tolist() == before[column].tolist()
    codes = [pd.factorize(table["group"], sort=True)[0].tolist() for table in (before, after)]
    assert codes[0] == codes[1]
    assert not set(before["group"]) & set(after["group"])
    assert not after["age"].equals(before["age"])
    assert after["clinic"].nunique() == before["clinic"].nunique() == 9
    assert sum(ward.startswith("ward") for ward in after["clinic"].unique()) == 6
    sheets = [datasheet(private.study, path) for path in (original, copy)]
    assert "age" in sheets[0]
    assert sheets[0] == sheets[1]
    assert index_digest(original) == index_digest(copy) == sha256(original) != sha256(copy)
    audit = pd.read_csv(tmp_path / "crate" / "data" / "glaucoma" / "audit.csv")
    assert audit["path"].str.fullmatch(r"anonymous\d{8}").all()
    assert audit["detail"].isna().all()


def datasheet(study: Graph, index: Path) -> str:
    (text,) = make_datasheet(
        "glaucoma",
        index=str(index),
        counts=str(index.with_name("audit.json")),
        kind="",
        section=study.config.study("glaucoma").model_dump(mode="json"),
    ).documents.values()
    return text


def plant(file: Path, secret: str) -> None:
    """Write a secret into a file as a file of this kind would hold it."""
    if file.suffix == ".parquet":
        table = pd.read_parquet(file)
        write_parquet(file, table.assign(note=secret))
    elif file.suffix == ".json":
        write_json(file, read_json(file) | {"note": [{"of": secret}]})
    elif file.suffix == ".pdf":
        with style.house():
            figure = style.new(2, 4)
            figure.text(0.1, 0.1, f"of {secret}")
            style.save(figure, file)
    elif file.suffix == ".safetensors":
        save_file({"x": np.zeros(2)}, file, {"note": secret})
    else:
        file.write_text(file.read_text(encoding="utf-8") + f"\nof {secret}\n", encoding="utf-8")


SECRETS = {
    "1.2.840.113619.2.55.3.604688119.971": "a DICOM id",
    "ada.lovelace@clinic.example": "an e-mail address",
    "/home/ada/images": "a home folder",
    "PAT-0815": "a patient id",
    "Doe^Jane": "a patient id",
    "4711_left.png": "a file name",
    "gpu-node-17": "a host",
    "PatientName: Lovelace": "a DICOM header of the patient",
}
FILES = (
    "results/glaucoma/serial_1cpu/model_card.md",
    "results/glaucoma/serial_1cpu/roc.pdf",
    "results/glaucoma/serial_1cpu/seed1.safetensors",
    "results/glaucoma/serial_1cpu/metrics.csv",
    "tables/glaucoma/facts.json",
    "tables/runs.tex",
    "data/glaucoma/datasheet.md",
    "runs/glaucoma/serial_1cpu/seed1/environment.json",
    "runs/glaucoma/serial_1cpu/seed1/predictions.parquet",
    "config.resolved.json",
)


@pytest.fixture
def private(crate_study, monkeypatch) -> Iterator[SimpleNamespace]:
    """The study, whose index names patients and files; files are as before afterwards."""
    index = crate_study.folder / "data" / "glaucoma" / "index.parquet"
    before = {crate_study.folder / name: (crate_study.folder / name).read_bytes() for name in FILES}
    before[index] = index.read_bytes()
    table = pd.read_parquet(index)
    table.loc[0, ["patient", "path"]] = "PAT-0815", "a/4711_left.png"
    table.loc[1, "group"] = "Doe^Jane"
    write_parquet(index, table)
    monkeypatch.setattr("platform.node", lambda: "gpu-node-17.cluster.example")
    yield crate_study
    for file, content in before.items():
        file.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_ids_are_found_in_any_kind_of_file(private, tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((private.folder / name).read_bytes())
    names = [*names_of_studies([private.folder / "data" / "glaucoma"], file_names=False), hosts([])]
    assert list(scan(tmp_path, names)) == []
    for secret, kind in SECRETS.items():
        content = file.read_bytes()
        plant(file, secret)
        kinds = {finding.kind for finding in scan(tmp_path, names)}
        assert kinds == {kind}, secret
        file.write_bytes(content)


def test_a_crate_with_ids_is_refused_with_all_places_and_without_the_ids(private, tmp_path):
    secrets = [item for item in SECRETS.items() if item[1] != "a home folder"]
    planted_ids = list(zip(FILES, cycle(secrets)))
    for name, (secret, _) in planted_ids:
        plant(private.folder / name, secret)
    with pytest.raises(MedscaleError, match="must not leave this machine") as error:
        export(private.study, tmp_path / "out", request=[WEIGHTS])
    assert list(tmp_path.iterdir()) == []
    for name, (_, kind) in planted_ids:
        assert re.search(f"{name}, .*: {kind}", str(error.value))
    assert not any(secret in str(error.value) for secret in SECRETS)


def test_home_folders_in_settings_are_written_as_a_tilde(private, tmp_path):
    write_json(private.folder / "config.resolved.json", {"path": "/home/ada/images"})
    export(private.study, tmp_path / "crate")
    resolved_config = read_json(tmp_path / "crate" / "config.resolved.json")
    assert resolved_config == {"path": "~/images", "only": ["glaucoma"]}


def test_the_account_and_folders_of_a_cluster_stay_out(private, tmp_path):
    file = private.folder / "config.resolved.json"
    cluster = {"account": "physics17", "options": {"mail-user": "ada@clinic.example"}}
    write_json(file, read_json(file) | {"cluster": cluster})
    export(private.study, tmp_path / "crate")
    assert read_json(tmp_path / "crate" / file.name)["cluster"] is None
    assert (ROOT / SITE).is_file()
    assert not (tmp_path / "crate" / SITE).exists()


def test_a_crate_of_all_studies_keeps_their_order(tmp_path):
    graph = Graph({"scale": "demo", "workdir": str(tmp_path)})
    assert graph.config.only is None
    assert graph.config.active != sorted(graph.config.active)
    write_json(tmp_path / "config.resolved.json", json.loads(graph.resolved(None)))
    _write_settings(graph, tmp_path)
    assert read_config(tmp_path).active == graph.config.active


def test_hosts_of_earlier_records_are_dropped(private, tmp_path):
    record = private.folder / FILES[7]
    write_json(record, read_json(record) | {"host": "another-node-3"})
    summary = private.folder / "results" / "glaucoma" / "serial_1cpu" / "summary.json"
    content = summary.read_bytes()
    changed_summary = read_json(summary)
    changed_summary["provenance"]["replicates"][0]["host"] = "another-node-3"
    write_json(summary, changed_summary)
    try:
        export(private.study, tmp_path / "crate")
    finally:
        summary.write_bytes(content)
    for file in (tmp_path / "crate").rglob("*.json"):
        assert "another-node-3" not in file.read_text(encoding="utf-8")
    table = private.folder / "tables" / "runs.csv"
    content = table.read_bytes()
    plant(table, "another-node-3")
    with pytest.raises(MedscaleError, match=r"runs\.csv, line \d+: a host"):
        export(private.study, tmp_path / "out")
    table.write_bytes(content)


def test_file_names_may_be_packed_but_not_those_with_patients_in_them(private, tmp_path):
    audit = private.folder / "data" / "glaucoma" / "audit.csv"
    content = audit.read_bytes()
    export(private.study, tmp_path / "crate", request=[FILE_NAMES])
    audit.write_bytes(content + b"x/PAT-0815_left.png,excluded,unreadable,\n")
    try:
        with pytest.raises(MedscaleError, match=r"audit\.csv, line 6: a patient id"):
            export(private.study, tmp_path / "out", request=[FILE_NAMES])
    finally:
        audit.write_bytes(content)


def test_what_is_to_be_published_by_other_means_is_searched_as_well(private, capsys):
    result = private.folder / "results" / "glaucoma" / "serial_1cpu"
    data = private.folder / "data" / "glaucoma"
    record = private.folder / FILES[7]
    leaks([result, record], [data])
    assert "nothing found" in capsys.readouterr().out
    for file, secret in ((result / "model_card.md", "PAT-0815"), (record, "/home/ada/images")):
        content = file.read_bytes()
        plant(file, secret)
        with pytest.raises(MedscaleError, match=f"{file.name}, line"):
            leaks([result, record], [data])
        file.write_bytes(content)
    with pytest.raises(MedscaleError, match="does not exist"):
        leaks([result / "absent"], [data])


def test_a_leak_is_found_below_a_home_folder_that_no_shell_has_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "card.md").write_text("ada@clinic.example")
    with pytest.raises(MedscaleError, match=r"card\.md, line 1: an e-mail address"):
        leaks([Path("~/card.md")])
    (tmp_path / "index.parquet").write_text("not Parquet")
    with pytest.raises(MedscaleError, match=r"index\.parquet cannot be read"):
        leaks([Path("~/card.md")], [Path("~")])


def test_a_point_of_a_sweep_is_described_with_the_images_of_its_study(crate_study, tmp_path):
    crate, point = tmp_path / "crate", "glaucoma_lr_2"
    shutil.copytree(crate_study.crate, crate)
    for place in ("results", "runs"):
        shutil.copytree(crate / place / "glaucoma" / RUNS[0], crate / place / point / RUNS[0])
    file = crate / "results" / point / RUNS[0] / "summary.json"
    write_json(file, read_json(file) | {"study": point})
    config = SimpleNamespace(titles={"glaucoma": "G"}, data_of=lambda _: "glaucoma")
    Description(crate, config, None).write({})
    entities = graph(crate)
    action = entities[f"#runs/{point}/{RUNS[0]}/seed1"]
    assert {"@id": "data/glaucoma/"} in action["object"]
    assert not [name for name in entities if name.startswith(f"data/{point}")]
    assert f"3 runs of glaucoma, {point}" in entities["./"]["description"]


def test_a_training_is_described_by_its_inputs_outputs_and_environment(crate_study):
    entities = graph(crate_study.crate)
    action = entities["#runs/glaucoma/ddp_2gpu/seed2"]
    assert action["@type"] == "CreateAction"
    assert action["instrument"] == {"@id": "scripts/train.py"}
    assert {"@id": "runs/glaucoma/ddp_2gpu/seed2/spec.json"} in action["object"]
    assert {"@id": "runs/glaucoma/ddp_2gpu/seed2/predictions.parquet"} in action["result"]
    assert action["endTime"] == "2026-01-01T12:00:00+00:00"
    assert action["startTime"] < action["endTime"]
    properties = {
        entities[ref["@id"]]["name"]: entities[ref["@id"]]["value"] for ref in action["environment"]
    }
    assert properties["seed"] == "2"
    assert properties["commit"] == "0" * 40
    assert properties["torch"] == "2.14.0"
    assert "CPU processes in place of GPUs" in action["description"]
    assert "demonstration" in entities["./"]["description"]
    assert (
        "4 of 4 replicates were trained by another state of the code"
        in entities["./"]["description"]
    )
    assert "agent" not in action


@needs_validator
@pytest.mark.slow
def test_the_crate_conforms_to_its_profiles_and_a_broken_one_does_not(crate_study, tmp_path):
    from medscale.workflow.crate.check import problems

    export(crate_study.study, tmp_path / "told", agent="Ada Lovelace", check=True)
    crate = tmp_path / "told"
    # This version has no known address; the other two warnings are about the classes themselves.
    excused = ("The Application SHOULD have a url", "The organization SHOULD have a URL")
    excused += ("The SoftwareApplication id SHOULD be an absolute URI (http",)
    assert [
        problem for problem in problems(crate, recommended=True) if not problem.startswith(excused)
    ] == []
    text = json.loads((crate / METADATA).read_text(encoding="utf-8"))
    for entity in text["@graph"]:
        if entity["@id"] == "#study":
            del entity["instrument"]
    (crate / METADATA).write_text(json.dumps(text), encoding="utf-8")
    assert any("instrument" in problem for problem in problems(crate))


def test_an_archive_holds_the_same_and_weights_if_they_are_requested(crate_study, tmp_path):
    count, _ = export(crate_study.study, tmp_path / "study.zip", request=[WEIGHTS])
    names = zipfile.ZipFile(tmp_path / "study.zip").namelist()
    assert METADATA in names
    assert "runs/glaucoma/ddp_2gpu/seed1/model.safetensors" in names
    assert count == len([name for name in names if not name.endswith("/")])
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]


def test_results_are_packed_with_their_own_replicates(crate_study, tmp_path):
    """Snakemake does not make the result of a run that has left the configuration again."""
    settings = changes("glaucoma", RUNS[:1]) | {"workdir": str(crate_study.folder), "seeds": [1]}
    left = (
        crate_study.folder / "results" / "glaucoma" / f".{RUNS[1]}.4711"
    )  # by a killed evaluation
    shutil.copytree(crate_study.folder / "results" / "glaucoma" / RUNS[1], left)
    try:
        export(Graph(settings), tmp_path / "crate")
    finally:
        shutil.rmtree(left)
    folders = (tmp_path / "crate" / "runs" / "glaucoma").glob("*/*")
    packed = {(path.parent.name, path.name) for path in folders}
    assert packed == {(run, f"seed{seed}") for run in RUNS for seed in (1, 2)}
    assert not [path for path in paths(tmp_path / "crate") if "/." in f"/{path}"]


def test_what_an_editor_left_beside_the_code_is_not_packed(monkeypatch, tmp_path):
    for name in ("scripts/train.py", "scripts/.#train.py", "src/medscale/.old/a.py", SITE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr("medscale.workflow.crate.pack.ROOT", tmp_path)
    assert [file.name for file in _code()] == ["train.py"]


def test_missing_parts_are_named_and_nothing_half_written_stays(crate_study, tmp_path):
    paper = crate_study.folder / "paper" / "paper.pdf"
    content = paper.read_bytes()
    paper.unlink()
    try:
        with pytest.raises(MedscaleError, match=r"paper\.pdf is missing"):
            export(crate_study.study, tmp_path / "out", request=[IMAGES])
    finally:
        paper.write_bytes(content)
    assert list(tmp_path.iterdir()) == []
    empty = Graph({"scale": "demo", "workdir": str(tmp_path)})
    with pytest.raises(MedscaleError, match="no result to pack"):
        export(empty, tmp_path / "out")


def test_a_folder_with_other_files_is_left_alone_and_a_crate_is_replaced(crate_study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(MedscaleError, match="holds other files, which would be lost"):
        export(crate_study.study, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    (crate_study.crate / "stale.txt").write_text("old")
    export(crate_study.study, crate_study.crate)
    assert not (crate_study.crate / "stale.txt").exists()
