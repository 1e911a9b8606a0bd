"""Speed of a trained network in PyTorch and ONNX Runtime (`make bench-inference`).

All ways take turns, on one core and on all cores.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import typer
from rich.console import Console

from bench.contest import judge, ratio, show, take_turns
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.text import amount
from medscale.data.shards import Shards
from medscale.measure.exporting import accuracy_difference, write
from medscale.measure.record import cores
from medscale.serve import runtime
from medscale.serve.formats.registry import BENCHMARKED, ONNX
from medscale.serve.predict import load
from medscale.serve.runtime import Run

DEMO = ROOT / "work" / "demo"
RESULT = DEMO / "results" / "dermatology" / "serial_1gpu_test_efficientnet"
SHARDS = DEMO / "data" / "dermatology" / "shards"
EAGER = "PyTorch, eager"
FASTER, NEAR = 1.5, 0.5  # aims: speed over eager, and points of accuracy lost
AT_LEAST_S = 0.15  # length of a turn


def main(
    result: Path = typer.Argument(RESULT, help="a result folder"),
    shards: Path = typer.Argument(SHARDS, help="its study's shards"),
    rounds: int = 9,
    compiled: bool = True,
) -> None:
    """Compare eager and compiled PyTorch and exported files on the study's test images."""
    if not result.is_dir():
        raise MedscaleError(f"{result} does not exist; make it first: make study STUDY=dermatology")
    predictor, opened = load(result, device="cpu"), Shards.open(shards)
    if predictor.inference.metadata:
        raise MedscaleError(f"{result} takes metadata; name a result that takes images alone")
    test = opened.positions("test")
    pixels, labels, groups = (
        opened.gather(test),
        opened.labels[test],
        opened.rows["group"].to_numpy()[test],
    )
    formats = [name for name in BENCHMARKED if name != ONNX.name]
    with tempfile.TemporaryDirectory(prefix="medscale-bench-") as folder:
        files = write(predictor, opened, opened.positions("val"), formats, Path(folder, "network"))
        eager = runtime.pytorch(predictor)
        fast = runtime.pytorch(predictor, compiled=True) if compiled else None
        for threads in sorted({1, len(cores())}):
            torch.set_num_threads(threads)
            ways: dict[str, Run] = {EAGER: eager} | (
                {"PyTorch, compiled": fast} if fast is not None else {}
            )
            ways |= {
                f"ONNX Runtime, {name}": runtime.onnx(file, "cpu", threads)
                for name, file in files.items()
            }
            for batch in (1, 8, 32):
                _hold(ways, pixels[:batch], threads, rounds)
        right = runtime.in_batches(eager, pixels, None, 32).argmax(1) == labels
        for name, file in files.items():
            correct = runtime.in_batches(runtime.onnx(file), pixels, None, 32).argmax(1) == labels
            difference, low, high = accuracy_difference(correct, right, groups)
            title = (
                f"{name}: accuracy minus eager's on {len(test)} images (aim: within {NEAR} points)"
            )
            judge(title, (difference, low, high), abs(difference) <= NEAR)


def _hold(ways: dict[str, Run], pixels: np.ndarray, threads: int, rounds: int) -> None:
    """Let each way predict one batch, repeatedly for at least ``AT_LEAST_S`` seconds, in turns."""
    calls = {}
    for name, run in ways.items():
        for _ in range(3):
            run(pixels, None)
        start = perf_counter()
        run(pixels, None)
        calls[name] = max(3, int(AT_LEAST_S / (perf_counter() - start)))
    times = take_turns(
        {n: partial(_seconds, run, pixels, calls[n]) for n, run in ways.items()}, rounds, quiet=True
    )
    show(times, EAGER, f"\nbatch {len(pixels)}, {amount(threads, 'thread')}", len(pixels))
    for name in ways:
        if name.startswith("ONNX"):
            middle, low, high = ratio(times, EAGER, name)
            judge(f"{name} over eager (aim: {FASTER})", (middle, low, high), middle >= FASTER)
    Console().print()


def _seconds(run: Run, pixels: np.ndarray, calls: int, number: int) -> float:
    for _ in range(2):  # threads of the previous way may still spin
        run(pixels, None)
    start = perf_counter()
    for _ in range(calls):
        run(pixels, None)
    return (perf_counter() - start) / calls


if __name__ == "__main__":
    tell_user(typer.run)(main)
