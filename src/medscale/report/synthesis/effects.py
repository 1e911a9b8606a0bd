"""Effects compared across studies: another split, parallel training, published speedups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.files import read_table
from medscale.data.leaks import shared_with_training
from medscale.engine.run import RunSpec
from medscale.evaluate.verdicts import independent_difference
from medscale.measure.scaling.series import Series
from medscale.report.names import label
from medscale.report.result.reading import records
from medscale.report.synthesis.runs import StudyRuns, compared

EFFECTS = ["title", "kind", "words", "accuracy", "accuracy_other"]
EFFECTS += ["change", "change_low", "change_high", "replicates", "replicates_other"]
EFFECTS += ["amp", "mode"]
IMAGES = ["train", "train_other", "test_other", "copies", "shared_groups"]  # of another split
EFFECTS += IMAGES
ACCURACY = "accuracy"  # the quantity of the table reported.csv
PAIRS = ["title", "run", "speedup_reported", "speedup", "speedup_low", "speedup_high", "stand_in"]
ENDS = ("", "_low", "_high")
SCORE = ("mean", "low", "high")


def split_effects(
    studies: Sequence[StudyRuns],
    runs: pd.DataFrame,
    variants: Sequence[str],
    indexes: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the change of accuracy by another split and the largest by parallel training.

    Each study with another split as a variant has a row for each such variant (``kind`` split:
    the variant's accuracy minus the study's, of the same run; the test images differ, so that the
    interval is that of two independent samples) and one for its parallel run with the largest
    change of accuracy (``kind`` parallel; the same test images, a paired interval).

    ``replicates`` counts the seeds of the first accuracy, ``replicates_other`` of the second.
    ``mode`` is the split of the second. ``amp`` tells whether the parallel run has mixed precision
    and the baseline has not. ``train``, ``train_other`` and ``test_other`` count images; of the
    test images of the other split, ``copies`` are exact copies of training images and
    ``shared_groups`` have a patient or near-duplicates in training (NaN without an index).

    Args:
        variants: the tables variants.csv.
        indexes: the files index.parquet of these studies and variants.
    """
    images = {Path(path).parent.name: _images(path) for path in indexes}
    tables = {Path(path).parent.name: read_table(path) for path in variants}
    rows: list[dict[str, Any]] = []
    for study in studies:
        splits = {n: v for n, v in study.variants.items() if v["split"] != study.split}
        if study.name in tables and splits:
            rows += _of_splits(study, tables[study.name], splits, images)
            rows += _of_parallel(study, runs)
    return pd.DataFrame(rows, columns=EFFECTS)


def _images(path: str) -> dict[str, int]:
    """Return the number of training and test images of an index, and of test images that leak.

    Raises MedscaleError when the index is missing or damaged.
    """
    index = read_table(path)
    images = index["split"].value_counts()
    return {
        "train": int(images.get("train", 0)),
        "test": int(images.get("test", 0)),
        "copies": shared_with_training(index, "sha256"),
        "shared_groups": shared_with_training(index, "group"),
    }


def published_pairs(
    studies: Sequence[StudyRuns], runs: pd.DataFrame, series: Mapping[str, list[Series]]
) -> pd.DataFrame:
    """Return the published speedups of runs that were carried out here, with the measured ones.

    Args:
        series: measured series by study, which give the interval of the measured speedup.
    """
    rows = []
    for study in studies:
        measured = {
            row["run"]: row | {"stand_in": line.stand_in}
            for line in series[study.name]
            for row in records(line.table().iloc[1:])
        }
        table = study.tables["reported"]
        if not len(table):
            continue
        same = table[table["speedup_reported"].notna() & (table["run"] == table["meant"])]
        for row in records(same.drop_duplicates("run")):
            measurement = measured.get(row["run"])
            if measurement is None:
                continue
            ends = {"": measurement["speedup"], "_low": measurement["speedup_ci_low"]}
            ends["_high"] = measurement["speedup_ci_high"]
            values = {f"speedup{end}": value for end, value in ends.items()}
            values["stand_in"] = measurement["stand_in"]
            rows.append({"title": study.title, **{k: row[k] for k in PAIRS[1:3]}, **values})
    return pd.DataFrame(rows, columns=PAIRS)


