"""Goals of speed on one GPU against what was measured: a table of met, missed and not measured.

`python -m bench.gpu_goals FOLDER...` reads the results of one or several GPU sessions (`make
gpu-session`), of which later ones replace earlier ones, prints the table and needs no GPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import read_json
from medscale.engine.card_rates import COLUMNS, KEY, SOURCE

# Images a second of training in bf16 on one H200, by network, images a step, and way of the engine.
RATES = {
    ("medical_cnn", 32, "engine"): 5500,
    ("medical_cnn", 32, "engine_compiled"): 7700,
    ("efficientnet_b3", 64, "engine"): 2200,
    ("efficientnet_b3", 64, "engine_compiled"): 3050,
    ("efficientnet_b3", 256, "engine_compiled"): 3800,
    ("densenet121", 64, "engine"): 2150,
    ("resnet50", 256, "engine"): 4600,
}
CARDS = {"H200": 1.0, "H100": 0.75}  # share of these rates that a card has to reach
# Ways of the engine, and the plain loop of the same kind in the same run.
LOOPS = {"engine": "graph", "engine_compiled": "compiled_graph"}
SHARE_OF_LOOP, SHARE_OF_DDP, SHARE_OF_TF32 = 0.95, 0.9, 1.0  # least shares of another rate
WAIT = 0.01  # largest share of training in which the engine waits for batches
PUBLISHED_S = 45.0  # glaucoma's fastest run as published, from the command to the predictions
DONE = "done"  # status of a step without a fault
MET, MISSED, UNKNOWN = "met", "missed", "not measured"
GOAL_COLUMNS = ("goal", "needed", "measured", "result")
STEP_COLUMNS = ("step", "status", "seconds")
Rates = Mapping[tuple[str, int, str, str], float]  # by network, batch, format and way


@dataclass(frozen=True)
class Goal:
    """A limit, and the measured value; None if it was not measured."""

    goal: str
    limit: float
    value: float | None
    form: str = "{:,.0f}"
    most: bool = False  # whether the limit is the largest good value

    def row(self) -> dict[str, str]:
        """Return a row of the table."""
        sign = "≤" if self.most else "≥"
        row = {"goal": self.goal, "needed": f"{sign} {self.form.format(self.limit)}"}
        if self.value is None:
            return row | {"measured": "", "result": UNKNOWN}
        good = self.value <= self.limit if self.most else self.value >= self.limit
        return row | {"measured": self.form.format(self.value), "result": MET if good else MISSED}


def main(folders: list[Path]) -> None:
    """Print the table of the sessions in ``folders``."""
    print(text(*collect(folders)))


def collect(folders: Sequence[Path]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return the measured rates and the last result of each step of sessions."""
    tables = [pd.DataFrame(columns=list(COLUMNS))]
    steps: dict[str, dict[str, Any]] = {}
    for folder in folders:
        if not (folder / "session.json").is_file():
            raise MedscaleError(f"{folder} has no session.json; name folders of GPU sessions")
        results = read_json(folder / "session.json")
        steps |= {row["step"]: row for row in results if "seconds" in row}
        if (folder / "gpu.csv").is_file():
            tables.append(pd.read_csv(folder / "gpu.csv"))
    table = tables[0] if len(tables) == 1 else pd.concat(tables[1:])
    table = table.reindex(columns=list(COLUMNS))  # an older table has fewer
    table = table[table["source"] == SOURCE]  # a goal compares rates of the same session
    return table.drop_duplicates(list(KEY), keep="last"), list(steps.values())


