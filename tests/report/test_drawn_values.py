"""What the figures draw: the data of their artists against values counted from the tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer

from medscale.evaluate.summary import KINDS
from medscale.measure.profiling.kinds import KINDS as WORK
from medscale.measure.scaling.series import Point, gather
from medscale.report import style
from medscale.report.export.make import _figure as export
from medscale.report.external.figures import SIDES, inside_outside
from medscale.report.folds.make import _range
from medscale.report.inference.make import _figure as inference
from medscale.report.measured import draw_lines
from medscale.report.names import COLOURS, LOOKS, TIME_LOOKS, VERMILION, label, numbered_look
from medscale.report.overview import figures as overview
from medscale.report.profiling import figures as profiling
from medscale.report.profiling.reading import Profiled
from medscale.report.quality import figures as quality
from medscale.report.result import figures as of_run
from medscale.report.result.quality import draw_subgroups
from medscale.report.synthesis import figures as synthesis
from medscale.report.variants.make import _figure as variants


@pytest.fixture(autouse=True)
def house():
    with style.house():
        yield


def score(mean: float | None, width: float = 0.1, values: tuple[float, ...] = ()) -> dict[str, Any]:
    ends = (None, None) if mean is None else (mean - width, mean + width)
    return {"mean": mean, "low": ends[0], "high": ends[1], "values": list(values or [mean])}


def result(name: str, test: dict[str, Any], **further: Any) -> Any:
    """A result whose scores on the test images are ``test``."""
    summary = {"metrics": {"test": test}, "bootstrap": {"paired_with": "x"}}
    summary |= {"counts": {"test": {"groups": 50}}} | further.pop("summary", {})
    return SimpleNamespace(name=name, summary=summary, score=lambda name: test[name], **further)


def bars(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Return value, lower end, upper end and height of each horizontal interval, from the top."""
    rows = []
    for drawn in axes.containers:
        assert isinstance(drawn, ErrorbarContainer)
        for line in drawn.lines[2]:
            for (low, height), (high, _) in line.get_segments():
                marker = drawn.lines[0]
                value = marker.get_xdata()[0] if marker is not None else np.nan
                rows.append((float(value), low, high, height))
    return sorted(rows, key=lambda row: -row[3])


def widths(axes: Axes) -> list[list[float]]:
    """Return the widths of the bars of each series, by their rows from the top."""
    containers = [drawn for drawn in axes.containers if isinstance(drawn, BarContainer)]
    return [[patch.get_width() for patch in drawn.patches] for drawn in containers]


def test_an_audit_draws_files_and_images_of_each_split():
    fates = {"found": 100, "used": 90, "left out: duplicate": 7, "left out: unreadable": 3}
    counts = pd.DataFrame({"train": [40, 20], "val": [5, 4], "test": [12, 9]}, index=["a", "b"])
    left, right = overview.audit(fates, counts).axes
    assert widths(left) == [[100, 90, 7, 3]]
    assert [to_hex(patch.get_facecolor()).upper() for patch in left.patches[2:]] == [VERMILION] * 2
    assert widths(right) == [[40, 20], [5, 4], [12, 9]]
    starts = [[p.get_x() for p in drawn.patches] for drawn in right.containers]
    assert starts == [[0, 0], [40, 20], [45, 24]]
    for axes, names, totals in (
        (left, list(fates), ["100", "90", "7", "3"]),
        (right, ["a", "b"], ["57", "33"]),
    ):
        rows = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
        heights = [patch.get_y() + patch.get_height() / 2 for patch in axes.patches]
        assert [rows[round(height)].get_text() for height in heights[: len(names)]] == names
        assert [text.get_text() for text in axes.texts] == totals


