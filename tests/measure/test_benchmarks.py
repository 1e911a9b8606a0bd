"""A study's benchmarks: shapes and marks of the measurements; all ways load the same images."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_trees import image_bytes, picture
from figure_texts import printed
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.config.benchmarks import Enhance, Loading
from medscale.data.augment import MEAN, STD
from medscale.data.build import build_shards
from medscale.data.index import build_index
from medscale.data.index_file import read_index
from medscale.data.limits import chunk_size
from medscale.data.settings import Clahe, Dask, Preprocess, Source, Split
from medscale.engine.plan import Augment, Crop
from medscale.measure import enhance, loading
from medscale.measure.enhance import measure_enhance, task_size
from medscale.measure.loaders import Photographs, changes
from medscale.measure.loading import WAYS, Team, choose, measure_loading, source
from medscale.measure.record import Marks, cores, in_turns, warm, write
from medscale.measure.scaling.benchmarks import by_way, by_workers
from medscale.report.writer import write_chapter
from medscale.workflow.graph import Graph
from medscale.workflow.targets import check_target

SIZE = 24
PLAIN = Preprocess(size=SIZE, chunk=8)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``raw/`` of 48 images of the right size, ``index.parquet``, ``shards/``."""
    folder = tmp_path_factory.mktemp("study")
    for number in range(48):
        path = folder / "raw" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(picture(number, (SIZE, SIZE))))
    build_index(Source(kind="folder", path=folder / "raw"), Split(), None, Dask(workers=1), folder)
    build_shards(
        folder / "index.parquet", folder / "raw", PLAIN, Dask(workers=1), folder / "shards"
    )
    return folder


def test_preprocessing_is_timed_on_each_number_of_workers_and_leaves_nothing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enhance, "cores", lambda: cores()[:1])
    rows = measure_enhance(
        study / "index.parquet", study / "raw", PLAIN, Enhance(workers=[1, 2], repeats=1), tmp_path
    )
    assert list(rows.columns) == enhance.COLUMNS
    assert rows["workers"].tolist() == [1] * 3 + [2] * 3
    assert (rows["oversubscribed"] == (rows["workers"] == 2)).all()
    sizes = read_index(study / "index.parquet")["split"].value_counts()
    assert (rows["images"] == rows["split"].map(sizes)).all()
    assert (rows[["startup_s", "seconds", "peak_memory_mb"]] > 0).all(axis=None)
    assert list(tmp_path.iterdir()) == []
    table = by_workers(rows)
    assert set(table["split"]) == {"train", "val", "test", "all"}
    assert table.loc[table["split"] == "all", "images"].tolist() == [48, 48]


def test_every_second_repetition_goes_backwards(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enhance, "_measure", lambda works, *_: [{"split": name} for name in works])
    benchmark = Enhance(workers=[1, 4], repeats=2)
    rows = measure_enhance(study / "index.parquet", study / "raw", PLAIN, benchmark, tmp_path)
    assert rows["workers"].tolist() == [1] * 3 + [4] * 6 + [1] * 3


def test_a_changed_image_is_not_timed_but_reported(study: Path, tmp_path: Path) -> None:
    index = read_index(study / "index.parquet").assign(sha256="0" * 64)
    index.to_parquet(tmp_path / "index.parquet")
    with pytest.raises(MedscaleError, match="has changed since it was indexed"):
        measure_enhance(
            tmp_path / "index.parquet",
            study / "raw",
            PLAIN,
            Enhance(workers=[1], repeats=1),
            tmp_path,
        )


def test_tasks_are_enough_for_all_workers_and_no_larger_than_a_chunk() -> None:
    assert task_size(2000, 8, Preprocess()) == 16
    assert task_size(150, 8, Preprocess()) == 2
    assert task_size(5, 8, Preprocess()) == 1
    assert task_size(2000, 1, Preprocess(chunk=64)) == 64


