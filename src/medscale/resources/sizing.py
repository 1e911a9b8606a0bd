"""The page of `medscale size`: needs of the planned studies on machines, and limits of growth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.configuration import Config
from medscale.resources import cost
from medscale.resources.growth import growth
from medscale.resources.workload import Machine, on, studies, totals, trainings


def text(
    config: Config, machines: Sequence[Machine], measured: Path, images: int, gpus: int
) -> str:
    """Return the page as Markdown: studies, machines, runs, growth.

    Args:
        config: the configuration with the section ``cost``.
        machines: machines to compare; the growth table is for the GPUs of the first.
        measured: path of docs/scale.csv.
        images: number of images in the growth table.
        gpus: number of GPUs in the growth table.

    Raises:
        MedscaleError: when the configuration does not describe a machine's kind of GPU.
    """
    _check_kinds(config, machines)
    devices = config.cost.devices
    sums = {f"{m.gpus} x {devices[m.gpu].title}": totals(config, m) for m in machines}
    growth_table = growth(on(config, machines[0]), measured, images, gpus).drop(columns="reached")
    units = zip(growth_table["breaks"], growth_table.pop("of"), strict=True)
    growth_table = growth_table.assign(breaks=[_breaks(value, unit) for value, unit in units])
    table = studies(config)
    parts = [
        "## What each study needs",
        _markdown(_with_sum(table)),
        *_assumed(config, list(table["study"])),
        "## On which machine how long",
        _machines(config, sums),
        "## Each run",
        _runs(config, machines),
        f"## {images:,} images on {gpus} GPUs ({devices[machines[0].gpu].title})",
        _markdown(growth_table),
    ]
    return "\n\n".join(parts) + "\n"


def facts(
    config: Config, machines: Sequence[Machine], measured: Path, images: int, gpus: int
) -> dict[str, Any]:
    """Return the numbers of the page for JSON; arguments and errors are those of ``text``."""
    _check_kinds(config, machines)
    names = [f"{machine.gpu}:{machine.gpus}" for machine in machines]
    growth_table = growth(on(config, machines[0]), measured, images, gpus)
    runs = [
        trainings(config, machine).assign(machine=name)
        for name, machine in zip(names, machines, strict=True)
    ]
    return {
        "currency": config.cost.currency,
        "studies": studies(config).to_dict("records"),
        "machines": [
            {"machine": name, **totals(config, machine)}
            for name, machine in zip(names, machines, strict=True)
        ],
        "runs": pd.concat(runs).to_dict("records"),
        "growth": {
            "images": images,
            "gpus": gpus,
            "machine": names[0],
            "stages": growth_table.to_dict("records"),
        },
    }


def _check_kinds(config: Config, machines: Sequence[Machine]) -> None:
    devices = config.cost.devices
    if unknown := [machine.gpu for machine in machines if machine.gpu not in devices]:
        raise MedscaleError(f"cost.devices has no {unknown[0]!r}; there are: {', '.join(devices)}")


def _machines(config: Config, sums: dict[str, dict[str, float]]) -> str:
    words = {
        "replicates": "replicates trained",
        "left_out": "replicates that need more GPUs than there are",
        "measured": "of the replicates, measured (the others estimated)",
        "gpu_hours": "GPU-hours",
        "core_hours": "core-hours of CPU runs",
        "preparation_hours": f"hours of index and shards on {config.node.cpus} cores",
        "one_at_a_time_hours": "hours, one training at a time (as timed)",
        "packed_hours": "hours, as many trainings at a time as fit",
        "energy_kwh": "kWh of the devices at full power",
        "money": config.cost.currency,
    }
    table = pd.DataFrame({"": list(words.values())})
    for name, values in sums.items():
        table[name] = [_round(values[key]) for key in words]
    return _markdown(table)


def _runs(config: Config, machines: Sequence[Machine]) -> str:
    """Return the minutes of a replicate of each run, with one column for each machine."""
    first_machine = trainings(config, machines[0])
    table = first_machine[["study", "run", "replicates"]].copy()
    for machine in machines:
        runs = trainings(config, machine)
        cells = zip(runs["minutes"], runs["measured"], runs["fits"], strict=True)
        table[f"min on {machine.gpus} x {machine.gpu}"] = [
            f"{_round(minutes)}{' (measured)' if measured else ''}" if fits else "-"
            for minutes, measured, fits in cells
        ]
    return _markdown(table)


def _with_sum(table: pd.DataFrame) -> pd.DataFrame:
    total = table.sum(numeric_only=True)
    return pd.concat(
        [table, pd.DataFrame([{"study": "all", **total.to_dict(), "images": float("nan")}])]
    )


def _assumed(config: Config, names: Sequence[str]) -> Iterator[str]:
    """Yield one paragraph that names the studies with an assumed number of images, or none."""
    if assumed := [name for name in names if cost.is_number_assumed(config, name)]:
        yield (
            f"The images of {', '.join(assumed)} are not counted yet: "
            f"{cost.expected_images(config, assumed[0]).images:,} are assumed "
            "(`cost.unknown_images`). The index of the study counts them."
        )


def _breaks(value: float, unit: str) -> str:
    return f"{float(f'{value:.2g}'):,.0f} {unit}" if math.isfinite(value) else "never"


def _round(value: object) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _markdown(table: pd.DataFrame) -> str:
    rows = [[_round(value) for value in row] for row in table.itertuples(index=False, name=None)]
    columns = [str(name).replace("_", " ") for name in table.columns]
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
