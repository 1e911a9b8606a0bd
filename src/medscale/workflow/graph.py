"""The study as Snakemake's rules see it: configuration, folders, plans, environment of jobs."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from medscale.base.code import ROOT, code_digest, shown_path, sources
from medscale.base.errors import EXIT_USER, MedscaleError, print_error
from medscale.base.limits import usable_cores
from medscale.base.paths import refuse_unwritable
from medscale.base.provenance import SITE, UNKNOWN_STATE, git_state
from medscale.base.text import terminal
from medscale.config import configuration, planning
from medscale.config.configuration import Config
from medscale.config.yaml_file import read_yaml
from medscale.engine.models.names import check_model
from medscale.engine.plan import RunPlan, replicate_name
from medscale.engine.run import RunSpec, is_detector
from medscale.resources import containers
from medscale.resources.slurm import LOGS
from medscale.workflow import plans, restored
from medscale.workflow.targets import (
    DETECT_SHARDS,
    SHARDS,
    check_target,
    in_workdir,
    refuse_unknown,
    snakemake_command,
)

T = TypeVar("T")
PLAIN_PATH = re.compile(r"[\w./+@%-]+")  # characters that neither Snakemake nor a shell interprets
# Options of Snakemake for a dry run: -n, also among other letters, as in -np; --dry-run.
DRY_RUN = re.compile(r"-[npqkFR]*n[npqkFR]*|--dry-?run")
PROFILES = ROOT / "profiles"  # folders of options of Snakemake
CHECKOUT_LINK = Path(".medscale-checkout")  # below the workdir


class Graph:
    """The configuration as the rules see it; every mistake ends Snakemake with one message."""

    def __init__(
        self,
        changes: Mapping[str, Any],
        arguments: Sequence[str] = (),
        directory: object = None,
        files: Sequence[str | Path] = (),
    ) -> None:
        """Read config.yaml and check the command line.

        Args:
            changes: settings that are laid over config.yaml.
            arguments: command line of Snakemake; targets in it that name a study or a run are
                checked.
            directory: value of ``--directory``, which is refused: jobs would not find scripts.
            files: YAML files that the changes come from, the highest last; messages name them.
        """
        or_end(partial(_refuse_directory, directory))
        or_end(partial(_refuse_replaced, arguments, files, changes))
        for file in map(Path, files):
            if file.suffix != ".json":  # Snakemake has read it, but takes a key written twice
                or_end(partial(read_yaml, file))
        self.config: Config = or_end(
            partial(configuration.load, ROOT / "config.yaml", dict(changes), files, check_model)
        )
        self.restored = restored.find(self.workdir)
        if self.restored is not None:
            self.config = or_end(partial(self.restored.config, changes))
        self._files = [Path(file) for file in files]
        self.options = or_end(partial(_options, files, self.config))
        self._plan = cache(partial(plans.plan, self.config))
        self._full_workdir = self.workdir.resolve()
        self._is_dry_run = any(map(DRY_RUN.fullmatch, arguments))
        for argument in arguments:
            if self.restored is not None:
                or_end(partial(self.restored.check_target, argument))
            or_end(partial(check_target, self.config, self.target(argument)))

    def target(self, text: str) -> str:
        """Return the path of an output as rules name it, for a path that a person typed."""
        return in_workdir(text, self.workdir)

    def snakemake(self, *words: str) -> str:
        """Return a command of Snakemake with the options that read this configuration."""
        return snakemake_command(*words, self.options)

    def medscale(self, *words: str) -> str:
        """Return a command of medscale with the options that read this configuration."""
        return " ".join(("medscale", *words, *_own_options(self._files, self.config)))

    def check_targets(self, rules: Iterable[Any], program: Sequence[str]) -> None:
        """End Snakemake with one message where a target on its command line does not exist.

        Args:
            rules: all rules of the workflow.
            program: the command line with its program, which may be another one than Snakemake.
        """
        if "snakemake" in Path(program[0]).parts[-2:]:
            or_end(partial(refuse_unknown, self.config, rules, program[1:], self.options))

    def _check_writable(self) -> None:
        """End Snakemake with one message where this user cannot write."""
        or_end(partial(refuse_unwritable, self.workdir / ".snakemake" / "locks"))
        or_end(self._make_workdir)
        if self.config.cluster is not None and not self._is_dry_run:
            or_end(partial(refuse_unwritable, ROOT / LOGS))  # SLURM ends jobs without their log

    def _make_workdir(self) -> None:
        """Make the workdir before Snakemake does: its error would be a traceback."""
        folders = (self._full_workdir, *self._full_workdir.parents)
        new = [folder for folder in folders if not folder.exists()]
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # a file system that has no folders of users, such as /proc
            raise MedscaleError(
                f"{self.workdir} cannot be made ({error.strerror}); name another folder by "
                "`workdir`"
            ) from None
        if new:
            atexit.register(_remove_unused, new)

    @property
    def rule_files(self) -> list[str]:
        """Paths of the files of rules; a restored study has those of the report alone."""
        names = ["common", *([] if self.restored else restored.ABSENT), "report", "paper"]
        return [f"rules/{name}.smk" for name in names]

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

    @property
    def trained(self) -> list[str]:
        """Names of the active studies, of their variants, and of the points of their sweeps."""
        points = [name for study in self.studies for name in self.config.points(study)]
        return [*self.with_variants, *points]

    @property
    def externals(self) -> list[str]:
        """Names of the external sets of the active studies."""
        return [name for study in self.studies for name in self.config.externals(study)]

    def container(self, methods: Iterable[Any]) -> str | None:
        """Return the image file that jobs run in, as jobs name it.

        A missing image or a missing Apptainer ends Snakemake where jobs run in the image, except a
        dry run, which prints a note and goes without an image (None). For jobs outside an image the
        link's name serves as documentation. ``methods``: Snakemake's deployment methods
        (``--sdm``).
        """
        if "APPTAINER" not in {method.name for method in methods}:
            return self.relative(containers.link(ROOT))
        or_end(partial(containers.check_home, self.workdir.resolve()))
        if self._is_dry_run and not containers.link(ROOT).exists():
            _say("note: jobs will need an image, which is missing yet: `make image`")
            return None
        if self._is_dry_run and not containers.program():
            _say("note: jobs will need Apptainer, which is not on PATH here")
            return None
        image = or_end(partial(containers.image, ROOT))
        or_end(containers.check_program)
        if self._full_workdir.is_relative_to(ROOT.resolve()):
            return self.relative(image)
        # A link in the workdir, since another path to the same image reruns all jobs in Snakemake.
        link = self._full_workdir / image.name
        _set_link(link, image)
        return link.name

    def equip_jobs(self) -> None:
        """Set the environment of jobs, if this user may write where they write.

        Outside a container they find this ``python``; inside one the checkout's code, the data
        and the git commit.
        """
        self._check_writable()
        folders = [self.workdir, *(self.config.raw(study) for study in self.config.studies)]
        folders += self._weight_folders()
        folders += self.config.cluster.binds if self.config.cluster is not None else []
        commit = UNKNOWN_STATE if self._is_dry_run else git_state()  # two processes less
        environment = or_end(partial(containers.environment, ROOT, folders, commit))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.environ |= environment | {"PATH": path}

    def _weight_folders(self) -> list[Path]:
        """Return the folders of files of pretrained weights."""
        studies = self.config.studies.values()
        sections = [section for s in studies for section in (s.model, *s.models.values(), s.detect)]
        names = {section.pretrained for section in sections if section is not None}
        files = [planning.weight_file(self.config, name) for name in names]
        return sorted({(self.workdir / file).parent for file in files if file is not None})

    def script(self, name: str) -> str:
        """Return a script's path relative to the workdir: a moved checkout reruns nothing."""
        return self.relative(ROOT / "scripts" / name)

    def code(self, script: str) -> str:
        """Return the digest of a script and of all modules of this package that it imports."""
        return code_digest(ROOT / "scripts" / script)

    def own(self, *patterns: str) -> list[str]:
        """Return the project's own files, such as the paper's text, as jobs name them."""
        return [self.relative(file) for file in sources(ROOT, *patterns)]

    def plan(self, study: str, run: str, seed: int = 0, fold: int | None = None) -> RunPlan:
        """Return the plan of a replicate; without a seed, for settings that all of them share."""
        return self._plan(study, run, seed, fold)

    def replicates(self, study: str, run: str) -> list[str]:
        """Return the folders of a run's replicates, one per seed and fold."""
        names = [replicate_name(*replicate) for replicate in self.config.replicates_of(study)]
        return [f"runs/{study}/{run}/{name}" for name in names]

    def resolved(self, _wildcards: object) -> str:
        """Return the whole configuration as JSON.

        A function and not a text, in which Snakemake would take a title's ``{word}`` for a
        wildcard. It names the active studies also where the configuration says all.
        """
        return self.config.model_copy(update={"only": self.config.active}).model_dump_json()

    def shards(self, study: str, run: str) -> str:
        """Return the folder of the images that a run is trained on.

        Detection has a separate folder, since its images have another size, and boxes.
        """
        # Not by the plan, which fails where a node's devices do not divide those of the run: a run
        # that is not made would then stop all others.
        model = RunSpec.parse(run).model or self.config.study(study).model.name
        return f"{self.data(study)}/{DETECT_SHARDS if is_detector(model) else SHARDS}"

    def data(self, study: str) -> str:
        """Return the folder of a study's index and shards; points of a sweep use its study's."""
        return f"data/{self.config.data_of(study)}"

    def shard_files(self) -> list[str]:
        """Return the file that ends each shard set of the active studies and their variants."""
        runs = [(name, run) for name in self.with_variants for run in self.config.study(name).runs]
        return list(dict.fromkeys(f"{self.shards(*run)}/meta.json" for run in runs))

    def dask_workers(self) -> int:
        """Return the processes that preprocessing uses on this machine, or on its job's node."""
        cpus = self.config.node.cpus if self.config.cluster else usable_cores()
        return self.config.dask.workers or cpus if self.config.dask.scheduler == "local" else 1

    @property
    def dask_is_jobs(self) -> bool:
        """Whether Dask's workers are SLURM jobs."""
        return self.config.dask.scheduler == "slurm"

    def several_nodes(self, study: str, run: str) -> bool:
        """Whether ``srun`` starts a training on several nodes, in the image on each of them."""
        return self.plan(study, run).nodes > 1

    def results(self) -> list[str]:
        """Return the result folders of the configured runs."""
        return [
            f"results/{study}/{run}"
            for study in self.with_variants
            for run in self.config.study(study).runs
        ]

    def references(self) -> list[str]:
        """Return the scores of the linear references of the active studies."""
        return [f"measured/{study}/reference.json" for study in self.studies]

    def relative(self, file: Path) -> str:
        """Return the path of a file of the checkout relative to the workdir.

        Snakemake takes braces in it for wildcards, and does not quote the image's path. Where the
        path has such characters, it leads through a link in the workdir.
        """
        workdir = self._full_workdir
        path = os.path.relpath(file, workdir)
        if PLAIN_PATH.fullmatch(path):
            return path
        _set_link(workdir / CHECKOUT_LINK, ROOT)
        return str(CHECKOUT_LINK / file.relative_to(ROOT))


