"""Declaration of the chapter scaling: speedup laws, and the cost until a target."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the files that the chapter is made from."""
    results = [*sources.classifications(config, study), *sources.detections(config, study)]
    return {
        "results": results,
        "histories": sources.in_replicates(config, study, results, "history.csv"),
        "reference": sources.reference_histories(config, study),
        "reported": sources.reported(config, study),
    }


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the settings of the target, and the prices of the kinds of devices."""
    cost = config.cost
    kinds = {"cuda": cost.devices.get(cost.gpu), "cpu": cost.devices.get(cost.cpu)}
    return {
        "target": sources.target(config, study),
        "currency": cost.currency,
        "devices": {
            backend: {"title": kind.title, "price": kind.price}
            for backend, kind in kinds.items()
            if kind is not None
        },
    }


CHAPTER = Chapter(
    "scaling",
    inputs,
    settings,
    figures={
        "scaling": "Speedup of *{study}* by series, with the laws that were fitted; published "
        "times, if there are any, have separate panels.",
        "cost": "Minutes, device-hours and money until the target of *{study}*.",
    },
    tables=dict.fromkeys(("scaling", "laws", "cost"), TABLE),
    unprinted=("scaling", "laws"),
    facts="scaling",
)
