"""The study's configuration: config.yaml, its scale overlay and the user's changes, checked against one schema."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medscale.errors import MedscaleError
from medscale.files import digest
from medscale.study import RunSpec


class Strict(BaseModel):
    """A section of the configuration; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where a study's raw images are, and which source module reads them."""

    kind: str
    path: Path | None = Field(None, description="None: data/raw/<study> below the workdir; relative: from the root")
    of: str | None = Field(None, description="another study whose raw images these are")
    synthetic: bool = Field(False, description="the raw images are generated (demo) in data/raw/<study>")
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _generated_in_place(self) -> Source:
        if self.synthetic and self.path is not None:
            raise ValueError("a synthetic source has no path: it is generated below the workdir")
        if self.of is not None and self.path is not None:
            raise ValueError("either path or of, not both")
        return self


class Split(Strict):
    """How images are divided: grouped by patient and near-duplicate, at random, or as published."""

    mode: Literal["grouped", "random", "published"] = "grouped"
    balance: bool = Field(False, description="each class is cut, at random by `seed`, to the size of the smallest")
    near_duplicates: bool = Field(True, description="images that look alike (perceptual hash) share a group")
    train: float = Field(0.7, gt=0, lt=1)
    val: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, not {self.train + self.val + self.test:g}")
        return self


class Clahe(Strict):
    """Contrast-limited adaptive histogram equalization on L of LAB (Zuiderveld 1994)."""

    clip_limit: float = Field(2.0, gt=0)
    tiles: int = Field(8, ge=1)


class Preprocess(Strict):
    """What is done once to each image before training; all images become uint8 RGB of size x size."""

    size: int = Field(224, ge=8)
    fit: Literal["stretch", "cover"] = Field(
        "stretch", description="stretch: the whole image; cover: short side to size, the middle square is kept"
    )
    clahe: Clahe | None = None
    gamma: float | None = Field(None, gt=0)
    median: int | None = Field(None, ge=3)
    margin: float = Field(
        1.0, ge=1, description="a JPEG is decoded at 1/2, 1/4 or 1/8 while both sides stay so many times size"
    )
    chunk: int | None = Field(
        None, ge=1, description="images a shard chunk; None: as many as make 256 chunks, from 16 to 1024"
    )

    @model_validator(mode="after")
    def _odd_median(self) -> Preprocess:
        if self.median is not None and self.median % 2 == 0:
            raise ValueError("median must be odd")
        return self


class Crop(Strict):
    """Which part of an image the network sees; in evaluation always the middle square of ``size`` pixels."""

    size: int = Field(ge=8, description="pixels a side of what the network sees; at most preprocess.size")
    mode: Literal["random", "resized"] = Field(
        "random", description="random: a square of size; resized: a random part, brought to size (RandomResizedCrop)"
    )
    smallest: float = Field(0.08, gt=0, le=1, description="resized: smallest part of the area")
    ratio: float = Field(4 / 3, ge=1, description="resized: largest ratio of the sides")


class Augment(Strict):
    """Random changes of training images on whole batches; 0 turns one off."""

    rotate: float = Field(0.0, ge=0, description="degrees, to both sides")
    hflip: float = Field(0.0, ge=0, le=1, description="probability")
    vflip: float = Field(0.0, ge=0, le=1, description="probability")
    brightness: float = Field(0.0, ge=0, le=1, description="largest relative change")
    contrast: float = Field(0.0, ge=0, le=1, description="largest relative change")
    gamma: float = Field(0.0, ge=0, le=1, description="exponent from 1/(1+gamma) to 1+gamma")
    noise: float = Field(0.0, ge=0, le=1, description="largest standard deviation of normal noise; white is 1")
    crop: Crop | None = None
    minority: float = Field(1.0, ge=1, description="factor on every strength for classes below the mean class size")


class Model(Strict):
    """The network by name, with its own options."""

    name: str
    options: dict[str, Any] = {}
    pretrained: str | None = Field(None, description="a .safetensors path, or 'hub' for timm's weights")
    trained: Literal["all", "last_block", "last_layer"] = Field(
        "all", description="which part learns; the rest keeps its weights and statistics"
    )
    metadata: list[str] = Field([], description="columns of the index that are input beside the image")


