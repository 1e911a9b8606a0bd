"""Check that the optional package ultralytics is installed, without importing it."""

from __future__ import annotations

from medscale.base import extras


def require() -> None:
    """Fail where ultralytics is not installed.

    Raises MedscaleError with the command that installs it.
    """
    extras.require(
        "detection runs (yolov8)",
        "detect",
        "ultralytics",
        note=" (under AGPL-3.0 and so an optional extra), or leave the yolov8 runs out of `runs`",
    )
