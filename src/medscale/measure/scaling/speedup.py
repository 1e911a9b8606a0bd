"""Speedup and parallel efficiency of runs against the serial run on the same kind of device."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.engine.run import RunSpec

LEVEL = 0.95  # of all intervals of this package
ENDS = ("", "_low", "_high", "_ci_low", "_ci_high")


def speedups(summaries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Compute the speedup of each run of a study.

    Speedup is the seconds per epoch of the baseline divided by those of the run. The seconds per
    epoch are the median over the epochs after the first, averaged over replicates. Efficiency is
    speedup divided by devices (Amdahl 1967; Grama et al. 2003, ch. 5). The baseline is the serial
    run without mixed precision on the same kind of device, with the same network and images. CPU
    runs that stand in for GPUs are compared only with each other.

    Args:
        summaries: content of summary.json of each run.

    Returns:
        One row for each run with the columns

        - ``run, strategy, device, devices, amp, stand_in, format, hardware, threads, global_batch,
          batch_held, train_images``;
        - ``seconds, seconds_low, seconds_high``: seconds per epoch, with the range over replicates;
        - ``images_per_second, baseline``;
        - ``speedup`` and ``efficiency``, each with ``_low, _high`` (range over all pairs of
          replicates) and ``_ci_low, _ci_high`` (95 %, Welch's, from ``ratio``; NaN with fewer than
          two replicates);
        - ``amp_gain``: seconds of the same run without AMP, divided by those of this run, and
          ``amp_gain_over``, the number format of that run;
        - ``note``: remarks on the comparison. Without a baseline the speedup is NaN, and the note
          gives the reason.

    Raises:
        MedscaleError: when the summaries are of several studies, or a run occurs twice.
    """
    by_name = _by_name(summaries)
    rows = [_row(summary, by_name) for summary in by_name.values()]
    return pd.DataFrame(rows)


def baseline_of(spec: RunSpec) -> str:
    """Return the name of a run's baseline: serial, same kind of device, no mixed precision."""
    return RunSpec(strategy="serial", devices=1, device=spec.device, model=spec.model).name


def ratio(above: Sequence[float], below: Sequence[float], comparisons: int = 1) -> dict[str, float]:
    """Return the ratio of two means of independent times, with two spreads.

    Args:
        above: times, shape N.
        below: times, shape M.
        comparisons: number of ratios that are read together. All their intervals hold the true
            ratios at once in 95 % of cases (Bonferroni).

    Returns:
        Values by the suffixes ``ENDS``: the ratio, its range over all pairs, and its 95 % interval
        (Welch, Biometrika 1947, on the logarithms of the two means). The variance of such a
        logarithm is that of the mean, divided by the mean's square (delta method). The interval is
        NaN if either side has fewer than two times.
    """
    a, b = np.asarray(above, float), np.asarray(below, float)
    pairs, center = a[:, None] / b[None, :], float(a.mean() / b.mean())
    center_and_range = [center, float(pairs.min()), float(pairs.max())]
    if min(len(a), len(b)) < 2:
        return dict(zip(ENDS, [*center_and_range, math.nan, math.nan], strict=True))
    variances = np.array([x.var(ddof=1) / len(x) / x.mean() ** 2 for x in (a, b)])
    total = variances.sum()
    freedom = (
        total**2 / (variances**2 / [len(a) - 1, len(b) - 1]).sum()
        if total > 0
        else len(a) + len(b) - 2
    )
    tail = (1 - LEVEL) / 2 / comparisons
    half = stats.t.isf(tail, freedom) * math.sqrt(total)
    ends = [center * math.exp(-half), center * math.exp(half)]
    return dict(zip(ENDS, [*center_and_range, *ends], strict=True))


def rate(times: Sequence[float], comparisons: int = 1) -> dict[str, float]:
    """Return the inverse of a mean time in seconds, with range and interval as of ``ratio``."""
    return ratio([1.0, 1.0], times, comparisons)  # a numerator of one second without variance


def relative(
    base: Sequence[float], times: Sequence[float], *, is_base: bool = False, comparisons: int = 1
) -> dict[str, float]:
    """Return ``ratio`` of base and times: NaN without base times, and 1 if ``is_base`` is set."""
    if is_base:
        return dict.fromkeys(ENDS, 1.0)
    if not len(base):
        return dict.fromkeys(ENDS, math.nan)
    return ratio(base, times, comparisons=comparisons)


def with_suffixes(name: str, ends: dict[str, float], divisor: float = 1.0) -> dict[str, float]:
    """Return ``<name><suffix>`` for each suffix of ``ends``, with the values divided."""
    return {f"{name}{end}": value / divisor for end, value in ends.items()}


