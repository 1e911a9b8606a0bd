"""The sections of the configuration on machines: nodes, the cluster, Dask, and what work costs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medscale.base.section import Strict
from medscale.engine.parallel.strategies.registry import STRATEGIES


class Node(Strict):
    """One machine of the cluster, or this one."""

    gpus: int = Field(4, ge=0)
    cpus: int = Field(32, ge=1)
    memory_mb: int | None = Field(
        None, ge=1, description="most that a job may ask for; None: not bounded here"
    )


class Cluster(Strict):
    """What jobs ask of SLURM besides their own needs; stated once, in profiles/slurm/site.yaml."""

    account: str | None = Field(
        None, description="who pays: `sacctmgr show assoc user=$USER format=account`"
    )
    partition: str | None = Field(None, description="where jobs run: `sinfo`")
    gpu_model: str | None = Field(
        None, description="kind of GPU as SLURM names it, where a partition has several"
    )
    binds: list[Path] = Field(
        [], description="folders that jobs in the image see besides the project's own"
    )
    max_minutes: int = Field(
        1440, ge=2, description="the partition's time limit; what takes longer takes several turns"
    )
    safety: float = Field(
        1.5, ge=1, description="factor on the wall time that the cost model expects"
    )
    least_minutes: int = Field(20, ge=1, description="wall time that is always asked for")
    least_mb: int = Field(3000, ge=1, description="memory that is always asked for")
    save_s: int = Field(
        180,
        ge=1,
        description="seconds ahead of the limit at which training is told to save (SIGUSR1)",
    )


class DeviceKind(Strict):
    """One kind of device, by its data sheet, and how much of it training reaches."""

    title: str
    tflops: float = Field(
        gt=0, description="peak of full precision as PyTorch runs convolutions (TF32 where it is)"
    )
    tflops_amp: float = Field(gt=0, description="peak of mixed precision")
    memory_gb_s: float = Field(gt=0, description="peak bandwidth of its memory")
    memory_gb: float = Field(gt=0)
    share: float = Field(
        gt=0, le=1, description="part of the sum of both peaks' times that training reaches"
    )
    step_ms: float = Field(
        0.0, ge=0, description="shortest optimizer step: what launching its kernels takes"
    )
    sync_ms: float = Field(0.0, ge=0, description="what waiting for each other once takes")
    link_gb_s: float = Field(gt=0, description="all-reduce bandwidth among the devices of a node")
    contention: float = Field(
        ge=0, description="loss by each further device that shares the work (Amdahl-like)"
    )
    watts: float = Field(gt=0)
    price: float = Field(ge=0, description="money a device-hour, in cost.currency")


class StrategyCost(Strict):
    """What spreading the work costs, beside the bytes that are exchanged."""

    share: float = Field(1.0, gt=0, le=1, description="part of the speed that is kept")
    syncs: float = Field(
        0, ge=0, description="times a step that devices wait for each other, `sync_ms` each"
    )


class Network(Strict):
    """What one image costs a network, forward; counted by `python -m bench.networks`."""

    size: int = Field(ge=1, description="pixels a side at which it was counted")
    gflops: float = Field(gt=0, description="operations (two a multiplication with addition)")
    activations_m: float = Field(gt=0, description="millions of elements that its layers put out")
    parameters_m: float = Field(gt=0, description="millions")
    share: float = Field(
        1.0, gt=0, description="of the device's share that its kind of layers reaches"
    )


class Expected(Strict):
    """What is expected of a study's images where no index tells it yet."""

    images: int = Field(ge=1, description="that are used, over all splits")
    mb_each: float = Field(gt=0, description="of a raw file")
    per_core: float = Field(
        gt=0, description="images a second that one core decodes and preprocesses"
    )
    with_boxes: float = Field(
        1.0, gt=0, le=1, description="part of the images that detection is trained on"
    )


class Cost(Strict):
    """The cost model: what time, memory, disk and money planned runs need, before they are made."""

    gpu: str = Field("a100", description="which of `devices` the GPUs of runs' names are")
    cpu: str = Field("core", description="which of `devices` the CPUs of runs' names are")
    currency: str = "USD"
    devices: dict[str, DeviceKind] = {}
    networks: dict[str, Network] = {}
    unknown: Network = Field(
        Network(size=224, gflops=10, activations_m=80, parameters_m=40, share=0.6),
        description="stands in for a network that `networks` does not have; estimates by it say so",
    )
    expected: dict[str, Expected] = Field({}, description="by the study whose raw images they are")
    unknown_images: Expected = Expected(images=10_000, mb_each=1.0, per_core=50)
    network_gb_s: float = Field(20.0, gt=0, description="all-reduce bandwidth between nodes")
    exposed: float = Field(
        0.3, ge=0, le=1, description="part of the all-reduce that backward does not hide"
    )
    trained: dict[Literal["all", "last_block", "last_layer"], float] = Field(
        {"all": 3.0, "last_block": 1.6, "last_layer": 1.1},
        description="a training step in forward passes",
    )
    strategies: dict[str, StrategyCost] = {
        name: StrategyCost(share=strategy.costs.share, syncs=strategy.costs.syncs)
        for name, strategy in STRATEGIES.items()
    }
    load_per_process: float = Field(
        10_000, gt=0, description="images a second that one process gathers from shards"
    )
    start_s: float = Field(
        30, ge=0, description="start of a training job, imports and containers included"
    )
    index_per_core: float = Field(
        300, gt=0, description="small files a second and core that are hashed and looked at"
    )
    hash_mb_s: float = Field(100, gt=0, description="of files that one core reads and hashes")
    evaluate_us: float = Field(100, gt=0, description="evaluation, by test image, class and seed")
    report_us: float = Field(
        100, gt=0, description="report, by image; and a minute for its figures"
    )
    rank_mb: float = Field(
        900, gt=0, description="host memory of a training process before its network"
    )
    cuda_mb: float = Field(3000, ge=0, description="host memory that CUDA adds to a process")
    launcher_mb: float = Field(700, ge=0)
    host_gb: float = Field(256, gt=0, description="memory of a node")
    file_system_gb_s: float = Field(
        5, gt=0, description="that all nodes together read from shared storage"
    )
    margin: float = Field(
        1.25, ge=1, description="by how much more memory is asked for than estimated"
    )
    target: float = Field(
        0.95, gt=0, le=1, description="part of the best validation accuracy that counts as reached"
    )
