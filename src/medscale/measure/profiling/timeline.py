"""Analysis of a rank's trace: seconds by kind, operators, kernels, memory.

The window, from the start of its first step to the end of its last, is divided without gap or
overlap:

- On a CPU each moment belongs to the innermost operator of the thread that trains.
- On a GPU each moment belongs to the running kernel; if several run, to the one that began first.
- Where nothing computes while an exchange runs on another thread or stream, the time is
  communication; computing hides the rest of the exchange.
- Where neither runs while the host gets the next batch, the time is data. All other time is idle:
  on a GPU no kernel runs; a CPU runs Python and its calls outside operators.

All events within the annotated range that gets a batch are of kind data, and all within that of the
optimizer are of kind optimizer. Other annotated ranges compute nothing themselves: in that of a
pipeline's forward pass, a stage waits for its neighbour.
"""

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
POINTS = 1000  # of the curve of allocated memory


@dataclass
class Timeline:
    """The result of the analysis of a rank's trace."""

    steps: int  # number of steps in the window
    window_s: float  # length of the window
    kinds: dict[str, float]  # seconds by kind over the window; they sum to ``window_s``
    communication_s: float  # seconds in which an exchange runs, hidden or not
    # ``name, kind, calls, seconds``: on a CPU the operator's time without that of operators within
    # it; on a GPU the time of the kernels that it launched
    operators: pd.DataFrame
    kernels: pd.DataFrame  # ``name, kind, calls, seconds`` of each GPU kernel; empty for a CPU
    # ``seconds`` since the start of the window and ``bytes`` allocated by PyTorch (on a CPU since
    # tracing began, so without the weights), thinned out by ``_memory_curve``
    memory: pd.DataFrame
    allocations: int  # number of allocations in the window
    allocated_bytes: float  # sum of their sizes


def analyse(events: pd.DataFrame) -> Timeline:
    """Divide the time of a trace; MedscaleError when the trace has no profiled step."""
    marks = events[events["name"].str.startswith(STEP) & (events["category"] == "range")]
    if marks.empty:
        raise MedscaleError(
            "the trace has no step of torch.profiler (ProfilerStep#): was it made by `profile`?"
        )
    begin, end, trainer = marks["start"].min(), marks["end"].max(), marks["thread"].iloc[0]
    inside = events[(events["end"] >= begin) & (events["start"] < end)].copy()
    inside[["start", "end"]] = inside[["start", "end"]].clip(begin, end)
    host = inside[inside["category"].isin(["operator", "range"])]
    is_exchange_event = host["name"].map(is_exchange).astype(bool)
    host, exchange_events = host[~is_exchange_event], host[is_exchange_event]
    thread_events = _kinds_of_host(host[host["thread"] == trainer])
    kernels = inside[inside["category"] == "kernel"]
    data = spans.union(_spans(thread_events[thread_events["name"] == DATA]))
    if kernels.empty:
        seconds, exchanges, operators = _on_cpu(thread_events, exchange_events)
        kernel_table = _table(kernels.assign(kind=""))
    else:
        kernels = kernels.assign(kind=_kinds_of_kernels(kernels, _kinds_of_host_threads(host)))
        seconds, exchanges = _on_gpu(kernels, data, np.array([[begin, end]]))
        kernel_table = _table(kernels)
        launchers = kernels["operator"].map(_by_operator(host)["name"]).astype(object)
        operators = _table(kernels.assign(name=launchers.fillna("(not known)")))
    window = end - begin
    seconds["idle"] = window - sum(seconds.values())
    memory = inside[(inside["category"] == "memory") & (inside["on_gpu"] == (not kernels.empty))]
    return Timeline(
        steps=marks["name"].nunique(),
        window_s=window / 1e6,
        kinds={kind: max(0.0, seconds.get(kind, 0.0)) / 1e6 for kind in KINDS},
        communication_s=spans.length(exchanges) / 1e6,
        operators=operators,
        kernels=kernel_table,
        memory=_memory_curve(memory, begin),
        allocations=int((memory["size"] > 0).sum()),
        allocated_bytes=float(memory["size"].clip(lower=0).sum()),
    )


