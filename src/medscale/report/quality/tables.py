"""Tables of tests between runs, operating points, confusions and ensembles, as LaTeX."""

from __future__ import annotations

import pandas as pd

from medscale.evaluate.paired import APART, APART_WITHIN, OPEN, SAME
from medscale.report.latex import escape, number, span, stacked, tabular
from medscale.report.names import label
from medscale.report.result.reading import records

FEW = 8  # classes up to which each has its operating points in the table
WORST = 5  # else these, of the lowest sensitivity
TOLD = 10  # confusions
UNIT = {"accuracy": (100, 1), "auroc": (1, 3), "nll": (1, 4)}
SAID = {SAME: "equal", APART_WITHIN: "apart, within", APART: "apart", OPEN: "undecided"}


def tests(table: pd.DataFrame) -> str:
    """Each run beside the baseline: ``paired.compare``'s table; of the p-values the adjusted ones."""
    rows = [
        [
            escape(label(row["run"])),
            f"{row['only_run']} / {row['only_baseline']}",
            f"{number(row['accuracy'], 1)} ({span(row['accuracy_low'], row['accuracy_high'], 1)})",
            _p(row["accuracy_p_holm"]),
            f"{number(row['auroc'], 3)} ({span(row['auroc_low'], row['auroc_high'], 3)})",
            _p(row["auroc_p_holm"]),
            SAID[row["reading"]],
        ]
        for row in records(table)
    ]
    heads = (
        r"right in one alone\\run / baseline",
        r"accuracy apart\\(points)",
        "p",
        r"AUROC\\apart",
        "p",
    )
    columns = [("l", "run"), *[("r", stacked(head)) for head in heads], ("l", "accuracy is")]
    return tabular(columns, rows or [["no other run", *["--"] * 6]])


def operating(table: pd.DataFrame) -> str:
    """Sensitivity and specificity at thresholds from the validation images; of many classes those that do worst."""
    shown, names = table, list(dict.fromkeys(table["class"]))
    if len(names) > FEW:
        first = table[table["wanted"] == table["wanted"].iloc[0]]
        worst = first.sort_values("sensitivity", kind="stable")["class"].head(WORST)
        shown = table[table["class"].isin(worst)]
    rows = [
        [
            escape(row["class"]),
            number(row["wanted"], 0, 100),
            number(row["threshold"], 3),
            str(int(row["positives"])),
            *[
                f"{number(row[rate], 1, 100)} ({span(row[f'{rate}_low'], row[f'{rate}_high'], 1, 100)})"
                for rate in ("sensitivity", "specificity")
            ],
        ]
        for row in records(shown)
    ]
    if len(names) > 1:
        for wanted, part in table.groupby("wanted"):
            means = [number(part[rate].mean(), 1, 100) for rate in ("sensitivity", "specificity")]
            rows.append(
                ["mean over all classes", number(float(str(wanted)), 0, 100), "", "", *means]
            )
    heads = (
        r"specificity in\\validation (\%)",
        "threshold",
        r"images of\\the class",
        r"sensitivity\\(\%)",
        r"specificity\\(\%)",
    )
    return tabular(
        [("l", "class"), *[("r", stacked(head)) for head in heads]],
        rows,
        rules_after=[len(shown) - 1],
    )


def confusions(table: pd.DataFrame) -> str:
    """The most frequent confusions: ``true, predicted, images, share``."""
    rows = [
        [
            escape(row["true"]),
            escape(row["predicted"]),
            f"{row['images']:.4g}",
            number(row["share"], 1, 100),
        ]
        for row in records(table.head(TOLD))
    ]
    columns = [
        ("l", "true class"),
        ("l", "taken for"),
        ("r", "images"),
        ("r", r"of the class (\%)"),
    ]
    return tabular(columns, rows or [["every image is right", "", "0", "0"]])


def ensemble(table: pd.DataFrame) -> str:
    """What averaging probabilities brings: ``ensembles.ensembles``'s table; of the values the accuracy."""
    rows = []
    for row in records(table):
        cells = [
            _ensemble(row["kind"], row["of"]),
            str(row["members"]),
            number(row["accuracy"], 1, 100),
        ]
        for metric, (scale, digits) in UNIT.items():
            gain = span(row[f"{metric}_gain_low"], row[f"{metric}_gain_high"], digits, scale)
            cells.append(f"{_signed(row[f'{metric}_gain'], digits, scale)} ({gain})")
        rows.append(cells)
    heads = (
        "members",
        r"accuracy\\(\%)",
        r"gain in\\points",
        r"change of\\AUROC",
        r"change of\\log loss",
    )
    columns = [("l", "mean probability of"), *[("r", stacked(head)) for head in heads]]
    return tabular(columns, rows or [["one network alone", "1", *["--"] * 4]])


def _ensemble(kind: str, of: str) -> str:
    words = {
        "replicates": "replicates of",
        "network": "all runs of",
        "all": "all runs and replicates",
    }[kind]
    return escape(f"{words} {label(of) if kind == 'replicates' else of}".strip())


def _signed(value: float, digits: int, scale: float) -> str:
    return ("+" if round(value * scale, digits) > 0 else "") + number(value, digits, scale)


def _p(value: float) -> str:
    return r"\ensuremath{<}0.001" if value < 0.001 else number(value, 3)
