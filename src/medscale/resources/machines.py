"""Sections of the configuration on machines: nodes, cluster, Dask, and the cost model."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medscale.base.section import Seconds, Share, Strict, unit
from medscale.engine.parallel.strategies.registry import STRATEGIES

Megabytes = Annotated[float, unit("MB")]
Gigabytes = Annotated[float, unit("GB")]
GigabytesPerSecond = Annotated[float, unit("GB/s")]
Teraflops = Annotated[float, unit("TFLOP/s")]
Milliseconds = Annotated[float, unit("ms")]
Minutes = Annotated[int, unit("minutes")]
Millions = Annotated[float, unit("millions")]


SbatchOption = Literal["qos", "constraint", "reservation", "exclude", "licenses"]


class Node(Strict):
    """One node of the cluster, or this machine."""

    gpus: int = Field(
        4, ge=0, title="GPUs", description="GPUs of a node; a run on more takes several nodes"
    )
    cpus: int = Field(32, ge=1, title="CPUs", description="cores of a node")
    memory_mb: Annotated[int, unit("MB")] | None = Field(
        None,
        ge=1,
        title="Memory",
        description="largest memory that a job may request; null: no limit",
    )


class Cluster(Strict):
    """Settings of SLURM for all jobs; set once, in profiles/slurm/site.yaml."""

    account: str | None = Field(
        None,
        description="account that jobs are charged to; `sacctmgr show assoc user=$USER "
        "format=account` lists yours",
    )
    partition: str | None = Field(
        None, description="partition that jobs run in; `sinfo` lists them"
    )
    cpu_partition: str | None = Field(
        None, description="partition of jobs without GPUs; null: `partition`"
    )
    options: dict[SbatchOption, str] = Field(
        {}, description="further options of sbatch by name, such as {qos: long}"
    )
    gpu_model: str | None = Field(
        None, description="SLURM's name of the GPU to request, where a partition has several models"
    )
    binds: list[Path] = Field(
        [], description="folders that jobs in the image see in addition to the project's"
    )
    max_minutes: Minutes = Field(
        1440, ge=2, description="time limit of the partition; longer jobs run in several turns"
    )
    safety: float = Field(
        1.5, ge=1, description="requested wall time divided by the estimate of the cost model"
    )
    least_minutes: Minutes = Field(20, ge=1, description="smallest requested wall time")
    least_mb: Annotated[int, unit("MB")] = Field(
        3000, ge=1, title="Least memory", description="smallest requested memory"
    )
    save_s: Annotated[int, unit("seconds")] = Field(
        180,
        ge=1,
        title="Time to save",
        description="time before a job's limit at which SLURM's signal (SIGUSR1) makes training "
        "save a checkpoint",
    )

    def partition_of(self, gpus: int) -> str | None:
        """Return the partition of a job that requests so many GPUs of a node."""
        return self.partition if gpus else self.cpu_partition or self.partition


class DeviceKind(Strict):
    """One kind of device: its data sheet, and the share of it that training reaches."""

    title: str = Field(description="name in the paper")
    card: str | None = Field(
        None, description="the driver's name of the card, by which docs/gpu.csv has measured rates"
    )
    tflops: Teraflops = Field(gt=0, title="Speed", description="peak in fp32")
    tflops_tf32: Teraflops | None = Field(
        None,
        gt=0,
        title="Speed with TF32",
        description="peak in TF32; null: the device has neither TF32 nor bf16",
    )
    tflops_amp: Teraflops = Field(
        gt=0, title="Speed with AMP", description="peak in mixed precision (bf16 or fp16)"
    )
    memory_gb_s: GigabytesPerSecond = Field(
        gt=0, title="Memory bandwidth", description="peak bandwidth of its memory"
    )
    memory_gb: Gigabytes = Field(gt=0, title="Memory", description="memory of the device")
    share: Share = Field(
        gt=0,
        le=1,
        description="share of the peaks that training reaches: the time at the peak of speed plus "
        "that at the peak of memory bandwidth, divided by the time of training",
    )
    step_ms: Milliseconds = Field(
        0.0,
        ge=0,
        title="Step",
        description="time of launching the kernels of an optimizer step, or of each of its parts "
        "(`recipe.accumulate`), which takes at least as long",
    )
    sync_ms: Milliseconds = Field(
        0.0, ge=0, title="Synchronization", description="time of one synchronization of the devices"
    )
    link_gb_s: GigabytesPerSecond = Field(
        gt=0, title="Link", description="all-reduce bandwidth between devices of a node"
    )
    contention: Share = Field(
        ge=0, description="share of the speed that each further device costs (serial part)"
    )
    watts: Annotated[float, unit("W")] = Field(gt=0, title="Power", description="power under load")
    price: float = Field(ge=0, description="price of a device-hour, in cost.currency")


class StrategyCost(Strict):
    """Cost of distributing the work, in addition to the transfer of bytes."""

    share: Share = Field(1.0, gt=0, le=1, description="share of the speed that remains")
    syncs: float = Field(
        0, ge=0, title="Synchronizations", description="synchronizations of a step, `sync_ms` each"
    )


class Network(Strict):
    """Cost of one image's forward pass; counted by `python -m bench.networks`."""

    size: Annotated[int, unit("pixels")] = Field(ge=1, description="side of the counted image")
    gflops: Annotated[float, unit("10^9 operations")] = Field(
        gt=0,
        title="Operations",
        description="operations of one image; a multiply-add counts as two",
    )
    activations_m: Millions = Field(
        gt=0, title="Activations", description="numbers in the outputs of all layers, of one image"
    )
    parameters_m: Millions = Field(
        gt=0, title="Parameters", description="parameters of the network"
    )
    share: float = Field(
        1.0, gt=0, description="factor on the `share` of the device, for networks with such layers"
    )
    width: int | None = Field(
        None,
        ge=1,
        description="option `width` of the counted network; with another width, operations and "
        "parameters are scaled by its square, activations in proportion",
    )


