"""Files of several frames or pages: which frames are used, and how the index names them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from medscale.base.paths import FRAME
from medscale.data.images import read_bytes

if TYPE_CHECKING:
    import pandas as pd

FIRST, MIDDLE, ALL = "first", "middle", "all"  # values of source.frames
SEVERAL = "several frames"  # reason of the audit's row


def chosen(which: str, count: int) -> list[int]:
    """Return the numbers, from 0, of the frames that are used of ``count``.

    Of an even number the middle is the first of the second half.
    """
    if which == ALL:
        return list(range(count))
    return [count // 2 if which == MIDDLE else 0]


def frame_digest(sha256: str, frame: int) -> str:
    """Return the digest of a frame from the SHA-256 of its file; the first frame has the file's."""
    return hashlib.sha256(f"{sha256} frame {frame}".encode()).hexdigest() if frame else sha256


def read_frame(path: str | Path) -> tuple[bytes, int]:
    """Return the bytes of a file and the number, from 0, of the frame that ``path`` names.

    The index names a frame other than a file's only or first one as ``scan.dcm[2]``, counted from
    1. A file that has such a name is meant itself.

    Raises:
        Unreadable: as ``images.read_bytes``.
    """
    match = FRAME.fullmatch(str(path))
    if match is None or Path(path).exists():
        return read_bytes(path), 0
    return read_bytes(match["file"]), int(match["number"]) - 1


def file_of(path: str) -> str:
    """Return the path of the file of a frame that the index names; see ``read_frame``."""
    match = FRAME.fullmatch(path)
    return match["file"] if match else path


def name_frames(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the frames of files that have several, and keep all frames of a file in one group.

    Args:
        rows: an image a row, with ``path`` of its file, ``sha256`` and ``group``, the number of the
            frame in ``_frame`` and of the file's frames in ``_frames``.

    Returns:
        The rows without ``_frame`` and ``_frames``, each path that of its frame; frames of a file
        whose patient is not known share a group. And a row for each file of several frames with
        ``path`` (of the file) and ``detail``.
    """
    import pandas as pd  # takes 0.3 s, for which processes that decode need not wait

    several = rows["_frames"] > 1
    every = rows.duplicated("path", keep=False)
    files = rows[several & ~rows.duplicated("path")]
    notes = pd.DataFrame(
        {
            "path": files["path"],
            "detail": [
                f"all {count} frames are used"
                if whole
                else f"{'first' if frame == 0 else f'number {frame + 1}'} of {count} frames is used"
                for frame, count, whole in zip(
                    files["_frame"], files["_frames"], every[files.index], strict=True
                )
            ],
        }
    )
    alone = every & rows["group"].isna()
    file_digest = rows.groupby("path")["sha256"].transform("first")
    named = every | (rows["_frame"] > 0)
    number = (rows["_frame"] + 1).astype(int).astype(str)
    rows = rows.assign(
        group=rows["group"].where(~alone, "image:" + file_digest.astype(str).str[:16]),
        path=rows["path"].where(~named, rows["path"] + "[" + number + "]"),
    )
    return rows.drop(columns=["_frame", "_frames"]), notes
