"""Records of the origin of a result: code, container, hardware, versions, seed, input digests."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medscale.base.code import ROOT, package_digest
from medscale.base.files import sha256
from medscale.base.limits import usable_cores

if TYPE_CHECKING:
    from medscale.engine.plan import RunPlan

VERSIONS = (
    "medscale",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
    "pydicom",
    "safetensors",
    "dask",
    "snakemake",
    "ultralytics-opencv-headless",
)

UNKNOWN = "unknown"
SITE = "profiles/slurm/site.yaml"  # each cluster changes it, and plans record what follows from it
IMAGE_NAME = re.compile(r"medscale-([0-9a-f]{12})\.sif")

# Keys that are equal in all replicates of a run under the same conditions; seeds and times differ.
COMMON_KEYS = (
    "commit",
    "dirty",
    "code",
    "container",
    "versions",
    "python",
    "cpu",
    "gpus",
    "format",
    "cuda",
    "inputs",
)


def environment(plan: RunPlan, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a replicate (environment.json): its inputs, code and machine.

    It is taken at the start of a training, since the checkout's code can change during it.

    Args:
        plan: plan of the replicate.
        inputs: digests of the input files, by name.
    """
    import torch

    cuda = plan.backend == "cuda"
    cards = range(torch.cuda.device_count() if cuda else 0)
    weights = Path(plan.model.pretrained) if plan.model.pretrained else None
    return {
        "plan_digest": plan.digest,
        "seed": plan.seed,
        **({} if plan.fold is None else {"fold": plan.fold}),
        "stand_in": plan.stand_in,
        "synthetic": plan.synthetic,
        # Weights from the hub are not a file: timm's version and the network's name identify them.
        "inputs": {
            **inputs,
            "weights": sha256(weights) if weights is not None and weights.is_file() else None,
        },
        "started": utc_now(),
        "gpus": [torch.cuda.get_device_name(card) for card in cards],
        "gpu_memory_gb": [
            _gigabytes(torch.cuda.get_device_properties(card).total_memory) for card in cards
        ],
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,
        "driver": _driver() if cuda else None,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Return the record of this machine and this code.

    It holds versions, system, processor, usable cores, memory (GiB), container and git commit. It
    does not hold the name of the host, since results are published.
    """
    return {
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in VERSIONS},
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cpus": usable_cores(),
        "cpus_machine": os.cpu_count(),
        "memory_gb": _gigabytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "container": container(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "code": package_digest(),
        **git_state(),
    }


def conditions(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a record that a training should keep when it is continued."""
    return {key: record.get(key) for key in COMMON_KEYS}


def hardware(record: Mapping[str, Any]) -> str:
    """Return the names of a record's GPUs, each once, or of its processor; else "unknown"."""
    return ", ".join(dict.fromkeys(record.get("gpus") or [])) or record.get("cpu") or "unknown"


def phases(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the conditions under which each part of a training ran, those of the last part first.

    The conditions of the last part are the record itself. ``earlier`` has those of the parts before
    it: a part ends where the training goes on with other hardware or versions.
    """
    return [record, *record.get("earlier", [])]


def was_moved(record: Mapping[str, Any]) -> bool:
    """Return whether a training was continued on other hardware."""
    return len({hardware(phase) for phase in phases(record)}) > 1


def gather(environments: Sequence[dict[str, Any]], inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance of a result for its summary.json.

    Args:
        environments: environment.json of each replicate, in the order of the seeds.
        inputs: digests of the input files of the evaluation, by name.

    Returns:
        ``replicates`` (the environments), ``differ`` (those of ``COMMON_KEYS`` whose values differ
        between replicates, or changed during the training of one) and ``evaluation`` (this machine
        and code, and ``inputs``).
    """
    records = [phase for record in environments for phase in phases(record)]
    differ = [
        key
        for key in COMMON_KEYS
        if any(record.get(key) != records[0].get(key) for record in records[1:])
    ]
    return {
        "replicates": list(environments),
        "differ": differ,
        "evaluation": {**machine(), "inputs": inputs},
    }


def container() -> dict[str, str | None] | None:
    """Return the container image of this process; None outside a container.

    Returns:
        ``file``, ``digest``, and the ``commit`` and ``lock`` of the image's build. Under Apptainer
        the file's name contains the digest. A docker container does not know its own digest;
        ``docker run -e MEDSCALE_IMAGE=$(docker inspect -f '{{.Id}}' …)`` passes it.
    """
    lock = os.environ.get("MEDSCALE_IMAGE_LOCK")
    sif = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not lock and not sif:
        return None
    file = Path(sif).resolve().name if sif else None
    name_match = IMAGE_NAME.fullmatch(file) if file else None
    return {
        "file": file,
        "digest": name_match[1] if name_match else os.environ.get("MEDSCALE_IMAGE") or None,
        "commit": os.environ.get("MEDSCALE_IMAGE_COMMIT") or None,
        "lock": lock or None,
    }


def utc_now() -> str:
    """Return the time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


UNKNOWN_STATE: dict[str, Any] = {"commit": None, "dirty": None}


def git_state() -> dict[str, Any]:
    """Return the code's git commit and whether files differ from it; both None if unknown.

    A repository around this checkout, such as that of another project, is ignored: git's top level
    must be the root of the checkout. An image has neither git nor the checkout's history. In an
    image, environment variables hold both values; Snakemake sets them on the host
    (``containers.environment``), or the build of the image did.
    """
    top = _git("rev-parse", "--show-toplevel")
    is_checkout = top is not None and Path(top).resolve() == ROOT.resolve()
    commit = _git("rev-parse", "HEAD") if is_checkout else None
    if commit is None:
        commit_variable = os.environ.get("MEDSCALE_COMMIT", UNKNOWN)
        dirty = {"true": True, "false": False}.get(os.environ.get("MEDSCALE_DIRTY", ""))
        return {
            "commit": None if commit_variable in ("", UNKNOWN) else commit_variable,
            "dirty": dirty,
        }
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){SITE}")
    return {"commit": commit, "dirty": None if changes is None else changes != ""}


def _git(*arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607 (the git that the user calls)
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def _driver() -> str | None:
    """Return the version of NVIDIA's driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _gigabytes(size: int) -> float:
    return round(size / 2**30, 1)


def package_version(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
