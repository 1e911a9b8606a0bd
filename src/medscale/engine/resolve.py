"""Settings of a plan that depend on the training images: `auto`, and steps in place of epochs.

They are decided when training begins, from the labels of the shards, so that a repetition decides
the same; compilation is decided from the GPU and docs/gpu.csv, too. The run folder's
environment.json records the decision under ``resolved``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.engine import compiling
from medscale.engine.formats import format_of
from medscale.engine.plan import Model, Recipe, RunPlan

if TYPE_CHECKING:
    import torch

AUTO = "auto"
IMBALANCE = 3  # the largest class over the smallest, beyond which the loss has class weights
# Dropout by number of training images, smallest first: a small set is trained for few steps on
# strongly augmented images, where dropout in each hidden layer of the head slows the fit.
DROPOUT = ((2_000, 0.0), (20_000, 0.1))
LARGE_DROPOUT = 0.3


def resolve(plan: RunPlan, counts: np.ndarray, side: int, device: torch.device) -> RunPlan:
    """Return a plan without settings that depend on the images; others are returned unchanged.

    ``recipe.graph`` stays ``auto`` until the step is captured. Raises MedscaleError when the steps
    are fewer than those of the warm-up.

    Args:
        plan: the plan as configured.
        counts: training images by class, shape K.
        side: pixels per side of the stored images.
        device: that trains.
    """
    images, model, recipe = int(counts.sum()), plan.model, plan.recipe
    changes: dict[str, Any] = {}
    if recipe.steps is not None:
        changes |= {"epochs": epochs(recipe, images, plan.global_batch), "steps": None}
        if recipe.warmup_epochs > changes["epochs"]:
            raise MedscaleError(
                f"recipe.warmup_epochs is {recipe.warmup_epochs:g}, but {recipe.steps} steps of "
                f"{images} training images are {changes['epochs']} epochs: lower the first, or "
                "raise recipe.steps"
            )
    if recipe.compile == AUTO:
        trained = images * changes.get("epochs", recipe.epochs)
        changes["compile"] = _compile(plan, trained, side, device)
    if recipe.class_weights == AUTO:
        present = counts[counts > 0]
        changes["class_weights"] = bool(present.max() > IMBALANCE * present.min())
    if model.options.get("dropout") == AUTO:
        options = model.options | {"dropout": dropout(images)}
        model = model.model_copy(update={"options": options})
    recipe = recipe.model_copy(update=changes)
    return plan.model_copy(update={"model": model, "recipe": recipe})


def _compile(plan: RunPlan, images: int, side: int, device: torch.device) -> str:
    """Return ``on`` if compiling saves time over the images of all epochs; log why on a GPU."""
    if device.type != "cuda":
        return "off"
    import torch

    card = torch.cuda.get_device_name(device)
    pays, reason = compiling.pays(plan, images, side, card, format_of(plan, device))
    decision = "on" if pays else "off"
    log.info("recipe.compile: auto is %s: %s", decision, reason)
    return decision


def epochs(recipe: Recipe, images: int, global_batch: int) -> int:
    """Return the epochs of a recipe: those that have at least its steps, if it counts steps."""
    if recipe.steps is None:
        return recipe.epochs
    return -(-recipe.steps // max(1, -(-images // global_batch)))


def dropout(images: int) -> float:
    """Return the probability of dropout for a number of training images."""
    return next((share for most, share in DROPOUT if images < most), LARGE_DROPOUT)


def record(plan: RunPlan) -> dict[str, Any]:
    """Return what environment.json keeps of a resolved plan."""
    return {part: getattr(plan, part).model_dump(mode="json") for part in ("model", "recipe")}


def recorded(plan: RunPlan, environment: dict[str, Any]) -> RunPlan:
    """Return a plan with the settings that its training decided, if it decided some."""
    parts = environment.get("resolved")
    if parts is None:
        return plan
    model, recipe = Model.model_validate(parts["model"]), Recipe.model_validate(parts["recipe"])
    return plan.model_copy(update={"model": model, "recipe": recipe})
