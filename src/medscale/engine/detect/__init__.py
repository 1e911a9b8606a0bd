"""Localization by YOLOv8 through ultralytics, which is AGPL-3.0: an optional extra, imported by ``detect.yolo`` alone.

Whoever hands on this package together with ultralytics, or offers it as a service, is bound by that licence; without
detection runs nothing of it is imported.
"""

from __future__ import annotations

from importlib.util import find_spec

from medscale.base.errors import MedscaleError


def require() -> None:
    """Fail where ultralytics is not installed.

    Raises:
        MedscaleError: saying how to install it.
    """
    if find_spec("ultralytics") is None:
        raise MedscaleError(
            "detection runs (yolov8) need ultralytics, which is not installed. It is under AGPL-3.0 and so an optional "
            "extra: pip install -e '.[detect]', or leave the yolov8 runs out of `runs`"
        )