def test_accuracies_stand_in_the_row_of_their_run_beside_their_seeds_and_differences():
    resamples = np.linspace(0.7, 0.9, 401)
    first, second = (
        result(
            name,
            {"accuracy": score(mean, 0.1, (mean - 0.02, mean + 0.02)), "auroc": score(auroc)},
            resamples=pd.DataFrame({"accuracy": drawn}),
        )
        for name, mean, auroc, drawn in (
            ("serial_1cpu", 0.8, 0.7, np.full(401, 0.8)),
            ("ddp_2cpu", 0.75, None, resamples - 0.05),
        )
    )
    accuracy, auroc, change = overview.accuracy([first, second], "serial_1cpu").axes
    assert [t.get_text() for t in accuracy.get_yticklabels()] == ["serial, 1 CPU", "DDP, 2 CPU"]
    assert np.allclose(bars(accuracy), [(80, 70, 90, 1), (75, 65, 85, 0)])
    assert np.allclose(bars(auroc), [(0.7, 0.6, 0.8, 1)])
    assert np.allclose(bars(change), [(0, 0, 0, 1), (-5, -14.5, 4.5, 0)])
    seeds = [
        line for line in accuracy.lines if line.get_marker() == "|" and len(line.get_xdata()) > 1
    ]
    drawn = {
        round(line.get_ydata()[0]): line.get_xdata()
        for line in seeds
        if line.get_color() == "#000000"
    }
    assert np.allclose(drawn[1], [78, 82])
    assert np.allclose(drawn[0], [73, 77])
    dashed = [line.get_xdata()[0] for line in accuracy.lines if line.get_linestyle() == "--"]
    assert dashed == [80]


def curve_table(offset: float, epochs: int = 3) -> pd.DataFrame:
    rows = [
        {"quantity": quantity, "epoch": epoch, "mean": base + offset + 0.1 * epoch}
        for base, quantity in enumerate(
            ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
        )
        for epoch in reversed(range(1, epochs + 1))
    ]
    table = pd.DataFrame(rows)
    return table.assign(low=table["mean"] - 0.05, high=table["mean"] + 0.05)


def test_curves_of_many_runs_are_told_apart_and_each_panel_has_its_quantity():
    names = ["serial_1cpu", *(f"ddp_{n}cpu" for n in range(2, 25))]
    runs = [result(name, {}, curves=curve_table(0.01 * n)) for n, name in enumerate(names)]
    figure = overview.curves(runs)
    for panel, base in zip(figure.axes, (0, 1, 3), strict=True):
        assert [line.get_label() for line in panel.lines] == [label(name) for name in names]
        looks = {(line.get_color(), str(line._dash_pattern)) for line in panel.lines}
        assert len(looks) == len(names)
        for number, line in enumerate(panel.lines):
            assert line.get_xdata().tolist() == [1, 2, 3]
            assert np.allclose(line.get_ydata(), base + 0.01 * number + np.array([0.1, 0.2, 0.3]))
        band = panel.collections[1].get_paths()[0].vertices
        assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((base + 0.06, base + 0.36))


def test_looks_recur_only_after_a_hundred_items():
    looks = [numbered_look(number) for number in range(100)]
    assert tuple(looks[:10]) == LOOKS
    assert len({(look.colour, look.line) for look in looks}) == 100
    assert len({(look.colour, look.marker) for look in looks}) == 100
    assert [look.colour for look in looks[10:20]] == list(COLOURS)


def test_a_cut_panel_of_losses_tells_its_highest_loss():
    table = curve_table(0.0, epochs=60).assign(mean=1.0, low=1.0, high=1.0)
    spike = (table["quantity"] == "val_loss") & (table["epoch"] == 1)
    table.loc[spike, ["mean", "high"]] = 9.0
    train, val, accuracy = overview.curves([result("serial_1cpu", {}, curves=table)]).axes
    assert [axes.get_ylim() for axes in (train, val)] == [(0, pytest.approx(1.05))] * 2
    assert [[t.get_text() for t in axes.texts] for axes in (train, val)] == [[], ["up to 9"]]
    assert accuracy.get_ylim() == (0, 1.02)


def test_a_confusion_matrix_has_true_classes_in_rows_and_percent_of_them():
    counts = np.array([[8, 2], [5, 15]])
    figure = of_run.confusion(counts, ["a", "b"], "serial_1cpu")
    axes = figure.axes[0]
    assert np.allclose(axes.images[0].get_array(), [[80, 20], [25, 75]])
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "80", (1, 0): "20", (0, 1): "25", (1, 1): "75"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    many = of_run.confusion(
        np.eye(10, dtype=int) * [0, *range(1, 10)], list("abcdefghij"), "serial_1cpu"
    )
    assert [text.get_text() for text in many.axes[0].texts] == ["100"] * 9  # no images: no number


