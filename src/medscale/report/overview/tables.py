"""Tables of a study's data, scores and times, as LaTeX."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from medscale.base.text import latex
from medscale.data.patients import NOT_KNOWN
from medscale.data.settings import SPLITS
from medscale.report.latex import number, significant, tabular
from medscale.report.names import SPLITS_IN_WORDS, label
from medscale.report.overview.linear import Linear
from medscale.report.overview.linear import rows as reference_rows
from medscale.report.reported import in_words
from medscale.report.result.reading import Result, differences, records
from medscale.report.tables import Column, by_run, class_cell, interval, left, right, table

Scores = dict[tuple[str, str], Any]  # of classes, by class and metric
SCORES = (  # metric, heading, scale, decimals
    ("accuracy", r"accuracy\\(\%)", 100, 1),
    ("balanced_accuracy", r"balanced\\accuracy (\%)", 100, 1),
    ("f1_macro", r"macro F1\\(\%)", 100, 1),
    ("auroc", "AUROC", 1, 3),
)
CLASS_SCORES = (
    ("precision", r"precision (\%)", 100, 1),
    ("recall", r"recall (\%)", 100, 1),
    ("f1", r"F1 (\%)", 100, 1),
    ("auroc", "AUROC", 1, 3),
)


def data(counts: pd.DataFrame, groups: dict[str, int], patients: str) -> str:
    """Return images by class and split, and the patients or groups of each split.

    Args:
        counts: a row for each class, columns train, val, test.
        groups: patients or groups by split, and under ``all`` each once.
        patients: whether the patients are known.
    """
    name_of_groups = "groups" if patients == NOT_KNOWN else "patients or groups"
    lines = [(class_cell(name), [*row, row.sum()]) for name, row in counts[[*SPLITS]].iterrows()]
    total = counts[[*SPLITS]].sum()
    lines.append(("all images", [*total, total.sum()]))
    lines.append((name_of_groups, [groups[part] for part in (*SPLITS, "all")]))
    longest = max(len(str(name)) for name in counts.index)
    # Beside the samples there is half of the page: long names are broken into lines.
    of_names = "l" if longest <= 24 else r">{\raggedright\arraybackslash}p{3.4cm}"
    columns = [(of_names, "class"), *[("r", SPLITS_IN_WORDS[part]) for part in (*SPLITS, "all")]]
    cells = [[name, *[str(int(value)) for value in values]] for name, values in lines]
    return tabular(columns, cells, rules_after=[len(counts) - 1])


def audit(reasons: pd.DataFrame) -> str:
    """Return the number of files by action and reason."""
    columns = [
        left("decision", lambda row: latex(row["action"])),
        left("reason", lambda row: latex(row["reason"])),
        Column("r", "files", lambda row: str(row["files"])),
    ]
    placeholder = [] if len(reasons) else [["nothing was left out", "", "0"]]
    return table(records(reasons), columns, further=placeholder)


def _folds_note(result: Result) -> str:
    """Return how the scores of a cross-validation are made; empty without folds."""
    folds = result.summary.get("folds")
    return "" if folds is None else f" ({folds['count']}-fold, pooled out-of-fold)"


def _score_row(result: Result, difference: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a run and its difference from the baseline."""
    row = {"run": result.name, "stand_in": result.summary["marks"]["stand_in"]}
    row["format"] = result.summary["format"]
    for metric, *_ in SCORES:
        score = result.score(metric)
        row |= {f"{metric}_{key}": score[key] for key in ("mean", "low", "high", "seed_sd")}
    return row | {f"difference_{key}": difference[key] for key in ("mean", "low", "high")}


