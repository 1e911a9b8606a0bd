"""Decides from measured speeds whether compiling a network saves time in a run."""

from __future__ import annotations

from dataclasses import dataclass

from medscale.engine.plan import RunPlan

SIDE = 224  # pixels per side of the images that the figures were measured with


@dataclass(frozen=True)
class Figures:
    """Training speeds of a network on one GPU, with the whole step as a CUDA graph."""

    batch: int  # images a step
    captured: float  # images/s
    compiled: float  # images/s of the compiled network
    seconds: float  # from the start to the first replay of the compiled network


# Plain loops of timm and medical_cnn on one NVIDIA H200, not this engine: PyTorch 2.11 with
# CUDA 13, bf16, channels last, 2026-11-26.
FIGURES: dict[str, tuple[Figures, ...]] = {
    "medical_cnn": (Figures(32, 5778, 8182, 48),),
    "efficientnet_b3": (Figures(64, 2326, 3193, 132), Figures(256, 2806, 3950, 149)),
}


def pays(plan: RunPlan, images: int, side: int) -> tuple[bool, str]:
    """Return whether a run saves more time by a compiled network than compiling takes, and why.

    The figures are those of the nearest measured batch; time is assumed proportional to the area
    of an image. A network or format without figures is not compiled.

    Args:
        plan: the run.
        images: images that are trained on, over all epochs.
        side: pixels per side of the stored images.
    """
    if plan.backend != "cuda":
        return False, "the figures are those of a GPU"
    measured = FIGURES.get(plan.model.name)
    if measured is None or not plan.run.amp:
        amp = "with" if plan.run.amp else "without"
        return False, f"there are no figures for {plan.model.name} {amp} mixed precision"
    batch = plan.global_batch // plan.run.replicas
    nearest = min(measured, key=lambda figures: abs(figures.batch - batch))
    side = plan.augment.crop.size if plan.augment.crop else side
    images_per_device = images / plan.run.devices * (side / SIDE) ** 2
    saved = images_per_device * (1 / nearest.captured - 1 / nearest.compiled)
    return saved > nearest.seconds, (
        f"it saves {saved:.0f} s and takes {nearest.seconds:.0f} s by the figures of one H200"
    )
