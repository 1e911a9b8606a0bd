"""Replicates of results as runs in a file store of MLflow, without a server or the network.

Each replicate is a run of an experiment with the study's name. The plan becomes parameters; the
history and the test metrics with their intervals become metrics; the model card is the artefact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock

from medscale.base.environment import kept_environment
from medscale.base.errors import MedscaleError
from medscale.base.extras import require
from medscale.base.files import digest, expand_home, read_json, read_table
from medscale.base.paths import evaluated_result, workdir_of
from medscale.base.provenance import hardware
from medscale.engine.train.board import scalars
from medscale.evaluate.summary import replicate_scores
from medscale.report.marks import mark
from medscale.report.result.summary import read_summary

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CARD = "model_card.md"
KEY = "medscale.replicate"  # tag with the digest of replicate and metrics, unique in a store
TRASH = ".trash"  # a folder of each file store
FINISHED = "FINISHED"  # a status of MLflow
ACTIVE = "active"  # a stage of experiments
# Without these variables, MLflow 3 refuses its file store and sends usage data over the network.
ENVIRONMENT = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
MAX_METRICS, MAX_PARAMETERS = 1000, 100  # limits of MLflow for one call
LIMITS = ("mean", "low", "high")  # mean of a metric over the replicates, and its interval


@dataclass(frozen=True)
class ReplicateRecord:
    """The content of a run in MLflow, for one replicate."""

    study: str  # name of the experiment
    name: str  # name of the run: run and seed
    card: Path  # the model card
    start_ms: int  # start of the training (`_start`), milliseconds since 1970
    end_ms: int  # end of the training, milliseconds since 1970
    parameters: dict[str, str]  # settings of the plan
    tags: dict[str, str]  # origin and restrictions
    history: pd.DataFrame  # history.csv
    scores: dict[str, float]  # test metrics


def track(folders: Sequence[Path], store: Path) -> tuple[int, int]:
    """Record the replicates of results in a file store; return the numbers of new and old runs.

    A replicate that is already in the store is not changed, so that a second call adds nothing. An
    unfinished run of an interrupted call is recorded again. All files are read before the first is
    written. Calls at the same time take turns: one would delete the unfinished runs of the other.

    Args:
        folders: result folders ``results/<study>/<run>``; ``runs/`` must be next to ``results/``.
        store: folder of the store, such as ``mlruns``.

    Raises:
        MedscaleError: when MLflow is not installed, a file of a result or of its replicates is
            missing, or ``store`` holds other files or the study's experiment in its trash.
    """
    require("MLflow stores", "exchange", "mlflow")
    store = expand_home(store).resolve()
    _check(store)
    replicates = [
        replicate for folder in folders for replicate in _replicates(evaluated_result(folder))
    ]
    store.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.with_name(f".{store.name}.lock"))
    with lock, kept_environment(**ENVIRONMENT):
        client = _client(store)
        for study in {replicate.study for replicate in replicates}:
            _check_experiment(client, store, study)
        new_runs = sum(_record(client, replicate) for replicate in replicates)
    return new_runs, len(replicates) - new_runs


def _check(store: Path) -> None:
    """Refuse a folder of other files, and a file."""
    is_empty = store.is_dir() and not any(store.iterdir())
    if store.exists() and not (store / TRASH).is_dir() and not is_empty:
        raise MedscaleError(f"{store} is not a file store of MLflow; name another folder by --to")


def _check_experiment(client: MlflowClient, store: Path, study: str) -> None:
    """Refuse an experiment that is in the store's trash, which takes no runs."""
    experiment = client.get_experiment_by_name(study)
    if experiment is not None and experiment.lifecycle_stage != ACTIVE:
        raise MedscaleError(
            f"the experiment {study} was deleted in {store}; restore it by `mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}`, or name another folder by --to"
        )


def _client(store: Path) -> MlflowClient:
    """Return the client of a file store; nothing of it uses the network."""
    from mlflow.tracking import MlflowClient

    address = store.as_uri()
    return MlflowClient(tracking_uri=address, registry_uri=address)


