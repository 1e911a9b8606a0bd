"""What the Snakemake rules ask the package: the checked configuration, plans of runs, digests of code."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from medscale.base.code import ROOT, code_digest
from medscale.base.errors import EXIT_USER, MedscaleError
from medscale.base.files import digest
from medscale.base.provenance import git_state
from medscale.config import configuration, planning
from medscale.config.configuration import Config
from medscale.config.sections import Benchmarks, Enhance, Export, Latency, Loading, Preprocess
from medscale.engine.plan import RunPlan, is_detector
from medscale.engine.run import RunSpec
from medscale.report.chapters import refuse_absent
from medscale.resources import containers, jobs

T = TypeVar("T")
DEMO_MARKER = "demo.json"
ALONE = 1000  # of the resource `timed`: Snakemake brings it down to the profile's total, so nothing else is timed beside it
SHARDS, DETECT_SHARDS = "shards", "shards_detect"
RUN_TARGET = re.compile(r"(?:\./)?(results|runs|profiled)/([^/]+)/([^/]+)(/.*)?")
STUDY_TARGET = re.compile(r"(?:\./)?(data/raw|data|measured|figures|tables)/([^/]+)/(.+)")


class Graph:
    """The configuration as the rules see it; every mistake ends Snakemake with one message."""

    def __init__(
        self, changes: Mapping[str, Any], targets: Iterable[str] = (), elsewhere: object = None
    ) -> None:
        """Read config.yaml with the user's changes; check the targets that a person typed, refuse ``--directory``."""
        _or_end(partial(_refuse_directory, elsewhere))
        self.config: Config = _or_end(
            lambda: configuration.load(ROOT / "config.yaml", dict(changes))
        )
        for target in targets:
            _or_end(partial(check_target, self.config, target))

    @property
    def workdir(self) -> Path:
        """Folder below which everything is written."""
        return (
            self.config.workdir if self.config.workdir.is_absolute() else ROOT / self.config.workdir
        )

    @property
    def studies(self) -> list[str]:
        """Names of the studies to carry out, each a section of the paper."""
        return self.config.active

    @property
    def with_variants(self) -> list[str]:
        """The same, and their variants."""
        return [
            *self.studies,
            *(name for study in self.studies for name in self.config.variants(study)),
        ]

    def raw(self, study: str) -> Path:
        """Folder of a study's raw images; a relative path in the configuration counts from the project's root."""
        study = self.config.owner(study)
        path = self.config.study(study).source.path
        return (self.workdir / "data" / "raw" / study if path is None else ROOT / path).resolve()

    def raw_as_seen(self, study: str) -> str:
        """The same folder as jobs name it: relative to the workdir unless the configuration names it absolutely."""
        path = self.config.study(self.config.owner(study)).source.path
        absolute = path is not None and path.is_absolute()
        return str(path) if absolute else os.path.relpath(self.raw(study), self.workdir.resolve())

    def container(self, methods: Iterable[Any]) -> str:
        """The image file that jobs run in, as jobs name it; ends Snakemake where it is asked for and not there.

        Args:
            methods: Snakemake's deployment methods (``--sdm``); without Apptainer the name of the link will do.
        """
        wanted = "APPTAINER" in {method.name for method in methods}
        file = _or_end(lambda: containers.image(ROOT)) if wanted else containers.link(ROOT)
        return os.path.relpath(file, self.workdir.resolve())

    def equip_jobs(self) -> None:
        """Let jobs find this ``python`` outside, and the checkout's code and the data inside a container."""
        seen = [self.workdir, *(self.raw(study) for study in self.config.studies)]
        seen += self.config.cluster.binds if self.config.cluster is not None else []
        equipped = _or_end(lambda: containers.environment(ROOT, seen, git_state()))
        os.environ |= equipped | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        }

    def script(self, name: str) -> str:
        """Path of a stage's script as jobs name it, so that a moved checkout reruns nothing."""
        return os.path.relpath(ROOT / "scripts" / name, self.workdir.resolve())

    def demo_marker(self, study: str) -> list[str]:
        """The file that ends the generation of a synthetic study's raw images; none for real ones."""
        synthetic = self.config.study(study).source.synthetic
        return [f"data/raw/{self.config.owner(study)}/{DEMO_MARKER}"] if synthetic else []

    def options(self, study: str) -> str:
        """The source's own options as JSON."""
        return json.dumps(self.config.study(study).source.options)

    def raw_state(self, study: str) -> str:
        """Digest of the raw folder's directories and their times, to two levels: files that come or go change it."""
        root = self.raw(study)
        if self.config.study(study).source.synthetic or not root.is_dir():
            return "generated or absent"
        folders = [root, *_folders(root)]
        folders += [below for folder in folders[1:] for below in _folders(folder)]
        return digest(sorted((str(f.relative_to(root)), f.stat().st_mtime_ns) for f in folders))

    def section(self, study: str, name: str) -> str:
        """A section of a study's configuration as JSON, for a script's command line and as a rerun trigger."""
        section = getattr(self.config.study(study), name)
        if name == "source":
            section = section.model_copy(update={"path": Path(self.raw_as_seen(study))})
        return (
            json.dumps(section) if not isinstance(section, BaseModel) else section.model_dump_json()
        )

    def benchmark(self, study: str, name: str) -> Enhance | Loading | Export | Latency:
        """The settings of a study's benchmark; ``check_target`` refuses one that has none."""
        settings: Enhance | Loading | Export | Latency | None = getattr(
            self.config.study(study).benchmarks, name
        )
        assert settings is not None, f"{study} has no section benchmarks.{name}"
        return settings

    def marks(self, study: str) -> str:
        """What must be said beside all that is measured on a study's images, as JSON; no device stands in here."""
        synthetic = self.config.study(self.config.owner(study)).source.synthetic
        return json.dumps({"synthetic": synthetic, "stand_in": False, "scale": self.config.scale})

    def plan(self, study: str, run: str, seed: int | str = 0) -> RunPlan:
        """A replicate's complete plan; without a seed, what all replicates of the run share."""
        return planning.plan(self.config, study, run, int(seed))

    def gpus(self, study: str, run: str) -> int:
        """GPUs a node that a run's name asks for, also where CPU processes stand in for them."""
        plan = self.plan(study, run)
        return plan.procs_per_node if plan.run.device == "gpu" else 0

    def timed(self, study: str, run: str) -> int:
        """How much of what is timed beside each other a run takes: on GPUs of its own a part, on CPUs all there is."""
        return 1 if self.plan(study, run).backend == "cuda" else ALONE

    def replicates(self, study: str, run: str) -> list[str]:
        """Folders of a run's replicates, one a seed."""
        return [f"runs/{study}/{run}/seed{seed}" for seed in self.config.seeds_of(study)]

    def profile_plan(self, study: str, run: str) -> str:
        """The plan that a run is profiled by, as JSON: that of its first replicate."""
        return self.plan(study, run, self.config.seeds_of(study)[0]).model_dump_json()

    def profile_settings(self, study: str) -> str:
        """What is traced of a profiled run, as JSON."""
        return self.config.study(study).profile.model_dump_json(exclude={"runs"})

    def results(self, studies: Iterable[str] | None = None) -> list[str]:
        """Result folders of the configured runs."""
        return [
            f"results/{s}/{run}"
            for s in studies or self.with_variants
            for run in self.config.study(s).runs
        ]

    def shards(self, study: str, run: str) -> str:
        """Folder of the images that a run is trained on: detection has its own, of another size and with boxes."""
        detects = self.plan(study, run).detect is not None
        return f"data/{study}/{DETECT_SHARDS if detects else SHARDS}"

    def exported(self, study: str) -> list[str]:
        """Result folders of the runs that a study exports."""
        settings = self.benchmark(study, "export")
        assert isinstance(settings, Export)
        return [f"results/{study}/{run}" for run in settings.runs]

    def explained(self, study: str, run: str) -> bool:
        """Whether a run's results show where its network looked (Grad-CAM): of those that the study asks for."""
        settings = self.config.study(study)
        wanted = {"all": True, "baseline": run == settings.baseline, "none": False}[
            settings.evaluate.gradcam
        ]
        return wanted and self.plan(study, run).detect is None

    def shards_beside(self, study: str, folder: str) -> list[str]:
        """The same folder of the other studies that use a study's raw images."""
        owner = self.config.owner(study)
        others = [
            name
            for name in self.config.studies
            if name != study and self.config.owner(name) == owner
        ]
        return [f"data/{name}/{folder}" for name in others]

    def shard_sets(self, study: str) -> list[str]:
        """Folders of all shard sets that a study's configured runs need."""
        return list(dict.fromkeys(self.shards(study, run) for run in self.config.study(study).runs))

    def preprocess(self, study: str, folder: str) -> str:
        """How the images of a shard set are made, as JSON; those for detection are stretched, so that boxes fit.

        Raises:
            MedscaleError: for a set for detection of a study that has none.
        """
        if folder == SHARDS:
            return self.section(study, "preprocess")
        detect = self.config.study(study).detect
        if detect is None:
            raise MedscaleError(f"the study {study} has no section `detect`, so it has no {folder}")
        return Preprocess(size=detect.size).model_dump_json()

    def own(self, *patterns: str) -> list[str]:
        """The project's own files, such as the paper's text, as jobs name them."""
        files = sorted(file for pattern in patterns for file in ROOT.glob(pattern))
        return [os.path.relpath(file, self.workdir.resolve()) for file in files]

    def dask_workers(self) -> int:
        """Processes that preprocessing uses on this machine, or on the node of its job."""
        here = self.config.node.cpus if self.config.cluster else len(os.sched_getaffinity(0))
        return self.config.dask.workers or here if self.config.dask.scheduler == "local" else 1

    def cpus(self, study: str, run: str) -> int:
        """CPU cores of a node that a run's training uses."""
        return jobs.training_cpus(self.config, self.plan(study, run))

    @property
    def dask_is_jobs(self) -> bool:
        """Whether Dask's workers are SLURM jobs of their own."""
        return self.config.dask.scheduler == "slurm"

    def several_nodes(self, study: str, run: str) -> bool:
        """Whether a run's training takes several nodes: then `srun` starts it on each, and names the image there."""
        return self.plan(study, run).nodes > 1

    def code(self, script: str) -> str:
        """Digest of a script and of all package code that it uses."""
        return code_digest(ROOT / "scripts" / script)


