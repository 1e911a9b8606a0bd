"""The origin of results: records, model cards, datasheets, the table of runs, captions."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
from docutils.core import publish_parts
from docutils.utils import SystemMessage
from jinja2 import Environment, StrictUndefined

from medscale.base import provenance
from medscale.base.code import PACKAGE, package_digest
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_json
from medscale.base.provenance import COMMON_KEYS, environment, gather
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.kind import load_kind
from medscale.evaluate.metrics import NAMES
from medscale.report.chapters import CHAPTERS
from medscale.report.datasheet.make import UNKNOWN
from medscale.report.names import class_name
from medscale.report.result.card import model_card
from medscale.workflow.pictures import Picture
from synthetic_runs import (
    ROOT,
    configuration,
    make_chapter,
    make_index,
    make_study,
    report_provenance,
)

RUNS = ["serial_1cpu", "ddp_2gpu"]
# Mitchell et al. (2019), figure 1; Gebru et al. (2021), section 3.
CARD = "Model details|Intended use|Factors|Metrics|Evaluation data|Training data|"
CARD += "Quantitative analyses|Ethical considerations|Caveats and recommendations|Provenance"
SHEET = "Motivation|Composition|Collection|Cleaning and preprocessing|Uses|Distribution|Maintenance"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("made")
    return SimpleNamespace(
        folder=folder, results=make_study(folder, "glaucoma", ["a_1", "b & c"], RUNS, images=80)
    )


def headings(text: str) -> str:
    return "|".join(re.findall(r"^## (.*)$", text, flags=re.M))


def test_a_replicate_s_record_names_spec_code_machine_seed_and_inputs(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    model = {"name": "medical_cnn", "pretrained": str(weights)}
    config = load(
        ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": {"model": model}}}
    )
    run_plan = plan(config, "glaucoma", "ddp_2gpu", 3)
    record = environment(run_plan, {"shards": "abc"})
    assert record["inputs"] == {"shards": "abc", "weights": sha256(weights)}
    assert (record["seed"], record["plan_digest"], record["code"]) == (
        3,
        run_plan.digest,
        package_digest(),
    )
    assert record["stand_in"]
    assert record["synthetic"]
    assert {"commit", "dirty", "container", "cpu"} <= set(record)
    assert "fold" not in record
    assert record["cpus"] == len(psutil.Process().cpu_affinity())
    assert record["memory_gb"] == round(psutil.virtual_memory().total / 2**30, 1)
    assert record["python"] == platform.python_version()
    assert (record["gpus"], record["driver"], record["nccl"]) == ([], None, None)
    no_weights = run_plan.model.model_copy(update={"pretrained": None})
    of_fold = run_plan.model_copy(update={"fold": 2, "model": no_weights})
    assert environment(of_fold, {})["inputs"] == {"weights": None}
    assert environment(of_fold, {})["fold"] == 2
    assert record["versions"]["torch"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["started"])


def test_the_commit_of_a_repository_around_the_package_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDSCALE_COMMIT", raising=False)
    outer, archive_folder = tmp_path / "project", tmp_path / "project" / "medscale"
    shutil.copytree(PACKAGE, archive_folder / "src" / "medscale", ignore=lambda *_: ["__pycache__"])
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C"]

    def recorded_code() -> dict[str, Any]:
        text = "import json; from medscale.base.provenance import git_state as g; print(json.dumps("
        environment = {**os.environ, "PYTHONPATH": str(archive_folder / "src")}
        line = [sys.executable, "-c", f"{text}g()))"]
        process = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
        return json.loads(process.stdout)

    for folder, has_commit in ((outer, False), (archive_folder, True)):
        subprocess.run([*git, folder, "init", "-q"], check=True)
        subprocess.run([*git, folder, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        head = subprocess.check_output([*git, folder, "rev-parse", "HEAD"], text=True).strip()
        assert recorded_code()["commit"] == (head if has_commit else None)


def test_a_clusters_own_settings_are_no_change_of_the_code(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    site, code = tmp_path / provenance.SITE, tmp_path / "code.py"
    site.parent.mkdir(parents=True)
    for file in (site, code):
        file.write_text("")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    site.write_text("cluster: {account: physics}")
    assert provenance.git_state()["dirty"] is False
    code.write_text("x = 1")
    assert provenance.git_state()["dirty"] is True


def test_a_result_s_summary_has_all_replicates_records_and_digests_of_what_was_read(study):
    result = study.results[1]
    provenance = read_json(result / "summary.json")["provenance"]
    folders = [study.folder / "runs" / "glaucoma" / "ddp_2gpu" / f"seed{seed}" for seed in (1, 2)]
    assert provenance["replicates"] == [
        read_json(folder / "environment.json") for folder in folders
    ]
    assert provenance["differ"] == []
    inputs = provenance["evaluation"]["inputs"]
    assert inputs["index"] == sha256(study.folder / "data" / "glaucoma" / "index.parquet")
    assert inputs["predictions"] == {
        folder.name: sha256(folder / "predictions.parquet") for folder in folders
    }
    assert provenance["evaluation"]["code"] == package_digest()


@pytest.mark.parametrize("key", COMMON_KEYS)
def test_replicates_that_were_not_made_alike_are_reported(key):
    record = dict.fromkeys(COMMON_KEYS, "same") | {"seed": 1}
    assert gather([record, record | {"seed": 2}], {})["differ"] == []
    assert gather([record, record | {key: "other"}, record], {})["differ"] == [key]


def test_a_model_card_has_all_sections_and_tells_what_is_odd(study):
    summary = read_json(study.results[1] / "summary.json")
    table = pd.read_csv(study.results[1] / "per_class.csv")
    card = model_card(summary, table)
    assert headings(card) == CARD
    assert all(
        name in card for name in (NAMES["accuracy"], "Not a medical device", "000000000", "b & c")
    )
    assert "Conditions changed" not in card
    replicates = summary["provenance"]["replicates"]
    replicates[1] |= {"commit": "1" * 40, "dirty": True, "container": {"file": "medscale-abc.sif"}}
    summary["provenance"]["differ"] = ["commit", "dirty"]
    card = model_card(summary | {"marks": summary["marks"] | {"synthetic": False}}, table)
    assert "**Conditions changed between its trainings, or during one**: commit, dirty." in card
    assert "111111111 with local changes" in card
    assert "medscale-abc.sif" in card
    assert "real people" in card


def sheet(folder: Path, kind: str = "smdg", **settings) -> str:
    raw = {"kind": kind, "path": "raw", "synthetic": False, "options": {}}
    config = configuration("glaucoma", RUNS, **({"source": raw} | settings))
    files = {"index": "index.parquet", "counts": "audit.json"}
    inputs = {name: str(folder / "data" / file) for name, file in files.items()}
    make_chapter(folder, config, "glaucoma", "datasheet", **inputs)
    return (folder / "data" / "glaucoma" / "datasheet.md").read_text(encoding="utf-8")


def test_a_datasheet_answers_the_questions_from_audit_index_and_what_is_known(tmp_path):
    index = make_index(tmp_path / "data", ["b & c", "a_1"], images=40)
    index["age"] = [None, *range(39)]
    index["sex"] = [None, *["unknown", "f", "m"] * 13]
    index["hand"] = "?"
    index.to_parquet(tmp_path / "data" / "index.parquet")
    datasheet = sheet(tmp_path)
    assert headings(datasheet) == SHEET
    counts = index["label"].value_counts()
    for name in ("a_1", "b & c"):
        row = re.search(
            rf"^\| {re.escape(class_name(name))} \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
            datasheet,
            flags=re.M,
        )
        assert sum(map(int, row.groups()[:3])) == int(row[4]) == counts[name]
    assert re.findall(r"^\| (\S.*?) \| \d+ \| \d+ \| \d+ \| \d+ \|$", datasheet, flags=re.M) == [
        class_name(name) for name in ("b & c", "a_1")
    ]
    assert "43 files, 40 used, of 20 patients or groups, 3 left out" in datasheet
    assert "age: known of 39 of 40 images; 0 to 38, median 19" in datasheet
    assert "sex: known of 26 of 40 images; f 13, m 13\n" in datasheet
    assert "hand: known of 0 of 40 images\n" in datasheet
    assert "| duplicate | 2 |" in datasheet
    assert sha256(tmp_path / "data" / "index.parquet") in datasheet
    assert "doi:10.34740/kaggle/ds/2329670" in datasheet
    assert "ethics board: not known" in datasheet
    assert "synthetic" not in datasheet
    assert "EyePACS" in datasheet


def test_a_user_s_own_images_have_the_user_s_facts(tmp_path):
    make_index(tmp_path / "data", ["a", "b"], images=20)
    answers = {"name": "Ward 7", "known_problems": ["Two scanners"]}
    datasheet = sheet(tmp_path, kind="folder", datasheet=answers, augment={"crop": None})
    assert "Dataset: Ward 7" in datasheet
    assert "- Two scanners." in datasheet
    assert f"Licence: {UNKNOWN}" in datasheet
    assert "Obtained by" not in datasheet
    with pytest.raises(MedscaleError, match=r"datasheet\.colour"):
        sheet(tmp_path, datasheet={"colour": "red"})


def test_a_synthetic_study_s_datasheet_says_so(tmp_path):
    make_index(tmp_path / "data", ["a", "b"], images=20)
    datasheet = sheet(tmp_path, source={"kind": "smdg", "synthetic": True})
    assert "**All images are synthetic**" in datasheet


def test_the_kind_of_each_configured_study_has_a_datasheet_and_a_sentence_for_the_paper():
    keys = (ROOT / "paper" / "references.bib").read_text(encoding="utf-8")
    for name in {study.source.kind for study in load(ROOT / "config.yaml").studies.values()}:
        kind = load_kind(name)
        answers = kind.datasheet.model_dump(exclude_none=True)
        assert {"name", "origin", "licence", "citation", "known_problems"} <= set(answers), name
        assert all(f"{{{key}," in keys for key in re.findall(r"\\cite\{(\w+)\}", kind.paper)), name
        assert "\\cite{" in kind.paper, name


def test_every_replicate_stands_in_the_table_of_runs(study, tmp_path):
    facts = read_json(report_provenance(study.folder, study.results))
    rows = pd.read_csv(study.folder / "tables" / "runs.csv")
    assert list(zip(rows["run"], rows["seed"], strict=True)) == [
        (run, seed) for run in RUNS for seed in (1, 2)
    ]
    assert facts["replicates"] == 4
    text = (study.folder / "tables" / "runs.tex").read_text(encoding="utf-8")
    assert text.count(r"\textdagger") == 2  # the stand-ins
    for digest in rows["specification"]:
        assert digest[:12] in text
    spec = read_json(study.folder / "runs" / "glaucoma" / "ddp_2gpu" / "seed1" / "environment.json")
    assert rows["specification"].iloc[2] == spec["plan_digest"]
    assert facts["containers"] == []
    assert not facts["local_changes"]


def test_code_with_local_changes_and_unlike_replicates_reach_the_paper(study, tmp_path):
    summary = read_json(study.results[0] / "summary.json")
    summary["provenance"]["replicates"][1] |= {
        "dirty": True,
        "container": {"file": "medscale-1.sif", "digest": "1"},
    }
    summary["provenance"]["differ"] = ["dirty"]
    write_json(tmp_path / "results" / "glaucoma" / "serial_1cpu" / "summary.json", summary)
    facts = read_json(
        report_provenance(tmp_path, [tmp_path / "results" / "glaucoma" / "serial_1cpu"])
    )
    assert facts["local_changes"]
    assert facts["mixed"] == [{"run": "glaucoma/serial_1cpu", "differences": ["code"]}]
    assert facts["containers"] == ["medscale-1.sif"]
    assert len((tmp_path / "tables" / "provenance.csv").read_text().splitlines()) == 3


def test_all_captions_can_be_printed():
    words = {"study": "s_1", "run": "ddp_2gpu", "shows": "roc"}
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "report").glob("*.rst")}
    for chapter in CHAPTERS:
        for path, _, _, caption in chapter.report_files():
            texts[path] = caption.replace("{study}", "{{ snakemake.wildcards.study }}")
    picture = Picture("How far", "Speedup of *Skin*.", "a.pdf", "data:image/svg+xml;base64,AAAA")
    sections = [{"title": "All studies", "pictures": [picture, picture]}] * 2
    page = {"sections": sections, "are_possible": False, "is_scaled": True}
    settings = {"scale": "demo", "first_page": page}
    names = SimpleNamespace(wildcards=SimpleNamespace(**words), config=settings)
    for name, source in texts.items():
        template = Environment(undefined=StrictUndefined).from_string(source)
        settings = {"halt_level": 2, "report_level": 5}
        try:
            text = template.render(snakemake=names)
            publish_parts(text, writer="html", settings_overrides=settings)
        except SystemMessage as error:
            pytest.fail(f"{name}: {error}")
