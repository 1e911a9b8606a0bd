"""Validation of a crate as a Workflow Run Crate by roc-validator, without the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json

PROFILE = "workflow-run-crate"
# RO-Crate 1.1 and 1.2 have other addresses of these terms than the library's context, which is
# that of RO-Crate 1.3.
EARLIER = {
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
}
RUN = "https://w3id.org/ro/terms/workflow-run#"
OF_RUN = (
    "ContainerImage",
    "SIFImage",
    "containerImage",
    "environment",
    "registry",
    "sha256",
    "tag",
)


def problems(folder: str | Path, recommended: bool = False) -> list[str]:
    """Return the faults of a crate by the profile Workflow Run Crate and those that it extends.

    The addresses of terms come from the context in the library rocrate, so nothing is fetched.
    Raises MedscaleError when roc-validator is not installed, or there is no crate.

    Args:
        folder: the unpacked crate.
        recommended: check also what the profiles only recommend.
    """
    try:
        from rocrate_validator.models import Severity
        from rocrate_validator.services import validate
    except ImportError:
        raise MedscaleError(
            "roc-validator is not installed: pip install roc-validator, or leave --check out"
        ) from None
    metadata = read_json(Path(folder) / "ro-crate-metadata.json") | {"@context": _context()}
    severity = Severity.RECOMMENDED if recommended else Severity.REQUIRED
    settings: dict[str, Any] = {
        "rocrate_uri": str(folder),
        "package_root": Path(folder),
        "metadata_dict": metadata,
        "profile_identifier": PROFILE,
        "requirement_severity": severity,
        "no_cache": True,
        "skip_availability_check": True,
    }
    issues = validate(settings).get_issues(severity)
    return sorted({f"{issue.message} ({issue.violatingEntity or 'crate'})" for issue in issues})


def _context() -> dict[str, Any]:
    from rocrate.vocabs import RO_CRATE

    return {**RO_CRATE["@context"], **EARLIER, **{term: RUN + term for term in OF_RUN}}
