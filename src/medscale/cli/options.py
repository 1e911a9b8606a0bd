"""Options, messages and calls of Snakemake that the commands share."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medscale.base import paths
from medscale.base.code import ROOT
from medscale.base.errors import EXIT_INTERRUPTED, MedscaleError
from medscale.cli.completion import results_like, studies_like
from medscale.data.kind import kind_names

if TYPE_CHECKING:
    from medscale.config.layers import Layer
    from medscale.workflow.graph import Graph

COMMAND_LINE = "command line"
Scale = Annotated[str, typer.Option(help="full or demo; a scale in --configfile takes precedence")]
Only = Annotated[
    str | None,
    typer.Option(
        help="names of studies, separated by commas; default: all", autocompletion=studies_like
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="a YAML file of changes to config.yaml, such as your own data")
]
Cluster = Annotated[bool, typer.Option("--cluster", help="for jobs on the SLURM cluster")]
Kind = Annotated[str, typer.Argument(help=f"dataset kind: {', '.join(kind_names())}")]
Result = Annotated[
    Path,
    typer.Argument(
        help="a result folder, such as results/skin/ddp_amp_4gpu", autocompletion=results_like
    ),
]


def _seed(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not (text.isascii() and text.isdecimal()):
        raise MedscaleError(f"--seed is a number or 'all', not {text!r}")
    return int(text)


def _checked_device(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise MedscaleError(f"--device is cpu, cuda or a GPU by its number as cuda:0, not {text!r}")
    return text


Seed = Annotated[
    Any,
    typer.Option(
        help="a seed (with folds, the mean of its networks), or 'all' for all",
        parser=_seed,
        metavar="<str>",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:0", callback=_checked_device)]


Calibrated = Annotated[
    bool,
    typer.Option(
        "--calibrated/--uncalibrated",
        help="use the temperature that was fitted on validation images, if there is one",
    ),
]


def run_snakemake(
    targets: list[str], changes: dict[str, Any], configfile: Path | None, *arguments: str
) -> bool:
    """Run Snakemake in the project's root; return whether it succeeded.

    Its output goes to stderr, so that stdout holds nothing but the facts of the command. Ends
    the command when a user stops it (Ctrl-C).
    """
    command = [sys.executable, "-m", "medscale.cli.snakemake", *targets]
    command += ["--logger", "medscale"]
    command += ["--configfile", str(configfile.resolve())] if configfile else []
    settings = [f"{key}={changes[key]}" for key in ("scale", "only") if key in changes]
    command += [*arguments, "--config", *settings]
    return _wait(subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)) == 0


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status of a process that Ctrl-C reaches as well.

    ``subprocess.run`` would kill it a quarter of a second later. Snakemake then could neither stop
    its jobs nor remove its lock, and the next call would fail. Ends the command after Ctrl-C, and
    after SIGTERM (``kill``, ``timeout``), which reaches this process alone and is passed on.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        _interrupt(process)
        signal.default_int_handler(number, frame)

    # dask_jobqueue, once imported, would end this process at Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    before_term = signal.signal(signal.SIGTERM, interrupt)
    stopped = False
    try:
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                if stopped:  # the second time, the user does not want to wait
                    process.kill()
                    raise
                stopped = True
                print("stopping the jobs that run; Ctrl-C again kills them", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, before_term)
    if stopped:
        text = "stopped; what is complete stays, and the same command goes on"
        print(f"medscale: {text}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)
    return status


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to Snakemake and to its jobs, as a terminal does after Ctrl-C.

    Snakemake passes no signal on, and would wait until its jobs are finished.
    """
    import psutil

    jobs = []
    with suppress(psutil.Error):
        jobs = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    for job in jobs:
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(job.pid) == os.getpgrp():
                job.send_signal(signal.SIGINT)


def changes_of(
    scale: str, only: str | None, configfile: Path | None, cluster: bool = False
) -> dict[str, Any]:
    """Return the changes to config.yaml as Snakemake would read them."""
    layers = layers_of(scale, only, configfile, cluster)
    from medscale.config.layers import merge  # after a wrong path has been refused

    return reduce(merge, (layer.tree for layer in layers), {})


def study_graph(
    scale: str,
    only: str | None,
    configfile: Path | None,
    cluster: bool = False,
    arguments: Sequence[str] = (),
) -> Graph:
    """Return the checked configuration as Snakemake's rules see it.

    Raises MedscaleError on all mistakes of the configuration, and for a target in ``arguments``
    that does not exist.
    """
    changes = changes_of(scale, only, configfile, cluster)
    from medscale.workflow.graph import Graph  # after a wrong path has been refused

    return Graph(changes, arguments, files=files_of(configfile, cluster))


def unlock_command(graph: Graph) -> str | None:
    """Return the command that removes the lock of a study's folder; None where there is no lock."""
    # Snakemake removes its lock when it ends. One that is there belongs to a Snakemake process that
    # still runs, or to one that was killed.
    if not any((graph.workdir / ".snakemake" / "locks").glob("*")):
        return None
    return graph.snakemake("--unlock")


def scale_of_path(target: str) -> str:
    """Return ``demo`` for a target that is a path in the demo's folder; otherwise ``full``."""
    if "/" not in target:
        return "full"
    from medscale.workflow.graph import Graph

    return "full" if Graph({"scale": "demo"}).target(target) == target else "demo"


def demo_hint(command: str, scale: str, configfile: Path | None) -> str:
    """Return the command for the demo's outputs, if only these exist; otherwise an empty text.

    Args:
        command: the name of a command that found no outputs.
        scale, configfile: its options.
    """
    if scale == "demo" or configfile is not None:
        return ""
    from medscale.workflow.graph import Graph

    workdir = Graph({"scale": "demo"}).workdir
    return f"; the demo's: medscale {command} --scale demo" if (workdir / "logs").is_dir() else ""


def files_of(configfile: Path | None, cluster: bool = False) -> list[Path]:
    """Return the YAML files of the layers above config.yaml, the highest last."""
    from medscale.base.provenance import SITE

    return [ROOT / SITE] * cluster + ([configfile] if configfile is not None else [])


def layers_of(
    scale: str | None, only: str | None, configfile: Path | None, cluster: bool = False
) -> list[Layer]:
    """Return the layers of settings above config.yaml, the highest last.

    A scale in the file wins over the option, and the file over the cluster's settings.
    """
    tree = _read(configfile) if configfile is not None else {}
    from medscale.base.provenance import SITE
    from medscale.config.layers import Layer

    layers = [Layer(str(SITE), _read(ROOT / SITE))] if cluster else []
    layers += [Layer(COMMAND_LINE, {"scale": scale})] if scale is not None else []
    if configfile is not None:
        layers.append(Layer(str(configfile), tree))
    return layers + ([Layer(COMMAND_LINE, {"only": only})] if only else [])


def _read(configfile: Path) -> dict[str, Any]:
    path = paths.existing_path(configfile, "name a YAML file of changes to config.yaml")
    from medscale.config.yaml_file import read_yaml  # after a wrong path has been refused

    return read_yaml(path)
