"""RunPlan: every setting of a replicate that decides its weights or its processes (spec.json)."""

import math
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
from medscale.engine.options import check_options
from medscale.engine.run import RunSpec

Choice = Literal["auto", "on", "off"]
SCALING_POWERS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}  # of the batch in the learning rate
HUB = "hub"  # value of ``pretrained`` for timm's published weights
MANIFEST, PROGRESS = "manifest.json", "progress.json"  # of a checkpoint
KEPT_CHECKPOINTS = 2  # of a replicate in training; an older one serves if the newest is damaged


def replicate_name(seed: int, fold: int | None = None) -> str:
    """Return the name of a replicate: ``seed<k>``, or ``seed<k>_fold<n>`` of a study with folds."""
    return f"seed{seed}" + ("" if fold is None else f"_fold{fold}")


class Crop(Strict):
    """Crop of training images; evaluation uses the central square of ``size`` pixels."""

    size: Pixels = Field(
        ge=8, le=8192, description="side of the crop, at most and by default preprocess.size"
    )
    mode: Literal["random", "resized"] = Field(
        "random",
        description="random: a square of `size` at a random place; resized: a random part, "
        "resized to `size` (RandomResizedCrop)",
    )
    smallest: Share = Field(
        0.08, gt=0, le=1, description="mode resized: smallest share of the image's area"
    )
    ratio: float = Field(
        4 / 3, ge=1, le=1000, description="mode resized: largest ratio of the sides of the part"
    )


class Augment(Strict):
    """Random changes of training images; 0 turns a change off."""

    rotate: Annotated[float, unit("degrees")] = Field(
        0.0,
        ge=0,
        le=180,
        title="Rotation",
        description="largest angle of a random rotation, in both directions",
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
    contrast: Share = Field(0.0, ge=0, le=1, description="largest relative change of the contrast")
    gamma: float = Field(
        0.0, ge=0, le=1, description="grey levels to a random power, from 1/(1+gamma) to 1+gamma"
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest standard deviation of added normal noise, where white is 1",
    )
    crop: Crop | None = None
    minority: float = Field(
        1.0,
        ge=1,
        le=1000,
        description="factor on all these changes for images of classes that are smaller than the "
        "average class",
    )


class Model(Strict):
    """The network: its name, its options, and the part of it that is trained."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][\w.\-]*$",
        max_length=200,
        description="the network: `medical_cnn`, `xray_cnn`, or any name of timm, such as "
        "densenet121",
    )
    options: Annotated[dict[str, Any], AfterValidator(check_options)] = Field(
        {}, description="arguments of the network, such as its width"
    )
    pretrained: str | None = Field(
        None,
        description="weights to begin with: path of a .safetensors file, which begins at the "
        "project's root if it is relative, or 'hub' for timm's published weights; null: random "
        "weights",
    )
    trained: Literal["all", "last_block", "last_layer"] = Field(
        "all",
        description="part that is trained; the others keep their weights and their statistics of "
        "batch normalization",
    )
    metadata: list[str] = Field(
        [], description="columns of the index that are inputs in addition to the image"
    )


class Recipe(Strict):
    """Optimization settings, independent of the parallel strategy."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        "adam", description="optimizer; sgd has Nesterov momentum 0.9"
    )
    lr: float = Field(1e-3, gt=0, le=1000, description="largest learning rate, before `lr_scaling`")
    weight_decay: float = Field(
        0.0, ge=0, le=1000, description="weight decay: decoupled (adamw), or an L2 penalty"
    )
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine",
        description="course of the learning rate: cosine: down to 0; constant; plateau: divided "
        "by 10 when the validation loss has not improved for three epochs",
    )
    warmup_epochs: Annotated[float, unit("epochs")] = Field(
        0.0, ge=0, le=100_000, description="epochs in which `lr` rises from 0; at most `epochs`"
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
        32,
        ge=1,
        le=1_000_000,
        description="images of an optimizer step, of each device or of all: see `batch_is`",
    )
    batch_is: Literal["per_device", "global"] = Field(
        "per_device",
        description="per_device: each device takes `batch_size`; global: the devices share it",
    )
    lr_scaling: Literal["none", "sqrt", "linear"] = Field(
        "none",
        description="change of `lr` with the number of devices; linear: in proportion to the "
        "global batch divided by `batch_size`; sqrt: to the square root of it. No change where "
        "`batch_is` is global",
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="a gradient with a larger norm is scaled down to it; null: no limit"
    )
    patience: Annotated[int, unit("epochs")] | None = Field(
        None,
        ge=1,
        le=LARGEST_COUNT,
        description="epochs without a smaller validation loss after which training stops; from "
        "`epochs` on without effect",
    )
    label_smoothing: Share = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the target that is spread over all classes (Szegedy et al. 2016)",
    )
    class_weights: bool | Literal["auto"] = Field(
        False,
        description="weigh the loss so that all classes count the same; auto: where the largest "
        "class has more than 3 times the images of the smallest",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=100_000,
        description="parts of a device's batch, computed one after the other, which takes less "
        "memory; the global batch stays the same",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        title="EMA",
        description="decay of an exponential moving average of the weights; null: no average",
    )
    sync_batchnorm: bool = Field(
        False, description="batch normalization uses the images of all devices, not of one"
    )
    tf32: bool = Field(
        False,
        title="TF32",
        description="runs without `_amp` compute in TF32 where the GPU has it; otherwise in fp32",
    )
    half: Half = Field(
        "auto",
        description="number format of runs with `_amp`; auto: bf16, or fp16 where the GPU has no "
        "bf16",
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
        "allows it, and not for pipelines; on: fail if it does not. A CPU has no graphs",
    )
    deterministic: bool = Field(
        True, description="use only algorithms that compute the same numbers each time"
    )

    @field_validator("compile", "graph", mode="before")
    @classmethod
    def _spell_out(cls, choice: Any) -> Any:
        """Accept true and false, which are what YAML reads ``on`` and ``off`` as."""
        return {True: "on", False: "off"}[choice] if isinstance(choice, bool) else choice