def _remove_unused(folders: Sequence[Path]) -> None:
    """Remove a new workdir in which this process made nothing but links to the checkout.

    A mistyped target leaves such a folder.

    ``folders``: the workdir and the folders above it that were made with it, the innermost first.
    """
    with suppress(OSError):  # a folder that is not empty
        entries = list(folders[0].iterdir())
        if all(entry.is_symlink() for entry in entries):
            for entry in entries:
                entry.unlink()
        for folder in folders:
            folder.rmdir()


def _set_link(link: Path, target: Path) -> None:
    """Let a link in the workdir point to a file or folder of the checkout."""
    if not link.is_symlink() or link.readlink() != target:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _refuse_directory(directory: object) -> None:
    if directory is not None:
        raise MedscaleError(
            f"--directory {directory}: the folder to write to is `workdir` of the configuration; "
            f"say --config workdir={directory}"
        )


def _refuse_replaced(
    arguments: Sequence[str], files: Sequence[str | Path], changes: Mapping[str, Any]
) -> None:
    """Refuse ``--configfile`` where it replaces the configfile of a profile, and not its settings.

    Snakemake takes only that of the command line: ``--profile demo --configfile mine.yaml`` would
    train at full scale. Raises MedscaleError; the message names both files.
    """
    words = [part for argument in arguments for part in argument.split("=", 1)]
    read = {Path(file).resolve() for file in files}
    for option, name in pairwise(words):
        profile = PROFILES / Path(name).name / "profile.v9+.yaml"
        if option != "--profile" or not profile.is_file():
            continue
        own = profile.parent / read_yaml(profile).get("configfile", profile.name)
        if own != profile and own.resolve() not in read and read_yaml(own).keys() - changes.keys():
            file = shown_path(own)
            further_files = " ".join(map(str, files))
            raise MedscaleError(
                f"--configfile replaces {file}, which --profile {name} reads; name it first: "
                f"--configfile {file} {further_files}"
            )


