"""The workflow where others look for it, in an environment without medscale, and without image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from medscale.base.errors import MedscaleError
from medscale.resources import containers
from medscale.workflow.graph import DRY_RUN, Graph
from snakemake_command import ROOT, snakemake

APPTAINER = [SimpleNamespace(name="APPTAINER")]


def test_the_catalog_finds_workflow_configuration_and_test_case(tmp_path):
    catalog = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert catalog["usage"]["software-stack-deployment"]["apptainer"] is True
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    (command,) = [line for line in text.splitlines() if "--snakefile workflow/Snakefile" in line]
    elsewhere = ["--config", f"workdir={tmp_path}"]  # the test case may have been run before
    process = snakemake(*command.split()[1:], "-np", "--quiet", "host", *elsewhere)
    assert process.returncode == 0, process.stderr
    assert "results/glaucoma/ddp_2cpu" in process.stdout + process.stderr


@pytest.mark.parametrize("option", ["--lint", "-n"])
def test_without_the_package_one_sentence_names_make_setup(tmp_path, monkeypatch, option):
    missing = 'raise ModuleNotFoundError("No module named medscale", name="medscale")\n'
    (tmp_path / "medscale.py").write_text(missing)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = snakemake(option)
    assert process.returncode == 1
    (line,) = [line for line in process.stderr.splitlines() if not line.startswith("Using ")]
    assert "no module 'medscale'" in line
    assert "`make setup`" in line


@pytest.mark.parametrize(
    ("argument", "is_dry"),
    [("-n", True), ("-np", True), ("-pn", True), ("--dry-run", True), ("--dryrun", True)]
    + [(word, False) for word in ("-p", "results", "--notemp", "-c2", "--unlock", "-", "n")],
)
def test_a_dry_run_is_recognized_by_its_option(argument, is_dry):
    assert bool(DRY_RUN.fullmatch(argument)) is is_dry


def test_a_dry_run_needs_no_image_and_says_that_jobs_will(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(containers, "link", lambda root: Path(tmp_path) / "medscale.sif")
    assert Graph({}, arguments=["-n"]).container(APPTAINER) is None
    assert "`make image`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        Graph({}).container(APPTAINER)
    assert "there is no image to run jobs in" in capsys.readouterr().err
    (tmp_path / "medscale-0123456789ab.sif").touch()  # a copy from another machine
    with pytest.raises(MedscaleError, match=r"`ln -s medscale-0123456789ab\.sif containers/medsc"):
        containers.image(ROOT)


def test_a_workdir_that_no_one_can_make_is_named(capsys):
    with pytest.raises(SystemExit):
        Graph({"workdir": "/proc/study"}).equip_jobs()
    assert "/proc/study cannot be made (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["work", "a [b]/work"])  # the second needs a link in it
def test_a_mistyped_target_leaves_no_empty_workdir(tmp_path, folder):
    process = snakemake("resluts", "--config", f"workdir={tmp_path / folder}")
    assert process.returncode == 2
    assert "did you mean 'results'?" in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_workdir_of_the_user_stays(tmp_path):
    assert snakemake("resluts", "--config", f"workdir={tmp_path}").returncode == 2
    assert tmp_path.is_dir()


def test_a_dry_run_needs_no_apptainer_and_jobs_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(containers, "link", lambda root: tmp_path)
    monkeypatch.setattr(containers, "image", lambda root: tmp_path)
    monkeypatch.setattr(containers.shutil, "which", lambda program: None)
    assert Graph({}, arguments=["-n"]).container(APPTAINER) is None
    assert "jobs will need Apptainer" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        Graph({}).container(APPTAINER)
    assert "`module load apptainer`" in capsys.readouterr().err


def test_the_image_of_an_absolute_workdir_is_named_without_the_checkout(tmp_path, monkeypatch):
    image = tmp_path / "checkout" / "medscale-0123456789ab.sif"
    monkeypatch.setattr(containers, "link", lambda root: tmp_path)
    monkeypatch.setattr(containers, "image", lambda root: image)
    monkeypatch.setattr(containers, "check_program", lambda: None)
    graph = Graph({"workdir": str(tmp_path / "work")})
    assert graph.container(APPTAINER) == image.name
    assert (tmp_path / "work" / image.name).readlink() == image
    monkeypatch.setattr(containers, "image", lambda root: ROOT / "containers" / image.name)
    assert Graph({"workdir": "work/demo"}).container(APPTAINER).startswith("../../containers/")


def test_a_run_that_fits_no_node_stops_no_other():
    graph = Graph({"node": {"gpus": 2}})
    assert "fsdp_3gpu" in graph.config.study("pneumonia").runs
    assert "data/pneumonia/shards_detect/meta.json" in graph.shard_files()
    assert graph.shards("pneumonia", "fsdp_3gpu") == "data/pneumonia/shards"