def test_operating_points_lie_on_the_axes_of_the_roc_curve():
    names = ("false_positive_rate", "true_positive_rate")
    roc = pd.DataFrame(
        {"curve": "b", "seed": "", names[0]: [0.0, 0.3, 1.0], names[1]: [0.0, 0.9, 1.0]}
    )
    pr = pd.DataFrame({"curve": "b", "seed": "", "recall": [0.0, 1.0], "precision": [1.0, 0.4]})
    point = {"class": "b", "wanted": 0.9, "sensitivity": 0.8, "specificity": 0.75}
    left, right = of_run.roc(roc, pr, [{"b": 0.85}, {"b": 0.7}], "serial_1cpu", [point]).axes
    assert left.lines[1].get_xydata().tolist() == roc[list(names)].to_numpy().tolist()
    assert left.lines[-1].get_xydata().tolist() == [[0.25, 0.8]]
    assert right.lines[0].get_xydata().tolist() == [[0, 1], [1, 0.4]]
    assert [line.get_label() for line in left.lines[1:]] == [
        "b (0.850)",
        "validation specificity 90 %",
    ]
    assert right.lines[0].get_label() == "b (0.700)"


def times(*seconds: float) -> dict[str, Any]:
    return {
        "timing": {"seconds_by_kind": {k: {"mean": s} for k, s in zip(KINDS, seconds, strict=True)}}
    }


def test_times_are_stacked_in_the_order_of_the_legend():
    seconds = np.array([[1.0, 5, 2, 0.5, 1.5], [0.5, 3, 4, 0.25, 1]])
    runs = [
        result(n, {}, summary=times(*s))
        for n, s in zip(("serial_1cpu", "ddp_2cpu"), seconds, strict=True)
    ]
    figure = overview.time(runs)
    (axes,) = figure.axes
    assert np.allclose(widths(axes), seconds.T)
    starts = [[patch.get_x() for patch in drawn.patches] for drawn in axes.containers]
    assert np.allclose(starts, (np.cumsum(seconds, axis=1) - seconds).T)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        TIME_LOOKS[k][2] for k in KINDS
    ]
    rows = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
    assert (rows[1].get_text(), rows[0].get_text()) == ("serial, 1 CPU", "DDP, 2 CPU")
    assert axes.patches[0].get_y() > axes.patches[1].get_y()


def test_shares_of_an_epoch_add_up_to_all_of_it():
    study = SimpleNamespace(title="a study", summaries={"serial_1cpu": times(1, 5, 2, 0.5, 1.5)})
    (axes,) = synthesis.why([study]).axes
    assert widths(axes)[:5] == [[10], [50], [20], [5], [15]]
    assert [patch.get_x() for patch in axes.patches[:5]] == [0, 10, 60, 80, 85]


def test_calibration_errors_have_their_intervals_and_bins_their_accuracies():
    ece = {"mean": 0.2, "low": 0.09, "high": 0.23}
    test = {
        "ece": ece,
        "brier": score(0.2),
        "ece_calibrated": score(0.3),
        "brier_calibrated": score(0.15),
    }
    table = pd.DataFrame({"calibrated": ["no", "yes"], "images": [10, 5], "confidence": [0.9, 0.8]})
    run = result("serial_1cpu", test, reliability=table.assign(accuracy=[0.7, 0.75]))
    figure = quality.calibration([run], run)
    reliability, errors, brier = figure.axes
    assert [dots.get_offsets().tolist() for dots in reliability.collections] == [
        [[0.9, 0.7]],
        [[0.8, 0.75]],
    ]
    assert np.allclose([row[1:] for row in bars(errors)], [(0.09, 0.23, 0.14), (0.2, 0.4, -0.14)])
    assert np.allclose([row[1:] for row in bars(brier)], [(0.1, 0.3, 0.14), (0.05, 0.25, -0.14)])
    for axes, values in ((errors, [0.2, 0.3]), (brier, [0.2, 0.15])):
        points = [line for line in axes.lines if line.get_marker() in ("o", "s")]
        assert [line.get_xdata().tolist() for line in points] == [[value] for value in values]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["as trained", "with the temperature"]


