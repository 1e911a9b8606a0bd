"""Tests of the container image: equal builds with and without docker, its file, its records."""

import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from medscale.base import provenance
from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.resources import containers
from snakemake_command import snakemake

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str) -> list[str]:
    """Return the lines of a section of apptainer.def."""
    return (
        text("containers/apptainer.def").split(f"%{name}\n")[1].split("\n%")[0].strip().splitlines()
    )


def test_with_and_without_docker_the_image_is_made_of_the_same():
    docker, steps = (
        text("containers/Dockerfile"),
        re.findall(r"^(\w+)\)", text("containers/install.sh"), re.M),
    )
    assert steps == ["system", "uv", "requirements", "package"]
    assert re.findall(r"install\.sh (\w+)", docker) == steps
    assert f"for step in {' '.join(steps)};" in text("containers/apptainer.def")
    assert re.search(r"^ARG (BASE=.+@sha256:[0-9a-f]{64})$", docker, re.M)[1] in [
        s.strip() for s in section("arguments")
    ]
    context_files = {
        line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")
    }
    profiles = {"demo", "local", "slurm"}  # links, which the definition makes itself
    assert {line.split()[0] for line in section("files")} == context_files - profiles
    assert profiles < context_files
    assert all((ROOT / name).exists() for name in context_files)
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    tables = {f"docs/{name}" for name in re.findall(r'ROOT / "docs" / "(\w+\.csv)"', sources)}
    assert tables
    assert tables <= context_files
    assert "syntax=" not in docker  # it would be fetched
    assert "/scif/apps/serve/scif/runscript" in text(
        "containers/install.sh"
    )  # which containers/test.sh runs
    variables = set(re.findall(r"(?:ENV|^   ) ?(\w+)=", docker, re.M)) | set(
        re.findall(r" (MEDSCALE_\w+)=\$", docker)
    )
    assert variables == {re.match(r"\s*export (\w+)=", line)[1] for line in section("environment")}


def test_each_list_stands_in_one_place():
    for name in ("tools/setup.sh", "containers/install.sh"):
        assert "tools/latex.txt" in text(name)
        assert "tools/uv.txt" in text(name)
        assert "texlive" not in text(name)
        assert "uv==" not in text(name)
        assert re.search(r"--require-hashes -r \S*tools/uv.txt", text(name))
    conda = yaml.safe_load(text("envs/environment.yaml"))
    assert conda["dependencies"][-1]["pip"] == [
        "--require-hashes",
        "--requirement ../requirements.lock",
    ]


@pytest.mark.parametrize(
    ("arguments", "programs", "message"),
    [
        (["docker"], {"DOCKER": "no-docker"}, "docker is missing"),
        (["docker"], {"DOCKER": "false"}, "no docker daemon answers at unix:///nowhere"),
        (["docker"], {"DOCKER": "true", "APPTAINER": "no-apptainer"}, "Apptainer is missing"),
        (["apptainer"], {"APPTAINER": "no-apptainer"}, "Apptainer is missing"),
        ([], {}, "say which way"),
    ],
)
def test_missing_parts_are_reported_before_anything_is_built(arguments, programs, message):
    environment = os.environ | {"DOCKER_HOST": "unix:///nowhere"} | programs
    before = set((ROOT / "containers").iterdir())
    process = subprocess.run(
        [ROOT / "tools/image.sh", *arguments], capture_output=True, text=True, env=environment
    )
    assert process.returncode == 1
    assert message in process.stderr
    assert set((ROOT / "containers").iterdir()) <= before


