"""Tables of a study, each as LaTeX (booktabs) and as CSV with every digit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medscale.base.files import write_csv, write_text
from medscale.report.latex import escape, number, significant, span, stacked, tabular
from medscale.report.names import label
from medscale.report.reported import in_words
from medscale.report.result.reading import Result, differences, records

SPLITS = ("train", "val", "test")
DAGGER = r"\textsuperscript{\textdagger}"


def write(folder: Path, name: str, text: str, table: pd.DataFrame) -> None:
    """Write ``folder/name.tex`` and ``folder/name.csv``."""
    write_text(folder / f"{name}.tex", text)
    write_csv(folder / f"{name}.csv", table)


def data(counts: pd.DataFrame, groups: dict[str, int]) -> str:
    """Images by class and split, with the patients or groups of each split.

    Args:
        counts: a row a class, columns train, val, test.
        groups: patients or groups by split, and under ``all`` each once.
    """
    rows = [
        [escape(str(name)), *_counts(row[list(SPLITS)]), f"{int(row.sum())}"]
        for name, row in counts.iterrows()
    ]
    rows.append(
        ["all images", *_counts(counts[list(SPLITS)].sum()), f"{int(counts.to_numpy().sum())}"]
    )
    rows.append(
        ["patients or groups", *[str(groups[split]) for split in SPLITS], str(groups["all"])]
    )
    columns = [("l", "class"), ("r", "training"), ("r", "validation"), ("r", "test"), ("r", "all")]
    return tabular(columns, rows, rules_after=[len(counts) - 1])


def audit(reasons: pd.DataFrame) -> str:
    """What was done with which files: columns ``action, reason, files``."""
    rows = [
        [escape(row["action"]), escape(row["reason"]), str(row["files"])]
        for row in records(reasons)
    ]
    return tabular(
        [("l", "what"), ("l", "reason"), ("r", "files")],
        rows or [["nothing was left out", "", "0"]],
    )


def results(found: Sequence[Result], baseline: str) -> tuple[str, pd.DataFrame]:
    """Accuracy, balanced accuracy, F1 and AUROC of the test images by run, and the difference from the baseline."""
    apart = {row["run"]: row for row in records(differences(found, baseline))}
    rows, flat = [], []
    for result in found:
        cells, record = (
            [_run(result)],
            {"run": result.name, "stand_in": result.summary["marks"]["stand_in"]},
        )
        for metric, scale, digits in (
            ("accuracy", 100, 1),
            ("balanced_accuracy", 100, 1),
            ("f1_macro", 100, 1),
            ("auroc", 1, 3),
        ):
            score = result.score(metric)
            cells.append(
                f"{number(score['mean'], digits, scale)} ({span(score['low'], score['high'], digits, scale)})"
            )
            record |= {f"{metric}_{key}": score[key] for key in ("mean", "low", "high", "seed_sd")}
        row = apart[result.name]
        cells.append(number(result.score("accuracy")["seed_sd"], 1, 100))
        cells.append(
            "baseline"
            if result.name == baseline
            else f"{number(row['mean'], 1)} ({span(row['low'], row['high'], 1)})"
        )
        rows.append(cells)
        flat.append(record | {f"difference_{key}": row[key] for key in ("mean", "low", "high")})
    heads = (
        "accuracy\\\\(\\%)",
        "balanced\\\\accuracy (\\%)",
        "macro F1\\\\(\\%)",
        "AUROC",
        "sd over\\\\seeds",
        "difference\\\\(points)",
    )
    return tabular([("l", "run"), *[("r", stacked(head)) for head in heads]], rows), pd.DataFrame(
        flat
    )


def per_class(result: Result) -> tuple[str, pd.DataFrame]:
    """Precision, recall, F1 and AUROC of each class in one run."""
    table, rows = result.per_class, []
    for name in result.classes:
        of_class = {row["metric"]: row for row in records(table[table["class"] == name])}
        cells = [escape(name), str(of_class["f1"]["support"])]
        for metric, scale, digits in (
            ("precision", 100, 1),
            ("recall", 100, 1),
            ("f1", 100, 1),
            ("auroc", 1, 3),
        ):
            row = of_class[metric]
            cells.append(
                f"{number(row['mean'], digits, scale)} ({span(row['low'], row['high'], digits, scale)})"
            )
        rows.append(cells)
    heads = ("images", "precision (\\%)", "recall (\\%)", "F1 (\\%)", "AUROC")
    return tabular([("l", "class"), *[("r", head) for head in heads]], rows), table


def timing(speedups: pd.DataFrame) -> str:
    """Seconds an epoch, throughput, speedup and efficiency by run, with the baseline that each counts from."""
    rows = []
    for row in records(speedups):
        rows.append(
            [
                escape(label(row["run"])) + (DAGGER if row["stand_in"] else ""),
                str(row["global_batch"]),
                str(row["threads"]),
                with_range(row["seconds"], row["seconds_low"], row["seconds_high"]),
                significant(row["images_per_second"]),
                with_range(row["speedup"], row["speedup_low"], row["speedup_high"], 2),
                number(row["efficiency"], 2),
                number(row["amp_gain"], 2),
                escape(label(row["baseline"])) if row["baseline"] else "none",
            ]
        )
    heads = (
        r"global\\batch",
        "threads",
        "s an epoch",
        "images/s",
        "speedup",
        r"effi-\\ciency",
        r"AMP\\gain",
    )
    aligned = [("l", "run"), *[("r", stacked(head)) for head in heads], ("l", "baseline")]
    return tabular(aligned, rows)


def parity(table: pd.DataFrame) -> str:
    """How far each run's training is from the baseline's."""
    rows = [
        [
            escape(label(row["run"])),
            f"{row['images']:.4g}" if row["images"] == row["images"] else "--",
            *(
                [significant(row["first"], 2), significant(row["largest"], 2)]
                if row["same_steps"]
                else ["--", "--"]
            ),
            number(row["accuracy"], 1),
        ]
        for row in records(table)
    ]
    heads = (
        r"images that a\\normalization sees",
        r"loss apart after\\the first epoch",
        r"loss apart\\at most",
    )
    aligned = [
        ("l", "run"),
        *[("r", stacked(head)) for head in (*heads, r"accuracy\\apart (points)")],
    ]
    return tabular(aligned, rows)


def reported(table: pd.DataFrame) -> str:
    """The published figures beside ours."""
    rows = []
    for row in records(table):
        unit = f" ({escape(row['unit'])})" if row["unit"] else ""
        high = f"--{row['reported_high']:g}" if row["reported_high"] == row["reported_high"] else ""
        rows.append(
            [
                escape(label(row["meant"]) if row["meant"] else in_words(row["item"])),
                escape(row["quantity"]) + unit,
                f"{row['reported']:g}{high}",
                significant(row["ours"]),
                escape(label(row["run"])) if row["run"] != row["meant"] else "",
                number(row["speedup_reported"], 2),
                number(row["speedup_ours"], 2),
                escape(label(row["against"]))
                if row["against"] not in ("", row["meant"], row["run"])
                else "",
            ]
        )
    heads = (
        ("l", "published of"),
        ("l", "quantity"),
        ("r", "reported"),
        ("r", "ours"),
        ("l", "ours of"),
    )
    speeds = [("r", stacked(head)) for head in (r"speedup\\reported", r"speedup\\ours")]
    return tabular([*heads, *speeds, ("l", "against")], rows)


def _run(result: Result) -> str:
    return escape(label(result.name)) + (DAGGER if result.summary["marks"]["stand_in"] else "")


def _counts(row: pd.Series) -> list[str]:
    return [str(int(value)) for value in row]


def with_range(value: float, low: float, high: float, digits: int | None = None) -> str:
    """A number and the ends of its range behind it, where it has one: with three significant digits, or decimals."""
    if value != value:
        return "--"
    middle, *ends = [
        significant(one) if digits is None else number(one, digits) for one in (value, low, high)
    ]
    return middle if low == high else f"{middle} ({'--'.join(ends)})"
