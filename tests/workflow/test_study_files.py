"""docs/files.md is true: files that the stages write have the columns and keys of its tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_trees import class_tree
from file_tables import Described, Entry, differences, read_tables
from medscale.config.benchmarks import Enhance
from medscale.config.sections import Evaluate
from medscale.data.build import build_shards
from medscale.data.index import build_index
from medscale.data.settings import Dask, Preprocess, Source, Split
from medscale.data.shards import Shards
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.gallery import gallery
from medscale.evaluate.replicates import read as read_replicate
from medscale.measure import enhance, exporting, formats, inference, loading
from medscale.measure.record import Marks, write
from medscale.report.result.folder import write_result
from medscale.serve import bundle
from synthetic_profiles import make_profile
from synthetic_runs import configuration
from training_runs import TINY, Training, fork_ranks

STUDY, RUN = "glaucoma", "serial_1cpu"
LISTS = {"enhance": enhance, "export": exporting, "formats": formats}
LISTS |= {"inference": inference, "loading": loading}
# Files that no stage of this test writes; the study of tests/cluster and a real one have them.
# Those of external images are compared in tests/serve/test_predict_external.py, tables of the
# report in tests/report.
NOT_MADE = (
    "data/<study>/datasheet.md",
    "data/<study>/croissant.json",
    "data/<study>/shards_detect/boxes.parquet",
    "runs/<study>/<detection run>/<replicate>/predictions.parquet",
    "profiled/<study>/<run>/spec.json",
    "results/<study>/<run>/boxes.csv",
    "results/<study>/<run>/folds.csv",  # compared in test_folds_study.py
    "exported/<study>/<run>.<format>.onnx",
    *(f"external/<set>/<run>/{name}" for name in ("summary.json", "shift.csv", "predictions.csv")),
    "measured/<study>/reference.json",
    *(f"measured/<study>/{name}.csv" for name in ("loading", "export", "inference", "reference")),
    "measured/<study>/formats.csv",
    *(f"tables/<study>/{name}.csv" for name in ("convergence", "sweep")),
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a small study, each written by the code of its stage."""
    folder = tmp_path_factory.mktemp("files")
    data, raw, one_worker = folder / "data" / STUDY, folder / "data" / "raw", Dask(workers=1)
    class_tree(raw, {"normal": 12, "glaucoma": 12})
    (raw / "normal" / "broken.png").write_bytes(b"")
    division = Split(train=0.5, val=0.25, test=0.25)
    classes = ["normal", "glaucoma"]
    build_index(Source(kind="folder", path=raw), division, classes, one_worker, data)
    plain = Preprocess(size=16, chunk=16)
    build_shards(data / "index.parquet", raw, plain, one_worker, data / "shards")

    replicate = folder / "runs" / STUDY / RUN / "seed1"
    work = folder / "work"
    work.mkdir()
    spec, shards, _, log = Training(work, data / "shards", TINY).paths(RUN)
    replicate.mkdir(parents=True)
    shutil.copy2(spec, replicate / "spec.json")
    fork_ranks([str(replicate / "spec.json"), shards, str(replicate), log], 1)

    images, runs = Shards.open(data / "shards"), [read_replicate(replicate)]
    evaluation = evaluate([replicate], data / "index.parquet", Evaluate(), resamples=50)
    write_result(
        evaluation,
        folder / "results" / STUDY / RUN,
        gallery(runs[0], images),
        lambda *arguments: bundle.put(runs, images, *arguments),
    )
    make_profile(folder, configuration(STUDY, [RUN]), STUDY, RUN)
    settings = Enhance(workers=[1], repeats=1)
    rows = enhance.measure_enhance(data / "index.parquet", raw, plain, settings, work)
    marks = Marks(synthetic=True, stand_in=False, scale="demo")
    write(folder / "measured" / STUDY, "enhance", rows, settings.model_dump(), marks)
    return folder


def test_files_have_the_columns_and_keys_of_their_tables(workdir: Path) -> None:
    faults, present = differences(workdir)
    assert not faults, "docs/files.md differs from the files:\n" + "\n".join(faults)
    assert {table.pattern for table in read_tables()} - present == set(NOT_MADE)


@pytest.mark.parametrize("name", LISTS)
def test_a_table_lists_the_columns_of_a_benchmark(name: str) -> None:
    (table,) = [t for t in read_tables() if t.pattern == f"measured/<study>/{name}.csv"]
    assert [entry.name for entry in table.entries] == LISTS[name].COLUMNS


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda rows: rows.drop(columns="tasks"), "tasks is missing"),
        (lambda rows: rows.assign(colour="red"), "colour is not in the table"),
        (lambda rows: rows.assign(images=0.5), "images is no int64: float64"),
        (lambda rows: rows.assign(split=None), "split has empty cells"),
    ],
)
def test_a_file_that_differs_is_reported(workdir: Path, tmp_path: Path, change, difference) -> None:
    path = Path("measured", STUDY, "enhance.csv")
    (tmp_path / path).parent.mkdir(parents=True)
    change(pd.read_csv(workdir / path)).to_csv(tmp_path / path, index=False)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "notes.json").write_text("{}")
    assert differences(tmp_path)[0] == [f"{path}: {difference}", "runs/notes.json has no section"]


def test_placeholders_stand_for_numbers() -> None:
    entry = Entry("seed_<k>_value", "float64", "value of the replicate")
    assert entry.fits("seed_12_value")
    assert not entry.fits("seed_x_value")
    assert Described("data/<study>/<shards>/images-<n>.npy", ()).glob == "data/*/*/images-*.npy"
