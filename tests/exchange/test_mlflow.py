"""Replicates are recorded once in a file store of MLflow, without the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from medscale.base import extras
from medscale.base.environment import kept_environment
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.exchange import mlflow as exchange

# Calls a function while each use of the network is an error; MLflow catches it, so it is listed.
OFFLINE = """
import json, os, socket, sys, threading
from pathlib import Path
calls = []
def refuse(*arguments, **options):
    calls.append(repr(arguments))
    raise OSError("no network in this test")
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = refuse
from medscale.exchange.mlflow import track
numbers = track([Path(sys.argv[1])], Path(sys.argv[2]))
[thread.join(10) for thread in threading.enumerate() if thread is not threading.main_thread()]
print(json.dumps([numbers, calls]))
"""
# MLflow sends nothing from tests or from continuous integration, which a user's shell is not.
TESTING = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "DO_NOT_TRACK", *exchange.ENVIRONMENT)


def runs(store: Path) -> list:
    client = exchange._client(store)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def test_a_replicate_is_a_run_and_a_second_call_adds_none(result: Path, tmp_path: Path) -> None:
    store, summary = tmp_path / "mlruns", read_json(result / "summary.json")
    assert exchange.track([result], store) == (2, 0)
    by_name = {run.info.run_name: run for run in runs(store)}
    assert set(by_name) == {"serial_1cpu seed 1", "serial_1cpu seed 2"}
    run, accuracy = by_name["serial_1cpu seed 2"], summary["metrics"]["test"]["accuracy"]
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 60_000
    values = run.data.metrics
    assert values["test/accuracy"] == accuracy["values"][1]
    assert values["test/accuracy_low"] == accuracy["low"]
    assert values["test/accuracy_high"] == accuracy["high"]
    folder = result.parents[2] / "runs" / "glaucoma" / "serial_1cpu" / "seed2"
    history = exchange._client(store).get_metric_history(run.info.run_id, "loss/train")
    expected = pd.read_csv(folder / "history.csv")
    assert [(m.step, m.value) for m in history] == list(enumerate(expected["train_loss"], start=1))
    ends = [m.timestamp - run.info.start_time for m in history]
    assert ends == pytest.approx(1000 * expected["seconds"].cumsum(), abs=1)
    plan = read_json(folder / "spec.json")
    assert run.data.params["seed"] == "2"
    assert run.data.params["recipe.lr"] == json.dumps(plan["recipe"]["lr"])
    assert run.data.params["model.name"] == plan["model"]["name"]
    tags = run.data.tags
    assert (tags["commit"], tags["hardware"]) == ("0" * 40, "Made CPU @ 2 GHz")
    assert (tags["synthetic"], tags["stand_in"], tags["scale"]) == ("true", "false", "demo")
    assert "synthetic images" in tags["mlflow.note.content"]
    artefacts = [p for p in store.rglob("artifacts/*") if p.is_file()]
    assert {path.name for path in artefacts} == {"model_card.md"}
    assert len(artefacts) == 2

    assert exchange.track([result], store) == (0, 2)
    assert len(runs(store)) == 2


def test_a_continued_training_began_before_its_last_process(result: Path) -> None:
    """Otherwise the run would end before its first epochs."""
    (environment,) = read_json(result / "summary.json")["provenance"]["replicates"][:1]
    timing = {"restarts": {"values": [0.0, 2.0]}, "wall_seconds": {"values": [60.0, 7200.5]}}
    end = exchange._milliseconds(environment["finished"])
    assert exchange._start(timing, environment, 0) == end - 60_000
    assert exchange._start(timing, environment, 1) == end - 7_200_500


def test_an_interrupted_run_is_made_again(result: Path, tmp_path: Path, monkeypatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    store = tmp_path / "mlruns"
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.tracking.MlflowClient.log_artifact", stop)
        with pytest.raises(KeyboardInterrupt):
            exchange.track([result], store)
    assert [run.info.status for run in runs(store)] == ["RUNNING"]
    assert exchange.track([result], store) == (2, 0)
    assert [run.info.status for run in runs(store)] == ["FINISHED"] * 2


def test_calls_at_the_same_time_take_turns(result: Path, tmp_path: Path) -> None:
    store = tmp_path / "mlruns"
    (store / exchange.TRASH).mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        numbers = list(threads.map(lambda _: exchange.track([result], store), range(2)))
    assert sorted(numbers) == [(0, 2), (2, 0)]
    assert [run.info.status for run in runs(store)] == ["FINISHED"] * 2


def test_nothing_goes_over_the_network(result: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in TESTING}
    command = [sys.executable, "-c", OFFLINE, str(result), str(tmp_path / "mlruns")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == [[2, 0], []]


def test_faults_are_named_before_anything_is_written(
    result: Path, tmp_path: Path, monkeypatch
) -> None:
    copy = tmp_path / "results" / "glaucoma" / "serial_1cpu"
    shutil.copytree(result, copy)
    with pytest.raises(MedscaleError, match=r"history\.csv does not exist; track .* in the study"):
        exchange.track([result, copy], tmp_path / "mlruns")
    with pytest.raises(MedscaleError, match=r"has no summary\.json"):
        exchange.track([tmp_path], tmp_path / "mlruns")
    (copy / "summary.json").unlink()  # a hard link or a copy
    for content, text in (("{}", "no 'study'"), ("[]", "is no summary of this version")):
        (copy / "summary.json").write_text(content)
        with pytest.raises(MedscaleError, match=text):
            exchange.track([copy], tmp_path / "mlruns")
    with kept_environment(**exchange.ENVIRONMENT):
        client = exchange._client(tmp_path / "trash")
        client.delete_experiment(client.create_experiment("glaucoma"))
    with pytest.raises(MedscaleError, match=r"experiment glaucoma was deleted in .*; restore it"):
        exchange.track([result], tmp_path / "trash")
    with pytest.raises(MedscaleError, match="is not a file store of MLflow"):
        exchange.track([result], result)
    with pytest.raises(MedscaleError, match="is not a file store of MLflow"):
        exchange.track([result], result / "summary.json")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MedscaleError, match=r"need mlflow.*pip install 'medscale\[exchange\]'"):
        exchange.track([result], tmp_path / "mlruns")
    assert not (tmp_path / "mlruns").exists()


def test_a_result_that_was_evaluated_again_is_a_further_run(result: Path, tmp_path: Path) -> None:
    shutil.copytree(result.parents[2], tmp_path / "study")
    copy, store = tmp_path / "study" / result.relative_to(result.parents[2]), tmp_path / "mlruns"
    file = tmp_path / "study" / "runs" / "glaucoma" / "serial_1cpu" / "seed1" / "history.csv"
    history = pd.read_csv(file)
    long = pd.concat([history] * 20).assign(epoch=range(1, 20 * len(history) + 1))
    assert long.size > exchange.MAX_METRICS
    long.to_csv(file, index=False)
    exchange.track([copy], store)
    (first, *_) = [run for run in runs(store) if run.info.run_name.endswith("seed 1")]
    assert len(exchange._client(store).get_metric_history(first.info.run_id, "lr")) == len(long)
    summary = read_json(copy / "summary.json")
    summary["metrics"]["test"]["accuracy"]["values"][0] = 0.5
    write_json(copy / "summary.json", summary)
    assert exchange.track([copy], store) == (1, 1)
