"""The sections of the configuration: every setting with its limits; what they mean together is in config.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict
from medscale.engine.plan import Augment, Detect, Model, Parallel, Recipe, is_detector
from medscale.engine.run import RunSpec


class Source(Strict):
    """Where a study's raw images are, and which source module reads them."""

    kind: str
    path: Path | None = Field(
        None, description="None: data/raw/<study> below the workdir; relative: from the root"
    )
    of: str | None = Field(None, description="another study whose raw images these are")
    synthetic: bool = Field(
        False, description="the raw images are generated (demo) in data/raw/<study>"
    )
    frames: Literal["first", "middle", "all"] = Field(
        "first",
        description="of a file of several frames or pages; all: each is an image of one patient",
    )
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
    balance: bool = Field(
        False, description="each class is cut, at random by `seed`, to the size of the smallest"
    )
    near_duplicates: bool = Field(
        True, description="images that look alike (perceptual hash) share a group"
    )
    train: float = Field(0.7, gt=0, lt=1)
    val: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(
                f"train + val + test must be 1, not {self.train + self.val + self.test:g}"
            )
        return self


class Clahe(Strict):
    """Contrast-limited adaptive histogram equalization on L of LAB (Zuiderveld 1994)."""

    clip_limit: float = Field(2.0, gt=0)
    tiles: int = Field(8, ge=1)


class Preprocess(Strict):
    """What is done once to each image before training; all images become uint8 RGB of size x size."""

    size: int = Field(224, ge=8)
    fit: Literal["stretch", "cover"] = Field(
        "stretch",
        description="stretch: the whole image; cover: short side to size, the middle square is kept",
    )
    clahe: Clahe | None = None
    gamma: float | None = Field(None, gt=0)
    median: int | None = Field(None, ge=3)
    margin: float = Field(
        1.0,
        ge=1,
        description="an image is first shrunk to 1/2, 1/4 or 1/8 while both sides stay so many times size",
    )
    chunk: int | None = Field(
        None,
        ge=1,
        description="images a shard chunk; None: as many as make 256 chunks, from 16 to 1024",
    )

    @model_validator(mode="after")
    def _odd_median(self) -> Preprocess:
        if self.median is not None and self.median % 2 == 0:
            raise ValueError("median must be odd")
        return self


class Evaluate(Strict):
    """What is asked of predictions besides the metrics that every run has."""

    specificities: list[float] = Field(
        [0.9, 0.95],
        description="operating points: sensitivity where validation has these specificities",
    )
    margin: float = Field(
        2.0, gt=0, description="percentage points of accuracy; runs within it count as equally good"
    )
    subgroups: list[str] = Field(
        ["age", "sex", "view", "source"],
        description="columns of the index; those that it has not are left out",
    )
    age_bands: list[float] = Field([40, 60, 80], description="years at which a band begins")
    smallest: int = Field(10, ge=1, description="images a subgroup needs to be evaluated")
    gradcam: Literal["all", "baseline", "none"] = Field(
        "all",
        description="runs whose results show where the network looked (PyTorch starts for each)",
    )

    @model_validator(mode="after")
    def _between_0_and_1(self) -> Evaluate:
        if not all(0 < value < 1 for value in self.specificities):
            raise ValueError(f"specificities lie between 0 and 1, not {self.specificities}")
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


class Export(Strict):
    """Trained runs as ONNX files, each held against PyTorch on test images."""

    runs: list[str] = Field(
        min_length=1, description="classifications, whose chosen replicates are exported"
    )
    formats: list[str] = Field(
        ["fp16", "int8"],
        description="of medscale.serve.formats, besides ONNX in 32 bit; Config checks the names",
    )
    devices: list[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu", "cuda", "tensorrt"],
        min_length=1,
        description="of ONNX Runtime; those that are not here are named",
    )
    images: int = Field(2048, ge=1, description="test images at most")
    calibration: int = Field(
        512, ge=1, description="validation images at most, for the ranges of INT8"
    )
    batch_size: int = Field(32, ge=1)
    repeats: int = Field(3, ge=1)


