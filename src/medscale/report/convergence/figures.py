"""Figure of the chapter convergence: replicates, means and margin by run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from medscale.measure.scaling.convergence import Times
from medscale.report import style
from medscale.report.names import BLACK, GREY, label, look
from medscale.report.units import time_unit

BAND = "#EEEEEE"
SPREAD = 0.22  # part of a row over which its replicates are spread


def epochs_to_target(times: Mapping[str, Times], baseline: str, margin: float) -> Figure:
    """Draw epochs and time to the target, a row for each run and a mark for each replicate.

    A hollow triangle is a replicate that does not reach the target, at its last epoch. The band is
    the margin around the baseline's mean.
    """
    figure = style.new(1.25 + 0.3 * len(times))
    panels = figure.subplots(1, 2, sharey=True)
    heights = style.rows(panels[0], [label(run) for run in times])
    center = float(times[baseline].epochs.mean())
    panels[0].axvspan((1 - margin) * center, (1 + margin) * center, color=BAND, zorder=0)
    panels[0].axvline(center, **style.REFERENCE)
    seconds = np.concatenate([of_run.seconds for of_run in times.values()])
    factor, unit = time_unit(float(np.max(seconds, where=~np.isnan(seconds), initial=0.0)))
    for axes, column, scale in ((panels[0], "epochs", 1.0), (panels[1], "seconds", factor)):
        for height, (run, of_run) in zip(heights, times.items(), strict=True):
            values = scale * getattr(of_run, column).astype(float)
            _replicates(axes, height, values, of_run.reached, look(run).colour)
        axes.set_xlim(left=0)
    panels[0].set(xlabel="epochs to the target")
    panels[1].set(xlabel=f"{unit} to the target")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=GREY, label="replicate"),
        Line2D([], [], **_hollow(GREY), label="target not reached"),
        Line2D([], [], marker="|", markersize=9, linestyle="", color=BLACK, label="mean"),
        Patch(color=BAND, label="margin around the baseline's mean"),
    ]
    style.legend_below(figure, handles)
    return figure


def _replicates(
    axes: Axes, height: float, values: np.ndarray, reached: np.ndarray, colour: str
) -> None:
    """Draw the replicates of a run, spread over the height of its row, and their mean."""
    shifts = np.linspace(SPREAD, -SPREAD, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(values[reached], height + shifts[reached], "o", color=colour, markersize=3.5)
    axes.plot(values[~reached], height + shifts[~reached], **_hollow(colour))
    axes.plot(values.mean(), height, "|", color=BLACK, markersize=14)


def _hollow(colour: str) -> dict[str, Any]:
    return {"marker": ">", "linestyle": "", "color": colour, "markerfacecolor": "white"}
