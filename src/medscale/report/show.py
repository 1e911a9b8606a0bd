"""A result in the terminal: training, metrics, and time of an epoch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from medscale.base.console import plain
from medscale.base.files import read_json
from medscale.base.paths import INFERENCE, evaluated_result, is_external, workdir_of
from medscale.data.patients import KNOWN, NOT_KNOWN, PARTLY
from medscale.evaluate.boxes import NAMES as BOX_NAMES
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES, in_percent
from medscale.report.marks import STAND_IN, mark
from medscale.report.names import GROUPS, OVER, STATES, TOO_FEW, class_name, label
from medscale.report.result.summary import read_summary

# Metrics in an overview of results, whose lines have 80 letters for short names of runs.
OF_CLASSES = {"accuracy": "accuracy (%)", "auroc": "AUROC"}
OF_BOXES = {"map50": "mAP50", "map_challenge": "challenge mAP"}
BAR = 20  # letters of a full bar
WITH_TEMPERATURE = ", with the temperature"  # end of a metric's name
TOO_SMALL = "too few images"  # in place of a subgroup's interval
# What the networks that test an image were not trained on, by whether the patients are known.
PARTS = {KNOWN: "patient", PARTLY: "fold", NOT_KNOWN: "fold"}
POINTS = 10  # operating points that are shown


def show(folder: str | Path) -> Iterator[str | Table]:
    """Yield lines and tables, for rich, of the result folder of a classification or detection.

    Raises MedscaleError when it is no result folder.
    """
    folder = evaluated_result(folder)
    summary, titles = read_summary(folder), class_titles(folder)
    name = f"{summary['study']}: {summary['model']['name']}"
    yield f"[bold]{plain(name)}, {label(summary['run']['name'])}[/]"
    if words := mark([summary["marks"]]):
        yield f"[yellow]{plain(words)}[/]"
    state = summary["patients"]
    groups = GROUPS[state].split(" (")[0]  # the next line says whether patients are known
    counts, seeds = summary["counts"], ", ".join(map(str, summary["seeds"]))
    folds = summary.get("folds")
    if folds is None:
        yield (
            f"{summary['timing']['train_images']} training, {counts['val']['images']} validation, "
            f"{counts['test']['images']} test images of {counts['test']['groups']} {groups}; "
            f"seeds {seeds}"
        )
    else:
        yield (
            f"{folds['count']}-fold cross-validation, pooled out-of-fold: "
            f"{counts['test']['images']} images of {counts['test']['groups']} {groups}, each "
            f"tested by networks that were not trained on its {PARTS[state]}; about "
            f"{summary['timing']['train_images']} training images a fold; seeds {seeds}"
        )
    yield f"95 % intervals are over {OVER[state]}: {STATES[state]}\n"
    yield _metrics(summary)
    if folds is not None:
        yield "\nmean over folds, interval for other training images too (Nadeau & Bengio 2003)"
        yield _folds(folds)
    if left_out := summary.get("not_averaged"):
        names = ", ".join(class_name(name, titles) for name in left_out)
        yield f"averages over classes leave out {plain(names)}: {TOO_FEW}"
    yield from _reference(folder, summary, titles)
    if "classes" in summary:
        yield from _classification(summary, titles)
    yield _speed(summary)
    environment = summary["environment"]
    changes = ", with changes" if environment["dirty"] else ""
    yield plain(f"code {(environment['commit'] or 'without a git commit')[:12]}{changes}")
    figures = ", ".join(sorted(file.name for file in folder.glob("*.pdf")))
    yield plain(f"figures in {folder}/: {figures}")


def listing(folders: Sequence[Path]) -> Iterator[str | Table]:
    """Yield the results below each folder as tables, and their stand-ins."""
    by_parent: dict[Path, dict[str, dict[str, Any]]] = {}
    for folder in folders:
        summary = read_summary(folder, is_external=is_external(folder))
        by_parent.setdefault(folder.parent, {})[folder.name] = summary
    for parent, summaries in by_parent.items():
        yield f"[bold]{plain(str(parent))}/[/]"
        yield from overview(summaries)
    yield from legend([summary for group in by_parent.values() for summary in group.values()])


def overview(summaries: Mapping[str, dict[str, Any]]) -> Iterator[Table]:
    """Yield a table of results of classification and one of detection, with a row for each run.

    An evaluation on external images has no time of an epoch.
    """
    for is_detection, metrics in ((False, OF_CLASSES), (True, OF_BOXES)):
        rows = {n: s for n, s in summaries.items() if bool(s.get("detect")) == is_detection}
        if not rows:
            continue
        table = Table("run", *metrics.values(), "s/epoch", box=None)
        for name, summary in rows.items():
            scores = [_score(metric, summary["metrics"]["test"][metric]) for metric in metrics]
            timing = summary.get("timing")
            clock = _number(timing["seconds_per_epoch"]["mean"]) if timing else ""
            sign = "†" if summary["marks"]["stand_in"] else ""
            table.add_row(f"{plain(name)}{sign}", *scores, clock)
        yield table


def legend(summaries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a line on intervals, and a line on stand-ins in results."""
    summaries = list(summaries)
    marks = [summary["marks"] for summary in summaries]
    if marks:
        images = "external" if all("shift" in summary for summary in summaries) else "test"
        yield f"On the {images} images, with 95 % intervals."
    if words := mark(marks):
        yield f"[yellow]{plain(words.replace(STAND_IN, f'{STAND_IN} (†)'))}[/]"


