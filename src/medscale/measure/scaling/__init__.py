"""Scaling of training time with devices: speedup, laws of scaling, cost, recommendations."""

from medscale.measure.scaling.measured import by_format, by_inference, by_way, by_workers
from medscale.measure.scaling.series import Point, Series, gather, point_of, without_one_device
from medscale.measure.scaling.speedup import speedups

__all__ = [
    "Point",
    "Series",
    "by_format",
    "by_inference",
    "by_way",
    "by_workers",
    "gather",
    "point_of",
    "speedups",
    "without_one_device",
]