def _by_name(summaries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    studies = {summary["study"] for summary in summaries}
    if len(studies) > 1:
        raise MedscaleError(
            f"speedup compares runs of one study, but the results are of "
            f"{', '.join(sorted(studies))}; name results of one study"
        )
    by_name = {summary["run"]["name"]: summary for summary in summaries}
    if len(by_name) != len(summaries):
        raise MedscaleError(
            "a run occurs twice among the results whose speedup is computed; name each result once"
        )
    return by_name


def _row(summary: dict[str, Any], by_name: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec, clock = RunSpec.parse(summary["run"]["name"]), summary["timing"]
    seconds = clock["seconds_per_epoch"]["values"]
    name = baseline_of(spec)
    baseline = by_name.get(name)
    network = f" of {spec.model}" if spec.model else ""
    missing = (
        f"no speedup is given, since the study has no serial run{network} on one "
        f"{spec.device.upper()} without mixed precision"
    )
    reason = missing if baseline is None else _difference(summary, baseline)
    base = None if reason else baseline
    speedup = relative(_seconds(base) if base else [], seconds, is_base=name == spec.name)
    return {
        "run": spec.name,
        "strategy": spec.strategy + ("_mp" if spec.mp else ""),
        "device": spec.device,
        "devices": spec.devices,
        "amp": spec.amp,
        "stand_in": summary["marks"]["stand_in"],
        "format": summary["format"],
        "hardware": _hardware(summary),
        "threads": clock["threads_per_rank"],
        "global_batch": clock["global_batch"],
        "batch_held": summary["recipe"]["batch_is"],
        "train_images": clock["train_images"],
        "seconds": float(np.mean(seconds)),
        "seconds_low": min(seconds),
        "seconds_high": max(seconds),
        "images_per_second": clock["images_per_second"]["mean"],
        "baseline": name if base else "",
        **with_suffixes("speedup", speedup),
        **with_suffixes("efficiency", speedup, spec.devices),
        **_amp_gain(spec, summary, by_name),
        "note": _note(summary, base, spec) if base else reason,
    }


def _difference(summary: dict[str, Any], baseline: dict[str, Any]) -> str:
    """Return why two runs' times cannot be compared; empty if they can."""
    if summary["marks"] != baseline["marks"] or summary["backend"] != baseline["backend"]:
        return "the baseline ran on another kind of device (stand-in against real)"
    if summary["model"] != baseline["model"]:
        return "the baseline trained another network"
    count, base_count = (s["timing"]["train_images"] for s in (summary, baseline))
    return (
        f"the baseline trained on {base_count} images, not {count}" if count != base_count else ""
    )


def _note(summary: dict[str, Any], baseline: dict[str, Any], spec: RunSpec) -> str:
    """Name the differences in batch size, precision, threads and machines from the baseline."""
    clock, base = summary["timing"], baseline["timing"]
    form, base_form = summary["format"], baseline["format"]
    remarks = (
        (f"the speedup contains the gain of AMP ({form} over {base_form})", spec.amp),
        (f"in {form}, the baseline in {base_form}", form != base_form and not spec.amp),
        (
            f"global batch {clock['global_batch']} against {base['global_batch']}",
            clock["global_batch"] != base["global_batch"],
        ),
        (
            f"{clock['threads_per_rank']} threads a process against {base['threads_per_rank']}",
            clock["threads_per_rank"] != base["threads_per_rank"],
        ),
        (
            f"on {_hardware(summary)}, the baseline on {_hardware(baseline)}",
            _hardware(summary) != _hardware(baseline),
        ),
    )
    return "; ".join(text for text, applies in remarks if applies)


def _amp_gain(
    spec: RunSpec, summary: dict[str, Any], by_name: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return ``amp_gain`` and ``amp_gain_over`` of a row of ``speedups``."""
    twin = by_name.get(spec.model_copy(update={"amp": False}).name) if spec.amp else None
    if twin is None or _difference(summary, twin):
        return {"amp_gain": math.nan, "amp_gain_over": ""}
    gain = float(np.mean(_seconds(twin)) / np.mean(_seconds(summary)))
    return {"amp_gain": gain, "amp_gain_over": twin["format"]}


def _hardware(summary: dict[str, Any]) -> str:
    """Return the GPUs or processors of a run's times; a slash joins those of its replicates."""
    return "/".join(sorted(set(summary["timing"]["hardware"])))


def _seconds(summary: dict[str, Any]) -> list[float]:
    return list(summary["timing"]["seconds_per_epoch"]["values"])