def archive(**files: bytes) -> bytes:
    """Return a tar archive of files."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


def test_layers_are_stored_as_gzip_and_stay_what_they_are():
    sizes = {
        "empty/layer.tar": 0,
        "small/layer.tar": 1,
        "block/layer.tar": 65535,
        "large/layer.tar": 300_001,
    }
    files = {name: random.Random(size).randbytes(size) for name, size in sizes.items()} | {
        "manifest.json": b"[]"
    }
    command = [sys.executable, str(ROOT / "tools" / "store_layers.py")]
    completed_process = subprocess.run(
        command, input=archive(**files), capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(completed_process.stdout)) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}
    assert list(members) == list(files)
    assert members.pop("manifest.json") == files.pop("manifest.json")
    assert {name: gzip.decompress(content) for name, content in members.items()} == files
    process = subprocess.run(command, input=archive(**files)[:-100_000], capture_output=True)
    assert process.returncode != 0


@pytest.fixture
def project(tmp_path):
    """Return a project's root with an image that fits its requirements."""
    (tmp_path / "requirements.lock").write_text("one==1\n")
    (tmp_path / "containers").mkdir()
    put_image(tmp_path, "0123456789ab")
    return tmp_path


def put_image(root: Path, digest: str) -> Path:
    file = root / "containers" / f"medscale-{digest}.sif"
    file.write_bytes(b"squash")
    file.with_suffix(".json").write_text(json.dumps({"lock": sha256(root / "requirements.lock")}))
    link = root / "containers" / "medscale.sif"
    link.unlink(missing_ok=True)
    link.symlink_to(file.name)
    return file


def test_another_image_is_another_file_for_the_rules(project):
    assert containers.image(project).name == "medscale-0123456789ab.sif"
    put_image(project, "ba9876543210")
    assert containers.image(project).name == "medscale-ba9876543210.sif"


def test_an_image_of_other_requirements_is_refused(project):
    (project / "requirements.lock").write_text("one==2\n")
    with pytest.raises(MedscaleError, match=r"requirements\.lock that differs from .*make image"):
        containers.image(project)


def test_a_missing_or_unnamed_image_is_refused(project):
    link = containers.link(project)
    link.unlink()
    with pytest.raises(MedscaleError, match=r"no image to run jobs in; `make image`"):
        containers.image(project)
    (project / "containers" / "mine.sif").touch()
    link.symlink_to("mine.sif")
    with pytest.raises(MedscaleError, match=r"points to mine\.sif"):
        containers.image(project)


def test_jobs_see_the_checkout_and_the_data_once(project, tmp_path_factory, monkeypatch):
    raw = tmp_path_factory.mktemp("raw")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("APPTAINER_BIND", "/scratch")
    folders = [project / "work", raw, raw / "inner", raw.parent / "not there"]
    for _ in range(2):  # Snakemake reads the Snakefile again in each job
        equipped = containers.environment(project, folders, {"commit": "abc", "dirty": True})
        for name, value in equipped.items():
            monkeypatch.setenv(name, value)
    assert equipped["PYTHONPATH"] == f"{project}/src:/mine"
    assert equipped["APPTAINER_BIND"].split(",")[:2] == [str(project), str(raw)]
    assert equipped["APPTAINER_BIND"].endswith(",/scratch")
    assert equipped["APPTAINER_BIND"].count(str(raw)) == 1
    assert "inner" not in equipped["APPTAINER_BIND"]
    for name in (
        "PYTHONPATH",
        "MEDSCALE_COMMIT",
        "MEDSCALE_DIRTY",
    ):  # else what the image sets would win
        assert equipped[f"APPTAINERENV_{name}"] == equipped[name]
    with pytest.raises(MedscaleError, match="comma"):
        containers.environment(
            project, [tmp_path_factory.mktemp("a,b")], {"commit": None, "dirty": None}
        )


