"""A trace of torch.profiler (Chrome's JSON format, as Perfetto reads it) to one flat table of events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

CATEGORIES = {
    "cpu_op": "operator",
    "user_annotation": "range",
    "kernel": "kernel",
    "gpu_memcpy": "kernel",
    "gpu_memset": "kernel",
    "cpu_instant_event": "memory",
}
COLUMNS = ("category", "name", "thread", "start", "end", "operator", "size", "allocated", "on_gpu")
_GAP = re.compile(r"[\s,]*")


def events(text: str) -> pd.DataFrame:
    """The events of a trace, a row each, in the order of their beginnings, of equal ones the longest first.

    It is decoded event by event, so that memory holds the text and the rows, not a tree of objects.

    Returns:
        Columns ``category`` (operator, range: annotated by name, kernel: on a GPU, with copies and fills, memory:
        an allocation or release), ``name``, ``thread`` (of a kernel: the GPU's stream), ``start, end`` (µs on the
        trace's clock), ``operator`` (number of the operator, and of a kernel that of the one which launched it; -1:
        none), ``size`` (bytes allocated, negative: released), ``allocated`` (bytes after that), ``on_gpu`` (of memory).
    """
    rows = [row for event in _decoded(text) if (row := _row(event)) is not None]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(
        ["start", "end"], ascending=[True, False], kind="stable", ignore_index=True
    )


def _decoded(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    place = text.index("[", text.index('"traceEvents"')) + 1
    while True:
        gap = _GAP.match(text, place)
        assert gap is not None  # it matches nothing as well
        if text.startswith("]", gap.end()):
            return
        event, place = decoder.raw_decode(text, gap.end())
        yield event


def _row(event: dict[str, Any]) -> tuple[Any, ...] | None:
    category = CATEGORIES.get(event.get("cat", ""))
    if category is None:
        return None
    given, start = event.get("args", {}), float(event["ts"])
    if category == "memory":
        if "Total Allocated" not in given:
            return None
        size, allocated = int(given["Bytes"]), int(given["Total Allocated"])
        return (
            category,
            event["name"],
            str(event["tid"]),
            start,
            start,
            -1,
            size,
            allocated,
            given["Device Type"] != 0,
        )
    if event.get("ph") != "X":
        return None
    thread = (
        f"{given.get('device', 0)}/{given.get('stream', 0)}"
        if category == "kernel"
        else str(event["tid"])
    )
    operator = int(given.get("External id", -1))
    return (
        category,
        event["name"],
        thread,
        start,
        start + float(event["dur"]),
        operator,
        0,
        0,
        False,
    )