class Expected(Strict):
    """Expected images of a study that is not indexed yet."""

    images: Annotated[int, unit("images")] = Field(ge=1, description="used images of all splits")
    mb_each: Megabytes = Field(gt=0, title="Size", description="size of a raw file")
    per_core: Annotated[float, unit("images/s")] = Field(
        gt=0, description="rate at which a core decodes and preprocesses images"
    )
    with_boxes: Share = Field(
        1.0, gt=0, le=1, description="share of the images that detection is trained on"
    )


class Cost(Strict):
    """Numbers of the cost model: time, memory, disk and money that planned runs need."""

    gpu: str = Field("a100", description="entry of `devices` for runs on GPUs")
    cpu: str = Field("core", description="entry of `devices` for runs on CPUs")
    currency: str = Field("USD", description="currency of all prices")
    devices: dict[str, DeviceKind] = Field({}, description="kinds of devices by name")
    networks: dict[str, Network] = Field({}, description="counted networks by name")
    unknown: Network = Field(
        Network(size=224, gflops=10, activations_m=80, parameters_m=40, share=0.6),
        description="used for networks that `networks` lacks; such estimates have a note",
    )
    expected: dict[str, Expected] = Field(
        {}, description="expected images by the study that owns the raw images"
    )
    unknown_images: Expected = Field(
        Expected(images=10_000, mb_each=1.0, per_core=50),
        description="used for studies that `expected` lacks; its number of images, where the raw "
        "folder has none yet",
    )
    network_gb_s: GigabytesPerSecond = Field(
        20.0, gt=0, title="Network", description="all-reduce bandwidth between nodes"
    )
    exposed: Share = Field(
        0.3, ge=0, le=1, description="share of the all-reduce that the backward pass does not hide"
    )
    trained: dict[Literal["all", "last_block", "last_layer"], float] = Field(
        {"all": 3.0, "last_block": 1.6, "last_layer": 1.1},
        description="cost of a training step in forward passes, by the part that is trained",
    )
    strategies: dict[str, StrategyCost] = Field(
        {
            name: StrategyCost(share=strategy.costs.share, syncs=strategy.costs.syncs)
            for name, strategy in STRATEGIES.items()
        },
        description="costs of strategies by name",
    )
    load_per_process: Annotated[float, unit("images/s")] = Field(
        10_000, gt=0, description="rate at which a process reads preprocessed images"
    )
    start_s: Seconds = Field(
        30,
        ge=0,
        title="Start",
        description="time until a training job has started its container and imported its packages",
    )
    onnx_s: Seconds = Field(
        20,
        ge=0,
        title="ONNX",
        description="time to write a network as an ONNX file; on one core ResNet-50 took 9 s, "
        "DenseNet-121 13 s",
    )
    compile_s: Seconds = Field(
        300,
        ge=0,
        title="Compilation",
        description="time of torch.compile for a network on CPU cores, for one image and for "
        "batches; on one core ResNet-50 took 82 s, medical_cnn 142 s, and deeper ones more",
    )
    index_per_core: Annotated[float, unit("files/s")] = Field(
        300, gt=0, description="rate at which a core hashes and checks small files"
    )
    hash_mb_s: Annotated[float, unit("MB/s")] = Field(
        100, gt=0, title="Hashing", description="rate at which a core reads and hashes large files"
    )
    evaluate_us: Annotated[float, unit("µs")] = Field(
        100,
        gt=0,
        title="Evaluation",
        description="time of evaluation for each test image, class and seed",
    )
    report_us: Annotated[float, unit("µs")] = Field(
        100,
        gt=0,
        title="Report",
        description="time of the report for each image, in addition to a minute for figures",
    )
    rank_mb: Megabytes = Field(
        900,
        gt=0,
        title="Memory of a process",
        description="host memory of a training process without its network",
    )
    cuda_mb: Megabytes = Field(
        3000, ge=0, title="Memory of CUDA", description="host memory that CUDA adds to a process"
    )
    launcher_mb: Megabytes = Field(
        700, ge=0, title="Memory of the launcher", description="host memory of the launcher"
    )
    host_gb: Gigabytes = Field(
        256, gt=0, title="Memory of a node", description="host memory of a node"
    )
    file_system_gb_s: GigabytesPerSecond = Field(
        5,
        gt=0,
        title="File system",
        description="rate at which all nodes together read from shared storage",
    )
    margin: float = Field(1.25, ge=1, description="requested memory divided by the estimate")

    @model_validator(mode="after")
    def _described_devices(self) -> Self:
        for setting, name in (("gpu", self.gpu), ("cpu", self.cpu)):
            if self.devices and name not in self.devices:
                raise ValueError(
                    f"{setting} is {name!r}, which `devices` does not have (there are: "
                    f"{', '.join(self.devices)}); describe it there"
                )
        return self
