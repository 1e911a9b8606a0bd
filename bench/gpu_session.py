"""The tests and measurements that matter most, in order, on a GPU that is at hand for minutes.

`make gpu-session ARGS="--seconds 540 --out FOLDER"` runs one step after another until the time is
over; `--start STEP` begins later, as in a second session. Each step is a process with a time limit,
so that one that crashes or hangs costs only its own results. For a step that fails, the lines that
name the fault are printed. The folder has five files: `output.txt` (everything that the steps
print, while they run), `session.json` (the result of each step), copies of the table and the page
of `make bench-gpu`, and `goals.md`, which compares all goals of speed with the measured values.
`python -m bench.gpu_goals FOLDER...` does so for several sessions.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import typer

from bench import gpu_goals
from bench.gpu import PAGE
from bench.gpu_goals import DONE
from bench.inputs import arguments, environment, make_shards, write_plan
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import read_json, write_json, write_text
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine.card_rates import TABLE

LEAST_S = 20.0  # a step is not begun with less time left
TAIL = 30  # last lines of a step's output in session.json
OUTPUT = "output.txt"  # what all steps print
# A line of a step's output that names a fault: pytest's summary, an exception, the reason of a way
# that was not measured, the function in which a process hung.
FAULT = re.compile(
    r".*\b(?:FAILED|ERROR)\b|E  +\S|[\w.]*(?:Error|Exception|Interrupt|Stopped)\b"
    r'|fault:|Fatal|Timeout|\{.*"note": "[^"]|make: \*| *File .*(?:medscale|tests|bench)/'
)
# Most lines of a step that are printed, last ones of a step that is not done, most characters of a
# line: together below 12,000 characters for the steps of a session.
FAULTS, LAST, FAULT_WIDTH = 6, 2, 160


@dataclass(frozen=True)
class Step:
    """A command of Python's, and the seconds after which it is ended."""

    name: str
    limit_s: float
    arguments: tuple[str, ...]


def bench(network: str, batch: int, *ways: str, formats: str = "bf16") -> tuple[str, ...]:
    """Return the arguments of one round of `make bench-gpu` without profiles."""
    options = ["--network", network, "--batch", str(batch), "--rounds", "1", "--no-gaps"]
    options += [part for name in formats.split() for part in ("--format", name)]
    options += [part for way in ways for part in ("--way", way)]
    return ("-m", "bench.gpu", *options)


def tests(hang_s: int, *arguments: str) -> tuple[str, ...]:
    """Return the arguments of pytest for tests on a GPU.

    Names are printed as the tests end, so that the output of a step that is ended shows how far it
    came. A test that hangs in code of C or CUDA, where no exception reaches it, ends the process
    after ``hang_s`` seconds, with its stack.
    """
    hangs = ("-o", f"faulthandler_timeout={hang_s}", "-o", "faulthandler_exit_on_timeout=true")
    options = ("-v", "--tb=short", "--no-header", "-m", "gpu", "-p", "no:cacheprovider", *hangs)
    return ("-m", "pytest", *options, *arguments)


STEP_TESTS, RUN_TESTS = "tests/gpu/test_gpu_steps.py", "tests/gpu/test_gpu_runs.py"
# What can fail by itself: prediction, networks, overflow, waits, recovery.
SMOKE = (
    "captured_network or changes_nothing or networks or overflow or no_step or after_a_capture"
    " or collectives or ranks_meet"
)
PARALLEL = ("-n", "4")  # start and imports of a run take longer than its training
COMPILED = ("engine_compiled", "compiled_graph")
# The first ten minutes show whether capture works, and all goals of speed except the compiled ones,
# which take minutes to compile. A whole run comes before single networks, since it has most parts.
STEPS = (
    Step("card", 60, ("-m", "bench.gpu_session", "--describe")),
    Step("smoke", 120, tests(60, "tests/gpu/test_gpu_predictors.py", STEP_TESTS, "-k", SMOKE)),
    Step("published", 190, ("-m", "bench.gpu_session", "--published")),
    Step("medical_cnn", 120, bench("medical_cnn", 32, "engine", "graph", "nhwc")),
    Step("efficientnet_b3", 120, bench("efficientnet_b3", 64, "engine", "graph")),
    Step("densenet121", 120, bench("densenet121", 64, "engine", "graph")),
    Step("resnet50", 120, bench("resnet50", 256, "engine", "graph")),
    Step("strategies", 150, bench("medical_cnn", 32, "engine_ddp", "engine_fsdp")),
    Step("tf32", 150, bench("efficientnet_b3", 64, "engine", formats="tf32")),
    Step("compiled", 240, bench("medical_cnn", 32, *COMPILED)),
    Step("killed", 200, tests(150, RUN_TESTS, "-k", "killed")),  # these lease the card, in turn
    Step("runs", 300, tests(150, *PARALLEL, RUN_TESTS, "-k", "not compiled and not killed")),
    Step("steps", 300, tests(150, *PARALLEL, STEP_TESTS)),
    Step("formats", 300, bench("medical_cnn", 32, "engine", "graph", formats="fp32 tf32 fp16")),
    Step("yolov8n", 180, bench("yolov8n", 32, "engine", "graph", "nhwc")),
    Step("detector", 200, tests(150, "tests/engine/test_detect.py")),
    Step("compiled_b3", 500, bench("efficientnet_b3", 64, *COMPILED)),
    Step("compiled_b3_256", 500, bench("efficientnet_b3", 256, *COMPILED)),
    Step("compiled_code", 300, tests(240, RUN_TESTS, "-k", "compiled")),
)
NAMES = [step.name for step in STEPS]