class Latency(Strict):
    """Benchmark of inference of the exported runs: latency and throughput by way of running, threads and batch size."""

    ways: list[str] = Field(
        ["eager", "compiled", "onnx", "fp16", "int8"],
        min_length=1,
        description="PyTorch, and formats of the export; Config checks the names",
    )
    devices: list[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu", "cuda", "tensorrt"], min_length=1
    )
    threads: list[int] = Field([1, 0], min_length=1, description="of a CPU; 0 is all cores")
    batches: list[int] = Field([1, 8, 32, 128], min_length=1)
    calls: int = Field(200, ge=20, description="of one image, a repetition")
    images: int = Field(512, ge=1, description="test images at most")
    repeats: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _with_eager(self) -> Latency:
        if "eager" not in self.ways:
            raise ValueError("ways must have eager, which the others are compared with")
        return self


class Benchmarks(Strict):
    """What a study measures besides its runs."""

    enhance: Enhance | None = None
    loading: Loading | None = None
    export: Export | None = None
    inference: Latency | None = None

    @model_validator(mode="after")
    def _exported_first(self) -> Benchmarks:
        if self.inference is not None and self.export is None:
            raise ValueError(
                "inference is measured of the runs that `export` names; give benchmarks.export"
            )
        return self


class Profile(Strict):
    """Profiled steps of a run: ``snakemake profiled/<study>/<run>`` for any run."""

    runs: list[str] = Field([], description="runs that the study's report shows")
    warmup: int = Field(
        5,
        ge=2,
        description="steps before anything is timed; in the second, FLOPs and bytes are counted",
    )
    steps: int = Field(
        10,
        ge=1,
        le=100,
        description="timed as they are, then as many traced: about 5 MB each (0.4 packed) of a B3",
    )
    memory: bool = Field(True, description="trace allocations")
    shapes: bool = Field(False, description="trace the shapes of operands: larger traces")


class Datasheet(Strict):
    """What is known of a dataset besides its files (Gebru et al. 2021); None is unknown."""

    name: str | None = None
    origin: str | None = None
    creators: str | None = None
    citation: str | None = None
    purpose: str | None = None
    instances: str | None = None
    labels: str | None = None
    people: str | None = Field(
        None, description="consent of the people shown, review by an ethics board"
    )
    licence: str | None = None
    known_problems: list[str] | None = None


class Study(Strict):
    """A dataset with its preprocessing, model, recipe and runs."""

    title: str
    source: Source
    datasheet: Datasheet = Field(
        Datasheet(), description="answers for your own images; a dataset kind has its own"
    )
    classes: list[str] | None = Field(
        None, description="order of the classes; the last of two is the positive one"
    )
    split: Split = Split()
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()
    model: Model
    models: dict[str, Model] = Field({}, description="settings of further models that runs name")
    recipe: Recipe = Recipe()
    parallel: Parallel = Parallel()
    seeds: list[int] | None = Field(
        None, min_length=1, description="instead of the configuration's seeds"
    )
    detect: Detect | None = None
    evaluate: Evaluate = Evaluate()
    benchmarks: Benchmarks = Benchmarks()
    profile: Profile = Profile()
    tensorboard: bool = Field(
        False, description="write the history also as TensorBoard logs, below the run's folder"
    )
    variant_of: str | None = Field(
        None,
        description="the same raw images, divided or trained otherwise; shown in that study's section",
    )
    baseline: str = Field(
        "serial_1cpu", description="run against which differences in accuracy are shown"
    )
    runs: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _valid_runs(self) -> Study:
        for name in (*self.runs, self.baseline, *self.profile.runs):
            try:
                RunSpec.parse(name)
            except MedscaleError as error:
                raise ValueError(str(error)) from None
        for name in self.benchmarks.export.runs if self.benchmarks.export else ():
            try:
                model = RunSpec.parse(name).model
            except MedscaleError as error:
                raise ValueError(f"benchmarks.export.runs: {error}") from None
            if is_detector(model or ""):
                raise ValueError(
                    f"benchmarks.export.runs: {name} is a detector; `medscale export` writes its file"
                )
        if is_detector(self.model.name) or is_detector(RunSpec.parse(self.baseline).model or ""):
            raise ValueError(
                "a detector is the model of runs such as serial_1gpu_yolov8n, not of study or baseline"
            )
        return self

    @property
    def detection_runs(self) -> list[str]:
        """Those of the runs that localize; their names end in a detector's."""
        return [name for name in self.runs if is_detector(RunSpec.parse(name).model or "")]
