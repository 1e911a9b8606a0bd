"""Check that the optional package ultralytics is installed, without importing it."""

from __future__ import annotations

from importlib.util import find_spec

from medscale.base.errors import MedscaleError


def require() -> None:
    """Fail where ultralytics is not installed.

    Raises MedscaleError with the command that installs it.
    """
    if find_spec("ultralytics") is None:
        raise MedscaleError(
            "detection runs (yolov8) need ultralytics, which is not installed. It is under "
            "AGPL-3.0 and so an optional extra: pip install -e '.[detect]', or leave the yolov8 "
            "runs out of `runs`"
        )