def main(
    seconds: float = 540.0,
    out: Path = Path("gpu-session"),
    start: str = typer.Option(NAMES[0], help=", ".join(NAMES)),
    describe: bool = typer.Option(False, hidden=True),
    published: bool = typer.Option(False, hidden=True),
) -> None:
    """Run the steps from ``start`` on until the seconds are over."""
    if describe:
        print(json.dumps(card()))
    elif published:
        print(json.dumps(train_published()))
    else:
        if start not in NAMES:
            raise MedscaleError(f"--start {start}: the steps are {', '.join(NAMES)}")
        session(STEPS[NAMES.index(start) :], seconds, out)


def session(steps: tuple[Step, ...], seconds: float, out: Path) -> None:
    """Run steps until the seconds are over; write each result into ``out``.

    If there is no GPU (the step "card"), the others are left out.
    """
    end = time.monotonic() + seconds
    out.mkdir(parents=True, exist_ok=True)
    (out / OUTPUT).write_text("", encoding="utf-8")
    results: list[dict[str, object]] = []
    for step in steps:
        left = end - time.monotonic()
        if left < LEAST_S:
            results.append({"step": step.name, "status": "no time left"})
            continue
        begin = time.monotonic()
        status, text = run(step.arguments, min(step.limit_s, left), out / OUTPUT, step.name)
        duration_s = round(time.monotonic() - begin, 1)
        last = text.splitlines()[-TAIL:]
        results.append({"step": step.name, "status": status, "seconds": duration_s, "output": last})
        print(f"{step.name}: {status} after {duration_s:g} s", flush=True)
        for line in faults(text, status):
            print(f"    {line}", flush=True)
        keep(results, out)
        if step.name == "card" and status != DONE:
            break
    keep(results, out)
    print((out / "goals.md").read_text(encoding="utf-8"))


def faults(text: str, status: str) -> list[str]:
    """Return the lines of a step's output that name faults, as far as they fit.

    A step that is done can have some, such as a way of training that was not measured. The last
    lines of a step that is not done are added: they say how far it came.
    """
    lines = list(dict.fromkeys(line.rstrip() for line in text.splitlines() if line.strip()))
    excerpt = [line for line in lines if FAULT.match(line)]
    if status != DONE:
        last = lines[-(LAST if excerpt else FAULTS) :]
        excerpt = [line for line in excerpt if line not in last][-FAULTS:] + last
    return [line[:FAULT_WIDTH] for line in excerpt[-FAULTS - LAST :]]


def keep(results: list[dict[str, object]], out: Path) -> None:
    """Write the results so far: of the steps, the measured rates, and the goals."""
    write_json(out / "session.json", results)
    for file in (TABLE, PAGE):
        if file.is_file():
            shutil.copy(file, out / file.name)
    write_text(out / "goals.md", gpu_goals.text(*gpu_goals.collect([out])))


def run(command: tuple[str, ...], limit_s: float, log: Path, name: str) -> tuple[str, str]:
    """Run Python with the arguments ``command``; return its status in words, and its output.

    The output is appended to the file ``log`` while the process runs, below a line with ``name``.
    At the limit, all processes that it has started are ended.
    """
    with open(log, "a+", encoding="utf-8", errors="replace") as output:
        output.write(f"===== {name}\n")
        output.flush()
        begin = output.tell()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
            status = DONE if code == 0 else f"status {code}"
        except subprocess.TimeoutExpired:
            # Ranks of a run are in sessions of their own, so a signal to the group misses them.
            started = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            for child in started:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait()
            status = f"not finished within {limit_s:.0f} s"
        output.seek(begin)
        return status, output.read()


def card() -> dict[str, object]:
    """Return what the GPU and the versions of its software are."""
    import torch

    if not torch.cuda.is_available():
        raise MedscaleError("this machine has no GPU that PyTorch can use")
    properties = torch.cuda.get_device_properties(0)
    return {
        "card": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": list(torch.cuda.get_device_capability(0)),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": list(torch.cuda.nccl.version()),
        "python": sys.version.split()[0],
    }


def train_published() -> dict[str, object]:
    """Train the glaucoma study's fastest run as published, on random images; return its times.

    8,621 images of 224 pixels, batches of 32 and 20 epochs in mixed precision, from the command to
    the predictions. Validation and test have as many further images as a tenth and a fifth of them.
    """
    run_plan = plan(load(ROOT / "config.yaml"), "glaucoma", "serial_amp_1gpu", 1)
    recipe = run_plan.recipe.model_copy(update={"patience": None, "steps": None, "epochs": 20})
    run_plan = run_plan.model_copy(update={"recipe": recipe})
    with tempfile.TemporaryDirectory(prefix="medscale-published-") as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", 8621, 224, val=862, test=1724)
        spec, out = write_plan(folder / "spec.json", run_plan), folder / "run"
        options = {"--spec": spec, "--shards": shards, "--out": out, "--log": folder / "log.txt"}
        line = ("scripts/train.py", *arguments(options))
        begin = time.monotonic()
        status, text = run(line, 140, folder / OUTPUT, "train.py")
        wall = time.monotonic() - begin
        if status != DONE:
            raise MedscaleError(f"{text}\nthe published run: {status}")
        timing = read_json(out / "timing.json")
    trained = sum(timing["seconds"][kind] for kind in ("data", "compute", "communication"))
    return {
        "wall_s": round(wall, 1),
        "images_per_second": round(timing["images_per_second"]),
        "batch": run_plan.global_batch,
        "epochs": timing["epochs"],
        "data_share": round(timing["seconds"]["data"] / trained, 4),
        "seconds": timing["seconds"],
    }


if __name__ == "__main__":
    tell_user(typer.run)(main)
