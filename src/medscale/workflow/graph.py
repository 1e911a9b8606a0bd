"""The study as Snakemake's rules see it: checked configuration, folders, plans, what jobs run in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from medscale.base.code import ROOT, code_digest
from medscale.base.errors import EXIT_USER, MedscaleError
from medscale.base.provenance import git_state
from medscale.config import configuration, planning
from medscale.config.configuration import Config
from medscale.engine.plan import RunPlan
from medscale.resources import containers
from medscale.workflow.targets import check_target

T = TypeVar("T")
SHARDS, DETECT_SHARDS = "shards", "shards_detect"


class Graph:
    """The configuration as the rules see it; every mistake ends Snakemake with one message."""

    def __init__(
        self, changes: Mapping[str, Any], targets: Iterable[str] = (), directory: object = None
    ) -> None:
        """Read config.yaml and check the command line.

        Args:
            changes: settings that are laid over config.yaml.
            targets: arguments of Snakemake; those that name a study or a run are checked.
            directory: value of ``--directory``, which is refused: jobs would not find scripts.
        """
        _or_end(partial(_refuse_directory, directory))
        self.config: Config = _or_end(
            partial(configuration.load, ROOT / "config.yaml", dict(changes))
        )
        self._plan = cache(partial(planning.plan, self.config))
        for target in targets:
            _or_end(partial(check_target, self.config, target))

    @property
    def workdir(self) -> Path:
        """Folder below which everything is written."""
        return ROOT / self.config.workdir  # an absolute workdir stays as it is

    @property
    def studies(self) -> list[str]:
        """Names of the active studies, each a section of the paper."""
        return self.config.active

    @property
    def with_variants(self) -> list[str]:
        """Names of the active studies and of their variants."""
        variants = [name for study in self.studies for name in self.config.variants(study)]
        return [*self.studies, *variants]

    def raw(self, study: str) -> Path:
        """Return the folder of a study's raw images; relative paths count from the root."""
        study = self.config.owner(study)
        path = self.config.study(study).source.path
        return (self.workdir / "data" / "raw" / study if path is None else ROOT / path).resolve()

    def container(self, methods: Iterable[Any]) -> str:
        """Return the image file that jobs run in, as jobs name it.

        A missing image ends Snakemake where Apptainer is asked for; otherwise its link's name
        serves as documentation.

        Args:
            methods: Snakemake's deployment methods (``--sdm``).
        """
        in_image = "APPTAINER" in {method.name for method in methods}
        file = _or_end(partial(containers.image, ROOT)) if in_image else containers.link(ROOT)
        return self._relative(file)

    def equip_jobs(self) -> None:
        """Set the environment of jobs.

        Outside a container they find this ``python``; inside one the checkout's code, the data
        and the git commit.
        """
        folders = [self.workdir, *(self.raw(study) for study in self.config.studies)]
        folders += self.config.cluster.binds if self.config.cluster is not None else []
        environment = _or_end(partial(containers.environment, ROOT, folders, git_state()))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.environ |= environment | {"PATH": path}

    def script(self, name: str) -> str:
        """Return a script's path as jobs name it, relative, so that a moved checkout reruns nothing."""
        return self._relative(ROOT / "scripts" / name)

    def code(self, script: str) -> str:
        """Return the digest of a script and of all modules of this package that it imports."""
        return code_digest(ROOT / "scripts" / script)

    def own(self, *patterns: str) -> list[str]:
        """Return the project's own files, such as the paper's text, as jobs name them."""
        files = sorted(file for pattern in patterns for file in ROOT.glob(pattern))
        return [self._relative(file) for file in files]

    def plan(self, study: str, run: str, seed: int | str = 0) -> RunPlan:
        """Return a replicate's complete plan; without a seed, what all its replicates share."""
        return self._plan(study, run, int(seed))

    def replicates(self, study: str, run: str) -> list[str]:
        """Return the folders of a run's replicates, one per seed."""
        return [f"runs/{study}/{run}/seed{seed}" for seed in self.config.seeds_of(study)]

    def shards(self, study: str, run: str) -> str:
        """Return the folder of the images that a run is trained on.

        Detection has a folder of its own: its images have another size, and boxes.
        """
        detects = self.plan(study, run).detect is not None
        return f"data/{study}/{DETECT_SHARDS if detects else SHARDS}"

    def shard_sets(self, study: str) -> list[str]:
        """Return the folders of all shard sets that a study's configured runs need."""
        return list(dict.fromkeys(self.shards(study, run) for run in self.config.study(study).runs))

    def shard_files(self) -> list[str]:
        """Return the file that ends each shard set of the active studies."""
        return [f"{folder}/meta.json" for s in self.studies for folder in self.shard_sets(s)]

    def dask_workers(self) -> int:
        """Return the processes that preprocessing uses on this machine, or on its job's node."""
        cpus = self.config.node.cpus if self.config.cluster else len(os.sched_getaffinity(0))
        return self.config.dask.workers or cpus if self.config.dask.scheduler == "local" else 1

    @property
    def dask_is_jobs(self) -> bool:
        """Whether Dask's workers are SLURM jobs."""
        return self.config.dask.scheduler == "slurm"

    def several_nodes(self, study: str, run: str) -> bool:
        """Whether ``srun`` starts a training on several nodes, in the image on each of them."""
        return self.plan(study, run).nodes > 1

    def results(self, studies: Iterable[str] | None = None) -> list[str]:
        """Return the result folders of the configured runs."""
        return [
            f"results/{s}/{run}"
            for s in studies or self.with_variants
            for run in self.config.study(s).runs
        ]

    def profiled(self, study: str) -> list[str]:
        """Profiled folders that a study's report shows."""
        return [
            f"profiled/{study}/{run}"
            for run in dict.fromkeys(self.config.study(study).profile.runs)
        ]

    def shown(self, study: str) -> list[str]:
        """Result folders that a study's report shows: the configured classifications and the baseline."""
        settings = self.config.study(study)
        runs = [run for run in settings.runs if run not in settings.detection_runs]
        return [f"results/{study}/{run}" for run in dict.fromkeys([*runs, settings.baseline])]

    def shown_replicates(self, study: str) -> list[str]:
        """Folders of all replicates of the runs that a study's report shows."""
        return [
            folder
            for result in self.shown(study)
            for folder in self.replicates(study, Path(result).name)
        ]

    def localized(self, study: str) -> list[str]:
        """Result folders of a study's detection runs, which have a report of their own."""
        return [f"results/{study}/{run}" for run in self.config.study(study).detection_runs]

    def beside(self, study: str) -> list[str]:
        """Result folders of a study's variants, those of the same runs of the study itself first."""
        runs = [
            (name, run)
            for name in self.config.variants(study)
            for run in self.config.study(name).runs
        ]
        own = [f"results/{study}/{run}" for run in dict.fromkeys(run for _, run in runs)]
        return own + [f"results/{name}/{run}" for name, run in runs]

    def figures(self) -> list[str]:
        """Figures of all studies to carry out."""
        return [
            f"figures/{study}/{name}.pdf"
            for study in self.studies
            for name in self.config.figures(study)
        ]

    def tables(self) -> list[str]:
        """Tables (LaTeX) of all studies to carry out."""
        return [
            f"tables/{study}/{name}.tex"
            for study in self.studies
            for name in self.config.tables(study)
        ]

    def datasheets(self) -> list[str]:
        """Datasheets of the images of all studies to carry out, and of their variants, which divide them otherwise."""
        return [f"data/{study}/datasheet.md" for study in self.with_variants]

    def facts(self, *further: str) -> list[str]:
        """Facts of all studies and of their scaling, and of what of ``further`` (variants, benchmarks, …) they have."""
        there = {
            s: [name for name in self.config.tables(s) if name in further] for s in self.studies
        }
        return [
            f"tables/{s}/{name}.json"
            for s in self.studies
            for name in ("facts", "scaling", *there[s])
        ]

    def histories(self, study: str) -> list[str]:
        """History of each replicate of the runs that a study's report shows, with their localization."""
        runs = [Path(folder).name for folder in [*self.shown(study), *self.localized(study)]]
        return [f"{folder}/history.csv" for run in runs for folder in self.replicates(study, run)]

    def _relative(self, file: Path) -> str:
        return os.path.relpath(file, self.workdir.resolve())


def _refuse_directory(directory: object) -> None:
    if directory is not None:
        raise MedscaleError(
            f"--directory {directory}: the folder to write to is `workdir` of the configuration; "
            f"say --config workdir={directory}"
        )


def _or_end(function: Callable[[], T]) -> T:
    """Return what a function returns; its MedscaleError ends Snakemake with one message."""
    try:
        return function()
    except MedscaleError as error:
        print(f"medscale: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USER) from None


def shown(
    path: str,
    kind: str,
    caption: str | None = None,
    category: str = "{study}",
    folder: str = "figures",
) -> Any:
    """An output file that ``snakemake --report`` shows.

    Args:
        path: the file, with wildcards.
        kind: what it shows, as its label.
        caption: name of its caption in report/; that of its kind without it.
        category: where it stands in the report's menu.
        folder: and below that.
    """
    from snakemake.io import report

    text = f"../report/{caption or kind}.rst"  # from the folder of the rules
    return report(path, caption=text, category=category, subcategory=folder, labels={"shows": kind})


def shown_table(path: str, kind: str, caption: str = "table", category: str = "{study}") -> Any:
    """The same for a table."""
    return shown(path, kind, caption, category, "tables")
