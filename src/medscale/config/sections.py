"""The sections of the configuration: each setting with its limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.section import Count, Seed, Strict, Unique
from medscale.data.settings import Datasheet, Preprocess, Source, Split
from medscale.engine.formats import FORMATS, NumberFormat
from medscale.engine.plan import Augment, Detect, Model, Parallel, Recipe, is_detector
from medscale.engine.run import RunSpec


class Evaluate(Strict):
    """Evaluation of predictions beyond the metrics that each run has."""

    specificities: Unique[float] = Field(
        [0.9, 0.95],
        description="operating points: sensitivity where validation has these specificities",
    )
    margin: float = Field(
        2.0, gt=0, description="percentage points of accuracy; runs within it count as equally good"
    )
    subgroups: Unique[str] = Field(
        ["age", "sex", "view", "source"],
        description="columns of the index; missing ones are left out",
    )
    age_bands: Unique[float] = Field([40, 60, 80], description="years at which a band begins")
    smallest: int = Field(10, ge=1, description="images a subgroup needs to be evaluated")
    gradcam: Literal["all", "baseline", "none"] = Field(
        "all",
        description="runs whose results show where the network looked (PyTorch starts for each)",
    )

    @model_validator(mode="after")
    def _between_0_and_1(self) -> Evaluate:
        if not all(0 < value < 1 for value in self.specificities):
            raise ValueError(f"specificities lie between 0 and 1, not {self.specificities}")
        if self.age_bands != sorted(self.age_bands):
            raise ValueError(f"age_bands must ascend, not {self.age_bands}")
        return self


class Enhance(Strict):
    """Benchmark of preprocessing under Dask: time of all splits by number of workers."""

    workers: Unique[Count] = Field([1, 2, 4, 8], min_length=1)
    repeats: int = Field(3, ge=1)


class Loading(Strict):
    """Benchmark of loading training batches: time by way and number of processes."""

    processes: Unique[Count] = Field([1, 2, 4], min_length=1)
    images: int = Field(2048, ge=8, description="images a repetition, over all processes")
    batch_size: int = Field(32, ge=1)
    repeats: int = Field(3, ge=1)


class Export(Strict):
    """Export of trained runs as ONNX files, each compared with PyTorch on test images."""

    runs: Unique[str] = Field(
        min_length=1, description="classifications, whose chosen replicates are exported"
    )
    formats: Unique[str] = Field(
        ["fp16", "int8"],
        description="of medscale.serve.formats, besides ONNX in 32 bit; Config checks the names",
    )
    devices: Unique[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu", "cuda", "tensorrt"],
        min_length=1,
        description="of ONNX Runtime; missing devices are named in the results",
    )
    images: int = Field(2048, ge=1, description="test images at most")
    calibration: int = Field(
        512, ge=1, description="validation images at most, for the ranges of INT8"
    )
    batch_size: int = Field(32, ge=1)
    repeats: int = Field(3, ge=1)


class Latency(Strict):
    """Benchmark of inference of exported runs: latency and throughput by way, threads, batch."""

    ways: Unique[str] = Field(
        ["eager", "compiled", "captured", "captured_compiled", "onnx", "fp16", "int8"],
        min_length=1,
        description="PyTorch (captured: as CUDA graphs), and formats of the export; Config checks "
        "the names",
    )
    devices: Unique[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu", "cuda", "tensorrt"], min_length=1
    )
    threads: Unique[Annotated[int, Field(ge=0, le=1024)]] = Field(
        [1, 0], min_length=1, description="of a CPU; 0 is all cores"
    )
    batches: Unique[Count] = Field([1, 8, 32, 128], min_length=1)
    calls: int = Field(200, ge=20, description="of one image, a repetition")
    images: int = Field(512, ge=1, description="test images at most")
    repeats: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _with_eager(self) -> Latency:
        if "eager" not in self.ways:
            raise ValueError("ways must have eager, which the others are compared with")
        return self


class Formats(Strict):
    """Benchmark of number formats: the same training in each, with speed and accuracy."""

    run: str = Field(description="classification without `_amp` whose precision is replaced")
    formats: Unique[NumberFormat] = Field(
        list(FORMATS), min_length=1, description="those that the device lacks are named"
    )
    epochs: int | None = Field(None, ge=1, le=100_000, description="instead of the recipe's")


class Benchmarks(Strict):
    """Benchmarks of a study."""

    enhance: Enhance | None = None
    loading: Loading | None = None
    export: Export | None = None
    inference: Latency | None = None
    formats: Formats | None = None

    @model_validator(mode="after")
    def _exported_first(self) -> Benchmarks:
        if self.inference is not None and self.export is None:
            raise ValueError(
                "inference is measured of the runs that `export` names; give benchmarks.export"
            )
        return self


class Profile(Strict):
    """Profiling of a run's steps: ``snakemake profiled/<study>/<run>`` for any run."""

    runs: Unique[str] = Field([], description="runs that the study's report shows")
    warmup: int = Field(
        5,
        ge=2,
        description="steps before anything is timed; in the second, FLOPs and bytes are counted",
    )
    steps: int = Field(
        10,
        ge=1,
        le=100,
        description="timed untraced, then as many traced: 5 MB each (0.4 packed) of a B3",
    )
    memory: bool = Field(True, description="trace allocations")
    shapes: bool = Field(False, description="trace the shapes of operands: larger traces")


class Study(Strict):
    """A dataset with its preprocessing, model, recipe and runs."""

    title: str
    source: Source
    datasheet: Datasheet = Field(
        Datasheet(), description="answers for your own images; a dataset kind has its own"
    )
    classes: Unique[Annotated[str, Field(min_length=1)]] | None = Field(
        None, min_length=2, description="order of the classes; the last of two is the positive one"
    )
    split: Split = Split()
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()
    model: Model
    models: dict[str, Model] = Field({}, description="settings of further models that runs name")
    recipe: Recipe = Recipe()
    parallel: Parallel = Parallel()
    seeds: Unique[Seed] | None = Field(
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
        description="study of the same raw images, in whose section this one is shown",
    )
    baseline: str = Field(
        "serial_1cpu", description="run against which differences in accuracy are shown"
    )
    runs: Unique[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _valid_runs(self) -> Study:
        for name in (*self.runs, self.baseline, *self.profile.runs):
            try:
                RunSpec.parse(name)
            except MedscaleError as error:
                raise ValueError(str(error)) from None
        for name in self.benchmarks.export.runs if self.benchmarks.export else ():
            if is_detector(_spec("benchmarks.export.runs", name).model or ""):
                raise ValueError(
                    f"benchmarks.export.runs: {name} is a detector; "
                    "`medscale export` writes its file"
                )
        if (formats := self.benchmarks.formats) is not None:
            spec = _spec("benchmarks.formats.run", formats.run)
            if spec.amp or is_detector(spec.model or ""):
                raise ValueError(
                    f"benchmarks.formats.run: {formats.run} is not a classification without _amp"
                )
        if is_detector(self.model.name) or is_detector(RunSpec.parse(self.baseline).model or ""):
            raise ValueError(
                "a detector is the model of runs such as serial_1gpu_yolov8n, "
                "not of study or baseline"
            )
        return self

    @property
    def detection_runs(self) -> list[str]:
        """Runs of detection, whose names end with a detector's name."""
        return [name for name in self.runs if is_detector(RunSpec.parse(name).model or "")]


def _spec(setting: str, name: str) -> RunSpec:
    """Return a run's fields; ValueError with the setting for what is no run's name."""
    try:
        return RunSpec.parse(name)
    except MedscaleError as error:
        raise ValueError(f"{setting}: {error}") from None