def test_rates_by_subgroup_are_those_of_the_first_operating_point():
    rows = [
        {"class": "b", "wanted": wanted, "by": "sex", "part": part, "rate": rate, "images": 9}
        | {"value": value, "low": value - 0.1, "high": value + 0.1}
        for wanted, shift in ((0.95, 0.2), (0.9, 0.0))
        for part, rate, value in (
            ("f", "sensitivity", 0.5 + shift),
            ("m", "sensitivity", np.nan),
            ("f", "specificity", 0.6 + shift),
            ("m", "specificity", 0.7 + shift),
        )
    ]
    overall = pd.DataFrame(
        {
            "class": "b",
            "wanted": [0.9, 0.95],
            "sensitivity": [0.55, 0.1],
            "specificity": [0.65, 0.2],
        }
    )
    run = result("serial_1cpu", {}, gaps=pd.DataFrame(rows), operating=overall)
    sensitivity, specificity = quality.gaps(run, ["b"]).axes
    assert [t.get_text() for t in sensitivity.get_yticklabels()] == ["sex: f", "sex: m"]
    assert np.allclose(bars(sensitivity), [(50, 40, 60, 1)])
    assert [text.get_text() for text in sensitivity.texts] == ["too few images (9)"]
    assert np.allclose(bars(specificity), [(60, 50, 70, 1), (70, 60, 80, 0)])
    lines = [
        [x.get_xdata()[0] for x in a.lines if x.get_linestyle() == "--"]
        for a in (sensitivity, specificity)
    ]
    assert np.allclose(lines, [[55], [65]])


def test_subgroups_stand_in_the_panel_of_their_metric():
    values = {"accuracy": (0.8, 0.7), "balanced_accuracy": (0.75, np.nan), "auroc": (0.9, np.nan)}
    table = pd.DataFrame(
        {"by": by, "part": part, "images": 5, "metric": metric, "mean": mean}
        for metric, means in values.items()
        for (by, part), mean in zip((("all", "all"), ("sex", "f")), means, strict=True)
    )
    table = table.assign(low=table["mean"] - 0.1, high=table["mean"] + 0.1)
    figure = style.new(3)
    panels = list(figure.subplots(1, 3, sharey=True))
    draw_subgroups(panels, table)
    drawn = [bars(axes) for axes in panels]
    assert np.allclose(drawn[0], [(80, 70, 90, 1), (70, 60, 80, 0)])
    assert np.allclose(drawn[1], [(75, 65, 85, 1)])
    assert np.allclose(drawn[2], [(0.9, 0.8, 1.0, 1)])
    assert [[t.get_text() for t in axes.texts] for axes in panels] == [
        [],
        ["undefined"],
        ["undefined"],
    ]


def test_a_difference_is_filled_where_its_interval_excludes_zero():
    rows = pd.DataFrame(
        {
            "title": ["a", "a", "b", "b"],
            "verdict": ["lower", "inconclusive", "higher", "baseline"],
            "same_as": "",
            "speedup": [2.0, 4.0, 0.5, 1.0],
            "change": [-3.0, 1.0, 2.0, 0.0],
            "change_low": [-5.0, -1.0, 0.5, 0.0],
            "change_high": [-1.0, 3.0, 3.5, 0.0],
        }
    )
    (axes,) = synthesis.at_what_cost(rows, 1.5).axes
    drawn = [
        (float(x), float(y), low, high, line.get_markerfacecolor() != "white")
        for line, segments in ((c.lines[0], c.lines[2][0].get_segments()) for c in axes.containers)
        for (x, y), ((_, low), (_, high)) in zip(line.get_xydata(), segments, strict=True)
    ]
    assert drawn == [(2, -3, -5, -1, True), (4, 1, -1, 3, False), (0.5, 2, 0.5, 3.5, True)]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((-1.5, 1.5))


