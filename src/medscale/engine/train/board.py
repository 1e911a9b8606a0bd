"""The history as TensorBoard logs while a training goes on: the rows of history.csv, measured once."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError

Row = dict[str, Any]


@contextmanager
def board(folder: Path, done: int) -> Iterator[Callable[[Row], None]]:
    """Give a function that writes a row of the history into the logs of ``folder``.

    Args:
        folder: that of the logs; what another training left there is removed.
        done: epochs that were done before a restart; what was written of later ones does not count.

    Raises:
        MedscaleError: when tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MedscaleError(
            "tensorboard: true needs the package tensorboard: pip install tensorboard"
        ) from None
    if not done:
        shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder), purge_step=done + 1 if done else None) as writer:

        def note(row: Row) -> None:
            for column, value in row.items():
                if column != "epoch" and math.isfinite(value):
                    writer.add_scalar(tag(column), value, row["epoch"])
            writer.flush()

        yield note


def tag(column: str) -> str:
    """A column's name in TensorBoard: what belongs into one group is called alike."""
    if column.endswith("_s") or column == "seconds":
        return f"seconds/{column.removesuffix('_s').replace('seconds', 'epoch')}"
    split, _, what = column.partition("_")
    return f"{what}/{split}" if split in ("train", "val") else column
