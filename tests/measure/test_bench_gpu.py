"""`make bench-gpu` without a GPU: plans, table, page, and the cost model that reads the table."""

from __future__ import annotations

import subprocess
from functools import partial
from itertools import cycle, product
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench import gpu, gpu_goals
from bench.gpu_loops import WAYS
from bench.gpu_page import page
from medscale.base.errors import MedscaleError
from medscale.base.files import write_json
from medscale.config.benchmarks import Profile
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine import card_rates, compiling
from medscale.engine.card_rates import COLUMNS, SOURCE
from medscale.resources import compute, cost
from training_runs import ROOT

# Seen on one H200 on 2026-11-26 with the engine as it was then and a plain timm loop (images/s).
SEEN = (
    ("medical_cnn", 32, "bf16", "engine", 1136),
    ("medical_cnn", 32, "bf16", "nhwc", 1547),
    ("medical_cnn", 32, "bf16", "graph", 5778),
    ("medical_cnn", 32, "bf16", "compiled_graph", 8182),
    ("medical_cnn", 32, "tf32", "graph", 4711),
    ("medical_cnn", 32, "fp32", "graph", 1832),
    ("efficientnet_b3", 64, "bf16", "engine", 1012),
    ("efficientnet_b3", 64, "tf32", "engine", 1199),
    ("efficientnet_b3", 256, "bf16", "graph", 2806),
)


def rows(card: str = "NVIDIA H200", source: str = SOURCE) -> pd.DataFrame:
    about = {"card": card, "torch": "2.11.0", "cuda": "13.0", "date": "2026-11-26", "size": 224}
    names = ("network", "batch", "format", "way", "images_per_second")
    table = pd.DataFrame([about | dict(zip(names, row, strict=True)) for row in SEEN])
    table["low"] = table["high"] = table["images_per_second"]
    return table.assign(rounds=1, source=source).reindex(columns=list(COLUMNS))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    gpu.save(rows(), tmp_path / "gpu.csv")
    return tmp_path / "gpu.csv"


def test_new_rows_replace_those_of_the_same_cell_and_keep_the_others(table: Path):
    new = rows().query("network == 'medical_cnn' and way == 'engine'")
    gpu.save(new.assign(images_per_second=5600.0), table)
    gpu.save(rows("NVIDIA H100 80GB HBM3"), table)
    table_after = pd.read_csv(table)
    assert len(table_after) == 2 * len(SEEN)
    engine = table_after.query("network == 'medical_cnn' and way == 'engine'")
    assert engine["images_per_second"].tolist() == [1136, 5600]
    assert engine["card"].tolist() == ["NVIDIA H100 80GB HBM3", "NVIDIA H200"]


def test_the_page_says_where_rates_are_from_and_what_was_not_measured(table: Path):
    failed = rows().tail(1).assign(way="lightning", images_per_second=None, rounds=0, note="absent")
    gpu.save(failed, table)
    text = page(pd.read_csv(table), gpu.TITLES)
    assert "## NVIDIA H200" in text
    assert "PyTorch 2.11.0, CUDA 13.0; 2026-11-26; make bench-gpu" in text
    assert "| 32 | bf16 | engine | 1,136 | 0.20 |" in text  # of the plain loop's graph
    assert "| 32 | fp32 | plain loop, whole step as a CUDA graph | 1,832 | 1.00 |" in text
    assert "| Lightning | – (absent) |" in text
    assert "No card has been measured" in page(pd.DataFrame(columns=list(COLUMNS)), gpu.TITLES)


def test_a_row_is_the_median_of_its_rounds_or_says_why_there_is_none():
    rounds = [{"images_per_second": rate, "gap": 0.1} for rate in (90.0, 100.0, 130.0)]
    row = gpu.summary([*rounds, {"note": "not finished within 420 s"}], 50, 0.25)
    assert (row["images_per_second"], row["low"], row["high"], row["rounds"]) == (100, 90, 130, 3)
    assert row["roofline"] == pytest.approx(0.25 / 0.5)
    assert row["note"] == "not finished within 420 s"
    assert gpu.summary([{"note": "no fp16"}], 50, None) == {"rounds": 0, "note": "no fp16"}


