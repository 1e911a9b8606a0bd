"""Made profiles: traces of a CPU and a GPU, and profiled folders written from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medscale.config.benchmarks import Profile
from medscale.config.configuration import Config
from medscale.config.planning import plan
from medscale.measure.profiling.record import Rank, write
from medscale.measure.profiling.timeline import analyse
from medscale.measure.profiling.trace import events
from medscale.measure.profiling.window import Measurements
from medscale.measure.profiling.work import Work


def event(
    category: str, name: str, start: float, end: float, thread: int = 1, **args: Any
) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 1,
        "tid": thread,
        "ts": start,
        "dur": end - start,
    } | {"args": args}


def allocation(at: float, size: int, total: int, device: int = 0) -> dict[str, Any]:
    args = {
        "Total Allocated": total,
        "Total Reserved": 0,
        "Bytes": size,
        "Addr": 1,
        "Device Id": 0,
        "Device Type": device,
    }
    return {
        "ph": "i",
        "cat": "cpu_instant_event",
        "name": "[memory]",
        "pid": 1,
        "tid": 1,
        "ts": at,
        "args": args,
    }


def trace_text(*trace_events: dict[str, Any]) -> str:
    return json.dumps(
        {"schemaVersion": 1, "traceEvents": trace_events, "traceName": "x.json"}, indent=1
    )


CPU_TRACE = (
    event("user_annotation", "ProfilerStep#1", 0, 100),
    event("user_annotation", "ProfilerStep#2", 100, 200),
    event("user_annotation", "medscale::data", 0, 10),
    event("cpu_op", "aten::copy_", 2, 6, **{"External id": 1}),
    event("cpu_op", "aten::conv2d", 20, 60),
    event("cpu_op", "aten::add", 30, 35),
    event("user_annotation", "Optimizer.step#Adam.step", 70, 80),
    event("cpu_op", "aten::add", 71, 73),
    event("cpu_op", "c10d::allreduce_", 100, 104),
    event(
        "user_annotation", "gloo:all_reduce", 50, 68, thread=2
    ),  # hidden until 60, then waited for
    event("user_annotation", "Forward 0", 140, 165),  # waits, and then computes
    event("cpu_op", "aten::mm", 150, 160),
    event(
        "user_annotation", "gloo:recv", 145, 158
    ),  # asked for before, by the thread that then computes
    event("cpu_op", "aten::mm", 300, 400),  # after the window
    allocation(30, 1000, 1000),
    allocation(40, -400, 600),
    {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}},
)

GPU_TRACE = (
    event("user_annotation", "ProfilerStep#1", 0, 100),
    event("user_annotation", "medscale::data", 0, 12),
    event("cpu_op", "aten::normal_", 1, 2, **{"External id": 10}),
    event("cpu_op", "aten::convolution", 12, 20, **{"External id": 11}),
    event("cpu_op", "aten::cudnn_convolution", 13, 19, **{"External id": 12}),
    event("cuda_runtime", "cudaLaunchKernel", 14, 15, **{"External id": 12, "correlation": 7}),
    event("cpu_op", "aten::detach", 21, 22, **{"External id": 13}),
    event("user_annotation", "Optimizer.step#Adam.step", 30, 40),
    event("cpu_op", "aten::add_", 31, 32, **{"External id": 14}),
    event(
        "kernel",
        "distribution_elementwise_kernel",
        5,
        10,
        7,
        **{"External id": 10, "device": 0, "stream": 7},
    ),
    event("kernel", "nchwToNhwc", 15, 30, 7, **{"External id": 12, "device": 0, "stream": 7}),
    event(
        "kernel",
        "vectorized_elementwise_kernel<4>",
        30,
        40,
        7,
        **{"External id": 13, "device": 0, "stream": 7},
    ),
    event(
        "kernel",
        "elementwise_kernel<2>",
        80,
        90,
        7,
        **{"External id": 14, "device": 0, "stream": 7},
    ),
    event(
        "kernel",
        "ncclDevKernel_AllReduce",
        35,
        60,
        20,
        **{"External id": 14, "device": 0, "stream": 20},
    ),
    event("gpu_memset", "Memset (Device)", 60, 62, 7, **{"device": 0, "stream": 7}),
    event("gpu_user_annotation", "ProfilerStep#1", 5, 90, 7),
    allocation(15, 4096, 9000, device=1),
    allocation(16, 10, 10),
)


def make_profile(folder: Path, config: Config, study: str, run: str) -> Path:
    """Write a profiled folder at ``folder/profiled`` from the made trace of the run's device."""
    planned, out = plan(config, study, run, 1), folder / "profiled" / study / run
    line = analyse(events(trace_text(*(GPU_TRACE if planned.backend == "cuda" else CPU_TRACE))))
    work = Work({"convolution": 2e6, "matmul": 1e5}, {"convolution": 1e5, "memory": 3e5}, 100.0)
    measurements = Measurements(
        [9e-5] * line.steps, [1e-5] * line.steps, 32 * line.steps, 1e-4, work
    )
    ceiling = {"flops": 1e11, "bytes": 1e10}
    ranks = [Rank(measurements, line, ceiling, 1)] * planned.run.devices
    write(out, planned, Profile(steps=line.steps), "fp32", ranks, {"shards": "made"})
    return out