class Recipe(Strict):
    """Everything that decides how weights change, apart from the parallel strategy."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    batch_is: Literal["per_device", "global"] = "per_device"
    lr_scaling: Literal["none", "linear"] = Field("none", description="with the global batch, against batch_size")
    clip_norm: float | None = Field(1.0, gt=0)
    patience: int | None = Field(None, ge=1, description="epochs without a better validation loss before stopping")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: bool = False
    accumulate: int = Field(1, ge=1, description="microsteps an optimizer step; the global batch is kept")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an exponential moving average of the weights")
    sync_batchnorm: bool = False
    channels_last: bool = True
    compile: bool = False
    fused: bool = True
    deterministic: bool = True


class Parallel(Strict):
    """How processes work together and how they fail."""

    schedule: Literal["gpipe", "1f1b"] = "1f1b"
    microbatches: int = Field(4, ge=1)
    timeout_s: float = Field(60.0, gt=0, description="a collective that takes longer ends the run")
    checkpoint_every_s: float = Field(60.0, gt=0, description="at least; longer where writing takes over 2 % of it")
    checkpoint_every_steps: int | None = Field(None, ge=1, description="instead of seconds")
    stop_after_s: float | None = Field(None, gt=0, description="stop with a checkpoint; the same command goes on")


class Detect(Strict):
    """Localization by YOLOv8 through ultralytics (AGPL, optional): runs whose model is a yolov8."""

    size: int = Field(416, ge=32, multiple_of=32, description="pixels a side of the images")
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(16, ge=1, description="images an optimizer step over all devices")
    lr: float = Field(1e-3, gt=0)
    augment: Augment = Augment()
    pretrained: str | None = Field(None, description="a .safetensors or .pt path; None: random weights")
    images: Literal["all", "with_boxes"] = Field(
        "with_boxes", description="which images train it and tell its validation loss; all are predicted and tested"
    )

    @model_validator(mode="after")
    def _moves_boxes(self) -> Detect:
        moved = {"rotate": self.augment.rotate, "vflip": self.augment.vflip, "crop": self.augment.crop is not None}
        moved["minority"] = self.augment.minority != 1
        if wrong := [name for name, on in moved.items() if on]:
            raise ValueError(
                f"augment.{wrong[0]} is not for detection, since boxes are not moved with it; there are hflip, "
                "brightness, contrast, gamma and noise"
            )
        return self


class Enhance(Strict):
    """Benchmark of preprocessing under Dask: the time of all splits against the number of workers."""

    workers: list[int] = Field([1, 2, 4, 8], min_length=1)
    repeats: int = Field(3, ge=1)


class Loading(Strict):
    """Benchmark of ways to load training batches against the number of processes."""

    processes: list[int] = Field([1, 2, 4], min_length=1)
    images: int = Field(2048, ge=8, description="images a repetition, over all processes")
    batch_size: int = Field(32, ge=1)
    repeats: int = Field(3, ge=1)


class Benchmarks(Strict):
    """What a study measures besides its runs."""

    enhance: Enhance | None = None
    loading: Loading | None = None


class Study(Strict):
    """A dataset with its preprocessing, model, recipe and runs."""

    title: str
    source: Source
    classes: list[str] | None = Field(None, description="order of the classes; the last of two is the positive one")
    split: Split = Split()
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()
    model: Model
    models: dict[str, Model] = Field({}, description="settings of further models that runs name")
    recipe: Recipe = Recipe()
    parallel: Parallel = Parallel()
    seeds: list[int] | None = Field(None, min_length=1, description="instead of the configuration's seeds")
    detect: Detect | None = None
    benchmarks: Benchmarks = Benchmarks()
    variant_of: str | None = Field(
        None, description="the same raw images, divided or trained otherwise; shown in that study's section"
    )
    baseline: str = Field("serial_1cpu", description="run against which differences in accuracy are shown")
    runs: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _valid_runs(self) -> Study:
        for name in (*self.runs, self.baseline):
            try:
                RunSpec.parse(name)
            except MedscaleError as error:
                raise ValueError(str(error)) from None
        if is_detector(self.model.name) or is_detector(RunSpec.parse(self.baseline).model or ""):
            raise ValueError("a detector is the model of runs such as serial_1gpu_yolov8n, not of study or baseline")
        return self

    @property
    def detection_runs(self) -> list[str]:
        """Those of the runs that localize; their names end in a detector's."""
        return [name for name in self.runs if is_detector(RunSpec.parse(name).model or "")]


class Node(Strict):
    """One machine of the cluster, or this one."""

    gpus: int = Field(4, ge=0)
    cpus: int = Field(32, ge=1)


class Dask(Strict):
    """Where preprocessing runs: a local cluster, a scheduler's address, or SLURM jobs through dask-jobqueue."""

    workers: int | None = Field(None, ge=1, description="None: one a core (local), required for slurm")
    scheduler: str = Field("local", description="'local', 'slurm', or an address such as tcp://host:8786")
    slurm: dict[str, Any] = {}


FIGURES = ("samples", "audit", "curves", "accuracy", "roc", "confusion", "speedup", "efficiency", "time")
TABLES = ("data", "audit", "results", "parity", "per_class", "timing", "reported")
BENCHMARKS = tuple(Benchmarks.model_fields)


