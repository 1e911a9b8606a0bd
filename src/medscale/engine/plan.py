"""RunPlan: every setting of a replicate that decides its weights or its processes (spec.json)."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from medscale.base.files import digest
from medscale.base.section import (
    LARGEST_COUNT,
    Pixels,
    Probability,
    Seconds,
    Seed,
    Share,
    Strict,
    unit,
)
from medscale.engine.formats import Half
from medscale.engine.run import RunSpec

Choice = Literal["auto", "on", "off"]
SCALING_POWERS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}  # of the batch in the learning rate
KEPT_CHECKPOINTS = 2  # of a replicate in training; an older one serves if the newest is damaged


# Limits of a network's options; larger ones are a mistake, or an attack by a stranger's folder.
MOST_OPTIONS, LARGEST_OPTION, LONGEST_OPTION = 100, 100_000, 200


def _possible_options(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that are large numbers, long texts or lists, or lists of lists of lists."""
    if not _is_small(options, depth=3):
        raise ValueError(
            f"at most {MOST_OPTIONS} options: numbers up to {LARGEST_OPTION:,}, texts up to"
            f" {LONGEST_OPTION} characters, and lists of them"
        )
    return options


def _is_small(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_OPTION
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int | float):
        return abs(value) <= LARGEST_OPTION  # false for NaN
    if isinstance(value, dict):
        value = [*value, *value.values()]
        return len(value) <= 2 * MOST_OPTIONS and all(_is_small(v, depth - 1) for v in value)
    is_list = isinstance(value, list | tuple) and depth > 0 and len(value) <= MOST_OPTIONS
    return is_list and all(_is_small(part, depth - 1) for part in value)


def is_detector(model: str) -> bool:
    """Return whether a model's name is that of a detector (YOLOv8 of any size)."""
    return re.fullmatch(r"yolov8[nsmlx]", model) is not None


def replicate_name(seed: int, fold: int | None = None) -> str:
    """Return the name of a replicate: ``seed<k>``, or ``seed<k>_fold<n>`` of a study with folds."""
    return f"seed{seed}" + ("" if fold is None else f"_fold{fold}")


class Crop(Strict):
    """Crop of training images; evaluation uses the central square of ``size`` pixels."""

    size: Pixels = Field(ge=8, le=8192, description="side of the crop; at most preprocess.size")
    mode: Literal["random", "resized"] = Field(
        "random",
        description="random: a square of size; resized: a random part, resized to size "
        "(RandomResizedCrop)",
    )
    smallest: Share = Field(0.08, gt=0, le=1, description="resized: smallest part of the area")
    ratio: float = Field(4 / 3, ge=1, le=1000, description="resized: largest ratio of the sides")


class Augment(Strict):
    """Random changes of training images; 0 turns a change off."""

    rotate: Annotated[float, unit("degrees")] = Field(
        0.0, ge=0, le=180, title="Rotation", description="largest angle, to both sides"
    )
    hflip: Probability = Field(
        0.0,
        ge=0,
        le=1,
        title="Horizontal flip",
        description="probability of exchanging left and right",
    )
    vflip: Probability = Field(
        0.0,
        ge=0,
        le=1,
        title="Vertical flip",
        description="probability of exchanging top and bottom",
    )
    brightness: Share = Field(0.0, ge=0, le=1, description="largest relative change")
    contrast: Share = Field(0.0, ge=0, le=1, description="largest relative change")
    gamma: float = Field(0.0, ge=0, le=1, description="exponent from 1/(1+gamma) to 1+gamma")
    noise: float = Field(
        0.0, ge=0, le=1, description="largest standard deviation of normal noise, if white is 1"
    )
    crop: Crop | None = None
    minority: float = Field(
        1.0,
        ge=1,
        le=1000,
        description="factor on all strengths for classes smaller than the mean class",
    )


