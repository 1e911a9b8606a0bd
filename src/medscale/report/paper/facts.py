"""Facts of the paper: the JSON files of all studies, put together for the templates.

The chapters declare the files. ``tables/<study>/facts.json`` begins a study; another file, such as
``tables/<study>/scaling.json``, becomes the study's entry of the same name (``scaling``).
A file holds raw values: the filters of ``medscale.report.paper.filters`` format them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medscale.base.files import read_json
from medscale.data.patients import NOT_KNOWN, PARTLY
from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.report.marks import STAND_IN, mark

STUDY = "facts"


def read_facts(paths: Sequence[Path], shared: Sequence[Path]) -> dict[str, Any]:
    """Return the variables of the templates: ``studies, scope, mark, demo`` and of ``shared``.

    ``mark`` names the stand-ins behind the results (empty without any), ``demo`` is true for the
    results of a demonstration, ``scope`` has facts about all studies (function ``scope``). Raises
    MedscaleError for a file that is missing or damaged.

    Args:
        paths: the studies' files of facts; studies are shown in this order.
        shared: files about all studies, ``tables/provenance.json`` and ``tables/synthesis.json``;
            each becomes the variable of its name.
    """
    studies = {path.parent.name: read_json(path) for path in paths if path.stem == STUDY}
    together = {path.stem: read_json(path) for path in shared}
    marks = list(together["provenance"]["marks"])
    for path in paths:
        if path.stem != STUDY:
            part = studies[path.parent.name][path.stem] = read_json(path)
            marks += part.get("marks", [])
    return {
        "studies": list(studies.values()),
        "scope": scope(list(studies.values())),
        **together,
        "mark": mark(marks),
        "demo": any(m["scale"] == "demo" for m in marks),
    }


def scope(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts that hold for all studies together, for sentences about them.

    ``project`` are titles of the project's own studies, whose experiments others published;
    ``personal`` those of a person's own images. ``parallel`` tells whether any run has several
    devices, ``scaled`` whether any study has such runs as well as runs on one device, ``compared``
    whether any study has more than one run. ``leaking`` are titles of studies with another split
    as a variant, ``unknown_patients`` those of studies whose patients are not known, and
    ``partly_known`` those where they are known of a part of the images. ``over`` names the units
    that intervals are over, ``prices`` the price of each kind of device; ``devices`` and
    ``precisions`` are in words.
    """
    runs = [run for study in studies for run in study["runs"]]
    kinds = [(run["device"], run["stand_in"]) for run in runs]
    names = {("cpu", False): "CPUs", ("gpu", False): "GPUs"}
    strategies = {name for run in runs for name in run["strategies"]}
    return {
        "runs": len(runs),
        "project": [study["title"] for study in studies if study["reported"]],
        "personal": [study["title"] for study in studies if study["personal"]],
        "parallel": any(run["devices"] > 1 for run in runs),
        "scaled": any(
            {run["devices"] > 1 for run in study["runs"]} == {False, True} for study in studies
        ),
        "compared": any(len(study["runs"]) > 1 for study in studies),
        "strategies": [name for name in STRATEGIES if name in strategies],
        "devices": list(dict.fromkeys(names.get(kind, STAND_IN) for kind in kinds)),
        "precisions": [
            name
            for name, mixed in (("full", False), ("mixed", True))
            if any(run["amp"] == mixed for run in runs)
        ],
        "networks": list(
            dict.fromkeys(
                name for study in studies for name in (study["model"]["name"], *study["networks"])
            )
        ),
        "stand_ins": any(run["stand_in"] for run in runs),
        "over": list(
            dict.fromkeys(unit for study in studies for unit in study["over"].split(" or "))
        ),
        "unknown_patients": [s["title"] for s in studies if s["patients"] == NOT_KNOWN],
        "partly_known": [s["title"] for s in studies if s["patients"] == PARTLY],
        "superlinear": any(study["scaling"]["superlinear"] for study in studies),
        "prices": _prices(studies),
        "leaking": [
            study["title"]
            for study in studies
            if study.get("variants", {}).get("changed", {}).get("split")
        ],
    }


def _prices(studies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the price of an hour of each kind of device, each once."""
    prices = [
        price | {"currency": study["scaling"]["currency"]}
        for study in studies
        for price in study["scaling"]["prices"]
    ]
    return list({price["title"]: price for price in prices}.values())
