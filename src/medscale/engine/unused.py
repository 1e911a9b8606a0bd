"""Settings of a plan on which neither the weights nor the times of a training depend."""

from __future__ import annotations

from medscale.engine.plan import RunPlan

# Settings of the section ``parallel`` that decide when a training stops or saves its state.
LIMITS = ("timeout_s", "checkpoint_every_s", "checkpoint_every_steps", "stop_after_s")
PLACES = ("nodes", "procs_per_node")  # where it is trained


def keeping(plan: RunPlan, trained: RunPlan) -> RunPlan:
    """Return a plan with the settings of a complete replicate that changed nothing in it.

    These are the places of its processes, limits of their time, the times of its checkpoints, and
    settings that the run does not use. They may differ between the replicates of a run.

    Args:
        plan: the plan as configured.
        trained: the plan of the complete replicate.
    """
    recipe, parallel = _unused_recipe(plan), list(LIMITS)
    if plan.run.stages == 1:
        parallel += ["schedule", "microbatches"]
    sections = {
        "recipe": plan.recipe.model_copy(
            update={name: getattr(trained.recipe, name) for name in recipe}
        ),
        "parallel": plan.parallel.model_copy(
            update={name: getattr(trained.parallel, name) for name in parallel}
        ),
    }
    return plan.model_copy(update=sections | {name: getattr(trained, name) for name in PLACES})


def _unused_recipe(plan: RunPlan) -> list[str]:
    """Return the settings of the recipe that a run does not use."""
    unused = {
        "half": not plan.run.amp,
        "tf32": plan.run.amp or plan.backend == "cpu",
        "graph": plan.backend == "cpu",
        "sync_batchnorm": plan.run.replicas == 1,
    }
    return [name for name, is_unused in unused.items() if is_unused]
