"""Facts of the chapter profiling: what the paper says of it."""

from __future__ import annotations

from medscale.measure.profiling import bottleneck
from medscale.measure.profiling.kinds import KINDS
from medscale.report.latex import escape, number, significant
from medscale.report.profiling.reading import Profiled, device


def values(one: Profiled) -> dict[str, str]:
    """LaTeX by key, below the run's name."""
    n = one.numbers
    values = {
        "device": escape(f"{device(one)}, {one.about['format']}"),
        "milliseconds": significant(1e3 * n.seconds),
        "images_per_second": significant(one.images_per_second),
        "slowdown": number(n.slowdown, 0, 100),
        "gflops": significant(n.flops / n.seconds / 1e9),
        "attained_flops": number(n.of_flops, 0, 100),
        "attained_bytes": number(n.of_bytes, 0, 100),
        "intensity": significant(n.intensity),
        "ridge": significant(n.ridge),
        "bottleneck": escape(bottleneck.sentence(n)),
        **{
            f"share/{kind.replace(' ', '_')}": number(one.share(kind).mean(), 0, 100)
            for kind in KINDS
        },
    }
    return {f"{one.name}/{key}": value for key, value in values.items()}