def _scale(metric: str) -> int:
    """Return 100 for a metric that is printed in percent, otherwise 1."""
    return 100 if metric in NAMES and in_percent(metric) else 1


def _score(metric: str, score: dict[str, float | None]) -> str:
    mean, low, high = (_number(score[key], _scale(metric)) for key in ("mean", "low", "high"))
    return mean if score["low"] is None else f"{mean} ({low} to {high})"


def _interval(low: str, high: str) -> str:
    """Return an interval whose ends are texts of ``_number``; a dash if an end is undefined."""
    return "–" if "–" in (low, high) else f"{low} to {high}"


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def _speed(summary: dict[str, Any]) -> str:
    timing, devices = summary["timing"], summary["run"]["devices"]
    unit = ("process", "processes") if summary["backend"] == "cpu" else ("GPU", "GPUs")
    return (
        f"\nin {summary['format']}, {_number(timing['seconds_per_epoch']['mean'])} s an epoch, "
        f"{timing['images_per_second']['mean']:,.0f} images/s, {devices} {unit[devices > 1]}; "
        f"global batch {summary['global_batch']}"
    )


def _metrics(summary: dict[str, Any]) -> Table:
    names = NAMES | CALIBRATED | BOX_NAMES
    table = _table("metric", "test", "95 % interval", "seed sd", "val.")
    test, val = summary["metrics"]["test"], summary["metrics"].get("val", {})
    for metric in sorted(test, key=list(names).index):
        score = test[metric]
        scale = _scale(metric)
        mean, low, high, sd = (
            _number(score[key], scale) for key in ("mean", "low", "high", "seed_sd")
        )
        of_val = _number(val[metric]["mean"], scale) if metric in val else ""
        words = names[metric].replace(WITH_TEMPERATURE, ", calibrated")
        words += " (%)" if scale == 100 else ""
        table.add_row(words, f"[bold]{mean}[/]", _interval(low, high), sd, of_val)
    return table


def _folds(folds: dict[str, Any]) -> Table:
    """Return each metric's mean over folds, its interval and its value in each fold."""
    numbers = [f"fold {fold}" for fold in range(1, folds["count"] + 1)]
    table = _table("metric", "mean", "95 % interval", "sd over folds", *numbers)
    for metric, score in folds["metrics"].items():
        scale = 100 if in_percent(metric) else 1
        names = ("mean", "low", "high", "sd")
        mean, low, high, sd = (_number(score[name], scale) for name in names)
        values = [_number(value, scale) for value in score["values"]]
        words = NAMES[metric] + (" (%)" if scale == 100 else "")
        table.add_row(words, f"[bold]{mean}[/]", _interval(low, high), sd, *values)
    return table