def _options(files: Sequence[str | Path], config: Config) -> str:
    """Return the options of Snakemake that select these files of settings and the scale.

    A file of a profile is read by ``--profile``. Beside a further file ``--configfile`` names both,
    since Snakemake reads those of ``--configfile`` alone. It takes one profile: that of a cluster,
    which decides where jobs run, rather than that of the demo scale.
    """
    paths = [Path(file).resolve() for file in files]
    if config.scale == "demo" and not any("scale" in read_yaml(path) for path in paths):
        paths = [PROFILES / "demo" / "scale.yaml", *paths]
    profiles = [path.parent.name for path in paths if path.parent.parent == PROFILES]
    profiles = sorted(profiles, key=lambda name: name == "demo")[:1]
    options = [f"--profile {name}" for name in profiles]
    if len(paths) > len(profiles):
        options.append(f"--configfile {' '.join(shlex.quote(shown_path(path)) for path in paths)}")
    return " ".join(options)


def _own_options(files: Sequence[Path], config: Config) -> Iterator[str]:
    """Yield the options that let a command of medscale read these files, at this scale."""
    if any(file.resolve() == (ROOT / SITE).resolve() for file in files):
        yield "--cluster"
    paths = [file for file in files if file.resolve().parent.parent != PROFILES]
    if config.scale == "demo" and not any("scale" in read_yaml(path) for path in paths):
        yield "--scale demo"
    if paths:
        yield f"--configfile {shlex.quote(shown_path(paths[-1]))}"


def or_end(function: Callable[[], T]) -> T:
    """Return the result of a function; its MedscaleError ends Snakemake with one message."""
    try:
        return function()
    except MedscaleError as error:
        print_error(error)
        raise SystemExit(EXIT_USER) from None


def _say(message: str) -> None:
    print(f"medscale: {terminal(message)}", file=sys.stderr, flush=True)
