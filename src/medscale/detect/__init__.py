"""Localization by YOLOv8 through ultralytics, which is AGPL-3.0: an optional extra, imported by ``detect.yolo`` alone.

Whoever hands on this package together with ultralytics, or offers it as a service, is bound by that licence; without
detection runs nothing of it is imported.
"""

from __future__ import annotations

from importlib.util import find_spec

from medscale.config import RunPlan
from medscale.errors import MedscaleError


def require() -> None:
    """Fail where ultralytics is not installed.

    Raises:
        MedscaleError: saying how to install it.
    """
    if find_spec("ultralytics") is None:
        raise MedscaleError(
            "detection runs (yolov8) need ultralytics, which is not installed: pip install "
            "'ultralytics-opencv-headless>=8.4'. It is under AGPL-3.0, so it is an optional extra; without it leave "
            "the yolov8 runs out of `runs`"
        )


def check(plan: RunPlan) -> None:
    """Refuse a detection run that cannot be carried out.

    Raises:
        MedscaleError: for a strategy that detection does not have, and where ultralytics is missing.
    """
    if plan.run.strategy not in ("serial", "ddp") or plan.run.mp:
        raise MedscaleError(f"{plan.run.name}: detection runs are serial or ddp, such as ddp_4gpu_{plan.model.name}")
    require()