class Model(Strict):
    """The network: its name, its options, and the part of it that is trained."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][\w.\-]*$",
        max_length=200,
        description="a network of medscale.engine.models.own, or any of timm",
    )
    options: Annotated[dict[str, Any], AfterValidator(_possible_options)] = Field(
        {}, description="arguments of the network, such as its width"
    )
    pretrained: str | None = Field(
        None, description="a .safetensors path, or 'hub' for timm's published weights"
    )
    trained: Literal["all", "last_block", "last_layer"] = Field(
        "all", description="part that is trained; other parts keep their weights and statistics"
    )
    metadata: list[str] = Field(
        [], description="columns of the index that are inputs in addition to the image"
    )


class Recipe(Strict):
    """Optimization settings, independent of the parallel strategy."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        "adam", description="sgd has Nesterov momentum 0.9"
    )
    lr: float = Field(1e-3, gt=0, le=1000, description="peak, before `lr_scaling`")
    weight_decay: float = Field(0.0, ge=0, le=1000, description="factor of the optimizer")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine",
        description="course of the learning rate; plateau: a tenth when the validation loss stays",
    )
    warmup_epochs: Annotated[float, unit("epochs")] = Field(
        0.0, ge=0, le=100_000, description="epochs in which the learning rate rises from 0"
    )
    epochs: Annotated[int, unit("epochs")] = Field(
        20, ge=1, le=100_000, description="passes over the training images"
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=LARGEST_COUNT,
        exclude_if=lambda steps: steps is None,
        description="optimizer steps in place of `epochs`, rounded up to whole epochs",
    )
    batch_size: Annotated[int, unit("images")] = Field(
        32, ge=1, le=1_000_000, description="images of an optimizer step; see `batch_is`"
    )
    batch_is: Literal["per_device", "global"] = Field(
        "per_device",
        description="per_device: each device takes `batch_size`; global: the devices share it",
    )
    lr_scaling: Literal["none", "sqrt", "linear"] = Field(
        "none",
        description="linear: proportional to the global batch over batch_size; sqrt: to its root",
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest norm of the gradient; null: any"
    )
    patience: Annotated[int, unit("epochs")] | None = Field(
        None,
        ge=1,
        le=LARGEST_COUNT,
        description="epochs without a smaller validation loss after which training stops",
    )
    label_smoothing: Share = Field(
        0.0,
        ge=0,
        lt=1,
        description="part of the target that all classes share (Szegedy et al. 2016)",
    )
    class_weights: bool | Literal["auto"] = Field(
        False, description="auto: if the largest class has more than 3 times the smallest"
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=100_000,
        description="micro-batches per optimizer step; the global batch stays the same",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        title="EMA",
        description="decay of an exponential moving average of the weights; null: no average",
    )
    sync_batchnorm: bool = Field(
        False, description="batch normalization over the images of all devices"
    )
    tf32: bool = Field(
        False,
        title="TF32",
        description="runs without `_amp` compute in TF32 where the GPU has it; otherwise in fp32",
    )
    half: Half = Field(
        "auto",
        description="format of runs with `_amp`; auto: bf16, or fp16 where the GPU has no bf16",
    )
    channels_last: bool = Field(True, description="memory layout NHWC, faster for convolutions")
    compile: Choice = Field(
        "auto",
        description="compile the network (torch.compile); auto: on a GPU, if the planned images "
        "save more time than compiling takes",
    )
    graph: Choice = Field(
        "auto",
        description="replay the optimizer step as a CUDA graph; auto: on a GPU, if the network "
        "allows it; on: fail if it does not. A CPU has no graphs",
    )
    deterministic: bool = Field(
        True, description="algorithms whose results are the same in each run"
    )

    @field_validator("compile", "graph", mode="before")
    @classmethod
    def _spell_out(cls, choice: Any) -> Any:
        """Accept true and false, which are what YAML reads ``on`` and ``off`` as."""
        return {True: "on", False: "off"}[choice] if isinstance(choice, bool) else choice


class Parallel(Strict):
    """Pipeline schedule, time limits and checkpoints of a run."""

    schedule: Literal["gpipe", "1f1b"] = Field(
        "1f1b", description="order of a pipeline's micro-batches"
    )
    microbatches: int = Field(
        4, ge=1, le=100_000, description="parts of a batch that pass through a pipeline"
    )
    timeout_s: Seconds = Field(
        60.0, gt=0, title="Timeout", description="a collective that takes longer ends the run"
    )
    checkpoint_every_s: Seconds = Field(
        60.0,
        gt=0,
        title="Checkpoint interval",
        description="smallest interval; it grows if writing takes over 2 % of the time",
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, le=LARGEST_COUNT, description="replaces checkpoint_every_s"
    )
    stop_after_s: Seconds | None = Field(
        None,
        gt=0,
        title="Stop after",
        description="stop with a checkpoint; the same command continues",
    )