def published_changes(studies: Sequence[StudyRuns]) -> list[dict[str, Any]]:
    """Return, for each study, the largest change of accuracy that its project published.

    The change is that from one device to several of the same kind, in the same precision, in
    points. Studies without such a pair are left out.
    """
    changes = []
    for study in studies:
        table = study.tables["reported"]
        if not len(table):
            continue
        values = {
            row["meant"]: float(row["reported"])
            for row in records(table[table["quantity"] == ACCURACY])
            if RunSpec.is_name(row["meant"])
        }
        pairs = [
            (values[run] - value, run)
            for base, value in values.items()
            for run in values
            if _is_parallel_of(RunSpec.parse(base), RunSpec.parse(run))
        ]
        if pairs:
            change, run = max(pairs, key=lambda pair: abs(pair[0]))
            changes.append({"study": study.name, "label": label(run), "change": change})
    return changes


def _is_parallel_of(base: RunSpec, spec: RunSpec) -> bool:
    """Return whether a run shares the work of a run on one device, in the same precision."""
    same = (spec.device, spec.amp, spec.batch, spec.model) == (
        base.device,
        base.amp,
        base.batch,
        base.model,
    )
    return same and base.devices == 1 < spec.devices


def _of_splits(
    study: StudyRuns,
    table: pd.DataFrame,
    splits: Mapping[str, dict[str, str]],
    images: Mapping[str, dict[str, int]],
) -> list[dict[str, Any]]:
    rows = []
    own = table[table["study"] == study.name].set_index("run")
    for row in records(table[table["study"].isin(list(splits))]):
        base = own.loc[row["run"]]
        scores = ({end: of[f"accuracy_{end}"] for end in SCORE} for of in (row, base))
        change = independent_difference(*scores)
        split = splits[row["study"]]["split"]
        rows.append(
            {
                "title": study.title,
                "kind": "split",
                "words": f"{split} split in place of the {study.split} one",
                "accuracy": base["accuracy_mean"],
                "accuracy_other": row["accuracy_mean"],
                "change": 100 * change["mean"],
                "change_low": 100 * change["low"],
                "change_high": 100 * change["high"],
                "replicates": base["replicates"],
                "replicates_other": row["replicates"],
                "amp": False,
                "mode": split,
                **_counts(images.get(study.name, {}), images.get(row["study"], {})),
            }
        )
    return rows


def _counts(images: Mapping[str, int], other: Mapping[str, int]) -> dict[str, float]:
    """Return the columns ``IMAGES`` of a study's images and those of another split."""
    values = [images.get("train"), *(other.get(k) for k in ("train", "test", *IMAGES[3:]))]
    return dict(zip(IMAGES, (np.nan if v is None else v for v in values), strict=True))


def _of_parallel(study: StudyRuns, runs: pd.DataFrame) -> list[dict[str, Any]]:
    own = runs[(runs["study"] == study.name) & (runs["devices"] > 1)]
    own = compared(own[own["change"].notna()])
    if own.empty:
        return []
    row = max(records(own), key=lambda row: abs(float(row["change"])))
    base = study.summaries[study.baseline]["metrics"]["test"]["accuracy"]["mean"]
    return [
        {
            "title": study.title,
            "kind": "parallel",
            "words": f"{label(row['run'])} in place of {label(study.baseline)}",
            "accuracy": base,
            "accuracy_other": base + row["change"] / 100,
            **{f"change{end}": row[f"change{end}"] for end in ENDS},
            "replicates": len(study.summaries[study.baseline]["seeds"]),
            "replicates_other": row["replicates"],
            "amp": bool(row["amp"]) and not RunSpec.parse(study.baseline).amp,
            "mode": study.split,
        }
    ]
