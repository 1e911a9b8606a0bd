"""From a rank's events to where its time went: seconds by kind, operators, kernels, memory.

The time of the window, from the beginning of its first step to the end of its last, is divided without gap or overlap:

- On a CPU each moment belongs to the innermost operator or range of the thread that trains.
- On a GPU each moment belongs to the kernel that runs, to the one that began first where several do.
- Where nothing computes but an exchange is under way, on another thread or stream, the time is communication;
  what is computed meanwhile hides the rest of it.
- Where neither is, and the host is getting the next batch, the time is data, and otherwise idle: on a GPU no kernel
  runs; on a CPU Python and what it calls outside operators.

What happens within the annotated range of getting a batch is data, and within that of the optimizer, optimizer,
whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.measure.profiling import spans
from medscale.measure.profiling.kinds import (
    DATA,
    KINDS,
    is_exchange,
    of_kernel,
    of_operator,
    of_range,
)

STEP = "ProfilerStep#"
POINTS = 1000  # of the memory's course


@dataclass
class Timeline:
    """What a rank's trace says.

    Attributes:
        steps: in the window.
        window_s: its length.
        kinds: seconds by kind over the window; they sum to ``window_s``.
        communication_s: time in which an exchange went on, hidden or not.
        operators: ``name, kind, calls, seconds``: of a CPU its own time without that of operators within it; of a GPU
            the time of the kernels that it launched.
        kernels: ``name, kind, calls, seconds`` of each GPU kernel; empty for a CPU.
        memory: ``seconds, bytes``: since the window's beginning, and allocated by PyTorch (on a CPU since tracing
            began, so without the weights); of so many pieces the smallest and the largest value are kept.
        allocations: how often memory was asked for in the window.
        allocated_bytes: how much of it, over all these.
    """

    steps: int
    window_s: float
    kinds: dict[str, float]
    communication_s: float
    operators: pd.DataFrame
    kernels: pd.DataFrame
    memory: pd.DataFrame
    allocations: int
    allocated_bytes: float


def analyse(events: pd.DataFrame) -> Timeline:
    """Where the time of a trace went.

    Args:
        events: as of ``trace.events``.

    Raises:
        MedscaleError: when it has no profiled step.
    """
    marks = events[events["name"].str.startswith(STEP) & (events["category"] == "range")]
    if marks.empty:
        raise MedscaleError(
            "the trace has no step of torch.profiler (ProfilerStep#): was it made by `profile`?"
        )
    begin, end, trainer = marks["start"].min(), marks["end"].max(), marks["thread"].iloc[0]
    inside = events[(events["end"] >= begin) & (events["start"] < end)].copy()
    inside[["start", "end"]] = inside[["start", "end"]].clip(begin, end)
    host = inside[inside["category"].isin(["operator", "range"])]
    under_way = host["name"].map(is_exchange).astype(bool)
    host, others = host[~under_way], host[under_way]
    own = _kinds_of_host(host[host["thread"] == trainer])
    kernels = inside[inside["category"] == "kernel"]
    data = spans.merged(_spans(own[own["name"] == DATA]))
    if kernels.empty:
        seconds, exchanges, operators = _on_cpu(own, others)
        launched = _table(kernels.assign(kind=""))
    else:
        kernels = kernels.assign(kind=_kinds_of_kernels(kernels, _kinds_of_host_threads(host)))
        seconds, exchanges = _on_gpu(kernels, data, np.array([[begin, end]]))
        launched = _table(kernels)
        names = (
            host[host["operator"] >= 0]
            .drop_duplicates("operator", keep="last")
            .set_index("operator")["name"]
        )
        operators = _table(
            kernels.assign(name=kernels["operator"].map(names).astype(object).fillna("(not known)"))
        )
    window = end - begin
    seconds["idle"] = window - sum(seconds.values())
    memory = inside[(inside["category"] == "memory") & (inside["on_gpu"] == (not kernels.empty))]
    return Timeline(
        steps=marks["name"].nunique(),
        window_s=window / 1e6,
        kinds={kind: max(0.0, seconds.get(kind, 0.0)) / 1e6 for kind in KINDS},
        communication_s=spans.length(exchanges) / 1e6,
        operators=operators,
        kernels=launched,
        memory=_course(memory, begin),
        allocations=int((memory["size"] > 0).sum()),
        allocated_bytes=float(memory["size"].clip(lower=0).sum()),
    )


def _on_cpu(
    own: pd.DataFrame, others: pd.DataFrame
) -> tuple[dict[str, float], np.ndarray, pd.DataFrame]:
    """µs by kind but idle, spans of communication, and the operators of the thread that trains."""
    pieces, owners = spans.innermost(own["start"].to_numpy(), own["end"].to_numpy())
    kinds = own["kind"].to_numpy()[owners]
    lengths = pieces[:, 1] - pieces[:, 0]
    seconds = {str(kind): float(lengths[kinds == kind].sum()) for kind in np.unique(kinds)}
    idle = pieces[kinds == "idle"]
    seconds.pop("idle", None)
    elsewhere = spans.merged(_spans(others))
    waited = float(spans.overlap(idle, elsewhere).sum())
    seconds["communication"] = seconds.get("communication", 0.0) + waited
    exchanges = spans.merged(
        np.concatenate([elsewhere, _spans(own[own["kind"] == "communication"])])
    )
    alone = np.bincount(owners, lengths, minlength=len(own))
    operators = own.assign(end=own["start"] + alone)
    return seconds, exchanges, _table(operators[operators["category"] == "operator"])


def _on_gpu(
    kernels: pd.DataFrame, data: np.ndarray, window: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """µs by kind but idle, and spans of communication."""
    exchange = kernels["kind"] == "communication"
    computing = kernels[~exchange]
    starts = np.maximum(
        computing["start"], np.r_[-np.inf, np.maximum.accumulate(computing["end"])[:-1]]
    )
    lengths = np.clip(computing["end"] - starts, 0, None)
    seconds = {str(kind): float(part.sum()) for kind, part in lengths.groupby(computing["kind"])}
    busy, exchanges = spans.merged(_spans(computing)), spans.merged(_spans(kernels[exchange]))
    either = spans.merged(np.concatenate([busy, exchanges]))
    seconds["communication"] = spans.length(either) - spans.length(busy)
    bounds = np.r_[window[0, 0], either.ravel(), window[0, 1]].reshape(-1, 2)
    seconds["data"] = seconds.get("data", 0.0) + float(spans.overlap(bounds, data).sum())
    return seconds, exchanges


def _kinds_of_host(own: pd.DataFrame) -> pd.DataFrame:
    """A thread's operators and ranges with their kind; a range that has one gives it to all within it."""
    around = spans.parents(own["start"].to_numpy(), own["end"].to_numpy())
    kinds: list[str] = []
    given: list[str | None] = []
    for name, category, parent in zip(own["name"], own["category"], around.tolist(), strict=True):
        ruled = given[parent] if parent >= 0 else None
        given.append(ruled or (of_range(name) if category == "range" else None))
        kinds.append(given[-1] or of_operator(name))
    return own.assign(kind=kinds)


