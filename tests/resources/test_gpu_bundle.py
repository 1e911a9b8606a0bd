"""`make gpu-bundle`: source and packages for a GPU machine without network."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medscale.base import code
from training_runs import ROOT

SCRIPT = ROOT / "tools" / "gpu_bundle.py"
spec = importlib.util.spec_from_file_location("gpu_bundle", SCRIPT)
assert spec is not None
assert spec.loader is not None
bundle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bundle)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "pulp-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pulp/__init__.py", "VALUE = 7\n")
        wheel.writestr("pulp/solverdir/cbc/linux/i64/cbc", "kept")
        wheel.writestr("pulp/solverdir/cbc/win/i64/cbc.exe", "left out")
        wheel.writestr("imagecodecs.libs/libaom-1.so", "left out")
        wheel.writestr("imagecodecs/_jpegls.abi3.so", "kept")
    return folder


def test_the_bundle_runs_a_command_with_its_source_and_packages(wheels: Path, tmp_path: Path):
    file = tmp_path / "bundle.tar.gz"
    line = [sys.executable, SCRIPT, "--wheels", wheels, "--out", file]
    subprocess.run(line, check=True, capture_output=True)
    with tarfile.open(file) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path)
    assert "medscale-gpu/site/pulp/solverdir/cbc/linux/i64/cbc" in names
    assert "medscale-gpu/site/connection_pool/__init__.py" in names
    assert "medscale-gpu/site/imagecodecs/_jpegls.abi3.so" in names
    assert not any(name.endswith((".exe", ".lock", "libaom-1.so")) for name in names)
    code = "import pulp, medscale; print(pulp.VALUE, medscale.__file__)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.run(
        [tmp_path / "medscale-gpu" / "run.sh", "python", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    unpacked_file = tmp_path / "medscale-gpu" / "medscale" / "src" / "medscale" / "__init__.py"
    assert process.stdout.split() == ["7", str(unpacked_file)]


def test_every_listed_package_has_a_locked_version(monkeypatch, tmp_path: Path):
    pinned = bundle.pinned()
    assert "snakemake==" in "\n".join(pinned)
    assert not any(name.startswith("connection-pool") for name in pinned)
    monkeypatch.setattr(bundle, "LIST", tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# comment\nno-such-package\n")
    with pytest.raises(SystemExit, match=r"no-such-package of list.txt are not in"):
        bundle.pinned()


# Packages that the machine has: the whole study ran on one without them in the bundle.
PRESENT = {"click", "cloudpickle", "fsspec", "jinja2", "matplotlib", "msgpack", "numpy", "pandas"}
PRESENT |= {"opencv-python-headless", "pillow", "pyyaml", "requests", "toolz", "torch", "wrapt"}
PRESENT |= {"torchvision", "zipp"}
# Of ultralytics, whose parts that need them are not used.
UNUSED = {"polars", "ultralytics-platform", "ultralytics-thop"}
ON_CARD = {"python_version": "3.12", "python_full_version": "3.12.0", "extra": ""}


def test_the_packages_that_listed_ones_need_are_listed_or_present():
    """A plugin of pytest without its own dependency would end every test run."""
    listed = {canonicalize_name(line.split("==")[0]) for line in bundle.pinned()}
    needed = {
        canonicalize_name(requirement.name): name
        for name in listed
        for requirement in map(Requirement, metadata.requires(name) or [])
        if requirement.marker is None or requirement.marker.evaluate(ON_CARD)
    }
    provided = listed | {*bundle.NO_WHEEL} | PRESENT | UNUSED
    assert {need: name for need, name in needed.items() if need not in provided} == {}


# Further packages that the machine has, seen in its list of packages on 2026-11-17.
PRESENT |= {"accelerate", "lightning", "onnx", "onnxruntime", "pyarrow", "pytest", "rich"}
PRESENT |= {"safetensors", "scikit-learn", "scipy", "tensorboard", "timm", "typer"}
PRESENT |= {"huggingface-hub"}  # timm needs it
# Programs that tests and benchmarks on a GPU start, and the modules of these tests.
ON_GPU = """scripts/train.py scripts/train_detector.py scripts/profile_run.py tests/conftest.py
tests/small_training.py tests/training_runs.py tests/forked_ranks.py tests/detector_runs.py
tests/engine/test_detect.py tests/gpu/*.py bench/gpu*.py bench/inputs.py"""


def imported(file: Path) -> set[str]:
    """Names of the top-level modules that a file imports."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_the_packages_that_a_gpu_s_runs_import_are_listed_or_present():
    scripts = [file for pattern in ON_GPU.split() for file in ROOT.glob(pattern)]
    files = {*scripts, *(path for script in scripts for path in code.modules(script).values())}
    distributions = metadata.packages_distributions()
    needed = {name: file for file in files for name in imported(file) if name in distributions}
    provided = {canonicalize_name(line.split("==")[0]) for line in bundle.pinned()}
    provided |= {*bundle.NO_WHEEL} | PRESENT
    absent = {
        name: file.name
        for name, file in needed.items()
        if not provided & {*map(canonicalize_name, distributions[name])} and name != "medscale"
    }
    assert absent == {}


def test_a_bundle_that_is_too_large_is_refused(wheels: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(bundle, "LARGEST_MB", 0.1)
    out = tmp_path / "b.tar.gz"
    with pytest.raises(SystemExit, match="MB are more than"):
        bundle.main(["--wheels", str(wheels), "--out", str(out)])
    assert not out.exists()
