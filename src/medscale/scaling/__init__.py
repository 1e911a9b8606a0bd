"""How training time falls with devices: speedup and efficiency against a stated baseline."""

from medscale.scaling.speedup import speedups

__all__ = ["speedups"]
