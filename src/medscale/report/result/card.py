"""The model card of a result: training, performance, and uses that are excluded."""

from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.provenance import hardware
from medscale.evaluate.boxes import NAMES as BOX_NAMES
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES
from medscale.report.markdown import fill
from medscale.report.marks import mark
from medscale.report.names import GROUPS, OVER, STATES, TOO_FEW, label
from medscale.report.result.origin import origins

TEMPLATE = Path(__file__).with_suffix(".md.j2")


def model_card(summary: dict[str, Any], per_class: pd.DataFrame | None) -> str:
    """Return the card as Markdown.

    ``per_class``: per_class.csv; None for a detection run.
    """
    machine = summary["environment"]
    variables = {
        "s": summary,
        "label": label(summary["run"]["name"]),
        "mark": mark([summary["marks"]]),
        "state": STATES[summary["patients"]],
        "over": OVER[summary["patients"]],
        "groups": GROUPS[summary["patients"]],
        "too_few": TOO_FEW,
        "names": NAMES | CALIBRATED | BOX_NAMES,
        "classes": [] if per_class is None else _classes(summary, per_class),
        "p": {"differ": summary["provenance"]["differ"], "replicates": origins(summary)},
        "thresholds": ", ".join(f"{threshold:.2f}" for threshold in summary.get("thresholds", [])),
        "hardware": hardware(machine),
        "n": _number,
        "interval": _interval,
    }
    return fill(TEMPLATE, variables)


def _classes(summary: dict[str, Any], per_class: pd.DataFrame) -> list[dict[str, Any]]:
    wide = per_class.pivot(index="class", columns="metric", values="mean").reindex(
        summary["classes"]
    )
    support = per_class.drop_duplicates("class").set_index("class")["support"]
    return [
        {"name": name, "support": int(support[name]), **wide.loc[name].to_dict()}
        for name in wide.index
    ]


def _interval(low: float | None, high: float | None) -> str:
    """Return an interval; a dash if it is undefined."""
    ends = [_number(low), _number(high)]
    return "–" if "–" in ends else "–".join(ends)


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
