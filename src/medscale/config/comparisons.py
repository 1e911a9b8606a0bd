"""The sections that compare runs: convergence to a target, and the search for learning rates."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medscale.base.section import Seed, Share, Strict, Unique
from medscale.config.run_name import RunName


class Convergence(Strict):
    """Comparison of epochs and seconds to a target with those of the baseline."""

    metric: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy", description="quantity that must reach the target: a column of history.csv"
    )
    target: float | None = Field(
        None, description="value that a run must reach; null: computed with `share`"
    )
    share: Share = Field(
        0.95,
        gt=0,
        le=1,
        description="each replicate of the baseline has a best value; the target is this share of "
        "the worst of them (of a loss: the worst of them, divided by this share)",
    )
    margin: Share = Field(
        0.2,
        gt=0,
        lt=1,
        description="largest relative difference in mean epochs at which convergence counts as "
        "equal",
    )
    runs: Unique[RunName] | None = Field(
        None,
        min_length=1,
        description="classifications to compare; null: those that train the baseline's network",
    )
    seeds: Unique[Seed] | None = Field(
        None,
        min_length=1,
        description="seeds of these runs and of the baseline; those that the study lacks are "
        "trained for this comparison alone. null: the study's. A verdict needs five",
    )

    @model_validator(mode="after")
    def _target_that_can_be_reached(self) -> Self:
        highest = 1.0 if self.metric == "val_accuracy" else math.inf
        if self.target is not None and not 0 < self.target <= highest:
            bounds = "between 0 and 1, as a share" if highest == 1 else "above 0"
            raise ValueError(f"target is {self.target:g}, but a {self.metric} lies {bounds}")
        return self


class Sweep(Strict):
    """Search for the learning rate of each batch size; each point is trained, none is tested."""

    runs: Unique[RunName] = Field(
        min_length=1, description="classifications, such as ddp_2gpu_bs64, that are trained"
    )
    lr: Unique[Annotated[float, Field(gt=0, le=1000)]] | None = Field(
        None, min_length=1, description="values of recipe.lr; null: that of the study"
    )
    lr_scaling: Unique[Literal["none", "sqrt", "linear"]] | None = Field(
        None, min_length=1, description="values of recipe.lr_scaling; null: that of the study"
    )
    seeds: Unique[Seed] | None = Field(
        None, min_length=1, description="seeds of each point; null: those of the study"
    )

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if self.lr is None and self.lr_scaling is None:
            raise ValueError("give values of lr, of lr_scaling, or of both")
        return self
