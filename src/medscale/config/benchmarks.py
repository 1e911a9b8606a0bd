"""The sections of benchmarks and profiles, each setting with its limits."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medscale.base.section import Count, Strict, Unique, unit
from medscale.config.run_name import RunName
from medscale.engine.formats import FORMATS, NumberFormat

Repeats = Annotated[
    int, Field(ge=1, description="measurements of each point, of which the paper shows the spread")
]


class Enhance(Strict):
    """Benchmark of preprocessing under Dask: time of all splits by number of workers."""

    workers: Unique[Count] = Field(
        [1, 2, 4, 8], min_length=1, description="numbers of Dask workers that are compared"
    )
    repeats: Repeats = 3


class Loading(Strict):
    """Benchmark of loading training batches: time by way and number of processes."""

    processes: Unique[Count] = Field(
        [1, 2, 4], min_length=1, description="numbers of processes that are compared"
    )
    images: Annotated[int, unit("images")] = Field(
        2048, ge=8, description="images that a repetition loads, over all processes"
    )
    batch_size: Annotated[int, unit("images")] = Field(
        32, ge=1, description="images of a batch of each process"
    )
    repeats: Repeats = 3


class Export(Strict):
    """Export of trained runs as ONNX files, each compared with PyTorch on test images."""

    runs: Unique[RunName] = Field(
        min_length=1, description="classifications, whose chosen replicates are exported"
    )
    formats: Unique[str] = Field(
        ["fp16", "int8"],
        description="formats in addition to ONNX in 32 bit, which is always exported",
    )
    devices: Unique[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu", "cuda", "tensorrt"],
        min_length=1,
        description="devices of ONNX Runtime; missing ones are named in the results",
    )
    images: Annotated[int, unit("images")] = Field(
        2048, ge=1, description="largest number of test images that are compared"
    )
    calibration: Annotated[int, unit("images")] = Field(
        512,
        ge=1,
        description="largest number of validation images, from which INT8 takes its ranges",
    )
    batch_size: Annotated[int, unit("images")] = Field(
        32, ge=1, description="images that the network takes at a time"
    )
    repeats: Repeats = 3


class Latency(Strict):
    """Benchmark of inference of exported runs: latency and throughput by way, threads, batch."""

    ways: Unique[str] = Field(
        ["eager", "compiled", "captured", "captured_compiled", "onnx", "fp16", "int8"],
        min_length=1,
        description="ways to run a network: by PyTorch (eager; compiled: by torch.compile; "
        "captured: as CUDA graphs), or by ONNX Runtime from an exported format",
    )
    devices: Unique[Literal["cpu", "cuda", "tensorrt"]] = Field(
        ["cpu", "cuda", "tensorrt"],
        min_length=1,
        description="devices that are compared; missing ones are named in the results",
    )
    threads: Unique[Annotated[int, Field(ge=0, le=1024)]] = Field(
        [1, 0], min_length=1, description="threads on a CPU; 0: all cores"
    )
    batches: Unique[Annotated[Count, unit("images")]] = Field(
        [1, 8, 32, 128], min_length=1, description="sizes of batches that are compared"
    )
    calls: int = Field(200, ge=20, description="calls with one image in each repetition")
    images: Annotated[int, unit("images")] = Field(
        512, ge=1, description="largest number of test images that are predicted"
    )
    repeats: Repeats = 3

    @model_validator(mode="after")
    def _with_eager(self) -> Self:
        if "eager" not in self.ways:
            raise ValueError("ways must have eager, which the others are compared with")
        return self


class Formats(Strict):
    """Benchmark of number formats: the same training in each, with speed and accuracy."""

    run: str = Field(
        description="run of a classification without `_amp`, which is trained in each format"
    )
    formats: Unique[NumberFormat] = Field(
        list(FORMATS),
        min_length=1,
        description="number formats to compare; the results name those that the device lacks",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="passes over the training images; null: those of the recipe",
    )


class Benchmarks(Strict):
    """Benchmarks of a study."""

    enhance: Enhance | None = None
    loading: Loading | None = None
    export: Export | None = None
    inference: Latency | None = None
    formats: Formats | None = None

    @model_validator(mode="after")
    def _exported_first(self) -> Self:
        if self.inference is not None and self.export is None:
            raise ValueError(
                "inference is measured of the runs that `export` names; give benchmarks.export"
            )
        return self


class Profile(Strict):
    """Profiling of a run's steps: ``snakemake profiled/<study>/<run>`` for any run."""

    runs: Unique[RunName] = Field([], description="runs that are profiled for the study's report")
    warmup: Annotated[int, unit("steps")] = Field(
        5,
        ge=2,
        description="steps before the timed ones; in the second, FLOPs and bytes are counted",
    )
    steps: Annotated[int, unit("steps")] = Field(
        10,
        ge=1,
        le=100,
        description="steps that are timed without a trace, then as many with one; a traced step of "
        "EfficientNet-B3 takes 5 MB (0.4 MB compressed)",
    )
    memory: bool = Field(True, description="trace allocations of memory")
    shapes: bool = Field(False, description="trace the shapes of operands: larger traces")
