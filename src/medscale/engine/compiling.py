"""Decides from measured speeds whether compiling a network saves time in a run."""

from __future__ import annotations

from medscale.engine import card_rates
from medscale.engine.plan import RunPlan


def pays(plan: RunPlan, images: int, side: int, card: str, number_format: str) -> tuple[bool, str]:
    """Return whether a run saves more time by a compiled network than compiling takes, and why.

    The measurements are those of docs/gpu.csv with the nearest batch; time is assumed proportional
    to the area of an image. A network or format without measurements is not compiled, and neither
    is a network with options that change its speed.

    Args:
        plan: the run.
        images: images that are trained on, over all epochs.
        side: pixels per side of the stored images.
        card: name of the GPU by PyTorch.
        number_format: fp32, tf32, bf16 or fp16, the run's.
    """
    network = plan.model.name
    if not card_rates.has_usual_speed(plan.model):
        return False, f"docs/gpu.csv has {network} only without model.options"
    measured = card_rates.compilation(card, network, number_format, plan.images_at_a_time)
    if measured is None:
        return False, f"docs/gpu.csv has no compiled {network} in {number_format}"
    side = plan.augment.crop.size if plan.augment.crop else side
    images_per_device = images / plan.processes * (side / measured.plain.size) ** 2
    plain, compiled = (r.images_per_second for r in (measured.plain, measured.compiled))
    saved = images_per_device * (1 / plain - 1 / compiled)
    loop = "the engine" if measured.way == card_rates.ENGINE else "a plain loop"
    return saved > measured.seconds, (
        f"it saves {saved:.0f} s and takes {measured.seconds:.0f} s, as measured with {loop} on the"
        f" {measured.card} (docs/gpu.csv)"
    )