def _replicates(folder: Path) -> Iterator[ReplicateRecord]:
    """Yield the replicates of a result."""
    summary = read_summary(folder)
    study, run = summary["study"], summary["run"]["name"]
    runs = workdir_of(folder) / "runs" / study / run
    environments = summary["provenance"]["replicates"]
    for number, (name, environment) in enumerate(
        zip(summary["replicates"], environments, strict=True)
    ):
        files = runs / name
        remedy = f"track {folder} in the study's workdir, where `runs` is next to `results`"
        if not (files / "history.csv").is_file():
            raise MedscaleError(f"{files / 'history.csv'} does not exist; {remedy}")
        history, plan = read_table(files / "history.csv"), read_json(files / "spec.json")
        scores = _scores(summary, number)
        yield ReplicateRecord(
            study=study,
            name=f"{run} {name.replace('seed', 'seed ').replace('_fold', ' fold ')}",
            card=folder / CARD,
            start_ms=_start(summary["timing"], environment, number),
            end_ms=_milliseconds(environment["finished"]),
            parameters=dict(_flat(plan)),
            # The key is written first, so that a run interrupted later is found and replaced.
            tags={KEY: digest([environment, scores])} | _tags(summary, environment),
            history=history,
            scores=scores,
        )


def _start(timing: Mapping[str, Any], environment: Mapping[str, Any], number: int) -> int:
    """Return the start of a training; of a continued one, its end minus the time that it ran.

    The record has the start of the last process, which did not train the epochs before.
    """
    if not timing["restarts"]["values"][number]:
        return _milliseconds(environment["started"])
    seconds = timing["wall_seconds"]["values"][number]
    return _milliseconds(environment["finished"]) - round(1000 * seconds)


def _tags(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """Return origin and restrictions of a replicate; an unknown value has no tag."""
    marks = summary["marks"]
    values = {
        "commit": environment.get("commit"),
        "dirty": environment.get("dirty"),
        "hardware": hardware(environment),
        "format": environment.get("format"),
        "medscale": environment.get("versions", {}).get("medscale"),
        **marks,
        "mlflow.note.content": mark([marks]) or None,
    }
    return {name: _text(value) for name, value in values.items() if value is not None}


def _scores(summary: dict[str, Any], number: int) -> dict[str, float]:
    """Return a replicate's test metrics, and mean and interval over all replicates.

    With folds, a replicate has only the metrics that are computed by fold.
    """
    metrics = summary["metrics"]["test"]
    by_replicate = summary["folds"]["metrics"] if "folds" in summary else metrics
    scores = {f"test/{name}": replicate_scores(summary, name)[number] for name in by_replicate}
    for name, value in metrics.items():
        scores |= {f"test/{name}_{limit}": value[limit] for limit in LIMITS}
    return {name: value for name, value in scores.items() if value is not None}


def _record(client: MlflowClient, replicate: ReplicateRecord) -> bool:
    """Record a replicate unless the store has it; return whether it is new."""
    from mlflow.entities import Metric, Param

    experiment = client.get_experiment_by_name(replicate.study)
    number = experiment.experiment_id if experiment else client.create_experiment(replicate.study)
    for earlier in client.search_runs([number], f"tags.`{KEY}` = '{replicate.tags[KEY]}'"):
        if earlier.info.status == FINISHED:
            return False
        client.delete_run(earlier.info.run_id)
    run = client.create_run(
        number, start_time=replicate.start_ms, tags=replicate.tags, run_name=replicate.name
    ).info.run_id
    end = replicate.end_ms
    metrics = [Metric(name, value, end, 0) for name, value in replicate.scores.items()]
    metrics += [Metric(*row) for row in _epochs(replicate)]
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run, metrics[start : start + MAX_METRICS])
    parameters = [Param(name, value) for name, value in replicate.parameters.items()]
    for start in range(0, len(parameters), MAX_PARAMETERS):
        client.log_batch(run, params=parameters[start : start + MAX_PARAMETERS])
    client.log_artifact(run, str(replicate.card))
    client.set_terminated(run, FINISHED, end)
    return True


def _epochs(replicate: ReplicateRecord) -> Iterator[tuple[str, float, int, int]]:
    """Yield name, value, time in milliseconds and epoch of each finite number of the history."""
    seconds = replicate.history["seconds"].cumsum()
    for row, elapsed in zip(replicate.history.to_dict("records"), seconds, strict=True):
        time, epoch = replicate.start_ms + int(1000 * elapsed), int(row["epoch"])
        for name, value in scalars({str(column): value for column, value in row.items()}):
            yield name, value, time, epoch


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a plan with dotted names; lists are JSON."""
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _milliseconds(time: str) -> int:
    return round(1000 * datetime.fromisoformat(time).timestamp())