def test_a_family_with_published_speedups_alone_is_in_the_legend():
    names = {1: "ddp_1gpu", 2: "ddp_2gpu", 4: "ddp_4gpu"}
    points = [Point(run, (4.0 / n,), 1.0, 8, "a training") for n, run in names.items()]
    study = SimpleNamespace(name="glaucoma", title="a study")
    for measured, published in (([], gather(points)), (gather(points), [])):
        figure = synthesis.how_far([study], {"glaucoma": (measured, published)})
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["DDP, GPU", *(["published"] if published else []), "ideal"]
        (line, *_) = figure.axes[0].containers[0].lines
        assert line.get_ydata().tolist() == [1, 2, 4]
        assert (line.get_markerfacecolor() == "white") == bool(published)


@pytest.mark.parametrize("count", [1, 11])
def test_lines_by_processes_are_all_drawn(count: int):
    rows = [
        {"way": f"w{way}", "processes": n, "gain": way + n, "oversubscribed": n > 2}
        for way in range(count)
        for n in (4, 1)
    ]
    table = pd.DataFrame(rows).assign(gain_low=0.5, gain_high=99.0)
    axes = style.new(2).subplots()
    draw_lines(
        {"gain": axes}, table, "way", "processes", {f"w{n}": f"way {n}" for n in range(count)}
    )
    assert len(axes.containers) == count
    for way, drawn in enumerate(axes.containers):
        assert drawn.lines[0].get_ydata().tolist() == [way + 1, way + 4]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_ydata().tolist() for line in hollow] == [[way + 4] for way in range(count)]
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [f"way {number}" for number in range(count)]


def test_inside_is_not_outside():
    ends = ("", "_low", "_high")
    values = {"auroc_inside": 0.9, "auroc_outside": 0.7}
    values |= {"balanced_accuracy_inside": 0.8, "balanced_accuracy_outside": np.nan}
    row = {
        f"{name}{end}": v + s
        for name, v in values.items()
        for end, s in zip(ends, (0, -0.1, 0.1), strict=True)
    }
    figure = inside_outside(pd.DataFrame([{"set": "elsewhere", "run": "serial_1cpu"} | row]))
    auroc, balanced = figure.axes
    assert np.allclose(bars(auroc), [(0.9, 0.8, 1.0, 0.14), (0.7, 0.6, 0.8, -0.14)])
    assert np.allclose(bars(balanced), [(80, 70, 90, 0.14)])
    colours = [drawn.lines[0].get_color() for drawn in auroc.containers]
    assert colours == [SIDES[side][0].colour for side in ("inside", "outside")]


def test_variants_are_drawn_in_their_rows():
    runs = [
        result("serial_1cpu", {m: score(mean) for m in ("accuracy", "balanced_accuracy", "auroc")})
        for mean in (0.8, 0.6)
    ]
    accuracy, _, auroc = variants(["as configured", "at random"], runs).axes
    assert np.allclose(bars(accuracy), [(80, 70, 90, 1), (60, 50, 70, 0)])
    assert np.allclose(bars(auroc), [(0.8, 0.7, 0.9, 1), (0.6, 0.5, 0.7, 0)])


def test_a_bar_of_work_adds_up_to_a_step():
    seconds = [0.001 * (n + 1) for n in range(len(WORK))]
    kinds = pd.DataFrame({"rank": 0, "kind": list(WORK), "seconds": seconds})
    other = kinds.assign(rank=1, seconds=kinds["seconds"] * 2)
    about = {"ranks": [{"seconds": 0.05}, {"seconds": 0.09}], "marks": {"stand_in": False}}
    run = SimpleNamespace(
        name="ddp_2cpu", ranks=2, cuda=False, about=about, kinds=pd.concat([other, kinds])
    )
    (axes,) = profiling.kinds([run]).axes
    bars_drawn = list(axes.patches)
    assert [p.get_width() for p in bars_drawn[: len(WORK)]] == pytest.approx(
        [1e3 * s for s in seconds]
    )
    assert [p.get_width() for p in bars_drawn[len(WORK) :]] == pytest.approx(
        [2e3 * s for s in seconds]
    )
    assert bars_drawn[len(WORK) - 1].get_x() == pytest.approx(1e3 * sum(seconds[:-1]))
    diamonds = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == [[50, 0], [90, 1]]