def _reference(folder: Path, summary: dict[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """Yield a line on the study's linear reference, if it lies in the same working folder."""
    file = workdir_of(folder) / "measured" / summary["study"] / "reference.json"
    if "classes" not in summary or not file.is_file():
        return
    linear = read_json(file)
    auroc, most = linear["metrics"]["test"]["auroc"], linear["majority"]
    mean, low, high = (_number(auroc[key]) for key in ("mean", "low", "high"))
    accuracy = _number(linear["metrics"]["test"]["accuracy"]["mean"], 100)
    name = plain(class_name(most["class"], titles))
    yield f"\nlinear reference: AUROC {mean} ({_interval(low, high)}), accuracy {accuracy} %"
    yield f"most frequent class: {name}, {_number(most['share'], 100)} % of the test images"


def class_titles(folder: Path) -> dict[str, str]:
    """Return the titles of a result's classes; results of earlier versions have none."""
    file = folder / INFERENCE
    return dict(read_json(file).get("class_titles", {})) if file.is_file() else {}


def _classification(summary: dict[str, Any], titles: Mapping[str, str]) -> Iterator[str | Table]:
    yield ""
    yield _classes(summary, titles)
    yield ""
    for row in summary["operating"][:POINTS]:
        yield from operating_point(row, titles)
    groups = _table("subgroup", "images", "accuracy", "95 % interval")
    for row in summary["subgroups"]:
        if row["by"] != "all" and row["metric"] == "accuracy":
            mean, low, high = (_number(row[key], 100) for key in ("mean", "low", "high"))
            name = plain(f"{row['by']}: {row['part']}")
            interval = _interval(low, high) if row["mean"] is not None else TOO_SMALL
            groups.add_row(name, str(row["images"]), mean, interval)
    if groups.row_count:
        yield ""
        yield groups
    if (temperature := summary["calibration"]["temperature"]) is not None:
        yield f"\ncalibrated: by the temperature {temperature:.2f}, fitted on the validation images"


def operating_point(row: dict[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """Yield lines, of at most 80 letters for short names of classes, on an operating point."""

    def rate(name: str) -> str:
        if row.get(name) is None:  # undefined, or a result of an earlier version
            return "–"
        value, low, high = (_number(row[f"{name}{end}"], 100) for end in ("", "_low", "_high"))
        return f"{value} % ({low} to {high})" if low != "–" else f"{value} % (no interval)"

    specificity_text = f"{100 * row['wanted']:g} %"
    name = class_name(row["class"], titles)
    yield f"[bold]{plain(name)}[/], at a validation specificity of {specificity_text}"
    yield f"  sensitivity {rate('sensitivity')}, specificity {rate('specificity')}"
    prevalence = _number(row.get("prevalence"), 100)
    yield f"  PPV {rate('ppv')}, NPV {rate('npv')} at prevalence {prevalence} %"


def _classes(summary: dict[str, Any], titles: Mapping[str, str]) -> Table:
    """Return recall and the most frequent confusion of each class."""
    classes = [class_name(name, titles) for name in summary["classes"]]
    replicates = len(summary["seeds"])
    table = _table("class", "images", "recall", "", "most often taken for")
    for code, (name, row) in enumerate(zip(classes, summary["confusion"], strict=True)):
        images = sum(row)
        share = row[code] / images if images else 0.0
        wrong = [(n, classes[other]) for other, n in enumerate(row) if other != code and n]
        confusion = ""
        if wrong:
            count, predicted = max(wrong, key=lambda pair: pair[0])
            confusion = f"{plain(predicted)} ({100 * count / images:.0f} %)"
        recall = f"{100 * share:.1f} %" if images else "–"
        bar = f"[blue]{'█' * round(BAR * share):<{BAR}}[/]"
        table.add_row(plain(name), f"{images / replicates:g}", recall, bar, confusion)
    return table


def _number(value: float | None, scale: float = 1) -> str:
    if value is None:
        return "–"
    if scale == 100:
        return f"{scale * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")
