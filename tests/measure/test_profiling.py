"""Memory, work, ceilings and bottlenecks of profiles, made ones and real tiny ones."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.cli import main as cli
from medscale.cli import options
from medscale.config.benchmarks import Profile
from medscale.config.configuration import load
from medscale.config.layers import merge
from medscale.config.planning import plan
from medscale.measure.profiling import bottleneck, ceilings
from medscale.measure.profiling.bottleneck import Numbers
from medscale.measure.profiling.timeline import analyse
from medscale.measure.profiling.trace import events
from medscale.measure.profiling.work import Work, count_work
from medscale.report import style
from medscale.report.chapters import chapters_of
from medscale.report.marks import mark
from medscale.report.profiling.chapter import CHAPTER
from medscale.report.profiling.figures import cover
from medscale.report.profiling.make import limit
from medscale.report.profiling.reading import Profiled, by_name, short
from medscale.report.writer import write_chapter
from medscale.workflow.targets import check_target
from synthetic_profiles import allocation, event, make_profile, trace_text
from training_runs import TINY, Training


@pytest.mark.parametrize("count", [1, 2, 999, 2001, 5000])
def test_the_course_of_memory_keeps_its_extremes(count: int) -> None:
    sizes = np.random.default_rng(0).integers(0, 10**6, count)
    trace_events = [allocation(i * 90 / count, 1, int(size)) for i, size in enumerate(sizes)]
    line = analyse(
        events(trace_text(event("user_annotation", "ProfilerStep#1", 0, 100), *trace_events))
    )
    assert len(line.memory) <= 1002
    assert line.memory["bytes"].max() == sizes.max()
    assert line.memory["bytes"].min() == sizes.min()
    assert line.memory["seconds"].is_monotonic_increasing


def test_work_is_that_counted_by_hand() -> None:
    layer, images = nn.Conv2d(3, 8, 3, bias=False), torch.randn(2, 3, 10, 10)
    work = Work()
    with count_work(work):
        layer(images).view(-1).expand(5, -1).relu()
    forward = 2 * 2 * 8 * 8 * 8 * 3 * 3 * 3
    assert work.flops == {"convolution": forward}
    results = 4 * 2 * 8 * 8 * 8
    assert work.bytes["convolution"] == 4 * (images.numel() + layer.weight.numel()) + results
    assert (
        work.bytes["element-wise"] == (1 + 5) * results
    )  # what is expanded has the size of what it expands
    assert set(work.bytes) == {"convolution", "element-wise"}  # views and allocations are free
    with count_work(work):
        layer(images.requires_grad_()).sum().backward()
    assert work.flops == {"convolution": 3 * forward}


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_work_of_grouped_convolutions_is_that_counted_by_hand(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], groups: int
) -> None:
    layer = kind(8, 16, 3, stride=2, groups=groups)
    images, work = torch.randn(2, 8, 11, 11), Work()
    side = 5 if kind is nn.Conv2d else 11  # a 3x3 kernel is placed at 5 x 5 or 11 x 11 positions
    forward = 2 * 2 * side**2 * 8 * 16 // groups * 3 * 3
    with count_work(work):
        layer(images).sum().backward()
    assert work.flops == {"convolution": 2 * forward}, "images have no gradient"
    with count_work(work):
        layer(images.requires_grad_()).sum().backward()
    assert work.flops == {"convolution": 3 * forward}


BASE = Numbers(
    data=0.1,
    communication=0.1,
    optimizer=0.1,
    idle=0.1,
    imbalance=0.0,
    slowdown=0.1,
    flops=5e9,
    bytes=5e8,
    seconds=0.1,
    ceiling_flops=1e11,
    ceiling_bytes=2e10,
    largest="convolution",
    largest_share=0.6,
    cuda=False,
)


@pytest.mark.parametrize(
    ("changes", "below", "above"),
    [
        ({"data": 0.2}, "arithmetic", "data"),
        ({"communication": 0.2}, "arithmetic", "communication"),
        ({"communication": 0.5, "imbalance": 0.2}, "communication", "imbalance"),
        ({"optimizer": 0.25}, "arithmetic", "optimizer"),
        ({"idle": 0.3}, "arithmetic", "host"),
        ({"bytes": 1e9}, "arithmetic", "bandwidth"),
        ({"seconds": 5 / 30}, "arithmetic", "operators"),
        ({"bytes": 1.5e9, "seconds": 0.25}, "bandwidth", "operators"),
    ],
)
def test_each_rule_decides_from_its_boundary_on(
    changes: dict[str, float], below: str, above: str
) -> None:
    assert bottleneck.rule(replace(BASE, **changes)) == below
    last = list(changes)[-1]
    beyond = replace(BASE, **changes | {last: changes[last] * (1 + 1e-9)})
    assert bottleneck.rule(beyond) == above
    assert bottleneck.sentence(beyond)


def test_rules_go_in_order_and_sentences_have_the_numbers() -> None:
    full_profile = replace(
        BASE, data=0.21, communication=0.4, optimizer=0.3, idle=0.35, imbalance=0.5
    )
    full_profile = replace(full_profile, bytes=4e9, seconds=0.9)
    order = []
    for name, value in (
        ("data", 0),
        ("imbalance", 0),
        ("communication", 0),
        ("optimizer", 0),
        ("idle", 0),
        ("seconds", 0.15),
        ("bytes", 1),
    ):
        order.append(bottleneck.rule(full_profile))
        full_profile = replace(full_profile, **{name: value})
    assert order == [
        "data",
        "imbalance",
        "communication",
        "optimizer",
        "host",
        "operators",
        "bandwidth",
    ]
    assert bottleneck.rule(full_profile) == "arithmetic"
    assert "21 %" in bottleneck.sentence(replace(BASE, data=0.21))
    assert "10.0 FLOPs a byte" in bottleneck.sentence(BASE)
    assert "attains 50 %" in bottleneck.sentence(BASE)
    assert "Python" in bottleneck.sentence(replace(BASE, idle=0.5))
    assert "uncertain" not in bottleneck.sentence(replace(BASE, slowdown=0.5))
    assert "traced steps took 51 % longer" in bottleneck.sentence(replace(BASE, slowdown=0.51))
    assert "CUDA graphs" in bottleneck.sentence(replace(BASE, idle=0.5, cuda=True))


def test_arithmetic_bounds_only_the_operators_that_compute() -> None:
    kinds = pd.DataFrame(
        {"rank": 0, "kind": ["convolution", "matmul", "data"], "share": [0.4, 0.07, 0.1]}
    )
    profile = Profiled("serial_1cpu", {"numbers": asdict(BASE)}, kinds, kinds, kinds, kinds)
    assert limit(profile).startswith(
        "arithmetic bounds its convolutions and products (47 % of the traced step): with 10.0 "
        "FLOPs a byte the step is beyond the ridge"
    )
    waiting = replace(profile, about={"numbers": asdict(replace(BASE, data=0.5))})
    assert limit(waiting) == "the step waits for data for 50 % of the time"


def test_a_logarithmic_axis_has_labelled_values_on_both_sides_of_its_points() -> None:
    axes = style.new(2).subplots()
    axes.plot([1, 2], [29.5, 500])
    axes.set(yscale="log")
    cover(axes)
    assert axes.get_ylim() == pytest.approx((20, 500))


def test_ceilings_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "SIDES", {"cpu": (128, 256)})
    monkeypatch.setattr(ceilings, "ELEMENTS", {"cpu": 2**20})
    monkeypatch.setattr(ceilings, "SECONDS", 0.02)
    peak = ceilings.measure(torch.device("cpu"), "fp32")
    assert 1e8 < peak["flops"] < 1e14
    assert 1e8 < peak["bytes"] < 1e13


def profile_run(training: Training, run: str, **settings: Any) -> Path:
    """Profile a run of the tiny network as the rule does, and return its folder."""
    study = merge(TINY, {"recipe": {"batch_size": 12}})
    config = load(ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": study}})
    run_plan, out = plan(config, "glaucoma", run, 1), training.folder / "profiled" / run
    arguments = [
        "--plan",
        run_plan.model_dump_json(),
        "--settings",
        Profile(warmup=2, steps=5, **settings).model_dump_json(),
    ]
    arguments += [
        "--shards",
        str(training.shards),
        "--out",
        str(out),
        "--log",
        str(training.folder / f"{run}.log"),
    ]
    process = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "profile_run.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return out


def test_a_real_profile_of_one_and_two_ranks_to_figures_tables_and_facts(
    training: Training,
) -> None:
    folders = [profile_run(training, "serial_1cpu"), profile_run(training, "ddp_amp_2gpu")]
    for folder, ranks in zip(folders, (1, 2), strict=True):
        about = read_json(folder / "profile.json")
        assert not (folder / "checkpoints").exists()
        assert not (folder / "history.csv").exists()
        assert len(about["ranks"]) == ranks
        assert about["marks"]["stand_in"] == (ranks == 2)
        kinds = pd.read_parquet(folder / "kinds.parquet")
        assert kinds.groupby("rank")["share"].sum().tolist() == pytest.approx([1] * ranks)
        shares = kinds.groupby("kind")["share"].min()
        assert shares["convolution"] > 0
        assert shares["data"] > 0
        for rank in range(ranks):
            with gzip.open(folder / f"trace-rank{rank}.json.gz", "rt") as file:
                steps = events(file.read())["name"].str.startswith("ProfilerStep#")
            assert steps.sum() == 5  # three steps an epoch: it went beyond one
            assert about["ranks"][rank]["work"]["flops"]["convolution"] > 0
            communicated = about["ranks"][rank]["work"]["communicated"]
            assert (
                communicated > 1000 if ranks == 2 else communicated == 3 * 8
            )  # gradients; the guard's flags alone
        assert pd.read_parquet(folder / "memory.parquet")["bytes"].max() > 0
    assert {read_json(folder / "profile.json")["format"] for folder in folders} == {"fp32", "bf16"}

    def write() -> None:
        write_chapter(
            "profiling", "glaucoma", {"folders": list(map(str, folders))}, training.folder
        )

    write()
    figures, tables = (training.folder / kind / "glaucoma" for kind in ("figures", "tables"))
    for name in CHAPTER.figures:
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert r"\bottomrule" in (tables / f"{name}.tex").read_text()
        assert len(pd.read_csv(tables / f"{name}.csv")) > 0
    facts = read_json(tables / "profile.json")
    assert {marks["scale"] for marks in facts["marks"]} == {"demo"}
    assert all(run["seconds"] > 0 and run["bottleneck"] for run in facts["runs"])
    (folders[0] / "kinds.parquet").unlink()
    with pytest.raises(MedscaleError, match="kinds"):
        write()


def test_a_name_of_two_kinds_has_the_rarer_one_beside_it() -> None:
    names = ["aten::copy_", "torch::distributed::reducer::copy_", "aten::copy_"]
    kinds = ["memory", "other", "optimizer"]
    operators = pd.DataFrame(
        {"name": names, "kind": kinds, "calls": [10, 5, 5], "seconds": [0.1, 0.01, 0.02]}
    )
    about = {"ranks": [{}], "settings": {"steps": 5}}
    table = by_name(
        [Profiled("ddp_2gpu", about, operators, operators, operators, operators)], "operators", 8
    )
    assert table["name"].tolist() == ["copy_", "copy_ (optimizer)", "copy_ (other)"]
    assert table["calls"].tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    "runs", [["serial_1cpu", "ddp_2cpu", "serial_1gpu", "ddp_amp_2gpu"], ["serial_1gpu"]]
)
def test_processors_and_gpus_stand_in_the_same_figures(runs: list[str], tmp_path: Path) -> None:
    config = load(ROOT / "config.yaml", {"studies": {"glaucoma": {"profile": {"runs": runs}}}})
    folders = [make_profile(tmp_path, config, "glaucoma", run) for run in runs]
    write_chapter("profiling", "glaucoma", {"folders": list(map(str, folders))}, tmp_path)
    tables = tmp_path / "tables" / "glaucoma"
    facts = read_json(tables / "profile.json")
    assert mark(facts["marks"]) == ""
    operators = pd.read_csv(tables / "operators.csv")["name"]
    assert facts["has_kinds_in_brackets"] == operators.str.contains("(", regex=False).any()
    gpu = next(run for run in facts["runs"] if run["label"] == "serial, 1 GPU")
    assert gpu["images_per_second"] == pytest.approx(32 / 90e-6)
    shares = pd.read_csv(tables / "profile.csv").set_index(["run", "kind"])["share"]
    assert shares["serial_1gpu", "convolution"] == pytest.approx(0.15, abs=0.005)
    table = pd.read_csv(tables / "operators.csv")
    kernels = table[(table["what"] == "kernels") & (table["run"] == "serial_1gpu")].set_index(
        "name"
    )
    assert kernels.loc["ncclDevKernel_AllReduce", "microseconds"] == pytest.approx(25)
    roofline = pd.read_csv(tables / "roofline.csv").set_index("run")
    assert roofline.loc["serial_1gpu", "attained_flops"] == pytest.approx(2.1e6 / 9e-5 / 1e11)


def test_the_command_prints_where_the_time_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(ROOT / "config.yaml", {"scale": "demo"})
    make_profile(tmp_path, config, "skin", "ddp_2gpu")
    (tmp_path / "mine.yaml").write_text(f"workdir: {tmp_path}")
    commands: list[list[str]] = []
    process = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **_: commands.append(command) or process
    )
    monkeypatch.setattr(options, "_wait", lambda process: process.returncode)
    arguments = [
        "profile",
        "skin",
        "ddp_2gpu",
        "--scale",
        "demo",
        "--configfile",
        str(tmp_path / "mine.yaml"),
    ]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert commands[0][1:4] == [
        "-m",
        "medscale.cli.snakemake",
        "profiled/skin/ddp_2gpu",
    ]  # options take all that follows them
    assert "outside operators" in result.output
    assert "rank 1" in result.output
    process.returncode = 1
    assert isinstance(CliRunner().invoke(cli.main, arguments).exception, MedscaleError)


def test_names_are_shortened() -> None:
    assert short("aten::add_") == "add_"
    assert (
        short("void at::native::vectorized_elementwise_kernel<4, at::F<float>>(int)")
        == "vectorized_elementwise_kernel"
    )
    assert short("autograd::engine::evaluate_function: ReluBackward0") == "ReluBackward0"
    assert short("Memcpy HtoD (Pinned -> Device)") == "Memcpy HtoD"


def test_any_run_is_a_target_and_a_figure_needs_configured_runs() -> None:
    plain = load(ROOT / "config.yaml", {"studies": {"glaucoma": {"profile": {"runs": []}}}})
    check_target(plain, "profiled/glaucoma/ddp_amp_4gpu")
    with pytest.raises(MedscaleError, match="no run name"):
        check_target(plain, "profiled/glaucoma/nix")
    with pytest.raises(MedscaleError, match=r"profile\.runs"):
        check_target(plain, "figures/glaucoma/roofline.pdf")
    assert CHAPTER not in chapters_of(plain, "glaucoma")
    config = load(
        ROOT / "config.yaml", {"studies": {"glaucoma": {"profile": {"runs": ["serial_1gpu"]}}}}
    )
    check_target(config, "figures/glaucoma/roofline.pdf")
    assert CHAPTER in chapters_of(config, "glaucoma")
    with pytest.raises(MedscaleError, match=r"profile|run name"):
        load(ROOT / "config.yaml", {"studies": {"glaucoma": {"profile": {"runs": ["nix"]}}}})