class Config(Strict):
    """The whole configuration after overlay and changes."""

    scale: Literal["full", "demo"] = "full"
    workdir: Path = Path(".")
    only: list[str] | None = None
    seeds: list[int] = Field([1, 2, 3], min_length=1)
    stand_in_gpu: bool = Field(False, description="demo only: GPU runs are carried out on CPU processes")
    node: Node = Node()
    dask: Dask = Dask()
    studies: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], Study] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.stand_in_gpu and self.scale != "demo":
            raise ValueError("stand_in_gpu is for scale demo only: at full scale a GPU run needs GPUs")
        for name in self.only or []:
            self.study(name)
        for name in self.studies:
            if self.owner(name) != name and self.owner(self.owner(name)) != self.owner(name):
                raise ValueError(f"studies.{name} uses the images of {self.owner(name)!r}, which are another study's")
        for seeds in (self.seeds, *(study.seeds or [] for study in self.studies.values())):
            if len(set(seeds)) != len(seeds):
                raise ValueError(f"seeds has duplicates: {seeds}")
        return self

    def study(self, name: str) -> Study:
        """The study of that name.

        Raises:
            MedscaleError: when there is none; the message lists those there are.
        """
        if name not in self.studies:
            raise MedscaleError(f"there is no study {name!r}; config.yaml has: {', '.join(self.studies)}")
        return self.studies[name]

    @property
    def active(self) -> list[str]:
        """Names of the studies to carry out, each a section of the paper."""
        return [name for name in self.only or self.studies if self.studies[name].variant_of is None]

    def owner(self, study: str) -> str:
        """The study whose raw images a study uses: mostly its own."""
        settings = self.study(study)
        return settings.source.of or settings.variant_of or study

    def seeds_of(self, study: str) -> list[int]:
        """Seeds of a study's replicates."""
        return self.study(study).seeds or self.seeds

    def variants(self, study: str) -> list[str]:
        """Names of the variants of a study."""
        return [name for name, settings in self.studies.items() if settings.variant_of == study]

    def figures(self, study: str) -> list[str]:
        """Names of a study's figures."""
        return [*FIGURES, *self._further(study)]

    def tables(self, study: str) -> list[str]:
        """Names of a study's tables."""
        return [*TABLES, *self._further(study)]

    def _further(self, study: str) -> list[str]:
        """What only some studies have a figure and a table of: other splits, detection, benchmarks."""
        settings = self.studies[study]
        there = {
            "variants": bool(self.variants(study)),
            "detection": bool(settings.detection_runs),
            **{name: getattr(settings.benchmarks, name) is not None for name in BENCHMARKS},
        }
        return [name for name, wanted in there.items() if wanted]


class RunPlan(Strict):
    """A replicate, complete: the run with everything the configuration decides about it (spec.json)."""

    study: str
    run: RunSpec
    seed: int
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

    @property
    def global_batch(self) -> int:
        """Images an optimizer step over all replicas."""
        size = self.recipe.batch_size
        return size * self.run.replicas if self.recipe.batch_is == "per_device" else size

    @property
    def learning_rate(self) -> float:
        """Peak learning rate after scaling with the global batch (Goyal et al. 2017)."""
        scaled = self.recipe.lr_scaling == "linear"
        return self.recipe.lr * (self.global_batch / self.recipe.batch_size if scaled else 1.0)

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        return digest(self.model_dump(mode="json"))

    @property
    def training_digest(self) -> str:
        """SHA-256 over what decides the trained weights: not how many devices share the work, nor when it is saved."""
        recipe = self.recipe.model_dump(
            mode="json", exclude={"batch_size", "batch_is", "lr_scaling", "lr", "accumulate"}
        )
        fields = self.model_dump(mode="json", include={"study", "seed", "synthetic", "model", "augment", "detect"})
        return digest([fields, recipe, self.run.amp, self.global_batch, self.learning_rate])


