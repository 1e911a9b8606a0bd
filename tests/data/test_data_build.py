"""Shards: the same bytes for any number of workers; only unfinished chunks are made again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dask_scheduler import running_scheduler
from data_trees import class_tree, write
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.data.build import build_shards
from medscale.data.images import decode
from medscale.data.index import build_index
from medscale.data.preprocess import preprocess
from medscale.data.settings import Clahe, Dask, Preprocess, Source, Split
from medscale.data.shards import Shards

SETTINGS = Preprocess(size=16, clahe=Clahe(tiles=2), gamma=1.2, median=3, chunk=8)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """A Dask scheduler that runs already, with one worker process."""
    with running_scheduler(1, tmp_path_factory.mktemp("certificates")) as address:
        yield Dask(scheduler=address)


@pytest.fixture
def study(tmp_path: Path, dask: Dask) -> Path:
    """A folder with ``raw/`` of 30 images (one a large JPEG) and ``index.parquet``: four chunks."""
    raw = class_tree(tmp_path / "raw", {"a": 14, "b": 15})
    write(raw / "b/large.jpg", 77)
    build_index(Source(kind="folder", path=raw), Split(), None, dask, tmp_path)
    return tmp_path


def build(study: Path, dask: Dask, settings: Preprocess = SETTINGS, out: str = "shards") -> Shards:
    build_shards(study / "index.parquet", study / "raw", settings, dask, study / out)
    return Shards.open(study / out)


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """When each file was written, and its digest."""
    return {file.name: (file.stat().st_mtime_ns, sha256(file)) for file in sorted(folder.iterdir())}


def remade(before: dict[str, tuple[int, str]], after: dict[str, tuple[int, str]]) -> set[str]:
    return {name for name in after if name.endswith(".npy") and before.get(name) != after[name]}


def test_shards_hold_the_preprocessed_images_in_the_order_of_the_index(
    study: Path, dask: Dask
) -> None:
    shards = build(study, dask)
    index = pd.read_parquet(study / "index.parquet")
    assert [chunk["images"] for chunk in shards.meta["chunks"]] == [8, 8, 8, 6]
    assert shards.ids.tolist() == index["id"].tolist()
    assert shards.labels.tolist() == index["label"].cat.codes.tolist()
    assert shards.rows["split"].tolist() == index["split"].tolist()
    assert shards.classes == ["a", "b"]
    files = [(study / "raw" / path).read_bytes() for path in index["path"]]
    expected = [preprocess(decode(file), SETTINGS) for file in files]
    assert np.array_equal(shards.gather(np.arange(30)), np.stack(expected))
    assert shards.meta["preprocess"] == SETTINGS.model_dump(mode="json")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_for_any_number_of_workers(study: Path, dask: Dask, workers: int) -> None:
    build(study, dask)
    build(study, Dask(workers=workers), out="local")
    digests = [
        {name: entry[1] for name, entry in state(study / out).items()}
        for out in ("shards", "local")
    ]
    assert digests[0] == digests[1]


def test_only_unfinished_chunks_are_made_again(study: Path, dask: Dask) -> None:
    build(study, dask)
    out = study / "shards"
    whole = state(out)
    for file_name in ("images-00001.npy", "images-00002.json", "meta.json"):
        (out / file_name).unlink()
    (out / "images-00003.npy").write_bytes((out / "images-00003.npy").read_bytes()[:-1] + b"\0")
    (out / ".images-00001.npy.abc.npy").write_bytes(b"half written")
    build(study, dask)
    after = state(out)
    assert remade(whole, after) == {"images-00001.npy", "images-00002.npy", "images-00003.npy"}
    assert {name: entry[1] for name, entry in after.items()} == {
        name: entry[1] for name, entry in whole.items()
    }


def test_nothing_is_made_again_when_all_outputs_exist(study: Path, dask: Dask) -> None:
    build(study, dask)
    before = state(study / "shards")
    build_shards(
        study / "index.parquet",
        study / "raw",
        SETTINGS,
        Dask(scheduler="tls://127.0.0.1:9"),
        study / "shards",
    )
    assert remade(before, state(study / "shards")) == set()


def test_another_split_keeps_the_chunks(study: Path, dask: Dask) -> None:
    first = build(study, dask)
    before = state(study / "shards")
    build_index(Source(kind="folder", path=study / "raw"), Split(seed=5), None, dask, study)
    second = build(study, dask)
    assert remade(before, state(study / "shards")) == set()
    assert first.rows["split"].tolist() != second.rows["split"].tolist()
    assert first.meta["digest"] != second.meta["digest"]


def test_other_preprocessing_makes_everything_again_and_leaves_nothing_stale(
    study: Path, dask: Dask
) -> None:
    build(study, dask)
    shards = build(study, dask, SETTINGS.model_copy(update={"chunk": 20, "gamma": None}))
    names = {"images-00000.npy", "images-00000.json", "images-00001.npy", "images-00001.json"}
    assert {file.name for file in (study / "shards").iterdir()} == {
        *names,
        "meta.json",
        "rows.parquet",
    }
    assert len(shards) == 30


def test_a_changed_image_makes_only_its_chunk_again(study: Path, dask: Dask) -> None:
    build(study, dask)
    before = state(study / "shards")
    write(study / "raw/a/0.png", 1234)
    build_index(Source(kind="folder", path=study / "raw"), Split(), None, dask, study)
    build(study, dask)
    assert remade(before, state(study / "shards")) == {"images-00000.npy"}


@pytest.mark.parametrize("change", ["other bytes", "gone", "no index", "no classes", "no parquet"])
def test_inputs_that_do_not_fit_are_one_message(study: Path, dask: Dask, change: str) -> None:
    match change:
        case "other bytes":
            write(study / "raw/a/0.png", 1234)
            message = "a/0.png has changed since it was indexed"
        case "gone":
            (study / "raw/a/0.png").unlink()
            message = "a/0.png cannot be read any more"
        case "no index":
            (study / "index.parquet").unlink()
            message = "index.parquet does not exist; create it first: snakemake data"
        case "no classes":
            index = pd.read_parquet(study / "index.parquet")
            index.astype({"label": "str"}).to_parquet(study / "index.parquet")
            message = "is not an index: .* no column `label` with the order of the classes"
        case _:
            (study / "index.parquet").write_bytes(b"PAR1")
            message = "index.parquet cannot be read .* make it again by `snakemake data`"
    with pytest.raises(MedscaleError, match=message):
        build(study, dask)
    assert not (study / "shards/meta.json").exists()


def run_script(study: Path, name: str, **options: str) -> subprocess.Popen[str]:
    line = [sys.executable, str(ROOT / "scripts" / name)]
    for key, value in options.items():
        line += [f"--{key}", value]
    return subprocess.Popen(
        [*line, "--log", "log/x.log"], cwd=study, stderr=subprocess.PIPE, text=True
    )


def test_the_scripts_from_raw_to_shards_with_a_kill_between(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 30, "b": 30})
    source = '{"kind":"folder","synthetic":false,"options":{}}'
    split = Split().model_dump_json()
    process = run_script(
        tmp_path,
        "index.py",
        source=source,
        raw="raw",
        split=split,
        classes="null",
        dask='{"workers":1}',
        out="d",
    )
    assert process.wait(300) == 0, process.communicate()
    settings = Preprocess(size=512, median=9, chunk=4).model_dump_json()
    options = {
        "index": "d/index.parquet",
        "raw": "raw",
        "preprocess": settings,
        "dask": '{"workers":1}',
        "out": "d/shards",
    }
    killed = run_script(tmp_path, "shards.py", **options)
    end = time.monotonic() + 300
    while not (tmp_path / "d/shards/images-00001.json").exists():
        assert time.monotonic() < end
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(1)  # the worker notices that its parent is gone
    before = state(tmp_path / "d/shards")
    finished = [name for name in before if name.endswith(".json")]
    assert 2 <= len(finished) < 15
    repetition = run_script(tmp_path, "shards.py", **options)
    _, log_text = repetition.communicate(timeout=300)
    assert repetition.returncode == 0, log_text
    assert f"{len(finished)} of 15 chunks are finished already" in log_text
    after = state(tmp_path / "d/shards")
    assert len(remade(before, after)) == 15 - len(finished)
    assert json.loads((tmp_path / "d/shards/meta.json").read_text())["images"] == 60
    refused = run_script(tmp_path, "shards.py", **{**options, "index": "gone.parquet"})
    _, log_text = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert log_text.startswith("medscale: error: gone.parquet does not exist")


def test_chunks_that_a_set_beside_has_are_linked(study: Path, dask: Dask) -> None:
    build(study, dask)
    table = pd.read_parquet(study / "index.parquet")
    table.assign(split=table["split"].iloc[::-1].to_numpy()).to_parquet(study / "other.parquet")
    neighbour = study / "other"
    build_shards(
        study / "other.parquet",
        study / "raw",
        SETTINGS,
        dask,
        neighbour,
        siblings=[study / "shards", study / "nix"],
    )
    for file in sorted(neighbour.glob("images-*")):
        assert file.samefile(study / "shards" / file.name)
    assert Shards.open(neighbour).rows["split"].tolist() == table["split"].tolist()[::-1]
    damaged = study / "shards" / "images-00000.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    build_shards(
        study / "other.parquet",
        study / "raw",
        SETTINGS,
        dask,
        study / "third",
        siblings=[study / "shards"],
    )
    assert not (study / "third" / "images-00000.npy").samefile(damaged)
    assert (study / "third" / "images-00001.npy").samefile(study / "shards" / "images-00001.npy")
