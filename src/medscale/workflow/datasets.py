"""Inputs and parameters, by wildcards, of the rules that prepare data and run benchmarks."""

from __future__ import annotations

import ast
import json
import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medscale.base.code import (
    PACKAGE,
    code_digest,
    from_cache,
    module_digest,
    modules,
    sources,
    tree_digest,
)
from medscale.base.errors import MedscaleError
from medscale.base.files import digest, expand_home
from medscale.data.kind import kind_file, scan
from medscale.data.settings import Preprocess
from medscale.workflow import raw_folder
from medscale.workflow.graph import Graph, or_end
from medscale.workflow.targets import SHARDS

ABSENT = "generated or absent"  # state of a raw folder whose files are not compared
DEMO_MARKER = "demo.json"  # written last by the generator of synthetic images


class Datasets:
    """Inputs and settings of the rules that read a study's images.

    Each method takes a rule's wildcards, of which ``study`` is one. Settings are JSON: options of
    a script's command line, and at the same time what Snakemake compares to find outdated files.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._config = graph, graph.config

    def demo_marker(self, wildcards: Any) -> list[str]:
        """Return the last generated file of synthetic images; no file for real images."""
        owner = self._config.owner(wildcards.study)
        synthetic = self._config.study(wildcards.study).source.synthetic
        return [f"data/raw/{owner}/{DEMO_MARKER}"] if synthetic else []

    def index_inputs(self, wildcards: Any) -> list[str]:
        """Return the inputs of an index: generated images, the classes of external ones."""
        owner = self._config.study(wildcards.study).external_of
        classes = [] if owner is None else [f"data/{owner}/audit.json"]
        return [*self.demo_marker(wildcards), *classes]

    def ready(self, workflow: Any) -> None:
        """Check the raw folders before the first job, and record their content."""
        self.refuse_missing(workflow)
        self.record_raw(workflow)

    def refuse_missing(self, workflow: Any) -> None:
        """End Snakemake before the first job where the raw images of an index are missing.

        Jobs of other executors than ``local`` may see folders that this machine does not see.
        """
        is_local = workflow.executor_plugin.name == "local"
        for job in workflow.dag.needrun_jobs():
            if job.rule.name != "index" or not is_local:
                continue
            raw = self._config.raw(job.wildcards.study)
            source = self._config.study(job.wildcards.study).source
            if not source.synthetic and not raw.exists():
                source = source.model_copy(update={"path": raw})
                or_end(partial(scan, source, None, 1))

    def classes_option(self, wildcards: Any) -> list[str]:
        """Return the option with the classes: for external images those of their study."""
        settings = self._config.study(wildcards.study)
        if settings.external_of is not None:
            return ["--classes-of", f"data/{settings.external_of}/audit.json"]
        return ["--classes", json.dumps(settings.classes)]

    def kind(self, wildcards: Any) -> str:
        """Return the kind of source that lists the raw images."""
        return self._config.study(wildcards.study).source.kind

    def title(self, wildcards: Any) -> str:
        """Return the study's name in words; of a variant, after the title of its study."""
        settings = self._config.study(wildcards.study)
        if settings.variant_of is None:
            return settings.title
        return f"{self._config.study(settings.variant_of).title}, {settings.title}"

    def layout_code(self, wildcards: Any) -> str:
        """Return the digest of the code that lists the kind's raw folders.

        The script's own digest does not cover it: a new kind must not rerun the other studies.
        """
        kind = kind_file(self.kind(wildcards))
        return from_cache("layout", [kind.name], partial(_layout_digest, kind))

    def generator_code(self, wildcards: Any) -> str:
        """Return the digest of the kind's module and of all generators of synthetic images."""
        modules = sources(PACKAGE / "data" / "demo", "*.py")
        code = code_digest(kind_file(self.kind(wildcards)))
        return digest([code, *map(module_digest, modules)])

    def source_options(self, wildcards: Any) -> str:
        """Return the options of the source."""
        return json.dumps(self._config.study(wildcards.study).source.options)

    def raw(self, wildcards: Any) -> str:
        """Return the folder of raw images as jobs name it.

        The path is relative to the workdir unless the configuration names it absolutely, so that
        a moved checkout reruns nothing.
        """
        path = self._config.study(self._config.owner(wildcards.study)).source.path
        if path is not None and path.is_absolute():
            return str(path)
        return os.path.relpath(self._config.raw(wildcards.study), self._graph.workdir.resolve())

    def raw_state(self, wildcards: Any) -> str:
        """Return the state of the raw folder (``raw_folder.state``)."""
        root, study = self._config.raw(wildcards.study), str(wildcards.study)
        if self._config.study(study).source.synthetic or not root.is_dir():
            return ABSENT
        return raw_folder.state(root, self._tables(study), self._raw_record(study))

    def record_raw(self, workflow: Any) -> None:
        """Record the raw folders of indexes that are about to be made, or have no record."""
        dag = workflow.dag
        for job in (job for job in dag.jobs if job.rule.name == "index"):
            study = str(job.wildcards.study)
            root, record = self._config.raw(study), self._raw_record(study)
            is_new = dag.needrun(job) or not record.is_file()
            if is_new and self.raw_state(job.wildcards) != ABSENT:
                with suppress(OSError):  # a file that cannot be read, which the index reports
                    raw_folder.keep_record(root, self._tables(study), record)

    def _raw_record(self, study: str) -> Path:
        return self._graph.workdir / raw_folder.RECORDS / f"{study}.json"

    def _tables(self, study: str) -> set[Path]:
        """Return the tables of a raw folder: those in its first level, and the one that is set."""
        root, table = self._config.raw(study), self._config.study(study).source.table
        tables = {*root.glob("*.csv")}
        tables |= {root / expand_home(table)} if table is not None else set()
        return {file for file in tables if file.is_file()}

    def source(self, wildcards: Any) -> str:
        """Return the section ``source`` without the place of the images."""
        return self._config.study(wildcards.study).source.model_dump_json(exclude={"path"})

    def section(self, name: str) -> Callable[[Any], str]:
        """Return the function that gives the section ``name`` of the wildcards' study."""

        def section_of_study(wildcards: Any) -> str:
            section = getattr(self._config.study(wildcards.study), name)
            if isinstance(section, BaseModel):
                return section.model_dump_json()
            return json.dumps(section)

        return section_of_study

    def shard_preprocessing(self, wildcards: Any) -> str:
        """Return how the images of the wildcards' shard set are preprocessed.

        Images for detection are stretched to a square, so that boxes keep their shares of it.
        Raises MedscaleError for a shard set for detection of a study that has none.
        """
        settings = self._config.study(wildcards.study)
        if wildcards.shards == SHARDS:
            return settings.preprocess.model_dump_json()
        if settings.detect is None:
            raise MedscaleError(
                f"the study {wildcards.study} has no section `detect`, "
                f"so it has no {wildcards.shards}"
            )
        return Preprocess(size=settings.detect.size).model_dump_json()

    def dask(self, _wildcards: Any) -> str:
        """Return the section ``dask``; a function, so that braces in it are no wildcards."""
        return self._config.dask.model_dump_json()

    def limits(self, wildcards: Any) -> str:
        """Return the limits of decoding an image, which change no shard."""
        return self._config.study(wildcards.study).source.limits.model_dump_json()

    def box_option(self, wildcards: Any) -> list[str]:
        """Return the option for boxes, which only shard sets for detection hold."""
        return [] if wildcards.shards == SHARDS else ["--boxes"]

    def sibling_options(self, wildcards: Any) -> str:
        """Return the options that name shard sets of the same raw images; equal chunks are linked.

        As a resource, since a new study or variant must not make the shards of others again.
        """
        study, owner = wildcards.study, self._config.owner(wildcards.study)
        siblings = [
            name
            for name in self._config.studies
            if name != study
            and self._config.owner(name) == owner
            and self._config.data_of(name) == name
        ]
        options = [("--beside", f"data/{name}/{wildcards.shards}") for name in siblings]
        return shlex.join(part for option in options for part in option)

    def benchmark(self, name: str) -> Callable[[Any], str]:
        """Return the function that gives the settings of a benchmark of the wildcards' study."""
        return lambda wildcards: self._benchmark(wildcards, name).model_dump_json()

    def enhance_workers(self, wildcards: Any) -> int:
        """Return the largest number of workers that the benchmark of preprocessing starts."""
        return max(self._benchmark(wildcards, "enhance").workers)

    def loading_processes(self, wildcards: Any) -> int:
        """Return the largest number of processes that the benchmark of loading starts."""
        return max(self._benchmark(wildcards, "loading").processes)

    def exported(self, wildcards: Any) -> list[str]:
        """Return the result folders of the runs that a study exports."""
        runs = self._benchmark(wildcards, "export").runs
        return [f"results/{wildcards.study}/{run}" for run in runs]

    def external_result(self, wildcards: Any) -> str:
        """Return the result folder of the run that is evaluated on an external set."""
        return f"results/{self._config.study(wildcards.study).external_of}/{wildcards.run}"

    def external_training(self, wildcards: Any) -> str:
        """Return the index of the study that an external set belongs to."""
        return f"data/{self._config.study(wildcards.study).external_of}/index.parquet"

    def synthetic_option(self, wildcards: Any) -> list[str]:
        """Return the option that says that the images are generated."""
        return ["--synthetic"] if self._config.study(wildcards.study).source.synthetic else []

    def marks(self, wildcards: Any) -> str:
        """Return the marks of benchmarks for figures and tables: synthetic images, scale."""
        synthetic = self._config.study(self._config.owner(wildcards.study)).source.synthetic
        return json.dumps({"synthetic": synthetic, "stand_in": False, "scale": self._config.scale})

    def _benchmark(self, wildcards: Any, name: str) -> Any:
        settings = getattr(self._config.study(wildcards.study).benchmarks, name)
        assert settings is not None, f"check_target lets {wildcards.study} pass without {name}"
        return settings


def _layout_digest(kind: Path) -> str:
    """Return the SHA-256 over the code that lists a kind's raw folders.

    Left out are the declaration ``KIND`` and the module of downloads: an edit of a datasheet's
    answer or of an address must not make an index again, and with it train every network again.
    """
    tree = ast.parse(kind.read_text(encoding="utf-8"))
    tree.body = [statement for statement in tree.body if "KIND" not in _targets(statement)]
    imported = modules(kind)
    imported.pop("medscale.data.download", None)
    return digest([tree_digest(tree), *(module_digest(file) for file in imported.values())])


def _targets(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