def test_every_cell_of_the_engine_has_a_plan_or_says_why_not():
    formats = cycle(("fp32", "tf32", "bf16", "fp16"))
    for (network, (study, size, _)), way in product(gpu.NETWORKS.items(), gpu.ENGINE):
        name = next(formats)
        if network == "yolov8n" and way in ("engine_compiled", "engine_fsdp"):
            with pytest.raises(MedscaleError, match="detection"):
                gpu.planned(study, network, 64, name, way)
            continue
        run_plan = gpu.planned(study, network, 64, name, way)
        assert (run_plan.model.name, run_plan.global_batch, run_plan.backend) == (
            network,
            64,
            "cuda",
        )
        assert run_plan.run.amp == (name in ("bf16", "fp16"))
        assert run_plan.recipe.tf32 == (name == "tf32")
        assert run_plan.recipe.epochs == gpu.EPOCHS
        assert run_plan.model.pretrained is None
        assert compute.pixels(load(ROOT / "config.yaml"), run_plan) == size
    assert set(gpu.TITLES) == {*gpu.ENGINE, *WAYS}


def test_gaps_of_the_engine_are_those_of_its_profile_once_a_cell(tmp_path, monkeypatch):
    (tmp_path / "spec.json").write_text("{}")
    lines = []

    def run(line):
        lines.append(line)
        options = dict(zip(line[2::2], line[3::2], strict=True))
        script = (ROOT / line[1]).read_text()
        for name in options:
            assert f"    {name.removeprefix('--')}: " in script or f'"{name}")' in script, name
        Profile.model_validate_json(options["--settings"])
        if "broken" in options["--out"]:
            return subprocess.CompletedProcess(line, 2, "", "first\nthe shards are gone")
        shares = {"idle": 0.25, "data": 0.01}
        write_json(Path(options["--out"]) / "profile.json", {"numbers": shares})
        return subprocess.CompletedProcess(line, 0, "", "")

    monkeypatch.setattr(gpu, "_run", run)
    arguments = (tmp_path / "spec.json", tmp_path / "shards")
    assert gpu._gap(*arguments, tmp_path / "profile") == {"gap": 0.26}
    assert gpu._gap(*arguments, tmp_path / "profile") == {}
    assert len(lines) == 1
    assert gpu._gap(*arguments, tmp_path / "broken") == {"note": "gaps: the shards are gone"}


def test_the_table_is_written_after_each_measurement(tmp_path, monkeypatch):
    table, page_file = tmp_path / "gpu.csv", tmp_path / "gpu.md"
    rates = iter([100.0, 50.0, 60.0])

    def turn(network, batch, name, ways, folder, gaps):
        assert not gaps
        for way in ways:  # the card is taken away in the second round
            yield way, {"way": way, "images_per_second": next(rates)}

    for name, value in {"_no_card": lambda: None, "card": lambda: {"card": "H200"}}.items():
        monkeypatch.setattr(gpu, name, value)
    for name in ("_loops", "_engines"):
        monkeypatch.setattr(gpu, name, turn)
    monkeypatch.setattr(gpu, "save", partial(gpu.save, table=table))
    read = gpu._read
    monkeypatch.setattr(gpu, "_read", lambda *_: read(table))
    monkeypatch.setattr(gpu, "PAGE", page_file)
    with pytest.raises(RuntimeError, match="StopIteration"):
        gpu.main(["medical_cnn"], [32], ["bf16"], ["engine", "graph"], 2, False, False)
    measurements = pd.read_csv(table).set_index("way")
    assert measurements["images_per_second"].to_dict() == {"graph": 100, "engine": 55}
    assert measurements["rounds"].to_dict() == {"graph": 1, "engine": 2}
    assert "| 55 (50 to 60) |" in page_file.read_text()


def test_loops_that_were_measured_before_a_time_limit_are_kept(monkeypatch):
    def late(line):
        raise subprocess.TimeoutExpired(line, 420, output=b'{"way": "nhwc", "gap": 0.1}\n')

    monkeypatch.setattr(gpu, "_run", late)
    row_of = dict(gpu._loops("medical_cnn", 32, "bf16", ["nhwc", "compiled"], Path(), False))
    assert row_of["nhwc"] == {"way": "nhwc", "gap": 0.1}
    assert row_of["compiled"]["note"] == "not finished within 420 s"


