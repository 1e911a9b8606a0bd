"""Declaration of the chapter claims: statements of the paper, measured anew, with verdicts."""

from collections.abc import Sequence
from typing import Any

from medscale.config.configuration import Config
from medscale.report.chapter import Chapter, Inputs
from medscale.report.claims.planned import Planned, plan_claims

VERDICTS = (
    "Each statement of the paper and each conclusion of the published projects that it repeats: "
    "the measured value with its 95 % interval, the accepted values, and the verdict."
)
ARTEFACT = "For each claim the target that makes its inputs, and its time and hardware."


def inputs(config: Config, study: str) -> Inputs:
    """Return the files that the claims are measured from."""
    return {"files": paths(plan_claims(config))}


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the claims with their runs and accepted values."""
    return {"claims": [claim.model_dump() for claim in plan_claims(config)]}


def paths(claims: Sequence[Planned]) -> list[str]:
    """Return the files that claims are measured from, where the configuration makes them."""
    files = [path for claim in claims if not claim.absent for path in claim.inputs]
    return list(dict.fromkeys(files))


CHAPTER = Chapter(
    "claims",
    inputs,
    settings,
    tables={"claims": VERDICTS, "artefact": ARTEFACT},
    facts="claims",
    spans_studies=True,
    cites_outputs=True,
)
