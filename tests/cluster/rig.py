"""A pretended cluster, the image, and Snakemake runs on them, for the tests here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from medscale.config.layers import merge
from medscale.resources import containers

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools" / "cluster"
# An existing image; "none": jobs run in this virtual environment.
IMAGE = "MEDSCALE_CLUSTER_IMAGE"
SITE = {
    "cluster": {
        "account": "study",
        "partition": "main",
        "max_minutes": 30,
        "least_mb": 1500,
        "save_s": 40,
    },
    "node": {"gpus": 2, "cpus": 8, "memory_mb": 15000},
    "dask": {"scheduler": "slurm", "workers": 2, "slurm": {"walltime": "10", "memory": "3GB"}},
}


@dataclass
class Rig:
    """The cluster below a folder, the environment of its programs, and the software of its jobs."""

    folder: Path
    environment: dict[str, str]
    software: str
    image: str
    seconds: dict[str, float] = field(default_factory=dict)

    def ask(self, *command: str) -> str:
        """What one of SLURM's programs answers."""
        process = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert process.returncode == 0, f"{' '.join(command)}: {process.stderr}"
        return process.stdout.strip()

    def accounts(self, **fields: str) -> list[dict[str, str]]:
        """Records (sacct) of all jobs whose comment or name has the given text, in their order."""
        columns = "JobIDRaw,JobName,Comment,State,AllocNodes,AllocCPUS,AllocTRES,NTasks"
        columns += ",NodeList,ElapsedRaw"
        lines = self.ask(
            "sacct", "-D", "-P", "-n", "--starttime=now-1days", f"--format={columns}"
        ).splitlines()
        rows = [dict(zip(columns.split(","), line.split("|"), strict=True)) for line in lines]
        return [row for row in rows if all(text in row[name] for name, text in fields.items())]

    def configure(self, workdir: Path, name: str = "", **changes: Any) -> Path:
        """Write the configuration of the small study, with changes, next to its workdir."""
        small = yaml.safe_load((Path(__file__).parent / "study.yaml").read_text(encoding="utf-8"))
        file = workdir.with_name(f"{name or workdir.name}.yaml")
        file.write_text(
            yaml.safe_dump(merge(merge(small, SITE), {"workdir": str(workdir), **changes}))
        )
        return file

    def snakemake(
        self, configfile: Path, *targets: str, extra: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `snakemake --profile slurm`; its output goes to a .log next to the configfile."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--profile",
            "slurm",
            "--configfile",
            str(configfile),
        ]
        command += [
            "--sdm",
            self.software,
            "--slurm-init-seconds-before-status-checks",
            "2",
            *extra,
            "--",
            *targets,
        ]
        with open(configfile.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)


def start(folder: Path) -> Rig:
    """Start the cluster and find or build the image; what is missing is told by the scripts."""
    seconds = {}
    start = time.monotonic()
    line = subprocess.run(
        [TOOLS / "up.sh", folder], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert line.startswith("export PATH=")
    seconds["cluster"] = time.monotonic() - start
    path = [str(Path(sys.executable).parent), str(folder / "bin"), os.environ["PATH"]]
    rig = Rig(folder, {**os.environ, "PATH": os.pathsep.join(path)}, "apptainer", "", seconds)
    rig.environment["PYTHONPATH"] = str(ROOT / "src")
    image_path = os.environ.get(IMAGE, "")
    if image_path == "none":
        rig.software, rig.image = (
            "env-modules",
            "none: jobs run in the virtual environment, NOT in an image",
        )
        return rig
    if shutil.which("apptainer") is None:
        start = time.monotonic()
        subprocess.run(
            [TOOLS / "install-apptainer.sh", folder / "apptainer"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rig.environment["PATH"] += f"{os.pathsep}{folder / 'apptainer/usr/bin'}"
        seconds["Apptainer"] = time.monotonic() - start
    start = time.monotonic()
    if image_path:
        _use(Path(image_path).resolve())
    elif not containers.link(ROOT).exists():
        subprocess.run(
            [ROOT / "tests/cluster/build_image.sh", folder], check=True, env=rig.environment
        )
        seconds["image"] = time.monotonic() - start
    rig.image = containers.image(ROOT).name + (f", from {IMAGE}" if image_path else "")
    return rig


def _use(file: Path) -> None:
    """Let the checkout's link point to an image that lies elsewhere."""
    for source_file in (file, file.with_suffix(".json")):
        link_path = containers.link(ROOT).parent / source_file.name
        if not link_path.exists():
            link_path.symlink_to(source_file)
    link = containers.link(ROOT)
    link.unlink(missing_ok=True)
    link.symlink_to(file.name)


def stop(rig: Rig) -> None:
    """Stop the cluster."""
    subprocess.run([TOOLS / "down.sh", rig.folder], check=True)


def finish(process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait for Snakemake to end well."""
    try:
        status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        raise AssertionError(f"Snakemake did not end within {seconds:g} s\n{tail(log)}") from None
    assert status == 0, tail(log)


def await_(description: str, condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until ``there`` gives something true, and give it."""
    until = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {description}"
        time.sleep(0.5)
    return outcome


def tail(log: Path, characters: int = 4000) -> str:
    """The end of a log."""
    return (
        log.read_text(encoding="utf-8", errors="replace")[-characters:]
        if log.exists()
        else f"no {log}"
    )


def read_document(path: Path) -> Mapping[str, Any]:
    """A JSON file."""
    value: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