def test_goals_are_met_missed_or_not_measured(table: Path, tmp_path: Path):
    new = rows().iloc[:2].assign(images_per_second=[5600.0, 5000.0], data=[0.02, None])
    new["way"] = ["engine", "engine_fsdp"]
    ddp = new.tail(1).assign(way="engine_ddp", images_per_second=5500.0)
    gpu.save(pd.concat([new, ddp]), table)
    printed = {"card": ['{"card": "NVIDIA H200"}'], "published": ['{"wall_s": 41.2}', "bye"]}
    results = [
        {"step": step, "status": "done", "seconds": 9.5, "output": output}
        for step, output in printed.items()
    ]
    write_json(tmp_path / "session.json", [*results, {"step": "late", "status": "no time left"}])
    text = gpu_goals.text(*gpu_goals.collect([tmp_path]))
    for line in (
        "## NVIDIA H200, rates of 2026-11-26",
        "| medical_cnn, 32 a step: images/s | ≥ 5,500 | 5,600 | met |",
        "| medical_cnn, 32 a step: of the plain loop's graph | ≥ 0.95 | 0.97 | met |",
        "| efficientnet_b3, 64 a step: images/s | ≥ 2,200 | 1,012 | missed |",
        "| resnet50, 256 a step: images/s | ≥ 4,600 |  | not measured |",
        "| FSDP of DDP, medical_cnn, 32 a step, bf16 | ≥ 0.90 | 0.91 | met |",
        "| AMP of tf32, efficientnet_b3, 64 a step, engine | ≥ 1.00 | 0.84 | missed |",
        "| waiting for batches, largest share of all runs of the engine | ≤ 1.0% | 2.0% | missed |",
        "| glaucoma as published, from command to predictions: seconds | ≤ 45 | 41 | met |",
        "| published | done | 9.5 |",
    ):
        assert line in text, line
    assert "late" not in text
    failed = {"step": "published", "status": "status 2", "seconds": 9.5, "output": ["{not JSON"]}
    write_json(tmp_path / "failed" / "session.json", [failed])
    assert "| published | status 2 |" in gpu_goals.text(*gpu_goals.collect([tmp_path / "failed"]))
    gpu.save(rows("NVIDIA H100 80GB HBM3"), table)
    text = gpu_goals.text(*gpu_goals.collect([tmp_path]))
    assert "| medical_cnn, 32 a step: images/s | ≥ 4,125 | 1,136 | missed |" in text
    assert text.count("| 41 | met |") == 1, "the published run was on the other card"
    gpu.save(rows(source="plain loops by hand"), table)
    assert "no rates" not in gpu_goals.text(*gpu_goals.collect([tmp_path]))
    table.unlink()
    gpu.save(rows(source="plain loops by hand"), table)
    assert "no rates" in gpu_goals.text(*gpu_goals.collect([tmp_path])), "of no session"
    with pytest.raises(MedscaleError, match=r"has no session.json"):
        gpu_goals.collect([tmp_path / "none"])


def test_waiting_for_batches_is_measured_after_the_first_epoch():
    history = pd.DataFrame({"seconds": [3.0, 1.0, 1.0], "data_s": [2.0, 0.01, 0.03]})
    assert gpu.waiting(history) == pytest.approx(0.02)
    assert gpu.waiting(history.head(1)) == pytest.approx(2 / 3)


@pytest.fixture
def measured(table: Path, monkeypatch) -> Path:
    """Return the path of a table that the cost model reads in place of docs/gpu.csv."""
    monkeypatch.setattr(card_rates, "TABLE", table)
    card_rates._rates.cache_clear()
    return table


def test_the_cost_model_takes_the_rate_of_a_card_that_was_measured(measured: Path):
    config = load(ROOT / "config.yaml", {"cost": {"gpu": "h200"}})
    run_plan = plan(config, "skin", "serial_amp_1gpu", 1)
    assert cost.images_per_second(config, run_plan) == pytest.approx(1012)
    assert cost.images_per_second(config, plan(config, "skin", "serial_1gpu", 1)) == pytest.approx(
        1199
    ), "the study asks for tf32"
    assert "as measured (docs/gpu.csv)" in cost.estimate(config, run_plan).note
    fp32 = run_plan.model_copy(update={"run": run_plan.run.model_copy(update={"amp": False})})
    fp32 = fp32.model_copy(update={"recipe": fp32.recipe.model_copy(update={"tf32": False})})
    assert "as measured" not in cost.estimate(config, fp32).note, "fp32 was not measured"
    a100 = load(ROOT / "config.yaml")
    assert "as measured" not in cost.estimate(a100, run_plan).note


def test_the_number_format_of_a_run_is_what_its_card_has():
    full = load(ROOT / "config.yaml")
    for gpu_kind, run, recipe, expected in (
        ("a100", "serial_1gpu", {"tf32": True}, "tf32"),
        ("a100", "serial_1gpu", {"tf32": False}, "fp32"),
        ("v100", "serial_1gpu", {"tf32": True}, "fp32"),
        ("a100", "serial_amp_1gpu", {}, "bf16"),
        ("v100", "serial_amp_1gpu", {}, "fp16"),
        ("v100", "serial_amp_1cpu", {}, "bf16"),
        ("a100", "serial_amp_1gpu", {"half": "fp16"}, "fp16"),
        ("v100", "serial_amp_1gpu", {"half": "bf16"}, "bf16"),
    ):
        config = full.model_copy(update={"cost": full.cost.model_copy(update={"gpu": gpu_kind})})
        run_plan = plan(config, "glaucoma", run, 1)
        run_plan = run_plan.model_copy(update={"recipe": run_plan.recipe.model_copy(update=recipe)})
        assert compute.number_format(config, run_plan) == expected, (gpu_kind, run, recipe)


