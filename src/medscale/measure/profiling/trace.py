"""Reads a trace of torch.profiler (Chrome's JSON format) into one flat table of events."""

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
    """Return the events of a trace, sorted by start, and events of equal start by length.

    Events are decoded one by one, so that memory holds the text and the rows, and not a tree of
    objects.

    Args:
        text: the trace in JSON.

    Returns:
        One row for each event with the columns

        - ``category``: operator, range (an annotation), kernel (a kernel, copy or fill on a GPU) or
          memory (an allocation or release);
        - ``name``;
        - ``thread``: for a kernel, the GPU's stream;
        - ``start, end``: µs on the trace's clock;
        - ``operator``: number of the operator; for a kernel, of the operator that launched it; -1
          for none;
        - ``size``: bytes of an allocation, negative for a release;
        - ``allocated``: bytes in use afterwards;
        - ``on_gpu``: whether the memory is the GPU's.
    """
    rows = [row for event in _decode_events(text) if (row := _row(event)) is not None]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(
        ["start", "end"], ascending=[True, False], kind="stable", ignore_index=True
    )


def _decode_events(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    position = text.index("[", text.index('"traceEvents"')) + 1
    while True:
        gap = _GAP.match(text, position)
        assert gap is not None  # the pattern matches the empty string as well
        if text.startswith("]", gap.end()):
            return
        event, position = decoder.raw_decode(text, gap.end())
        yield event


def _row(event: dict[str, Any]) -> tuple[Any, ...] | None:
    category = CATEGORIES.get(event.get("cat", ""))
    if category is None:
        return None
    arguments, name, start = event.get("args", {}), event["name"], float(event["ts"])
    if category == "memory":
        if "Total Allocated" not in arguments:
            return None
        size, allocated = int(arguments["Bytes"]), int(arguments["Total Allocated"])
        on_gpu = arguments["Device Type"] != 0
        return category, name, str(event["tid"]), start, start, -1, size, allocated, on_gpu
    if event.get("ph") != "X":
        return None
    thread = str(event["tid"])
    operator = int(arguments.get("External id", -1))
    return category, name, thread, start, start + float(event["dur"]), operator, 0, 0, False
