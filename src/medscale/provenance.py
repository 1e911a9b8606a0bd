"""Which code, versions and hardware made a result; digests of the code that a stage uses."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medscale import containers
from medscale.files import digest, sha256

if TYPE_CHECKING:
    from medscale.config import RunPlan

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parent.parent
VERSIONS = (
    "medscale",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "dask",
    "snakemake",
    "ultralytics-opencv-headless",
)


@cache
def code_digest(script: str | Path) -> str:
    """SHA-256 over a script and every module of this package that it imports, directly or not.

    Snakemake does not track imported modules: this digest is a param of each stage, so that a change reruns the
    stages that use the changed code and no others.
    """
    todo, seen = [Path(script)], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += _imported(file)
    return digest(sorted((file.name, sha256(file)) for file in seen))


def _imported(file: Path) -> list[Path]:
    """Files of this package's modules that ``file`` names in imports or starts with ``python -m``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("medscale."):
            names.add(node.value)
    found = []
    for name in names:
        if name == "medscale" or name.startswith("medscale."):
            base = PACKAGE.joinpath(*name.split(".")[1:])
            found += [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
    return found


def environment(plan: RunPlan) -> dict[str, Any]:
    """What a replicate ran on: versions, hardware, git commit, container, its plan's digest (environment.json)."""
    import torch

    cuda = plan.backend == "cuda"
    return {
        "plan_digest": plan.digest,
        "stand_in": plan.stand_in,
        "synthetic": plan.synthetic,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "cuda": torch.version.cuda if cuda else None,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """This machine and this code: versions, system, processor, cores that may be used, container, git commit."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS},
        "system": f"{platform.system()} {platform.release()}",
        "host": platform.node(),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "container": containers.around(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        **git_state(),
    }


def git_state() -> dict[str, Any]:
    """The code's git commit and whether files differ from it; both None where nobody knows.

    In an image, which has neither git nor the checkout's history, the environment says it: that of Snakemake on the
    host (``containers.environment``), else what was built into the image.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        told = os.environ.get("MEDSCALE_COMMIT", containers.UNKNOWN)
        dirty = {"true": True, "false": False}.get(os.environ.get("MEDSCALE_DIRTY", ""))
        return {"commit": None if told in ("", containers.UNKNOWN) else told, "dirty": dirty}
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