def results(runs: Sequence[Result], baseline: str, linear: Linear) -> tuple[str, pd.DataFrame]:
    """Return the scores of each run on the test images and its difference from the baseline.

    The last rows are the linear reference and the most frequent class. A single run has no column
    of differences. A run whose scores are equal to those of an earlier one, digit for digit, as of
    a stand-in, is named with that run and without numbers.
    """
    several = len(runs) > 1
    rows = [
        _score_row(result, difference)
        for result, difference in zip(runs, records(differences(runs, baseline)), strict=True)
    ]
    first = _first_of_equals(runs)

    def apart(row: dict[str, Any]) -> str:
        if first[row["run"]] != row["run"]:
            return ""
        if row["run"] == baseline:
            return "baseline" if several else ""
        return interval(row, 1, prefix="difference_")

    def of_first(cell: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
        return lambda row: cell(row) if first[row["run"]] == row["run"] else ""

    def run_cell(row: dict[str, Any]) -> str:
        same = first[row["run"]]
        return by_run()(row) + ("" if same == row["run"] else f": scores as {latex(label(same))}")

    columns = [
        left(f"run{_folds_note(runs[0])}", run_cell),
        *[
            right(heading, of_first(_score_cell(f"{metric}_", digits, scale)))
            for metric, heading, scale, digits in SCORES
        ],
        right(
            r"sd over\\seeds (points)",
            of_first(lambda row: number(row["accuracy_seed_sd"], 1, 100)),
        ),
        right(r"difference\\(points)", apart),
    ]
    references = reference_rows(linear, [metric for metric, *_ in SCORES])
    cells = [
        [
            latex(row["run"]),
            *[_reference_cell(row, metric, digits, scale) for metric, _, scale, digits in SCORES],
            "",
            "",
        ]
        for row in references
    ]
    text = table(rows, columns, further=cells, rules_after=[len(rows) - 1])
    return text, pd.DataFrame([*rows, *references])


def _first_of_equals(runs: Sequence[Result]) -> dict[str, str]:
    """Return, for each run, the first run with the same scores of each seed."""
    by_scores: dict[str, str] = {}
    return {
        result.name: by_scores.setdefault(
            str([result.score(metric)["values"] for metric, *_ in SCORES]), result.name
        )
        for result in runs
    }


def _reference_cell(row: dict[str, Any], metric: str, digits: int, scale: float) -> str:
    """Return a score of a reference, with its interval if it has one."""
    if f"{metric}_mean" not in row:
        return ""
    if f"{metric}_low" not in row:
        return number(row[f"{metric}_mean"], digits, scale)
    return interval(row, digits, scale, f"{metric}_")


def per_class(result: Result) -> str:
    """Return precision, recall, F1 and AUROC of each class in one run."""
    by_metric = {(row["class"], row["metric"]): row for row in records(result.per_class)}
    columns = [
        left("class", lambda row: class_cell(row["class"])),
        Column("r", "images", lambda row: str(by_metric[row["class"], "f1"]["support"])),
        *[
            Column("r", heading, _class_cell(by_metric, metric, digits, scale))
            for metric, heading, scale, digits in CLASS_SCORES
        ],
    ]
    # Rows are mappings, since a row of text would be a heading.
    return table([{"class": name} for name in result.classes], columns)


def reported(published: pd.DataFrame) -> str:
    """Return the published figures that have a counterpart here, with it; all if none has one."""
    paired = published[["ours", "speedup_ours"]].notna().any(axis=1)
    if paired.any():
        published = published[paired]

    def quantity(row: dict[str, Any]) -> str:
        return latex(row["quantity"]) + (f" ({latex(row['unit'])})" if row["unit"] else "")

    def value(row: dict[str, Any]) -> str:
        high = row["reported_high"]
        return f"{row['reported']:g}" + (f"--{high:g}" if high == high else "")

    def measured_cell(row: dict[str, Any]) -> str:
        if row["unit"] == "min" and row["ours"] < 1:
            return rf"{significant(60 * row['ours'])}\,s"
        return significant(row["ours"])

    def against(row: dict[str, Any]) -> str:
        plain = row["against"] in ("", row["meant"], row["run"])
        return "" if plain else latex(label(row["against"]))

    columns = [
        left(
            "published run",
            lambda row: latex(label(row["meant"]) if row["meant"] else in_words(row["item"])),
        ),
        left("quantity", quantity),
        Column("r", "reported", value),
        Column("r", "ours", measured_cell),
        left("format", lambda row: latex(row["format"])),
        left(
            "our run, if another",
            lambda row: latex(label(row["run"])) if row["run"] != row["meant"] else "",
        ),
        right(r"speedup\\reported", lambda row: number(row["speedup_reported"], 2)),
        right(r"speedup\\ours", lambda row: number(row["speedup_ours"], 2)),
        right(r"speedup\\against", against),
    ]
    return table(records(published), columns)


def _score_cell(prefix: str, digits: int, scale: float) -> Any:
    return lambda row: interval(row, digits, scale, prefix)


def _class_cell(by_metric: Scores, metric: str, digits: int, scale: float) -> Any:
    return lambda row: interval(by_metric[row["class"], metric], digits, scale)