def _kinds_of_host_threads(host: pd.DataFrame) -> pd.Series:
    """Kind by an operator's number, over all threads."""
    parts = [_kinds_of_host(part) for _, part in host.groupby("thread")]
    known = pd.concat(parts)
    return (
        known[known["operator"] >= 0]
        .drop_duplicates("operator", keep="last")
        .set_index("operator")["kind"]
    )


def _kinds_of_kernels(kernels: pd.DataFrame, launchers: pd.Series) -> pd.Series:
    """Communication by the kernel's name; else the kind of the operator that launched it, or that of its own name."""
    own, launcher = kernels["name"].map(of_kernel), kernels["operator"].map(launchers)
    told = launcher.notna() & ~launcher.isin(["other", "idle"]) & (own != "communication")
    return own.where(~told, launcher)


def _table(events: pd.DataFrame) -> pd.DataFrame:
    """Calls and seconds by name and kind, the longest first."""
    grouped = events.assign(seconds=(events["end"] - events["start"]) / 1e6).groupby(
        ["name", "kind"], as_index=False
    )
    table = grouped.agg(calls=("seconds", "size"), seconds=("seconds", "sum"))
    return table.sort_values(["seconds", "name"], ascending=[False, True], ignore_index=True)


def _course(memory: pd.DataFrame, begin: float) -> pd.DataFrame:
    """Memory over time, in at most about POINTS pieces, of each the smallest and the largest value."""
    table = pd.DataFrame(
        {"seconds": (memory["start"] - begin) / 1e6, "bytes": memory["allocated"].astype(float)}
    )
    piece = np.arange(len(table)) * POINTS // (2 * max(len(table), 1))
    kept = np.unique(
        np.r_[table.groupby(piece)["bytes"].idxmin(), table.groupby(piece)["bytes"].idxmax()]
    )
    return table.loc[kept].reset_index(drop=True) if len(table) else table.reset_index(drop=True)


def _spans(events: pd.DataFrame) -> np.ndarray:
    return events[["start", "end"]].to_numpy(dtype=float)
