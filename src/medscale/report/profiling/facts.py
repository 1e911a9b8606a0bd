"""Facts of the chapter on profiling: speed and bottleneck of each profiled run."""

from collections.abc import Sequence
from typing import Any

from medscale.measure.profiling import bottleneck
from medscale.report.names import label
from medscale.report.profiling.reading import Profiled, device


def facts(profiles: Sequence[Profiled]) -> dict[str, Any]:
    """Return the facts of a study's profiled runs; ``seconds`` are those of a step."""
    return {
        "marks": [profile.about["marks"] for profile in profiles],
        "runs": [
            {
                "label": label(profile.name),
                "stand_in": profile.about["marks"]["stand_in"],
                "device": device(profile),
                "format": profile.about["format"],
                "seconds": profile.numbers.seconds,
                "images_per_second": profile.images_per_second,
                "slowdown": profile.numbers.slowdown,
                "bottleneck": bottleneck.sentence(profile.numbers),
            }
            for profile in profiles
        ],
    }