class Parallel(Strict):
    """Pipeline schedule, time limits and checkpoints of a run."""

    schedule: Literal["gpipe", "1f1b"] = Field(
        "1f1b", description="order in which a pipeline (`mp`) handles the parts of a batch"
    )
    microbatches: int = Field(
        4, ge=1, le=100_000, description="parts of a batch that pass through a pipeline (`mp`)"
    )
    timeout_s: Seconds = Field(
        60.0,
        gt=0,
        title="Timeout",
        description="a process that waits longer for another process ends the run with an error",
    )
    checkpoint_every_s: Seconds = Field(
        60.0,
        gt=0,
        title="Checkpoint interval",
        description="time between two checkpoints; more where writing them would take over 2 % of "
        "the time",
    )
    checkpoint_every_steps: int | None = Field(
        None,
        ge=2,  # the ranks agree on a checkpoint while the next step computes
        le=LARGEST_COUNT,
        description="optimizer steps between two checkpoints, in place of `checkpoint_every_s`",
    )
    stop_after_s: Seconds | None = Field(
        None,
        gt=0,
        title="Stop after",
        description="time after which training writes a checkpoint and stops; the same command "
        "continues it; null: never",
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
    lr: float = Field(1e-3, gt=0, description="largest learning rate")
    augment: Augment = Augment.of_defaults()
    pretrained: str | None = Field(
        None,
        description="path of a .safetensors file of weights, which begins at the project's root if "
        "it is relative; null: random weights",
    )
    images: Literal["all", "with_boxes"] = Field(
        "with_boxes",
        description="images that training and the validation loss use; all images are predicted "
        "and tested",
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

        Global batch and ``training_digest`` stay. A device has no more images at a time.
        """
        replicas = processes // self.run.stages
        accumulate = math.ceil(self.global_batch / (replicas * self.images_at_a_time))
        recipe = self.recipe.model_copy(update={"accumulate": accumulate})
        return self.model_copy(update={"nodes": 1, "procs_per_node": processes, "recipe": recipe})

    @property
    def images_at_a_time(self) -> int:
        """Images that a replica computes together, at most: its share of an accumulation step."""
        return math.ceil(self.global_batch / (self.replicas * self.recipe.accumulate))

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
        left_out = {"batch_size", "batch_is", "lr_scaling", "lr", "accumulate", "graph"}
        recipe = self.recipe.model_dump(mode="json", exclude=left_out)
        names = {"study", "seed", "fold", "synthetic", "model", "augment", "detect"}
        fields = self.model_dump(mode="json", include=names)
        return digest([fields, recipe, self.run.amp, self.global_batch, self.learning_rate])
