"""How training time falls with devices: speedup and efficiency against a stated baseline."""

from medscale.scaling.measured import by_format, by_inference, by_way, by_workers
from medscale.scaling.speedup import speedups

__all__ = ["by_format", "by_inference", "by_way", "by_workers", "speedups"]