def _on_cpu(
    thread_events: pd.DataFrame, exchange_events: pd.DataFrame
) -> tuple[dict[str, float], np.ndarray, pd.DataFrame]:
    """Return µs by kind but idle, spans of communication, and operators of the training thread."""
    pieces, owners = spans.innermost(
        thread_events["start"].to_numpy(), thread_events["end"].to_numpy()
    )
    kinds = thread_events["kind"].to_numpy()[owners]
    lengths = pieces[:, 1] - pieces[:, 0]
    seconds = {str(kind): float(lengths[kinds == kind].sum()) for kind in np.unique(kinds)}
    idle = pieces[kinds == "idle"]
    seconds.pop("idle", None)
    exchange_spans = spans.union(_spans(exchange_events))
    waiting = float(spans.overlap(idle, exchange_spans).sum())
    seconds["communication"] = seconds.get("communication", 0.0) + waiting
    exchanges = spans.union(
        np.concatenate(
            [exchange_spans, _spans(thread_events[thread_events["kind"] == "communication"])]
        )
    )
    own_times = np.bincount(owners, lengths, minlength=len(thread_events))
    operators = thread_events.assign(end=thread_events["start"] + own_times)
    return seconds, exchanges, _table(operators[operators["category"] == "operator"])


def _on_gpu(
    kernels: pd.DataFrame, data: np.ndarray, window: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Return µs by kind but idle, and spans of communication."""
    exchange = kernels["kind"] == "communication"
    computing = kernels[~exchange]
    starts = np.maximum(
        computing["start"], np.r_[-np.inf, np.maximum.accumulate(computing["end"])[:-1]]
    )
    lengths = np.clip(computing["end"] - starts, 0, None)
    seconds = {str(kind): float(part.sum()) for kind, part in lengths.groupby(computing["kind"])}
    busy, exchanges = spans.union(_spans(computing)), spans.union(_spans(kernels[exchange]))
    busy_or_exchange = spans.union(np.concatenate([busy, exchanges]))
    seconds["communication"] = spans.length(busy_or_exchange) - spans.length(busy)
    bounds = np.r_[window[0, 0], busy_or_exchange.ravel(), window[0, 1]].reshape(-1, 2)
    seconds["data"] = seconds.get("data", 0.0) + float(spans.overlap(bounds, data).sum())
    return seconds, exchanges


def _kinds_of_host(thread_events: pd.DataFrame) -> pd.DataFrame:
    """Add the kind to a thread's operators and ranges; a range passes its kind to those within."""
    around = spans.parents(thread_events["start"].to_numpy(), thread_events["end"].to_numpy())
    kinds: list[str] = []
    range_kinds: list[str | None] = []
    for name, category, parent in zip(
        thread_events["name"], thread_events["category"], around.tolist(), strict=True
    ):
        outer = range_kinds[parent] if parent >= 0 else None
        range_kinds.append(outer or (of_range(name) if category == "range" else None))
        kind = range_kinds[-1] or of_operator(name)
        kinds.append("idle" if category == "range" and kind == "other" else kind)
    return thread_events.assign(kind=kinds)


def _kinds_of_host_threads(host: pd.DataFrame) -> pd.Series:
    """Return the kind of each operator by its number, over all threads."""
    parts = [_kinds_of_host(part) for _, part in host.groupby("thread")]
    return _by_operator(pd.concat(parts))["kind"]


def _by_operator(host: pd.DataFrame) -> pd.DataFrame:
    """Index the events by the operator's number; of equal numbers the innermost event remains."""
    operator_events = host[host["operator"] >= 0]
    return operator_events.drop_duplicates("operator", keep="last").set_index("operator")


def _kinds_of_kernels(kernels: pd.DataFrame, launchers: pd.Series) -> pd.Series:
    """Return the kinds of kernels: communication by name, the others by their launcher.

    A kernel's own name decides if its launcher has no kind that says more.
    """
    thread_events, launcher = kernels["name"].map(of_kernel), kernels["operator"].map(launchers)
    decisive = (
        launcher.notna() & ~launcher.isin(["other", "idle"]) & (thread_events != "communication")
    )
    return thread_events.where(~decisive, launcher)


def _table(events: pd.DataFrame) -> pd.DataFrame:
    """Return calls and seconds by name and kind, the longest first."""
    groups = events.assign(seconds=(events["end"] - events["start"]) / 1e6).groupby(
        ["name", "kind"], as_index=False
    )
    table = groups.agg(calls=("seconds", "size"), seconds=("seconds", "sum"))
    return table.sort_values(["seconds", "name"], ascending=[False, True], ignore_index=True)


def _memory_curve(memory: pd.DataFrame, begin: float) -> pd.DataFrame:
    """Return allocated memory over time: the extremes of each of about POINTS / 2 pieces."""
    table = pd.DataFrame(
        {"seconds": (memory["start"] - begin) / 1e6, "bytes": memory["allocated"].astype(float)}
    )
    piece = np.arange(len(table)) * POINTS // (2 * max(len(table), 1))
    if len(table):
        pieces = table.groupby(piece)["bytes"]
        table = table.loc[np.unique(np.r_[pieces.idxmin(), pieces.idxmax()])]
    return table.reset_index(drop=True)


def _spans(events: pd.DataFrame) -> np.ndarray:
    return events[["start", "end"]].to_numpy(dtype=float)
