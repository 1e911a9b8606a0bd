"""Inputs and parameters of the rules of a run (training, evaluation, profiling), by wildcards."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from medscale.base.code import code_digest, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.planning import check_profiled
from medscale.engine.models.own import MODULES as OWN
from medscale.engine.plan import HUB, RunPlan
from medscale.engine.unused import keeping
from medscale.resources import jobs
from medscale.workflow.graph import Graph, or_end
from medscale.workflow.stages import code_files, train_script, training_code

# Of the resource `timed`: Snakemake cuts it to the total, so that no job runs at the same time.
ALONE = 1000
REPLICATE = re.compile(r"seed(?P<seed>\d+)(_fold(?P<fold>\d+))?")  # ``engine.plan.replicate_name``
REPLICATE_FILES = (
    "spec.json",
    "history.csv",
    "timing.json",
    "predictions.parquet",
    "environment.json",
    "model.safetensors",
)


class Runs:
    """Inputs, settings and resources of a run's jobs.

    Each method takes a rule's wildcards: ``study`` and ``run``, of a replicate also ``replicate``.
    Those of the benchmark of number formats have no ``run``.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._config = graph, graph.config

    def spec(self, wildcards: Any) -> str:
        """Return the plan of a replicate as JSON."""
        plan = self._replicate_plan(wildcards)
        return _as_trained(plan, self._folder(wildcards)).model_dump_json()

    def train_script(self, wildcards: Any) -> str:
        """Return the script of a training."""
        return self._graph.script(train_script(self._plan(wildcards)))

    def train_code(self, wildcards: Any) -> str:
        """Return the digest of the code that a training depends on."""
        plan = self._plan(wildcards)
        return code_digest(*code_files(train_script(plan)), **training_code(plan))

    def weights(self, wildcards: Any) -> list[str]:
        """Return the file of pretrained weights that a training begins with, if there is one.

        A missing one ends Snakemake unless the replicate was trained with it: Snakemake would take
        the outputs of an earlier plan.
        """
        plan, folder = self._replicate_plan(wildcards), self._folder(wildcards)
        plan = _as_trained(plan, folder)
        return self._weights(plan, is_kept=plan == _trained_plan(folder))

    def formats_weights(self, wildcards: Any) -> list[str]:
        """Return the file of pretrained weights of the run whose number formats are compared."""
        measured = self._graph.workdir / "measured" / wildcards.study / "formats.json"
        return self._weights(self._plan(wildcards), is_kept=measured.is_file())

    def _weights(self, plan: RunPlan, *, is_kept: bool) -> list[str]:
        name = plan.model.pretrained
        if name is None or name == HUB:
            return []
        if not is_kept:
            or_end(partial(check_weights, self._graph.workdir / name))
        return [name]

    def refuse_networks(self, workflow: Any) -> None:
        """End Snakemake before the first job for options that a network of timm does not have.

        Those of other networks are checked with the plan. These need PyTorch, whose import takes
        seconds, so networks without options are left to their training.
        """
        plans = [
            self._plan(j.wildcards) for j in workflow.dag.needrun_jobs() if j.rule.name == "train"
        ]
        models = {p.model.model_dump_json(): p.model for p in plans if p.detect is None}
        for model in models.values():
            if model.options and model.name not in OWN:
                from medscale.engine.models import registry

                or_end(partial(registry.check, model))

    def shards(self, wildcards: Any) -> str:
        """Return the folder of the images that a run is trained on."""
        return self._graph.shards(wildcards.study, wildcards.run)

    def index(self, wildcards: Any) -> str:
        """Return the index of the images that a run is trained on."""
        return f"{self._graph.data(wildcards.study)}/index.parquet"

    def shards_file(self, wildcards: Any) -> str:
        """Return the file that is written last into the folder of those images."""
        return f"{self.shards(wildcards)}/meta.json"

    def replicates(self, wildcards: Any) -> list[str]:
        """Return the folders of a run's replicates, one per seed and fold."""
        return self._graph.replicates(wildcards.study, wildcards.run)

    def replicate_files(self, wildcards: Any) -> list[str]:
        """Return the files of all replicates that the evaluation reads."""
        folders = self.replicates(wildcards)
        return [f"{folder}/{file}" for folder in folders for file in REPLICATE_FILES]

    def cpus(self, wildcards: Any) -> int:
        """Return the CPU cores that a training uses on each node."""
        return jobs.training_cpus(self._config, self._plan(wildcards))

    def processes(self, wildcards: Any) -> int:
        """Return the processes that a training starts on each node."""
        return self._plan(wildcards).procs_per_node

    def gpus(self, wildcards: Any) -> int:
        """Return the GPUs per node in a run's name, also where CPU processes stand in for them."""
        plan = self._plan(wildcards)
        return plan.procs_per_node if plan.run.device == "gpu" else 0

    def timed(self, wildcards: Any) -> int:
        """Return the share of the resource ``timed`` that a training takes.

        Trainings on GPUs may run at the same time, each on its own cards. On CPUs they would
        slow each other down and falsify the times, so each of them takes the whole.
        """
        return 1 if self._plan(wildcards).backend == "cuda" else ALONE

    def gradcam_option(self, wildcards: Any) -> list[str]:
        """Return the option for Grad-CAM where the study asks for it; detectors have none."""
        settings = self._config.study(wildcards.study)
        runs = {"all": True, "baseline": wildcards.run == settings.baseline, "none": False}
        is_wanted = runs[settings.evaluate.gradcam] and self._plan(wildcards).detect is None
        return ["--gradcam"] if is_wanted else []

    def profile_spec(self, wildcards: Any) -> str:
        """Return the plan that a run is profiled by as JSON: that of its first replicate."""
        seed = self._config.seeds_of(wildcards.study)[0]
        plan = self._plan(wildcards, seed)
        or_end(partial(check_profiled, wildcards.study, plan))
        return plan.model_dump_json()

    def profile_settings(self, wildcards: Any) -> str:
        """Return the settings of the profiler, as JSON."""
        return self._config.study(wildcards.study).profile.model_dump_json(exclude={"runs"})

    def formats_plan(self, wildcards: Any) -> str:
        """Return the plan of the run whose number formats are compared as JSON."""
        return self._plan(wildcards).model_dump_json()

    def seed_options(self, wildcards: Any) -> list[str]:
        """Return the option ``--seed`` for each replicate."""
        return [
            part
            for seed in self._config.seeds_of(wildcards.study)
            for part in ("--seed", str(seed))
        ]

    def _replicate_plan(self, wildcards: Any) -> RunPlan:
        match = REPLICATE.fullmatch(wildcards.replicate)
        assert match is not None, "the rules constrain the names of replicates"
        fold = None if match["fold"] is None else int(match["fold"])
        return self._plan(wildcards, int(match["seed"]), fold)

    def _folder(self, wildcards: Any) -> Path:
        """Return the run folder of a replicate."""
        folder = self._graph.workdir / "runs" / wildcards.study / wildcards.run
        return folder / str(wildcards.replicate)

    def _plan(self, wildcards: Any, seed: int = 0, fold: int | None = None) -> RunPlan:
        """Return the plan of a replicate; its MedscaleError ends Snakemake without a traceback.

        Wildcards without a run are of the benchmark of number formats, which names one.
        """
        run = getattr(wildcards, "run", None)
        if run is None:
            settings = self._config.study(wildcards.study).benchmarks.formats
            assert settings is not None, "check_target refuses studies without this benchmark"
            run = settings.run
        return or_end(partial(self._graph.plan, wildcards.study, run, seed, fold))


def check_weights(file: Path) -> None:
    """Raise MedscaleError for a file of pretrained weights that does not exist."""
    if not file.is_file():
        raise MedscaleError(
            f"pretrained weights: {shown_path(file)} does not exist; name another file by "
            "`pretrained`"
        )


def _as_trained(plan: RunPlan, folder: Path) -> RunPlan:
    """Return the plan of a replicate; a complete one keeps settings without effect on it.

    The size of a node (``node.gpus``), a time limit, or a setting of other runs may have changed
    since then. That is no reason to train a replicate again: an interrupted one goes on, and the
    others stay as they are.
    """
    trained = _trained_plan(folder)
    # The recorded plan is equal, but its text can differ in the order of the network's options, and
    # Snakemake compares texts.
    if trained is None or (same := keeping(plan, trained)) != trained:
        return plan
    return same


def _trained_plan(folder: Path) -> RunPlan | None:
    """Return the recorded plan of a complete replicate; None of another, or a damaged one."""
    if not all((folder / name).exists() for name in REPLICATE_FILES):
        return None
    try:
        return RunPlan.model_validate(read_json(folder / "spec.json"))
    except (MedscaleError, ValueError):  # of an earlier version, or damaged
        return None