def test_rates_are_not_those_of_a_network_of_another_width(measured: Path):
    config = load(ROOT / "config.yaml", {"cost": {"gpu": "h200"}})
    usual = plan(config, "glaucoma", "serial_amp_1gpu", 1)
    for options, is_measured in (({"dropout": 0.1}, True), ({"width": 16}, False)):
        model = usual.model.model_copy(update={"options": options})
        changed = usual.model_copy(update={"model": model})
        assert (compute.measured_rate(config, changed) is not None) == is_measured
        reason = compiling.pays(changed, 10**6, 224, "NVIDIA H200", "bf16")[1]
        assert ("without model.options" in reason) != is_measured


def test_rates_are_those_of_the_images_that_a_device_computes_together(measured: Path):
    row, config = rows().iloc[:1], load(ROOT / "config.yaml", {"cost": {"gpu": "h200"}})
    cells = [row.assign(batch=batch, images_per_second=10.0 * batch) for batch in (32, 256)]
    gpu.save(pd.concat(cells), measured)
    card_rates._rates.cache_clear()
    usual = plan(config, "glaucoma", "serial_amp_1gpu", 1)
    for accumulate, rate in ((1, 2560), (8, 320)):
        settings = {"batch_size": 256, "accumulate": accumulate}
        changed = usual.model_copy(update={"recipe": usual.recipe.model_copy(update=settings)})
        assert compute.measured_rate(config, changed).images_per_second == rate


def test_the_cost_model_takes_shares_of_a_card_that_was_measured(measured: Path):
    config = load(ROOT / "config.yaml", {"cost": {"gpu": "h200"}})
    resnet = plan(config, "melanoma_all", "serial_amp_1gpu", 1)
    # Measured in bf16 are medical_cnn and B3; ResNet-50 gets the median of their shares.
    shares = [
        3 * (net.gflops / 989e3 + 2 * 2 * net.activations_m / 4800e3) * rate / net.share
        for net, rate in (
            (config.cost.networks["medical_cnn"], 1136),
            (config.cost.networks["efficientnet_b3"], 1012),
        )
    ]
    assert compute.device_share(config, resnet) == pytest.approx(sum(shares) / 2)
    a100 = load(ROOT / "config.yaml")
    assert compute.device_share(a100, resnet) == a100.cost.devices["a100"].share
    ddp = plan(config, "glaucoma", "ddp_amp_4gpu", 1)
    assert compute.strategy_share(config, ddp) == config.cost.strategies["ddp"].share
    row = rows().iloc[:1].assign(way="engine_ddp", images_per_second=1009.0)
    gpu.save(row, measured)
    card_rates._rates.cache_clear()
    assert compute.strategy_share(config, ddp) == pytest.approx(1009 / 1136)
    one = plan(config, "glaucoma", "ddp_amp_1gpu", 1)
    assert cost.images_per_second(config, one) == pytest.approx(1009), "on one card, too"


def test_compilation_is_decided_by_the_engines_figures_of_the_card(measured: Path):
    def figures() -> card_rates.Compilation:
        card_rates._rates.cache_clear()
        return card_rates.compilation("NVIDIA L4", "medical_cnn", "bf16", 32)

    assert figures() is None, "no row says how long compiling takes"
    loops = rows().query("network == 'medical_cnn' and format == 'bf16' and way != 'engine'")
    gpu.save(loops.assign(setup_s=loops["way"].map({"graph": 4, "compiled_graph": 48})), measured)
    assert figures()[:2] == ("NVIDIA H200", "graph"), "another card's plain loop"
    assert figures().seconds == 44
    ours = rows("NVIDIA L4").iloc[[0, 0]].assign(way=["engine", "engine_compiled"])
    gpu.save(ours.assign(images_per_second=[500, 700], setup_s=[10, 90]), measured)
    assert figures()[:2] == ("NVIDIA L4", "engine")
    assert figures().seconds == 80


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_card_one_sentence_is_reported_and_nothing_is_written():
    before = {file: file.read_bytes() for file in (ROOT / "docs").glob("gpu.*")}
    process = subprocess.run(["make", "-s", "bench-gpu"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "bench-gpu: nothing is measured, as this machine has no NVIDIA GPU\n"
    assert {file: file.read_bytes() for file in (ROOT / "docs").glob("gpu.*")} == before