class Detect(Strict):
    """Settings of runs that train a YOLOv8 detector (ultralytics, AGPL, optional)."""

    size: Pixels = Field(416, ge=32, le=8192, multiple_of=32, description="side of the images")
    epochs: Annotated[int, unit("epochs")] = Field(
        20, ge=1, le=100_000, description="passes over the training images"
    )
    batch_size: Annotated[int, unit("images")] = Field(
        16, ge=1, le=1_000_000, description="images of an optimizer step, over all devices"
    )
    lr: float = Field(1e-3, gt=0, description="peak")
    augment: Augment = Augment.of_defaults()
    pretrained: str | None = Field(None, description="a .safetensors path; null: random weights")
    images: Literal["all", "with_boxes"] = Field(
        "with_boxes",
        description="images for training and validation loss; all images are predicted and tested",
    )

    @model_validator(mode="after")
    def _boxes_stay_valid(self) -> Self:
        allowed = ("hflip", "brightness", "contrast", "gamma", "noise")
        for name, default in Augment().model_dump().items():
            if name not in allowed and getattr(self.augment, name) != default:
                raise ValueError(
                    f"augment.{name} is not for detection, since boxes are not moved with it; "
                    f"possible are {', '.join(allowed)}"
                )
        return self


class RunPlan(Strict):
    """A replicate: a run with all settings that the configuration decides (spec.json)."""

    study: str
    run: RunSpec
    seed: Seed
    fold: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda fold: fold is None,
        description="fold whose images this replicate tests, from 1; null without folds",
    )
    scale: Literal["full", "demo"]
    synthetic: bool = Field(description="the images are generated, not real")
    stand_in: bool = Field(description="CPU processes stand in for the GPUs of the run's name")
    backend: Literal["cpu", "cuda"]
    nodes: int
    procs_per_node: int
    model: Model
    augment: Augment
    recipe: Recipe
    parallel: Parallel
    detect: Detect | None = None
    tensorboard: bool = False

    @property
    def replicate(self) -> str:
        """Name of the replicate, which is that of its run folder."""
        return replicate_name(self.seed, self.fold)

    @property
    def processes(self) -> int:
        """Processes that carry the run out: the devices of its name, or fewer (``on_fewer``)."""
        return self.nodes * self.procs_per_node

    @property
    def replicas(self) -> int:
        """Copies of the network that each train on a share of the global batch."""
        return self.processes // self.run.stages

    def on_fewer(self, processes: int) -> Self:
        """Return the plan of the same training on fewer processes of one node.

        The global batch stays, and accumulation keeps the images of a device at a time. The
        ``training_digest`` is the same.
        """
        share = math.ceil(self.run.devices / processes)
        recipe = self.recipe.model_copy(update={"accumulate": self.recipe.accumulate * share})
        changes = {"nodes": 1, "procs_per_node": processes, "recipe": recipe}
        return self.model_copy(update=changes)

    @property
    def global_batch(self) -> int:
        """Images per optimizer step over all replicas."""
        size = self.recipe.batch_size
        return size * self.run.replicas if self.recipe.batch_is == "per_device" else size

    @property
    def learning_rate(self) -> float:
        """Peak learning rate after scaling with the global batch.

        Linear as in Goyal et al. (2017), or by the square root as in Krizhevsky (2014).
        """
        ratio = self.global_batch / self.recipe.batch_size
        return self.recipe.lr * ratio ** SCALING_POWERS[self.recipe.lr_scaling]

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        return digest(self.model_dump(mode="json"))

    @property
    def training_digest(self) -> str:
        """SHA-256 over the settings that decide the trained weights.

        It leaves out the number of devices and the times of checkpoints, so that a checkpoint can
        be continued with another strategy or number of processes, and CUDA graphs, which repeat the
        same operations.
        """
        recipe = self.recipe.model_dump(
            mode="json",
            exclude={"batch_size", "batch_is", "lr_scaling", "lr", "accumulate", "graph"},
        )
        names = {"study", "seed", "fold", "synthetic", "model", "augment", "detect"}
        fields = self.model_dump(mode="json", include=names)
        return digest([fields, recipe, self.run.amp, self.global_batch, self.learning_rate])
