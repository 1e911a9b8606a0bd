"""A result in the terminal: what was trained on what, how well it does, how long an epoch took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.evaluate.boxes import NAMES as BOX_NAMES
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES, in_percent
from medscale.report.marks import mark
from medscale.report.names import label

BAR = 20  # letters of a full bar


def show(folder: str | Path) -> Iterator[str | Table]:
    """Lines and tables, for rich, of a result folder (a classification's or a detection's).

    Raises:
        MedscaleError: when it is no result folder.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise MedscaleError(
            f"{folder} is no result: it has no summary.json; results are results/<study>/<run>"
        )
    summary = read_json(folder / "summary.json")
    yield f"[bold]{escape(summary['study'])}: {escape(summary['model']['name'])}, {label(summary['run']['name'])}[/]"
    if seen := mark([summary["marks"]]):
        yield f"[yellow]{escape(seen)}[/]"
    counts, seeds = summary["counts"], ", ".join(map(str, summary["seeds"]))
    yield (
        f"{summary['timing']['train_images']} training, {counts['val']['images']} validation, "
        f"{counts['test']['images']} test images of {counts['test']['groups']} patients or groups; seeds {seeds}\n"
    )
    yield _metrics(summary)
    if "classes" in summary:
        yield from _classification(summary, folder)
    clock, devices = summary["timing"], summary["run"]["devices"]
    one = ("process", "processes") if summary["backend"] == "cpu" else ("GPU", "GPUs")
    yield (
        f"\n{_number(clock['seconds_per_epoch']['mean'])} s an epoch, "
        f"{_number(clock['images_per_second']['mean'])} images/s, {devices} {one[devices > 1]}; "
        f"global batch {summary['global_batch']}"
    )
    environment = summary["environment"]
    dirty = ", with changes" if environment["dirty"] else ""
    yield f"code {(environment['commit'] or 'without a git commit')[:12]}{dirty}"
    yield f"figures: {', '.join(sorted(file.name for file in folder.glob('*.pdf')))}"


def _metrics(summary: dict[str, Any]) -> Table:
    names = NAMES | CALIBRATED | BOX_NAMES
    table = Table(
        "metric", "test", "95 % interval", "sd over seeds", "validation", box=None, pad_edge=False
    )
    val = summary["metrics"].get("val", {})
    test = summary["metrics"]["test"]
    for name in sorted(test, key=list(names).index):
        score = test[name]
        scale = 100 if in_percent(name) and name in NAMES else 1
        low, high, sd = (_number(score[key], scale) for key in ("low", "high", "seed_sd"))
        words = names[name] + (" (%)" if scale == 100 else "")
        other = _number(val[name]["mean"], scale) if name in val else ""
        table.add_row(
            words, f"[bold]{_number(score['mean'], scale)}[/]", f"{low} to {high}", sd, other
        )
    return table


def _classification(summary: dict[str, Any], folder: Path) -> Iterator[str | Table]:
    confusion, classes = summary["confusion"], summary["classes"]
    table = Table(
        "class",
        "images",
        "recall",
        "",
        "most often taken for",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    replicates = len(summary["seeds"])
    for code, name in enumerate(classes):
        row, images = confusion[code], sum(confusion[code])
        share = row[code] / images if images else 0.0
        wrong = [
            (count, classes[other]) for other, count in enumerate(row) if other != code and count
        ]
        most = max(wrong, default=None, key=lambda pair: pair[0])
        said = f"{escape(most[1])} ({100 * most[0] / images:.0f} %)" if most else ""
        bar = "█" * round(BAR * share)
        told = f"{100 * share:.1f} %" if images else "–"
        table.add_row(
            escape(name), f"{images / replicates:g}", told, f"[blue]{bar:<{BAR}}[/]", said
        )
    yield ""
    yield table
    points = Table(
        "class", "validation specificity", "sensitivity", "specificity", box=None, pad_edge=False
    )
    for row in summary["operating"][:10]:
        rates = [
            f"{_number(row[rate], 100)} % ({_number(row[f'{rate}_low'], 100)} to {_number(row[f'{rate}_high'], 100)})"
            for rate in ("sensitivity", "specificity")
        ]
        points.add_row(escape(row["class"]), f"{100 * row['wanted']:g} %", *rates)
    yield ""
    yield points
    parts = [
        row for row in summary["subgroups"] if row["by"] != "all" and row["metric"] == "accuracy"
    ]
    if parts:
        groups = Table("subgroup", "images", "accuracy", "95 % interval", box=None, pad_edge=False)
        for row in parts:
            low, high = (_number(row[key], 100) for key in ("low", "high"))
            groups.add_row(
                f"{row['by']}: {escape(row['part'])}",
                str(row["images"]),
                _number(row["mean"], 100),
                f"{low} to {high}",
            )
        yield ""
        yield groups
    if (temperature := summary["calibration"]["temperature"]) is not None:
        yield f"\ntemperature {temperature:.2f}, fitted on the validation images"


def _number(value: float | None, scale: float = 1) -> str:
    if value is None:
        return "–"
    return f"{scale * value:.1f}" if scale == 100 else f"{value:#.3g}"
