"""A study restored from its crate: the same report without images, and no way to train again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from medscale.base.code import SCRIPTS
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_json
from medscale.cli.main import main
from medscale.cli.results import leaks
from medscale.config.configuration import Config
from medscale.exchange import croissant, hugging_face
from medscale.report import style
from medscale.workflow.crate import archive, clean, export
from medscale.workflow.crate.kinds import WEIGHTS
from medscale.workflow.crate.manifest import MANIFEST, METADATA
from medscale.workflow.crate.restore import _notice, compare, restore
from medscale.workflow.graph import Graph
from medscale.workflow.restored import MARKER, Restored, absent_rules, read_config
from medscale.workflow.why import explain
from snakemake_command import ROOT, snakemake
from synthetic_runs import changes, configuration, make_chapter, make_study, report

RUNS = ["serial_1cpu", "ddp_2gpu"]
SAMPLES = "figures/glaucoma/samples.pdf"
needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


@pytest.fixture(scope="module")
def crate_study(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A study of two runs, made to its end, and its crate with the private default."""
    folder = tmp_path_factory.mktemp("packed") / "study"
    metadata = {"age": [61, None, 47.5], "sex": ["female", "male"]}
    results = make_study(
        folder, "glaucoma", ["normal", "glaucoma"], RUNS, images=80, metadata=metadata
    )
    report(folder, "glaucoma", results)
    for chapter in ("provenance", "synthesis", "claims", "checklists"):
        make_chapter(folder, configuration("glaucoma", RUNS), "", chapter)
    shutil.copyfile(folder / "glaucoma.resolved.json", folder / "config.resolved.json")
    study = Graph(changes("glaucoma", RUNS) | {"workdir": str(folder)})
    crate = folder.parent / "study.zip"
    export(study, crate)
    return SimpleNamespace(folder=folder, crate=crate, study=study)


def test_a_restored_study_has_its_variants_in_the_order_of_the_configuration(tmp_path):
    own = {"source": {"kind": "folder", "path": str(Path.home() / "images")}, "title": "Mine"}
    random = {"variant_of": "mine", "split": {"mode": "random"}}
    variants = {f"mine_{name}": random | {"title": name} for name in ("z", "a")}
    graph = Graph({"studies": {"mine": own | {"classes": ["no", "yes"]}, **variants}})
    packed, copied = (tmp_path / name / "config.resolved.json" for name in ("study", "crate"))
    packed.parent.mkdir()
    command = [sys.executable, SCRIPTS / "write_json.py", graph.resolved(None), "--keep-order"]
    subprocess.run([*command, "--out", packed], check=True)
    clean.copy(packed, copied)
    assert "~/images" in copied.read_text(encoding="utf-8")
    restored = read_config(copied.parent)
    assert restored.variants("mine") == graph.config.variants("mine") == ["mine_z", "mine_a"]
    assert "--keep-order" in (ROOT / "rules" / "common.smk").read_text(encoding="utf-8")


def jobs(output: str) -> set[str]:
    """Names of the rules that Snakemake started."""
    return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))


@needs_latex
@pytest.mark.slow
def test_the_paper_is_made_again_without_images_and_networks(crate_study, tmp_path):
    place = tmp_path / "restored"
    restoration = restore(crate_study.crate, place)
    assert restoration.left_out == [SAMPLES]
    assert restoration.code == []
    names = {path.name for path in place.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".npy", ".safetensors", ".png"))]
    assert not (place / "data" / "raw").exists()
    workdir = f"workdir={place}"
    process = snakemake("--cores", "2", "paper", "--config", workdir, seconds=600)
    assert process.returncode == 0, process.stdout + process.stderr
    ran = jobs(process.stdout + process.stderr)
    assert {"overview_report", "quality_report", "synthesis_report", "paper_pdf"} <= ran
    assert not ran & absent_rules()
    assert "samples_report" not in ran

    comparison = compare(crate_study.crate, place)
    assert comparison.different == []
    assert comparison.absent == []
    assert len(comparison.equal) > 50
    assert {
        "tables/glaucoma/facts.json",
        "tables/verdicts.csv",
        "tables/glaucoma/results.tex",
    } <= set(comparison.equal)
    for name in comparison.equal:  # and of the study itself, not only of its crate
        assert sha256(place / name) == sha256(crate_study.folder / name), name
    text = (place / "paper" / "build" / "sections" / "studies.tex").read_text(encoding="utf-8")
    assert "glaucoma:samples" in text
    assert (place / "paper" / "paper.pdf").stat().st_size > 50_000

    repetition = snakemake("-n", "paper", "--config", workdir)
    assert "nothing would run" in repetition.stdout + repetition.stderr
    facts = place / "tables" / "glaucoma" / "facts.json"
    write_json(facts, read_json(facts) | {"title": "another"})
    assert compare(crate_study.crate, place).different == ["tables/glaucoma/facts.json"]


