"""Whether the report of a study is what the present settings, code and raw images make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.workflow.causes import FIRST_TIME, OTHER_IMAGE, missing_raw
from medscale.workflow.dag import planned
from medscale.workflow.graph import Graph
from medscale.workflow.why import explanation_of

REPORT = "paper"  # the rule that needs all results, figures and tables
# Causes that say nothing against the files that exist.
HARMLESS = {FIRST_TIME, OTHER_IMAGE}


def is_current(graph: Graph, changes: Mapping[str, Any]) -> bool | None:
    """Return whether the report's existing files are those that would be made now.

    False if a change of settings, code or raw images would replace some of them. None if this is
    not known: raw images are missing, or the study was restored from a crate, and nothing else has
    changed.

    Args:
        graph: the checked configuration.
        changes: the settings laid over config.yaml that made it.
    """
    try:
        with planned(graph, changes, REPORT, in_image=False) as dag:
            causes = set(explanation_of(graph, dag, REPORT).causes) - HARMLESS
    except MedscaleError:  # such as that of a folder without records
        return None
    unknown = {missing_raw(graph, study) for study in [*graph.trained, *graph.externals]}
    if causes - unknown:
        return False
    return None if causes or graph.restored is not None else True
