"""Tests of the needs of studies on a machine: sums, schedule, growth, and their page."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medscale.base.errors import MedscaleError
from medscale.base.files import write_json
from medscale.cli.main import main
from medscale.config.configuration import Config, load
from medscale.config.planning import plan
from medscale.resources import cost
from medscale.resources.growth import growth
from medscale.resources.sizing import text
from medscale.resources.workload import Machine, makespan, studies, totals, trainings

ROOT = Path(__file__).parents[2]
SCALE = ROOT / "docs" / "scale.csv"
A100, H200 = Machine("a100", 4), Machine("h200", 1)


@pytest.fixture
def full(tmp_path: Path) -> Config:
    return load(ROOT / "config.yaml", {"workdir": str(tmp_path)})


def test_a_schedule_by_hand() -> None:
    assert makespan([], 4, 8) == 0
    assert makespan([(1, 1, 10.0)] * 4, 4, 8) == 10
    assert makespan([(1, 1, 10.0)] * 5, 4, 8) == 20
    assert (
        makespan([(4, 4, 10.0), (1, 1, 6.0), (0, 8, 5.0)], 4, 8) == 21
    )  # 10, then 6, then 5 with all cores


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 8), st.floats(0.1, 100)),
        min_size=1,
        max_size=20,
    )
)
def test_a_schedule_is_between_its_bounds(jobs: list[tuple[int, int, float]]) -> None:
    seconds = makespan(jobs, 4, 8)
    longest, total = max(job[2] for job in jobs), sum(job[2] for job in jobs)
    area = max(sum(g * t for g, _, t in jobs) / 4, sum(c * t for _, c, t in jobs) / 8)
    assert max(longest, area) - 1e-6 <= seconds <= total + 1e-6


def test_sums_are_those_of_the_runs(full: Config) -> None:
    table, sums = trainings(full, A100), totals(full, A100)
    assert sums["gpu_hours"] + sums["core_hours"] == pytest.approx(table["hours"].sum())
    assert sums["replicates"] == table["replicates"].sum() >= 3 * len(table)
    added = table.loc[table["replicates"] != 3, ["study", "run", "replicates"]]
    assert set(added["study"]) == {"glaucoma"}  # seeds that the comparison of convergence adds
    assert set(added["replicates"]) == {5}
    assert sums["packed_hours"] < sums["one_at_a_time_hours"]
    assert sums["measured"] == 0
    row_index = trainings(full, H200).set_index(["study", "run"])
    assert not row_index.loc[("skin", "ddp_4gpu"), "fits"]
    assert (
        row_index.loc[("skin", "serial_1gpu"), "minutes"]
        < table.set_index(["study", "run"])["minutes"]["skin", "serial_1gpu"]
    )
    assert (
        totals(full, H200)["left_out"] == row_index.loc[row_index["gpus"] > 1, "replicates"].sum()
    )


def test_a_trained_replicate_counts_for_its_own_kind_of_gpu_alone(full: Config) -> None:
    folder = full.workdir / "runs" / "skin" / "serial_1gpu" / "seed1"
    timing = {"wall_seconds": 600.0, "images_per_second": 50.0, "restarts": 0}
    write_json(folder / "timing.json", timing | {"peak_memory_mb": {"host": [900]}})
    write_json(folder / "spec.json", plan(full, "skin", "serial_1gpu", 1).model_dump(mode="json"))
    assert full.cost.gpu == A100.gpu
    for machine, is_own in ((A100, True), (H200, False)):
        row = trainings(full, machine).set_index(["study", "run"]).loc[("skin", "serial_1gpu")]
        assert row["measured"] == is_own
        assert (row["minutes"] == (600 + full.cost.start_s) / 60) == is_own


def test_raw_images_are_counted_once(full: Config) -> None:
    table = studies(full).set_index("study")
    assert table.loc["dermatology", "raw_gb"] == table.loc["skin_random", "raw_gb"] == 0
    assert table.loc["skin", "files"] > 245_000 > table.loc["dermatology", "files"]
    # The points of a sweep are trainings of their study.
    assert set(table.index) == {name for name in full.studies if full.data_of(name) == name}


def test_growth_says_what_breaks_first(full: Config) -> None:
    many = growth(full, SCALE, 10_000_000, 64).set_index("stage")
    few = growth(full, SCALE, 100_000, 4).set_index("stage")
    assert many.index[0] == "shards on the GPU"
    assert many.loc["shards on the GPU", "reached"] > 1 > few.loc["shards on the GPU", "reached"]
    assert (
        many.loc["reading shards from storage", "reached"]
        > 1
        > few.loc["reading shards from storage", "reached"]
    )
    assert many.loc["index: near-duplicates", "source"] == "measured to 250,000 images"
    assert 5e6 < many.loc["index: listing", "breaks"] < 1e9
    assert math.isinf(many.loc["Snakemake jobs", "breaks"])
    assert many.loc["shards on the GPU", "breaks"] == pytest.approx(
        few.loc["shards on the GPU", "breaks"]
    )
    # 300 bytes of an image in each process; a node has at most four.
    for gpus, need in ((2, "6 GB"), (6, "9 GB"), (64, "12 GB")):
        table = growth(full, SCALE, 10_000_000, gpus).set_index("stage")
        assert table.loc["rows of the index in each rank", "need"] == need
    # The limit of efficiency does not depend on the number that is asked for.
    stage = "all-reduce between nodes"
    half = round(many.loc[stage, "breaks"])
    for gpus in (2, half - 1, half, 4 * half):
        table = growth(full, SCALE, 10_000_000, gpus).set_index("stage")
        row = table.loc[stage]
        efficiency = float(row["need"].rpartition(" ")[2])
        assert efficiency == 0.5 if abs(gpus - half) < 2 else (efficiency < 0.5) == (gpus > half)
        assert (row["breaks"], row["reached"]) == pytest.approx((half, gpus / half))
        assert table.loc["Snakemake jobs", "need"] == many.loc["Snakemake jobs", "need"]
    a100 = full.cost.devices["a100"].model_copy(update={"contention": 0.0})
    ideal = full.model_copy(
        update={"cost": full.cost.model_copy(update={"devices": {"a100": a100}})}
    )
    assert growth(ideal, SCALE, 10_000_000, 64).set_index("stage").loc[stage, "breaks"] == math.inf


def test_the_page_holds_the_output_of_the_command(full: Config) -> None:
    page = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
    missing = "the tables of docs/sizing.md are old: write the output of `medscale size` there"
    assert text(full, [A100, H200], SCALE, 10_000_000, 64) in page, missing


def test_the_command_prints_it_and_refuses_an_unknown_machine() -> None:
    result = CliRunner().invoke(
        main, ["size", "--only", "melanoma", "--machine", "v100:2", "--images", "1000000"]
    )
    assert result.exit_code == 0
    assert "min on 2 x v100" in result.stdout
    assert "1,000,000 images on 64 GPUs (Tesla V100 SXM2)" in result.stdout
    with pytest.raises(MedscaleError, match=r"write a kind of cost\.devices and a number"):
        Machine.parse("four a100")
    refused = CliRunner().invoke(main, ["size", "--machine", "b300:1"])
    assert isinstance(refused.exception, MedscaleError)
    assert "cost.devices has no 'b300'" in str(refused.exception)


def test_an_assumed_number_of_images_is_stated(full: Config, tmp_path: Path) -> None:
    assert "assumed" not in text(full, [A100], SCALE, 10_000_000, 64)
    source = {"kind": "folder", "path": str(tmp_path)}
    mine = {"title": "X-rays", "source": source, "classes": ["normal", "pneumonia"]}
    config = load(ROOT / "config.yaml", {"only": ["mine"], "studies": {"mine": mine}})
    page = text(config, [A100], SCALE, 10_000_000, 64)
    assert "The images of mine are not counted yet: 10,000 are assumed" in page


def test_files_of_a_folder_are_counted_before_its_index(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(b"")
    (tmp_path / "read me.txt").write_bytes(b"")
    source = {"kind": "folder", "path": str(tmp_path)}
    mine = {"title": "X-rays", "source": source, "classes": ["normal", "pneumonia"]}
    config = load(ROOT / "config.yaml", {"only": ["mine"], "studies": {"mine": mine}})
    assert sum(cost.images(config, "mine").values()) == 60
    assert not cost.is_number_assumed(config, "mine")
    assert "are assumed" not in text(config, [A100], SCALE, 10_000_000, 64)
