"""Facts of the paper: the JSON files of all studies, put together for the templates.

The chapters declare the files. ``tables/<study>/facts.json`` begins a study; another file, such as
``tables/<study>/scaling.json``, becomes the study's entry of the same name (``scaling``).
A file holds raw values: the filters of ``medscale.report.paper.filters`` format them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medscale.base.files import read_json
from medscale.report.marks import mark

STUDY = "facts"


def read_facts(paths: Sequence[Path], provenance: Path) -> dict[str, Any]:
    """Return the variables of the templates: ``studies``, ``provenance``, ``mark`` and ``demo``.

    ``mark`` names the stand-ins behind the results (empty without any), ``demo`` is true for the
    results of a demonstration.

    Args:
        paths: the studies' files of facts; studies are shown in this order.
        provenance: ``tables/provenance.json``.

    Raises:
        MedscaleError: for a file that is missing or damaged.
    """
    studies = {path.parent.name: read_json(path) for path in paths if path.stem == STUDY}
    origin = read_json(provenance)
    marks = list(origin["marks"])
    for path in paths:
        if path.stem != STUDY:
            part = studies[path.parent.name][path.stem] = read_json(path)
            marks += part.get("marks", [])
    return {
        "studies": list(studies.values()),
        "provenance": origin,
        "mark": mark(marks),
        "demo": any(m["scale"] == "demo" for m in marks),
    }
