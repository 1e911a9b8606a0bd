"""The origin of replicates in words: code, container and inputs, and in which they differ."""

from collections.abc import Mapping
from typing import Any

SHORT = 12  # letters of a SHA-256 that a reader is shown
COMMIT = 9  # and of a commit's
LOCAL = "with local changes"
CONDITIONS = {
    "commit": "code",
    "dirty": "code",
    "code": "code",
    "container": "container",
    "versions": "versions of packages",
    "python": "version of Python",
    "cpu": "machine",
    "gpus": "machine",
    "format": "number format",
    "cuda": "version of CUDA",
    "inputs": "inputs",
}


def origins(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return seed, fold, digests and code of each replicate of a result (summary.json)."""
    return [
        {
            "seed": environment["seed"],
            "fold": environment.get("fold"),
            "plan_digest": environment["plan_digest"],
            "commit": _commit(environment),
            "code": (environment.get("code") or "–")[:SHORT],
            "container": container_name(environment),
            "shards": (environment.get("inputs", {}).get("shards") or "–")[:SHORT],
        }
        for environment in summary["provenance"]["replicates"]
    ]


def container_name(environment: dict[str, Any]) -> str:
    """Return the name of the image's file, or its digest under docker; "none" without an image."""
    image = environment.get("container") or {}
    return image.get("file") or image.get("digest") or "none"


def different_conditions(summary: Mapping[str, Any]) -> list[str]:
    """Return the conditions other than the seed in which a run's replicates differ, in words."""
    return list(dict.fromkeys(CONDITIONS[key] for key in summary["provenance"]["differ"]))


def _commit(environment: dict[str, Any]) -> str:
    commit = environment.get("commit")
    if commit is None:
        return "no git commit"
    return commit[:COMMIT] + (f" {LOCAL}" if environment.get("dirty") else "")