def text(table: pd.DataFrame, steps: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of the goals for each card, and one of the steps."""
    published, session_card = _printed(steps, "published"), _printed(steps, "card").get("card", "")
    cards = {*map(str, table["card"]), *([session_card] if session_card else [])}
    parts = []
    for card in sorted(cards) or ["no card"]:
        card_rows = table[table["card"] == card]
        factor = next((share for name, share in CARDS.items() if name in card), None)
        rows = [
            goal.row()
            for goal in goals(card_rows, published if card == session_card else {}, factor)
        ]
        days = ", ".join(sorted(card_rows["date"].dropna().unique()))
        title = f"{card}, rates of {days}" if days else f"{card}, no rates"
        parts.append(f"## {title}\n\n{_markdown(GOAL_COLUMNS, rows)}\n")
    rows = [{name: str(step.get(name, "")) for name in STEP_COLUMNS} for step in steps]
    return "\n".join([*parts, f"## Steps\n\n{_markdown(STEP_COLUMNS, rows)}\n"])


def goals(table: pd.DataFrame, published: Mapping[str, Any], factor: float | None) -> list[Goal]:
    """Return the goals of one card.

    Args:
        table: rows of docs/gpu.csv of the card.
        published: result of the published run; empty if it did not end.
        factor: share of the H200's rates that the card has to reach; None: it has no such goals.
    """
    measured = table.dropna(subset=["images_per_second"])
    keys = measured[["network", "batch", "format", "way"]].itertuples(index=False, name=None)
    rates: Rates = dict(zip(keys, measured["images_per_second"], strict=True))
    result = []
    for (network, batch, way), least in RATES.items():
        rate = rates.get((network, batch, "bf16", way))
        name = f"{network}, {batch} a step" + (", compiled" if way != "engine" else "")
        if factor is not None:
            result.append(Goal(f"{name}: images/s", least * factor, rate))
        loop = rates.get((network, batch, "bf16", LOOPS[way]))
        share = rate / loop if rate and loop else None
        result.append(Goal(f"{name}: of the plain loop's graph", SHARE_OF_LOOP, share, "{:.2f}"))
    result += [*_fsdp_goals(rates), *_amp_goals(rates)]
    waits = [
        *table["data"].dropna(),
        *([published["data_share"]] if "data_share" in published else []),
    ]
    name = "waiting for batches, largest share of all runs of the engine"
    result.append(Goal(name, WAIT, max(waits, default=None), "{:.1%}", most=True))
    name = "glaucoma as published, from command to predictions: seconds"
    result.append(Goal(name, PUBLISHED_S, published.get("wall_s"), "{:.0f}", most=True))
    return result


def _fsdp_goals(rates: Rates) -> list[Goal]:
    """Return the goals of FSDP's rate as a share of DDP's on one card, for each measured cell."""
    cells = [
        key[:3] for key in rates if key[3] == "engine_fsdp" and (*key[:3], "engine_ddp") in rates
    ]
    return [
        Goal(
            "FSDP of DDP, {}, {} a step, {}".format(*cell),
            SHARE_OF_DDP,
            rates[(*cell, "engine_fsdp")] / rates[(*cell, "engine_ddp")],
            "{:.2f}",
        )
        for cell in cells
    ] or [Goal("FSDP of DDP", SHARE_OF_DDP, None, "{:.2f}")]


def _amp_goals(rates: Rates) -> list[Goal]:
    """Return the goals of the rate in bf16 as a share of that in tf32, for each measured cell."""
    cells = [
        (*key[:2], key[3])
        for key in rates
        if key[2] == "bf16" and key[3] in LOOPS and (*key[:2], "tf32", key[3]) in rates
    ]
    return [
        Goal(
            f"AMP of tf32, {network}, {batch} a step, {way}",
            SHARE_OF_TF32,
            rates[network, batch, "bf16", way] / rates[network, batch, "tf32", way],
            "{:.2f}",
        )
        for network, batch, way in cells
    ] or [Goal("AMP of tf32", SHARE_OF_TF32, None, "{:.2f}")]


def _printed(steps: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the JSON object that a step printed last; empty if it failed or did not run."""
    successes = [step for step in steps if step["step"] == name and step["status"] == DONE]
    lines = [line for step in successes for line in step["output"]]
    objects = [line for line in lines if line.startswith("{")]
    result: dict[str, Any] = json.loads(objects[-1]) if objects else {}
    return result


def _markdown(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    tell_user(typer.run)(main)
