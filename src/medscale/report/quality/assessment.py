"""One figure of a run's answers on the test images: all curves of classification side by side."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.report import style
from medscale.report.names import BLACK, COLOURS, LINES, VERMILION
from medscale.report.quality.tables import shown_classes
from medscale.report.result.figures import MANY, draw_confusion, draw_curve, draw_roc
from medscale.report.result.quality import draw_reliability
from medscale.report.result.reading import Result

LONG_LEGEND = 8  # most labels of a legend in letters and lines of normal size
NAMED = 2  # classes up to which a small matrix names them: three names overlap below it


def assessment(result: Result) -> Figure:
    """Draw confusion, ROC, precision-recall, reliability and net benefit; the sixth is the legend.

    Up to ``MANY`` classes have an ROC curve each; of more, the averages alone are drawn, and net
    benefit of the classes that the table of operating points shows.
    """
    figure = style.new(3.25)
    first, second = figure.subplots(2, 3)
    confusion, roc, precision_recall = first
    reliability, benefit, legend = second
    confusion_panel(confusion, result)
    ticks: dict[str, Any] = {"xticks": [0, 0.5, 1], "yticks": [0, 0.5, 1]}
    if result.roc.empty:
        for axes in (roc, precision_recall):
            style.empty(axes, "undefined: only one class\noccurs in the test images")
    else:
        draw_roc(roc, result.roc, {})
        roc.set(xlabel="false-positive rate", ylabel="true-positive rate", **ticks)
        draw_curve(precision_recall, result.pr, ("recall", "precision"), {})
        precision_recall.set(xlabel="recall", ylabel="precision", **ticks)
    draw_reliability(
        reliability, result.reliability, result.summary["metrics"]["test"], errors=False
    )
    reliability.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), **ticks)
    _net_benefit(benefit, result)
    _legend(legend, [roc, reliability, benefit])
    return figure


def confusion_panel(axes: Axes, result: Result) -> None:
    """Draw the confusion matrix; more than ``NAMED`` classes are numbered."""
    classes = result.classes
    size = 7 if len(classes) <= NAMED else 5.5 if len(classes) <= MANY else 0
    draw_confusion(axes, result.confusion, classes, names=False, digits=size)
    places = range(len(classes))
    if len(classes) <= NAMED:
        names = [style.wrapped(name, 12) for name in classes]
        axes.set_xticks(places, names, size=6)
        axes.set_yticks(places, names, size=6)
    elif len(classes) <= MANY:
        numbers = [str(number) for number in range(1, len(classes) + 1)]
        axes.set_xticks(places, numbers)
        axes.set_yticks(places, numbers)
    axes.set(xlabel="predicted class", ylabel="true class")


def _net_benefit(axes: Axes, result: Result) -> None:
    """Draw the net benefit of acting on each class; of two classes, on the positive one."""
    table = result.decision
    names = shown_classes(result.operating)
    alone = len(names) == 1
    highest = 0.01
    for number, name in enumerate(names):
        rows = table[table["class"] == name]
        drawn: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINES[number % len(LINES)],
            "label": "act on the answer" if alone else style.legend_entry(name),
        }
        axes.plot(rows["threshold"], rows["net_benefit"], **drawn)
        highest = max(highest, rows["net_benefit"].max())
        if alone:
            ends = rows["threshold"], rows["low"], rows["high"]
            axes.fill_between(*ends, color=COLOURS[0], alpha=0.2, linewidth=0)
            always: dict[str, Any] = {"color": VERMILION, "linestyle": "--", "label": "act always"}
            axes.plot(rows["threshold"], rows["treat_all"], **always)
            highest = max(highest, rows["high"].max())
    axes.axhline(0, color=BLACK, linewidth=0.8, label="act never")
    # Below, the curve of acting always falls without limit.
    axes.set(xlim=(0, 1), ylim=(-0.3 * highest, 1.15 * highest))
    axes.set(xlabel="threshold probability", ylabel="net benefit", xticks=[0, 0.5, 1])


def _legend(axes: Axes, panels: list[Axes]) -> None:
    """Fill an empty panel with the legend of all the others."""
    axes.set_axis_off()
    handles, labels = [], []
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    place: dict[str, Any] = {"loc": "center left", "borderaxespad": 0, "handlelength": 1.8}
    if len(labels) > LONG_LEGEND:
        place |= {"loc": "lower left", "bbox_to_anchor": (-0.06, -0.35), "fontsize": 6}
        place |= {"labelspacing": 0.15}
    legend = axes.legend(handles, labels, **place)
    legend.set_in_layout(False)  # a high legend would make the panels of its row low
