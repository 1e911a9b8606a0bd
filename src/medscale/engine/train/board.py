"""TensorBoard logs of a training: the rows of history.csv."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError

Row = dict[str, Any]
# Of a file of logs: time, the machine's name, process and number.
NAME = re.compile(r"(events\.out\.tfevents\.\d+)\..+(\.\d+\.\d+)")


@contextmanager
def board(folder: Path, epochs_done: int) -> Iterator[Callable[[Row], None]]:
    """Yield a function that logs a row of the history.

    Raises MedscaleError when tensorboard is not installed.

    Args:
        folder: folder of the logs; at the first epoch, older logs there are removed.
        epochs_done: epochs that were finished before a restart; logs of later epochs are discarded.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MedscaleError(
            "tensorboard: true needs the package tensorboard: pip install tensorboard"
        ) from None
    if not epochs_done:
        shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder), purge_step=epochs_done + 1 if epochs_done else None)

    def log_row(row: Row) -> None:
        for name, value in scalars(row):
            writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    try:
        yield log_row
    finally:
        writer.close()
        # TensorBoard reads any name; that of a machine is not published with the logs.
        for file in folder.iterdir():
            file.rename(file.with_name(NAME.sub(r"\1.host\2", file.name)))


def scalars(row: Row) -> Iterator[tuple[str, float]]:
    """Yield tag and value of each finite number of a row of the history, except the epoch's."""
    for column, value in row.items():
        if column != "epoch" and isinstance(value, int | float) and math.isfinite(value):
            yield tag(column), float(value)


def tag(column: str) -> str:
    """Return a column's name in TensorBoard, such as ``loss/train``: columns are grouped."""
    if column.endswith("_s") or column == "seconds":
        return f"seconds/{column.removesuffix('_s').replace('seconds', 'epoch')}"
    split, _, quantity = column.partition("_")
    return f"{quantity}/{split}" if split in ("train", "val") else column
