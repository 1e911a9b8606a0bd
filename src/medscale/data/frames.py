"""Files with several frames or pages: selection of frames, and their names in the index."""

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


def frame_numbers(choice: str, count: int) -> list[int]:
    """Return the numbers, from 0, of the selected frames of a file with ``count`` frames.

    The middle of an even number of frames is the first of the second half.

    Args:
        choice: ``FIRST``, ``MIDDLE`` or ``ALL``.
        count: number of frames.
    """
    if choice == ALL:
        return list(range(count))
    return [count // 2 if choice == MIDDLE else 0]


def frame_digest(sha256: str, frame: int) -> str:
    """Return the digest of a frame: the file's SHA-256, changed for frames after the first."""
    return hashlib.sha256(f"{sha256} frame {frame}".encode()).hexdigest() if frame else sha256


def read_frame(path: str | Path) -> tuple[bytes, int]:
    """Return the bytes of a file and the number, from 0, of the frame that ``path`` names.

    Raises:
        Unreadable: see ``images.read_bytes``.
    """
    file, frame = file_and_frame(path)
    return read_bytes(file), frame


def file_and_frame(path: str | Path) -> tuple[Path, int]:
    """Return the file and the number, from 0, of the frame that ``path`` names.

    The index names frames after the first as ``scan.dcm[2]``, counted from 1. If a file of such a
    name exists, the path means that file.
    """
    match = FRAME.fullmatch(str(path))
    if match is None or Path(path).exists():
        return Path(path), 0
    return Path(match["file"]), int(match["number"]) - 1


def name_frames(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the frames of files with several frames, and keep all frames of a file in one group.

    Args:
        rows: one row for each image: ``path`` of the file, ``sha256``, ``group``, ``_frame``
            (number of the frame, from 0) and ``_frames`` (number of frames of the file).

    Returns:
        The rows without ``_frame`` and ``_frames``; ``path`` names the frame, and frames of a file
        without a known patient share a group. Second, one row for each file with several frames:
        ``path`` (of the file) and ``detail``.
    """
    # These imports take 0.3 s, and decoding processes do not need them.
    import pandas as pd

    from medscale.data.patients import group_without_patient

    several = rows["_frames"] > 1
    has_all = rows.duplicated("path", keep=False)
    files = rows[several & ~rows.duplicated("path")]
    notes = pd.DataFrame(
        {
            "path": files["path"],
            "detail": [
                f"all {count} frames are used"
                if whole
                else f"{'first' if frame == 0 else f'number {frame + 1}'} of {count} frames is used"
                for frame, count, whole in zip(
                    files["_frame"], files["_frames"], has_all[files.index], strict=True
                )
            ],
        }
    )
    is_unknown = has_all & rows["group"].isna()
    file_digest = rows.groupby("path")["sha256"].transform("first")
    is_named = has_all | (rows["_frame"] > 0)
    number = (rows["_frame"] + 1).astype(int).astype(str)
    rows = rows.assign(
        group=rows["group"].where(~is_unknown, group_without_patient(file_digest)),
        path=rows["path"].where(~is_named, rows["path"] + "[" + number + "]"),
    )
    return rows.drop(columns=["_frame", "_frames"]), notes
