"""The benchmark of number formats: trainings in turns, gains over fp32 and tf32, its pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from figure_texts import printed
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.config.benchmarks import Formats
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.shards import Shards
from medscale.engine.formats import in_format
from medscale.engine.plan import RunPlan
from medscale.measure import formats
from medscale.measure.formats import measure_formats
from medscale.measure.record import Marks, write
from medscale.measure.scaling.benchmarks import by_number_format
from medscale.report.writer import write_chapter
from medscale.resources.cost import estimate
from medscale.resources.jobs import request
from medscale.workflow.graph import Graph
from medscale.workflow.why import job_cost
from training_runs import ROOT, TINY, Training, fork_ranks


def test_each_format_is_trained_in_turns_and_a_restart_trains_none_again(training: Training):
    spec, shards, _, log = training.paths("serial_1gpu")
    run = RunPlan.model_validate(read_json(Path(spec)))
    trained = []

    def train(replicate: RunPlan, folder: Path) -> None:
        trained.append((replicate.run.name, replicate.recipe.half, replicate.seed))
        fork_ranks([str(folder / "spec.json"), shards, str(folder), log], 1)

    work, settings = training.folder / "work", Formats(run="serial_1gpu", epochs=1)
    digest = Shards.open(shards).meta["digest"]
    rows, missing = measure_formats(run, [1, 2], settings, digest, work, train)
    fp32, bf16 = ("serial_1gpu", "auto"), ("serial_amp_1gpu", "bf16")
    assert trained == [(*fp32, 1), (*bf16, 1), (*bf16, 2), (*fp32, 2)]
    assert missing.keys() == {"tf32", "fp16"}
    assert "TF32 is a format of GPUs" in missing["tf32"]
    assert rows.columns.tolist() == formats.COLUMNS
    assert rows["format"].tolist() == ["fp32", "bf16", "bf16", "fp32"]
    assert (rows["epochs"] == 1).all()
    assert rows["accuracy"].between(0, 1).all()
    repeated_rows, _ = measure_formats(run, [1, 2], settings, digest, work, train)
    assert len(trained) == 4
    pd.testing.assert_frame_equal(repeated_rows, rows)
    timing = work / "bf16" / "seed1" / "timing.json"
    write_json(timing, read_json(timing) | {"hardware": "another"})
    with pytest.raises(MedscaleError, match=r"measured on .* and on another, so that .* delete"):
        measure_formats(run, [1, 2], settings, digest, work, train)
    assert len(trained) == 4
    record = work / "bf16" / "seed1" / "environment.json"
    write_json(record, read_json(record) | {"code": "of another version"})
    again, _ = measure_formats(run, [1, 2], settings, digest, work, train)
    assert trained[4:] == [(*bf16, 1)]
    assert again["hardware"].nunique() == 1
    checkpoint = work / "fp32" / "seed1" / "checkpoints" / "step-000000001"
    checkpoint.mkdir()

    def interrupted(*_: object) -> None:
        raise MedscaleError("stopped")

    other = "0" * 64  # other images: replicates of both sets are not mixed
    for _ in range(2):  # a training that was stopped is not finished, and keeps its checkpoint
        with pytest.raises(MedscaleError, match="stopped"):
            measure_formats(run, [1], settings, other, work, interrupted)
    assert checkpoint.is_dir()


def made_rows() -> pd.DataFrame:
    """Return images/s as the formats have them on an H200: 1832, 4711, 5823."""
    rows = []
    for seed in (1, 2):
        for name, rate, accuracy in (
            ("fp32", 1832, 0.80),
            ("tf32", 4711, 0.81),
            ("bf16", 5823, 0.79),
        ):
            about = ("serial_1gpu", name, seed, 1, 32, 20, 8000, 8000 / rate)
            row = (*about, "NVIDIA H200", 60.0, 900.0, 5000.0, accuracy, accuracy, 0.9)
            rows.append(row)
    return pd.DataFrame(rows, columns=formats.COLUMNS)


def test_a_gain_is_given_over_fp32_and_over_tf32():
    table = by_number_format(made_rows()).set_index("format")
    assert table.loc["bf16", "over_fp32"] == pytest.approx(5823 / 1832)
    assert table.loc["bf16", "over_tf32"] == pytest.approx(5823 / 4711)
    assert table.loc["tf32", "over_tf32"] == 1
    assert table.loc["bf16", "millijoules"] == pytest.approx(1000 * 5000 / (8000 * 20))
    alone = by_number_format(made_rows().query("format != 'tf32'")).set_index("format")
    assert np.isnan(alone.loc["bf16", "over_tf32"])


def test_the_pages_name_all_formats_and_those_that_the_device_lacks(tmp_path: Path):
    marks = Marks(synthetic=False, stand_in=False, scale="full")
    missing = {"fp16": "the card has none"}
    write(tmp_path / "measured", "formats", made_rows(), {}, marks, formats.WAYS, missing)
    inputs = {"measured": "formats.csv", "about": "formats.json"}
    inputs = {key: str(tmp_path / "measured" / file) for key, file in inputs.items()}
    write_chapter(
        "formats", "glaucoma", inputs | {"reported": str(ROOT / "reported.yaml")}, tmp_path
    )
    table = (tmp_path / "tables" / "glaucoma" / "formats.tex").read_text()
    assert "not measured: the card has none" in table
    text = printed(tmp_path / "figures" / "glaucoma" / "formats.pdf")
    assert all(name in text for name in ("fp32", "tf32", "bf16", "speed over fp32"))


def test_the_run_is_a_classification_without_amp_and_its_job_has_time_for_all():
    study = {"benchmarks": {"formats": {"run": "serial_amp_1gpu"}}}
    with pytest.raises(
        MedscaleError, match=r"formats.run: serial_amp_1gpu is not a classification"
    ):
        load(ROOT / "config.yaml", {"studies": {"glaucoma": study}})
    config = load(ROOT / "config.yaml")
    needs = request(config, "formats", {"study": "glaucoma"})
    assert needs.gpus == 1
    run = plan(config, "glaucoma", "serial_1gpu", 1)
    each = [estimate(config, in_format(run, name, None, 1)) for name in formats.WAYS]
    minutes = [of_format.minutes for of_format in each]
    assert len(set(minutes)) == 3  # bf16 and fp16 are equally fast
    assert needs.minutes == pytest.approx(3 * sum(minutes))
    card = config.cost.devices[config.cost.gpu]
    hours = needs.minutes / 60
    expected = (needs.minutes, hours, hours * card.price)  # of the GPU, not of CPU cores
    assert job_cost(Graph({}), "formats", (("study", "glaucoma"),), 1) == pytest.approx(expected)
    few = load(
        ROOT / "config.yaml",
        {"studies": {"glaucoma": {"benchmarks": {"formats": {"epochs": 1}}}}},
    )
    assert request(few, "formats", {"study": "glaucoma"}).minutes < needs.minutes / 2


def test_the_format_is_a_setting_of_the_plan():
    config = load(ROOT / "config.yaml", {"studies": {"glaucoma": TINY}})
    run = plan(config, "glaucoma", "serial_1gpu", 1)
    plans = {name: in_format(run, name, None, 3) for name in formats.WAYS}
    chosen = {n: (p.run.amp, p.recipe.tf32, p.recipe.half, p.seed) for n, p in plans.items()}
    assert chosen == {
        "fp32": (False, False, "auto", 3),
        "tf32": (False, True, "auto", 3),
        "bf16": (True, False, "bf16", 3),
        "fp16": (True, False, "fp16", 3),
    }