@pytest.mark.parametrize(("images", "size"), [(30, 16), (8621, 34), (245_000, 958), (10**6, 1024)])
def test_a_chunk_s_size_follows_from_the_number_of_images(images: int, size: int) -> None:
    assert chunk_size(images) == size


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_all_ways_deliver_the_same_images(study: Path, way: str, processes: int) -> None:
    if way == "simple" and processes > 1:
        pytest.skip("simple loading is of one process")
    benchmark = Loading(processes=[1, 2], images=20, batch_size=4)
    job = choose(
        study / "index.parquet", study / "raw", study / "shards", PLAIN, Augment(), benchmark
    )
    assert len(job.paths) == 20
    ranks = 1 if way == "workers" else processes
    batches = [
        batch for rank in range(ranks) for batch in source(job, way, rank, processes)(1, None)
    ]
    assert all(len(images) <= 4 for images, _ in batches)
    images, labels = (
        torch.cat([part for part, _ in batches]),
        torch.cat([part for _, part in batches]),
    )
    expected = []
    for path, label in zip(job.paths, job.labels, strict=True):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255
        expected.append(
            ((pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None], label)
        )
    assert images.shape == (20, 3, SIZE, SIZE)
    order = [
        int((torch.stack([part for part, _ in expected]) - image).abs().amax((1, 2, 3)).argmin())
        for image in images
    ]
    assert sorted(order) == list(range(20))
    assert torch.allclose(images, torch.stack([expected[n][0] for n in order]), atol=1e-5)
    assert labels.tolist() == [int(expected[n][1]) for n in order]