def _refuse_directory(elsewhere: object) -> None:
    if elsewhere is not None:
        raise MedscaleError(
            f"--directory {elsewhere}: the folder to write to is `workdir` of the configuration; "
            f"say --config workdir={elsewhere}"
        )


def _or_end(asked: Callable[[], T]) -> T:
    """What is asked for; a mistake ends Snakemake with one message."""
    try:
        return asked()
    except MedscaleError as error:
        print(f"medscale: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USER) from None


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def check_target(config: Config, target: str) -> None:
    """Refuse a target whose study, run or benchmark does not exist.

    Raises:
        MedscaleError: which part of the target is wrong and what is allowed.
    """
    if match := RUN_TARGET.fullmatch(target):
        planning.plan(config, match[2], match[3], config.seeds[0])
        check_model(RunSpec.parse(match[3]).model)
    elif match := STUDY_TARGET.fullmatch(target):
        folder, study, name = match[1], match[2], Path(match[3]).stem
        settings = config.study(study)
        measured = folder == "measured" and name in Benchmarks.model_fields
        if measured and getattr(settings.benchmarks, name) is None:
            raise MedscaleError(
                f"{target}: the study {study} measures no {name}; "
                f"give it a section benchmarks.{name} in config.yaml"
            )
        if folder in ("figures", "tables"):
            refuse_absent(config, study, folder, name)


def check_model(name: str | None) -> None:
    """Refuse a model name that no registry knows; importing timm is left to names that are not the package's own.

    A detector's name is known; whether the study has detection is the plan's to say, and whether ultralytics is
    installed ``medscale check``'s and the run's own: jobs may run where it is, and this not.

    Raises:
        MedscaleError: with close matches.
    """
    if name is not None and not is_detector(name):
        from medscale.engine.models.registry import check_name

        check_name(name)
