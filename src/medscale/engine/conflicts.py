"""Settings of a run that contradict its strategy, its devices or each other."""

from __future__ import annotations

import math

from medscale.base.errors import MedscaleError
from medscale.engine.formats import LACKING_ON_CPU
from medscale.engine.plan import RunPlan


def refuse(plan: RunPlan) -> None:
    """Raise MedscaleError for a plan that no training could carry out, whatever its images are."""
    run, recipe, model = plan.run, plan.recipe, plan.model
    if plan.global_batch < run.replicas:
        raise MedscaleError(
            f"{run.name}: {run.replicas} replicas cannot share a global batch of "
            f"{plan.global_batch}; raise recipe.batch_size, or choose a run with fewer devices"
        )
    if recipe.accumulate > (images := math.ceil(plan.global_batch / plan.replicas)):
        raise MedscaleError(
            f"{run.name}: recipe.accumulate is {recipe.accumulate}, but a replica's share of a "
            f"batch has {images} images: lower it, or raise recipe.batch_size"
        )
    if run.stages > 1 and (model.metadata or model.trained != "all"):
        raise MedscaleError(
            f"{run.name}: a pipeline (mp) trains the whole network on images alone; "
            "model.metadata and model.trained go with serial, DDP and FSDP"
        )
    if recipe.sync_batchnorm and run.replicas > 1 and run.stages > 1:
        raise MedscaleError(
            f"{run.name}: recipe.sync_batchnorm goes with DDP and FSDP, not with a pipeline (mp)"
        )
    if recipe.sync_batchnorm and run.replicas > 1 and plan.backend == "cpu":
        raise MedscaleError(
            f"{run.name}: recipe.sync_batchnorm needs GPUs: PyTorch's SyncBatchNorm refuses the CPU"
        )
    if run.amp and plan.backend == "cpu" and recipe.half in LACKING_ON_CPU:
        raise MedscaleError(
            f"{run.name}: recipe.half is {recipe.half}, but {LACKING_ON_CPU[recipe.half]}; "
            "leave recipe.half out (auto)"
        )