def plan(config: Config, study: str, run: str | RunSpec, seed: int) -> RunPlan:
    """Complete a run with the study's configuration.

    Raises:
        MedscaleError: for an unknown study or run name.
    """
    settings = config.study(study)
    spec = RunSpec.parse(run) if isinstance(run, str) else run
    stand_in = spec.device == "gpu" and config.stand_in_gpu
    per_node = config.node.gpus if spec.device == "gpu" and not stand_in else config.node.cpus
    nodes = 1 if stand_in else -(-spec.devices // max(per_node, 1))
    if spec.devices % nodes:
        raise MedscaleError(
            f"{spec.name}: {spec.devices} devices do not divide over {nodes} nodes of {per_node}; "
            "ask for a multiple, or change `node` in config.yaml"
        )
    recipe, augment, detect = settings.recipe, settings.augment, None
    model = settings.model if spec.model in (None, settings.model.name) else _other_model(settings, str(spec.model))
    if is_detector(model.name):
        model, recipe, augment, detect = _detection(study, settings, spec, model.name)
    if spec.batch is not None:
        recipe = recipe.model_copy(update={"batch_size": spec.batch})
    return RunPlan(
        study=study,
        run=spec,
        seed=seed,
        scale=config.scale,
        synthetic=settings.source.synthetic,
        stand_in=stand_in,
        backend="cuda" if spec.device == "gpu" and not stand_in else "cpu",
        nodes=nodes,
        procs_per_node=spec.devices // nodes,
        model=model,
        augment=augment,
        recipe=recipe,
        parallel=settings.parallel,
        detect=detect,
    )


def is_detector(model: str) -> bool:
    """Whether a model's name is that of a detector (YOLOv8 of any size)."""
    return re.fullmatch(r"yolov8[nsmlx]", model) is not None


def _other_model(settings: Study, name: str) -> Model:
    """A model that a run's name asks for instead of the study's: with its options if ``models`` has them."""
    return settings.models.get(name, Model(name=name, trained=settings.model.trained, metadata=settings.model.metadata))


def _detection(study: str, settings: Study, spec: RunSpec, name: str) -> tuple[Model, Recipe, Augment, Detect]:
    """Network and recipe of a study's detection runs, in the same terms as any other."""
    detect = settings.detect
    if detect is None:
        raise MedscaleError(f"the study {study} has no section `detect`, so {name} cannot be trained on it")
    if spec.strategy not in ("serial", "ddp") or spec.mp:
        raise MedscaleError(f"{spec.name}: detection runs are serial or ddp, such as ddp_4gpu_{name}")
    recipe = Recipe(epochs=detect.epochs, batch_size=detect.batch_size, batch_is="global", lr=detect.lr)
    return Model(name=name, pretrained=detect.pretrained), recipe, detect.augment, detect


def load(base: str | Path, changes: dict[str, Any] | None = None) -> Config:
    """Read config.yaml, lay the chosen scale and then the user's changes over it, and check the whole.

    Args:
        base: path of config.yaml.
        changes: what came from ``--configfile`` and ``--config``; its ``scale`` chooses the overlay.

    Raises:
        MedscaleError: naming each key that is wrong, what was found there, and what is allowed.
    """
    tree = _read_yaml(Path(base))
    changes = copy.deepcopy(changes or {})
    scales = tree.pop("scales", {})
    scale = changes.get("scale", tree.get("scale", "full"))
    if scale != "full" and scale not in scales:
        raise MedscaleError(f"there is no scale {scale!r}; there are: full, {', '.join(scales)}")
    if isinstance(changes.get("only"), str):
        changes["only"] = changes["only"].split(",")
    for layer in (scales.get(scale, {}), changes):
        tree = merge(tree, layer)
    studies = {name: study for name, study in (tree.get("studies") or {}).items() if study is not None}
    tree["studies"] = {name: _inherit(studies, name, base) for name in studies}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise MedscaleError(_explain(error, base)) from None


def merge(below: Any, above: Any) -> Any:
    """Lay one tree of settings over another; mappings merge, anything else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merge(below.get(key), value) for key, value in above.items()}
    return copy.deepcopy(above)


def _inherit(studies: dict[str, Any], name: str, base: str | Path, seen: tuple[str, ...] = ()) -> Any:
    """A study takes what it does not say itself from another.

    ``like: other`` gives all but title, source and classes; ``variant_of: other`` also source and classes.
    """
    study = studies[name]
    if not isinstance(study, dict):
        return study
    study = {"title": name, **study}
    if not (key := next((key for key in ("like", "variant_of") if study.get(key) is not None), None)):
        return study
    other, keep = study[key], ("title",) if key == "variant_of" else ("title", "source", "classes", "variant_of")
    if other not in studies or other in (*seen, name):
        raise MedscaleError(
            f"{base}: studies.{name}.{key} is {other!r}; it must name another study that ends the chain"
        )
    own = {key: value for key, value in study.items() if key != "like"}
    parent = dict(_inherit(studies, other, base, (*seen, name)))
    return merge({key: value for key, value in parent.items() if key not in keep}, own)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedscaleError(f"{path} does not exist; run from the project's root") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MedscaleError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict):
        raise MedscaleError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return tree


def _explain(error: ValidationError, base: str | Path) -> str:
    lines = [f"the configuration ({base} with its overlay and your changes) has {error.error_count()} mistake(s):"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        message = item["msg"].removeprefix("Value error, ")
        found = "" if item["type"] in ("missing", "value_error") else f" (found {item['input']!r})"
        if item["type"] == "extra_forbidden":
            message, found = "there is no such setting", ""
        lines.append(f"  {where}: {message}{found}")
    return "\n".join(lines)