def test_the_range_of_folds_is_undefined_with_a_fold():
    row = {"metric": "auroc", "fold_1": 0.9, "fold_2": 0.7, "fold_3": 0.8}
    assert _range(row) == "0.700--0.900"
    for fold in (1, 2, 3):  # in whichever place
        assert _range(row | {f"fold_{fold}": np.nan}) == "--"
        assert _range(row | {f"fold_{fold}": None}) == "--"
    assert _range(row | {"metric": "accuracy"}) == "70.0--90.0"


def test_memory_is_drawn_in_mebibytes_against_milliseconds():
    memory = pd.DataFrame(
        {"rank": [0, 0, 1], "seconds": [0.0, 0.02, 0.01], "bytes": [0, 2**20, 2**22]}
    )
    about = {"ranks": [{"profiled_s": 0.05}, {"profiled_s": 0.06}], "marks": {"stand_in": False}}
    run = SimpleNamespace(name="ddp_2cpu", ranks=2, cuda=False, about=about, memory=memory)
    (axes,) = profiling.memory([run]).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 0], [20, 1]], [[10, 4]]]
    assert axes.get_xlim() == (0, pytest.approx(180))  # three steps of the slower rank
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("milliseconds", "MiB on the host")


def test_products_attain_their_work_in_the_time_of_a_device():
    work = {
        "flops": {"convolution": 6e9, "matmul": 2e9},
        "bytes": {"convolution": 3e8, "matmul": 1e8},
    }
    kinds = pd.DataFrame(
        {
            "kind": ["convolution", "matmul", "other"] * 2,
            "seconds": [0.5, 0.25, 9.0, 0.75, 0.5, 9.0],
        }
    )
    none = pd.DataFrame()
    run = Profiled("ddp_2cpu", {"ranks": [{"work": work}] * 2}, kinds, none, none, none)
    # Two devices do 16 GFLOP together, in 2 s of one device, and move 0.8 GB.
    assert run.products() == pytest.approx((20, 8e9))


def test_latencies_reach_from_the_median_to_the_99th_percentile():
    row = {"run": "serial_1cpu", "way": "eager", "device": "cpu", "threads": 1}
    row |= {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 5.0}
    rate = {
        f"images_per_second{end}": value for end, value in (("", 20), ("_low", 15), ("_high", 30))
    }
    rows = [row | rate | {"kind": "latency", "batch": 1}]
    rows += [row | rate | {"kind": "throughput", "batch": batch} for batch in (16, 4)]
    figure = inference(pd.DataFrame(rows), {"eager": "PyTorch"}, 42.0)
    latency, throughput = figure.axes
    assert latency.lines[0].get_ydata().tolist() == [2, 5]
    assert [line.get_ydata().tolist() for line in latency.lines[1:3]] == [[5], [2]]
    (line, _, (bars_drawn,)) = throughput.containers[0].lines
    assert line.get_xydata().tolist() == [[4, 20], [16, 20]]
    assert np.allclose(bars_drawn.get_segments(), [[[4, 15], [4, 30]], [[16, 15], [16, 30]]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("PyTorch", "reported: 42 images/s")
    ]


def test_exports_are_drawn_in_points_megabytes_and_images_a_second():
    row = {"run": "serial_1cpu", "format": "eager", "device": "cpu", "bytes": 3_500_000}
    row |= {"difference": -0.2, "low": -0.5, "high": 0.1, "images_per_second": 20.0}
    row |= {"images_per_second_low": 15.0, "images_per_second_high": 30.0}
    change, size, rate = export(pd.DataFrame([row]), {"eager": "PyTorch"}).axes
    assert np.allclose(bars(change), [(-0.2, -0.5, 0.1, 0)])
    assert [line.get_xdata()[0] for line in size.lines] == [3.5]
    assert np.allclose(bars(rate), [(20, 15, 30, 0)])
    band = change.patches[0].get_extents().transformed(change.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-0.5, 0.5))