def test_a_folder_of_the_login_node_is_not_bound_on_a_node_without_it(
    project, tmp_path_factory, monkeypatch
):
    """Apptainer would refuse to start: SLURM's jobs inherit the login node's environment."""
    monkeypatch.setenv("APPTAINER_BIND", "/scratch")
    session, hub = (tmp_path_factory.mktemp(name) for name in ("session", "hub"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(session))
    monkeypatch.setenv("HF_HOME", str(hub))
    unknown = {"commit": None, "dirty": None}
    login = containers.environment(project, [], unknown)
    assert login["APPTAINER_BIND"] == f"{project},{session},{hub},/scratch"
    assert login["APPTAINERENV_HF_HOME"] == str(hub)  # else the container's home would have it
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    for folder in (session, hub):
        folder.rmdir()
    node = containers.environment(project, [], unknown)
    assert node["APPTAINER_BIND"] == f"{project},/scratch"
    assert "APPTAINERENV_HF_HOME" not in node


def test_the_checkout_s_code_stands_before_an_installed_package(tmp_path):
    package = tmp_path / "src" / "medscale" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-c", "import medscale; print(medscale.__file__)"]
    process = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    ).stdout
    assert process.strip() == str(package)


def test_where_there_is_no_git_the_environment_tells_the_commit(monkeypatch):
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    monkeypatch.setenv("MEDSCALE_COMMIT", "abc")
    monkeypatch.setenv("MEDSCALE_DIRTY", "true")
    assert provenance.git_state() == {"commit": "abc", "dirty": True}
    unknown = containers.environment(ROOT, [], {"commit": None, "dirty": None})
    monkeypatch.setenv("MEDSCALE_COMMIT", unknown["MEDSCALE_COMMIT"])
    monkeypatch.setenv("MEDSCALE_DIRTY", unknown["MEDSCALE_DIRTY"])
    assert provenance.git_state() == {"commit": None, "dirty": None}


def test_changes_are_not_known_where_git_does_not_answer_in_time(monkeypatch):
    answers = {"rev-parse --show-toplevel": str(ROOT), "rev-parse HEAD": "abc"}
    monkeypatch.setattr(provenance, "_git", lambda *words: answers.get(" ".join(words)))
    assert provenance.git_state() == {"commit": "abc", "dirty": None}


def test_a_record_names_the_image_that_it_was_made_in(project, monkeypatch):
    for name in (
        "APPTAINER_CONTAINER",
        "SINGULARITY_CONTAINER",
        "MEDSCALE_IMAGE",
        "MEDSCALE_IMAGE_LOCK",
    ):
        monkeypatch.delenv(name, raising=False)
    assert provenance.machine()["container"] is None
    monkeypatch.setenv("MEDSCALE_IMAGE_LOCK", "lock")
    monkeypatch.setenv("MEDSCALE_IMAGE_COMMIT", "abc")
    monkeypatch.setenv("APPTAINER_CONTAINER", str(containers.link(project)))
    expected = {
        "file": "medscale-0123456789ab.sif",
        "digest": "0123456789ab",
        "commit": "abc",
        "lock": "lock",
    }
    assert provenance.machine()["container"] == expected
    monkeypatch.delenv("APPTAINER_CONTAINER")
    monkeypatch.setenv("MEDSCALE_IMAGE", "sha256:123")
    assert provenance.machine()["container"] == expected | {"file": None, "digest": "sha256:123"}


def test_containers_without_an_image_are_refused_in_one_message():
    if containers.link(ROOT).exists():
        pytest.skip("this checkout has an image")
    process = snakemake("--sdm", "apptainer", "--", "paper")
    assert process.returncode != 0
    assert "medscale: error: " in process.stderr
    assert "make image" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("run", "asks"), [("ddp_2gpu", "gpu=1, timed=1"), ("ddp_2cpu", "gpu=0, timed=100")]
)
def test_on_a_workstation_gpu_runs_go_beside_each_other_and_cpu_runs_alone(run, asks):
    target = f"runs/glaucoma/{run}/seed1/timing.json"
    process = snakemake("-np", "--profile", "local", "--", target)
    assert process.returncode == 0, process.stdout + process.stderr
    resources = re.search(
        r"rule train:.*?resources: ([^\n]*)", process.stdout + process.stderr, re.S
    )[1]
    assert ", ".join(sorted(re.findall(r"(?:gpu|timed)=\d+", resources))) == asks