@pytest.fixture(scope="module")
def restored_study(crate_study: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restored") / "place"
    restore(crate_study.crate, folder)
    return folder


@pytest.mark.parametrize(
    "target",
    [
        "results/glaucoma/serial_1gpu",
        "runs/glaucoma/serial_1cpu/seed1/model.safetensors",
        "data/glaucoma/shards/meta.json",
        "./measured/glaucoma/formats.csv",
        "results",
        "train",
        "data",
    ],
)
def test_a_target_that_needs_images_is_refused(restored_study, target):
    with pytest.raises(MedscaleError, match="without the images; its report can be made"):
        Restored(restored_study).check_target(target)


@pytest.mark.parametrize(
    "target", ["paper", "figures", "--cores", "4", "results/glaucoma/serial_1cpu/", SAMPLES]
)
def test_a_target_of_the_report_is_not_refused(restored_study, target):
    Restored(restored_study).check_target(target)


def test_the_check_asks_for_no_images(restored_study: Path, tmp_path: Path) -> None:
    (tmp_path / "changes.yaml").write_text(f"workdir: {restored_study}\n")
    options = ["--configfile", str(tmp_path / "changes.yaml"), "--json"]
    refused = CliRunner().invoke(main, ["check", *options])
    assert "where 'scale' is 'demo'" in refused.stderr
    process = CliRunner().invoke(main, ["check", "--scale", "demo", *options])
    findings = {finding["subject"]: finding for finding in json.loads(process.stdout)["findings"]}
    assert findings.keys() <= {"configuration", "data", "LaTeX", "claims and checklists"}
    assert "needs no raw images" in findings["data"]["text"]
    assert "error" not in {findings[name]["level"] for name in ("configuration", "data")}


def test_snakemake_ends_with_one_sentence_where_a_training_would_start(restored_study):
    process = snakemake("results", "--cores", "1", "--config", f"workdir={restored_study}")
    assert process.returncode != 0
    (*_, last) = process.stderr.splitlines()
    assert last.startswith("medscale: error: results cannot be made: ")
    assert "Traceback" not in process.stderr


def test_the_configuration_is_that_of_the_crate(restored_study):
    graph = Graph({"workdir": str(restored_study), "scale": "demo"})
    assert graph.studies == ["glaucoma"]
    assert graph.config.study("glaucoma").runs == RUNS
    assert graph.workdir == restored_study
    with pytest.raises(MedscaleError, match=r"'seeds' is .*leave the setting out"):
        Restored(restored_study).config({"seeds": [7]})
    recipe = graph.config.study("glaucoma").recipe
    same = {"only": " glaucoma", "studies": {"glaucoma": {"recipe": {"epochs": recipe.epochs}}}}
    assert Restored(restored_study).config(same) == graph.config
    same["studies"]["glaucoma"]["recipe"]["epochs"] += 1
    name = rf"'studies\.glaucoma\.recipe\.epochs' is {recipe.epochs}: leave the setting out"
    with pytest.raises(MedscaleError, match=name):
        Restored(restored_study).config(same)


def test_a_restored_study_can_be_packed_again(crate_study, restored_study, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    export(crate_study.study, first)
    for folder in ("figures", "tables"):  # as Snakemake makes them
        shutil.copytree(crate_study.folder / folder, restored_study / folder, dirs_exist_ok=True)
    shutil.copyfile(
        crate_study.folder / "data" / "glaucoma" / "datasheet.md",
        restored_study / "data" / "glaucoma" / "datasheet.md",
    )
    export(Graph({"workdir": str(restored_study)}), second)
    index = "data/glaucoma/index.parquet"
    assert sha256(first / index) == sha256(second / index)
    assert restore(second, tmp_path / "third").files == restore(first, tmp_path / "fourth").files


def test_an_index_without_names_is_neither_described_nor_searched_for(restored_study):
    """Its sizes and digests are not those of the images, and its names are nobody's."""
    data = restored_study / "data" / "glaucoma"
    with pytest.raises(MedscaleError, match="comes from a crate, without names"):
        croissant.write("glaucoma", configuration().study("glaucoma"), data)
    with pytest.raises(MedscaleError, match="comes from a crate, without names"):
        leaks([restored_study / "results"], [data])
    with pytest.raises(MedscaleError, match="comes from a crate, without names"):
        hugging_face._names(restored_study, SimpleNamespace(study="glaucoma"), data)


def test_why_says_of_a_result_that_came_with_the_crate_that_no_rule_makes_it(restored_study):
    with pytest.raises(MedscaleError, match="serial_1cpu exists, but is no output of a rule"):
        explain({"workdir": str(restored_study)}, "results/glaucoma/serial_1cpu")


def test_files_of_a_folder_are_not_overwritten(crate_study, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(MedscaleError, match="holds files already: name another folder"):
        restore(crate_study.crate, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_says_what_to_type(crate_study, tmp_path):
    place = tmp_path / "place"
    result = CliRunner().invoke(
        main, ["crate", "restore", str(crate_study.crate), "--to", str(place)]
    )
    assert result.exit_code == 0, result.output
    message = " ".join(result.output.split())
    assert "left out, because they show images" in message
    assert "snakemake --cores all paper --config workdir=" in message
    assert read_json(place / MARKER)["left_out"] == [SAMPLES]
    with pytest.raises(
        MedscaleError, match=r"0 files differ, \d+ are not made; make the report first"
    ):
        CliRunner().invoke(
            main, ["crate", "compare", str(crate_study.crate), str(place)], catch_exceptions=False
        )
    with pytest.raises(MedscaleError, match="was not restored from"):
        compare(crate_study.crate, tmp_path)


def test_networks_are_laid_out_where_the_crate_has_them(crate_study, tmp_path):
    export(crate_study.study, tmp_path / "crate", request=[WEIGHTS])
    restore(tmp_path / "crate", tmp_path / "place")
    weights = "runs/glaucoma/ddp_2gpu/seed1/model.safetensors"
    assert sha256(tmp_path / "place" / weights) == sha256(crate_study.folder / weights)


# Crates that a stranger made


def rewritten(crate: Path, to: Path, change) -> Path:
    """A copy of an archive; ``change`` is given the files (name: content) and changes them."""
    with zipfile.ZipFile(crate) as old:
        files = {name: old.read(name) for name in old.namelist() if not name.endswith("/")}
    change(files)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in files.items():
            new.writestr(name, content)
    return to


@pytest.mark.parametrize(
    ("size", "inches"),
    [
        ([3.0, 2], [3, 2]),
        ([10**400, 0], [20, 0.5]),
        *((size, [style.WIDTH, 1.2]) for size in (None, [], [1, 2, 3], ["1", 2], {"1": 2}, "ab")),
    ],
)
def test_a_place_of_a_figure_has_a_size_whatever_the_crate_says(size, inches):
    assert _notice(size).get_size_inches().tolist() == inches


TABLE = "results/glaucoma/serial_1cpu/roc.csv"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.update({TABLE: b"changed"}), "is not the file that was packed"),
        (lambda files: files.pop(TABLE), f"{TABLE} is missing"),
        (lambda files: files.update({"more.txt": b""}), "more.txt has no checksum"),
        (lambda files: files.pop(MANIFEST), f"it has no {MANIFEST}"),
        (lambda files: files.pop(METADATA), f"it has no {METADATA}"),
        (lambda files: files.update({MANIFEST: b"nonsense"}), "a line that is no checksum"),
    ],
)
def test_a_damaged_crate_leaves_nothing_behind(crate_study, tmp_path, change, message):
    crate = rewritten(crate_study.crate, tmp_path / "bad.zip", change)
    with pytest.raises(MedscaleError, match=re.escape(message)):
        restore(crate, tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def without(name: str):
    """Remove a file and its checksum from a crate."""

    def change(files: dict[str, bytes]) -> None:
        del files[name]
        lines = files[MANIFEST].decode().splitlines()
        kept_lines = [line for line in lines if not line.endswith(f"  {name}")]
        files[MANIFEST] = ("\n".join(kept_lines) + "\n").encode()

    return change


@pytest.mark.parametrize(
    "name",
    [
        "config.resolved.json",
        "data/glaucoma/index.parquet",
        "runs/glaucoma/ddp_2gpu/seed2/predictions.parquet",
        "measured/glaucoma/reference.json",
    ],
)
def test_a_crate_that_lacks_a_source_of_the_report_is_refused(crate_study, tmp_path, name):
    crate = rewritten(crate_study.crate, tmp_path / "bad.zip", without(name))
    with pytest.raises(MedscaleError, match=re.escape(f"lacks {name}, so the paper cannot")):
        restore(crate, tmp_path / "place")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "/etc/evil",
        "a/../../evil",
        "a//b",
        "./a",
        "c:evil",
        "a\\b",
        "a\x1b[2J",
        "x" * 501,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(crate_study, tmp_path, name):
    crate = rewritten(
        crate_study.crate, tmp_path / "bad.zip", lambda files: files.update({name: b"x"})
    )
    with pytest.raises(MedscaleError, match="could lead out of the folder"):
        restore(crate, tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_links_bombs_and_other_archives_are_refused(crate_study, tmp_path, monkeypatch):
    link = zipfile.ZipInfo("results/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    shutil.copyfile(crate_study.crate, tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "link.zip", "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(MedscaleError, match="'results/link' is a link or a device"):
        restore(tmp_path / "link.zip", tmp_path / "place")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as file:
        file.writestr(MANIFEST, "")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr(MANIFEST, "")
    with pytest.raises(MedscaleError, match="twice under one name"):
        restore(tmp_path / "twice.zip", tmp_path / "place")
    zeros = rewritten(
        crate_study.crate, tmp_path / "zeros.zip", lambda files: files.update(zeros=bytes(2**29))
    )
    with pytest.raises(MedscaleError, match="no crate of a study does"):
        restore(zeros, tmp_path / "place")
    (tmp_path / "text.zip").write_text("no archive")
    shutil.copyfile(crate_study.crate, tmp_path / "version.zip")
    content = bytearray((tmp_path / "version.zip").read_bytes())
    content[content.index(b"PK\1\2") + 6] = 255  # version that is needed to unpack it
    (tmp_path / "version.zip").write_bytes(content)
    for name in ("text.zip", "version.zip"):
        with pytest.raises(MedscaleError, match="neither a crate's folder nor a ZIP archive"):
            restore(tmp_path / name, tmp_path / "place")
    monkeypatch.setattr(archive, "MOST_FILES", 10)
    with pytest.raises(MedscaleError, match="more than 10 files"):
        restore(crate_study.crate, tmp_path / "place")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_file_in_an_archive_of_any_method_is_named(tmp_path, method):
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w", method) as crate:
        for name in (METADATA, MANIFEST):
            crate.writestr(name, bytes(500))
        start = crate.getinfo(MANIFEST).header_offset + 30 + len(MANIFEST)
    content = bytearray(file.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    file.write_bytes(content)
    with pytest.raises(MedscaleError, match=f"{MANIFEST} cannot be read"):
        restore(file, tmp_path / "place")


def test_an_empty_name_is_refused(tmp_path):
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as crate:
        crate.writestr(zipfile.ZipInfo(""), "x")
    with pytest.raises(MedscaleError, match="could lead out of the folder"):
        restore(file, tmp_path / "place")


def test_a_link_in_a_folder_is_refused(crate_study, tmp_path):
    export(crate_study.study, tmp_path / "crate")
    (tmp_path / "crate" / "results" / "link").symlink_to("/etc")
    with pytest.raises(MedscaleError, match="is a link or a device"):
        restore(tmp_path / "crate", tmp_path / "place")


def test_code_of_a_crate_is_not_laid_out_and_its_changes_are_named(crate_study, tmp_path):
    script = "scripts/chapter.py"

    def change(files: dict[str, bytes]) -> None:
        old = files[script]
        files[script] = b"raise SystemExit"
        digests = [hashlib.sha256(text).hexdigest() for text in (old, files[script])]
        files[MANIFEST] = files[MANIFEST].replace(*(digest.encode() for digest in digests))

    crate = rewritten(crate_study.crate, tmp_path / "changed.zip", change)
    assert restore(crate, tmp_path / "place").code == [script]
    assert not list((tmp_path / "place").rglob("*.py"))
    assert not (tmp_path / "place" / "config.yaml").exists()


def test_a_restored_study_has_the_order_of_the_studies() -> None:
    graph = Graph({"scale": "demo"})
    resolved_text = json.loads(json.dumps(json.loads(graph.resolved(None)), sort_keys=True))
    assert Config.model_validate(resolved_text).active == graph.config.active
    assert list(resolved_text["studies"]) != list(graph.config.studies)
