"""The report on quality claims no more than intervals support."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medscale.evaluate.replicates import Gallery
from medscale.report.gradcam.make import mark_empty
from medscale.report.overview.figures import coinciding
from medscale.report.quality.facts import subgroup_gaps, useful_thresholds
from medscale.report.quality.figures import subgroups, without_single_classes
from medscale.report.result.figures import draw_confusion
from medscale.report.result.gallery import some_cases
from medscale.report.show import _folds, _number, operating_point
from medscale.report.tables import interval


def gap(part: str, value: tuple[float, ...], ends: tuple[float, ...]) -> dict[str, Any]:
    row = {"by": "view", "part": part, "class": "ill", "wanted": 0.9, "rate": "specificity"}
    row |= dict(zip(("value", "low", "high"), value, strict=True)) | {"images": 15}
    return row | dict(zip(("gap", "gap_low", "gap_high"), ends, strict=True))


def test_show_says_what_is_undefined_or_has_no_interval():
    row: dict[str, Any] = {"class": "ill", "wanted": 0.9, "prevalence": 0.5}
    for name, ends in {
        "sensitivity": (0.8, 0.7, 0.9),
        "specificity": (1.0, 0.93, 1.0),
        "ppv": (1.0, None, None),
        "npv": (None, None, None),
    }.items():
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    assert list(operating_point(row, {}))[1:] == [
        "  sensitivity 80.0 % (70.0 to 90.0), specificity 100.0 % (93.0 to 100.0)",
        "  PPV 100.0 % (no interval), NPV – at prevalence 50.0 %",
    ]
    scores = {"sd": 0.1, "values": [0.7, 0.8]}
    metrics = {"accuracy": {"mean": 0.75, "low": None, "high": None, **scores}}
    cells = [[*column.cells] for column in _folds({"count": 2, "metrics": metrics}).columns]
    assert cells[2] == ["–"]
    assert [_number(value) for value in (0.5, 123.4, 1234.5)] == ["0.500", "123", "1,234"]


def test_a_rate_of_too_few_images_has_no_empty_brackets():
    undefined = dict.fromkeys(("mean", "low", "high"), np.nan)
    assert interval(undefined, 1, 100) == "--"
    assert interval({"mean": 0.9, "low": 0.8, "high": 1.0}, 1, 100) == "90.0 (80.0--100.0)"


def test_thresholds_with_a_benefit_are_named_by_ranges():
    low = [0.1, -0.1, 0.1, 0.1, 0.05]
    table = pd.DataFrame({"threshold": [0.1, 0.2, 0.3, 0.4, 0.5], "low": low})
    facts = useful_thresholds(table.assign(treat_all=[0, 0, 0, 0, 0.06]))
    assert facts == {
        "ranges": [{"low": 0.1, "high": 0.1}, {"low": 0.3, "high": 0.4}],
        "count": 3, "all": 5, "lowest": 0.1, "highest": 0.5,
    }  # fmt: skip
    assert useful_thresholds(table.assign(treat_all=1)) is None


def test_two_complementary_subgroups_are_one_comparison():
    higher = gap("AP", (0.4, 0.3, 0.5), (0.247, 0.023, 0.456))
    lower = gap("PA", (0.2, 0.1, 0.3), (-0.247, -0.456, -0.023))
    same = gap("LL", (0.3, 0.2, 0.4), (0.1, -0.1, 0.3)) | {"by": "site"}
    (apart,) = subgroup_gaps(pd.DataFrame([lower, higher, same]))
    assert (apart["part"], apart["other"], apart["mean"]) == ("AP", "PA", 0.247)
    third = gap("LL", (0.3, 0.2, 0.4), (0.1, -0.1, 0.3))  # of the same division
    rows = subgroup_gaps(pd.DataFrame([lower, higher, third]))
    assert [(row["part"], row["other"]) for row in rows] == [("PA", None), ("AP", None)]


def test_a_subgroup_of_one_class_has_no_balanced_accuracy():
    scores = {
        "all": (0.8, 0.7, 0.9), "mixed": (0.8, 0.75, 0.9), "uniform": (1.0, 1.0, np.nan),
    }  # fmt: skip
    metrics = ("accuracy", "balanced_accuracy", "auroc")
    rows = [
        {"by": "source", "part": part, "images": 9, "metric": metric}
        | dict.fromkeys(("mean", "low", "high"), value)
        for part, values in scores.items()
        for metric, value in zip(metrics, values, strict=True)
    ]
    table = pd.DataFrame(rows)
    means = without_single_classes(table).set_index(["part", "metric"])["mean"]
    assert np.isnan(means["uniform", "balanced_accuracy"])
    assert means["uniform", "accuracy"] == 1
    assert means["mixed", "balanced_accuracy"] == 0.75
    texts = [[text.get_text() for text in axes.texts] for axes in subgroups(table).axes]
    assert texts == [[], ["undefined"], ["undefined"]]


def test_an_empty_heat_map_is_called_empty():
    cases = pd.DataFrame({"true": "a", "predicted": ["a", "a", "b"], "probability": 0.9})
    cases["right"] = cases["true"] == cases["predicted"]
    heat = np.zeros((3, 2, 2), np.float32)
    heat[0] = 1
    gallery = Gallery(cases, heat, np.zeros((3, 8, 8, 3), np.uint8))
    figure = some_cases(gallery)
    mark_empty(figure, gallery)
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert [place for place, words in enumerate(texts) if "empty" in words] == [7, 9]
    assert figure.get_supxlabel() == (
        "no area raises the score of the predicted class in 2 of 3 images"
    )


def test_runs_whose_curves_coincide_are_named():
    def run(name: str, shift: float) -> Any:
        means = [0.5, 0.5 + shift, 100 * shift]  # times are not drawn
        names = ["val_loss", "val_accuracy", "seconds"]
        curves = {"quantity": names, "epoch": 1, "mean": means}
        table = pd.DataFrame(curves).assign(low=0.4, high=1.0)
        return SimpleNamespace(name=name, curves=table)

    runs = [run("ddp_2cpu", 0), run("ddp_2gpu", 0.001), run("serial_1cpu", 0.1)]
    assert coinciding(runs) == [{"visible": "DDP, 2 CPU", "hidden": ["DDP, 2 GPU"]}]
    assert coinciding(runs[1:]) == []


def test_the_row_of_a_class_without_images_has_no_numbers():
    axes = Figure().subplots()
    draw_confusion(axes, np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]]), ["a", "b", "c"])
    cells = [(*map(int, text.get_position()[::-1]), text.get_text()) for text in axes.texts]
    assert cells == [
        *((0, 0, "75"), (0, 1, "25"), (0, 2, "0")),
        *((2, 0, "50"), (2, 1, "0"), (2, 2, "50")),
    ]