def test_loading_is_timed_by_way_and_processes(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cores", lambda: cores()[:1])
    inputs = (study / "index.parquet", study / "raw", study / "shards", PLAIN, Augment(hflip=0.5))
    rows = measure_loading(*inputs, Loading(processes=[2], images=17, batch_size=4, repeats=1))
    assert list(rows.columns) == loading.COLUMNS
    assert rows.set_index("way")["processes"].to_dict() == {
        way: 1 if way == "simple" else 2 for way in WAYS
    }
    assert (rows["images"] == 16).all()
    assert (rows["oversubscribed"] == (rows["way"] != "simple")).all()
    assert (rows[["startup_s", "seconds", "wait_s"]] > 0).all(axis=None)
    table = by_way(rows, "simple")
    assert table["way"].iloc[0] == "simple"
    assert table["gain"].iloc[0] == 1


def test_rates_have_the_ratio_that_stands_beside_them() -> None:
    rows = pd.DataFrame(
        {"repeat": [0, 1, 0, 1], "way": ["simple", "simple", "medscale", "medscale"]}
    )
    rows = rows.assign(
        processes=1, cores=1, oversubscribed=False, images=100, wait_s=0.1, startup_s=0.0
    )
    table = by_way(rows.assign(seconds=[1.0, 3.0, 0.1, 0.5]), "simple").set_index("way")
    assert table["images_per_second"].to_dict() == pytest.approx(
        {"simple": 50, "medscale": 100 / 0.3}
    )
    rate = table["images_per_second"]
    assert table.loc["medscale", "gain"] == pytest.approx(rate["medscale"] / rate["simple"])
    assert table.loc["medscale", ["images_per_second_low", "images_per_second_high"]].tolist() == [
        200,
        1000,
    ]


def test_a_failing_process_ends_the_others_with_its_own_error(study: Path) -> None:
    benchmark = Loading(processes=[2], images=8, batch_size=4)
    job = choose(
        study / "index.parquet", study / "raw", study / "shards", PLAIN, Augment(), benchmark
    )
    (failure_folder := study / "gone").mkdir(exist_ok=True)
    broken = [
        failure_folder / "0.png" if number == 0 else path for number, path in enumerate(job.paths)
    ]
    with Team(2) as team, pytest.raises(FileNotFoundError, match=r"0\.png"):
        team.deliver(replace(job, paths=broken), "by_hand", 2, 0)


def test_what_loading_cannot_compare_is_reported(study: Path, tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="torchvision has neither"):
        changes(Augment(noise=0.1))
    with pytest.raises(MedscaleError, match="too few for 64 processes"):
        choose(
            study / "index.parquet",
            study / "raw",
            study / "shards",
            PLAIN,
            Augment(),
            Loading(processes=[64]),
        )
    read_index(study / "index.parquet").iloc[1:].to_parquet(tmp_path / "index.parquet")
    with pytest.raises(MedscaleError, match="was not made from"):
        choose(
            tmp_path / "index.parquet", study / "raw", study / "shards", PLAIN, Augment(), Loading()
        )
    with pytest.raises(MedscaleError, match=r"gone\.png cannot be read"):
        warm([tmp_path / "gone.png"])


@pytest.mark.parametrize(
    ("augment", "kinds"),
    [
        (Augment(), []),
        (Augment(crop=Crop(size=8), hflip=0.5), ["RandomCrop", "RandomHorizontalFlip"]),
        (Augment(crop=Crop(size=8, mode="resized")), ["RandomResizedCrop"]),
        (
            Augment(rotate=15, hflip=0.5, vflip=0.5, brightness=0.2, contrast=0.2),
            ["RandomRotation", "RandomHorizontalFlip", "RandomVerticalFlip", "ColorJitter"],
        ),
    ],
)
def test_torchvision_changes_what_the_study_changes(augment: Augment, kinds: list[str]) -> None:
    assert [type(transform).__name__ for transform in changes(augment)] == kinds


def test_raw_files_get_the_study_s_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(image_bytes(picture(3, (64, 48))))
    plain = Photographs([path], np.array([1]), PLAIN, Augment())[0]
    clahe = PLAIN.model_copy(update={"clahe": Clahe(tiles=2)})
    enhanced = Photographs([path], np.array([1]), clahe, Augment())[0]
    cover = Photographs(
        [path], np.array([1]), PLAIN.model_copy(update={"fit": "cover"}), Augment()
    )[0]
    assert plain[0].shape == enhanced[0].shape == cover[0].shape == (3, SIZE, SIZE)
    assert plain[1] == 1
    assert not torch.equal(plain[0], enhanced[0])
    assert not torch.equal(plain[0], cover[0])


def test_turns_alternate() -> None:
    assert [in_turns([1, 2, 3], repeat) for repeat in (0, 1)] == [[1, 2, 3], [3, 2, 1]]


def enhance_rows() -> pd.DataFrame:
    """Two workers take half as long, eight on two cores as long as two."""
    rows = []
    for repeat in range(3):
        for split, images in (("train", 200), ("val", 15), ("test", 60)):
            for workers, share in ((1, 1.0), (2, 0.52), (8, 0.5)):
                seconds = images / 20 * share * (1 + 0.01 * repeat)
                rows.append((repeat, workers, workers > 2, split, images, 64, 2.5, seconds, 150.0))
    return pd.DataFrame(rows, columns=enhance.COLUMNS)


def loading_rows() -> pd.DataFrame:
    rows = []
    for repeat in range(2):
        for way, rate in zip(WAYS, (100, 90, 95, 96, 2000), strict=True):
            for processes in (1, 2, 4) if way != "simple" else (1,):
                used_processes = min(processes, 2)
                seconds = 64 / (rate * used_processes) * (1 + 0.02 * repeat)
                rows.append(
                    (
                        repeat,
                        way,
                        processes,
                        used_processes,
                        processes > 2,
                        64,
                        0.5,
                        seconds,
                        seconds / 2,
                        2,
                    )
                )
    return pd.DataFrame(rows, columns=loading.COLUMNS)


@pytest.mark.parametrize(
    ("name", "rows"), [("enhance", enhance_rows()), ("loading", loading_rows())]
)
def test_figure_and_table_carry_the_marks(name: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    marks = Marks(synthetic=True, stand_in=False, scale="demo")
    write(tmp_path / "measured", name, rows, {"repeats": 2}, marks, WAYS)
    about = read_json(tmp_path / "measured" / f"{name}.json")
    assert about["marks"] == {"synthetic": True, "stand_in": False, "scale": "demo"}
    assert about["machine"]["cpus"] == len(cores())
    inputs = {"measured": f"{name}.csv", "about": f"{name}.json"}
    inputs = {key: str(tmp_path / "measured" / file) for key, file in inputs.items()}
    write_chapter(name, "skin", inputs | {"reported": str(ROOT / "reported.yaml")}, tmp_path)
    text = printed(tmp_path / "figures" / "skin" / f"{name}.pdf")
    assert "demo: synthetic images" in text
    assert "more processes than cores" in text
    table = pd.read_csv(tmp_path / "tables" / "skin" / f"{name}.csv")
    assert table["synthetic"].all()
    assert table["oversubscribed"].any()
    if name == "enhance":
        rows = table[table["split"] == "all"].set_index("workers")
        assert rows.loc[2, "speedup"] == pytest.approx(1.92, abs=0.005)
        assert rows.loc[1, "images_per_second"] == pytest.approx(20 / 1.01)
        assert rows.loc[8, "efficiency"] == pytest.approx(0.25, abs=0.005)
    else:
        rows = table.set_index(["way", "processes"])
        assert rows.loc[("medscale", 1), "gain"] == pytest.approx(20)
        on_two_cores = rows.loc[("medscale", 4)]
        assert on_two_cores["images_per_second"] == pytest.approx(2 * 2000 / 1.01)
        assert on_two_cores["images_per_second_core"] == pytest.approx(2000 / 1.01)
        assert "reported: 3.6" in text


LARGE = """
import json, sys
from pathlib import Path
from medscale.data.settings import Preprocess
from medscale.data.prepare import read_image
from medscale.base.memory import peak_memory_mb as peak
chunk, before = json.loads(sys.argv[2]), peak()
for image in chunk:
    read_image(sys.argv[1], tuple(image), Preprocess(size=224))
print(json.dumps([before, peak()]))
"""


def test_the_largest_photographs_are_read_in_little_memory(tmp_path: Path) -> None:
    width, height = 6748, 4499  # the largest of ISIC 2017: 91 MB as RGB
    data = image_bytes(picture(1, (width, height)), "JPEG", quality=90)
    (tmp_path / "large.jpg").write_bytes(data)
    chunk = [("large.jpg", hashlib.sha256(data).hexdigest(), width, height)] * 3
    line = [sys.executable, "-c", LARGE, str(tmp_path), json.dumps(chunk)]
    process = subprocess.run(line, capture_output=True, text=True, check=True)
    before, after = json.loads(process.stdout)
    assert after - before < 60, (
        f"{before:.0f} MB grew to {after:.0f} MB; the photograph alone has 91 MB"
    )


def snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "snakemake", "-np", "--profile", "none", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_study_with_benchmarks_plans_them(tmp_path: Path) -> None:
    exported = {"export": {"runs": ["serial_1cpu"]}, "inference": {}}
    write_json(
        tmp_path / "c.json",
        {
            "scale": "demo",
            "workdir": str(tmp_path),
            "studies": {"glaucoma": {"benchmarks": {"enhance": {}, "loading": {}, **exported}}},
        },
    )
    names = [
        "figures/glaucoma/loading.pdf",
        "tables/glaucoma/enhance.csv",
        "tables/glaucoma/inference.csv",
        "paper/paper.pdf",
    ]
    process = snakemake(*names, "--configfile", str(tmp_path / "c.json"))
    assert process.returncode == 0, process.stdout + process.stderr
    for rule in (
        "enhance",
        "loading",
        "export",
        "inference",
        "inference_report",
        "formats_report",
        "formats",
        "shards",
        "evaluate",
    ):
        assert f"rule {rule}:" in process.stdout
    message = "no chapter 'enhance'; give it a section benchmarks.enhance"
    with pytest.raises(MedscaleError, match=message):
        check_target(Graph({"scale": "demo"}).config, "figures/glaucoma/enhance.pdf")
