"""The conditions in which replicates of a run differ, in words."""

from collections.abc import Mapping
from typing import Any

WORDS = {
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


def different_conditions(summary: Mapping[str, Any]) -> list[str]:
    """Return the conditions other than the seed in which a run's replicates differ, in words."""
    return list(dict.fromkeys(WORDS[key] for key in summary["provenance"]["differ"]))
