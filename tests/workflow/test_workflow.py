"""The graph as a person meets it: targets, scales, profiles, and one message for each mistake."""

from pathlib import Path

import pytest

from medscale.workflow.graph import Graph
from snakemake_command import snakemake

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("paper",),
        ("figures",),
        ("results/glaucoma/ddp_amp_2gpu",),
        ("results/glaucoma/ddp_amp_8gpu_bs16/",),
        ("paper", "--profile", "demo"),
        (
            "--sdm",
            "env-modules",
            "--profile",
            "slurm",
        ),  # without it Snakemake looks for Apptainer and the image
        ("--configfile", "examples/xrays.yaml"),
    ],
    ids=" ".join,
)
def test_what_a_person_types_is_planned(arguments, tmp_path):
    done = snakemake("-n", "--forceall", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("results/glaucoma/ddp_amp_gpu2",),
            "'ddp_amp_gpu2' is no run name: after the strategy comes",
        ),
        (("results/glaucoma/ddp_2gpu_densenet999",), "densenet999"),
        (("results/nix/ddp_2gpu",), "there is no study 'nix'"),
        (("--config", "scale=huge"), "there is no scale 'huge'"),
        (("--directory", "."), "say --config workdir=."),
        (("--config", "colour=red"), "colour: there is no such setting"),
    ],
)
def test_a_mistake_gets_one_message_and_no_traceback(arguments, says):
    done = snakemake("-n", *arguments)
    assert done.returncode != 0
    assert "medscale: error: " in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_what_is_given_on_the_command_line_goes_on_top_of_the_demo():
    done = snakemake(
        "-n",
        "--forceall",
        "--profile",
        "demo",
        "results/glaucoma/serial_1gpu",
        "--config",
        "seeds=[5]",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs/glaucoma/serial_1gpu/seed5/" in done.stdout
    assert "demo_data" in done.stdout


def test_scales_share_target_names_and_no_folder():
    full, demo = Graph({}), Graph({"scale": "demo"})
    assert "results/glaucoma/ddp_amp_2gpu" in set(full.results()) & set(demo.results())
    assert demo.workdir != full.workdir
    assert demo.raw("glaucoma").is_relative_to(demo.workdir)


def test_a_changed_recipe_touches_exactly_the_runs_that_use_it():
    before = Graph({"scale": "demo"})
    after = Graph({"scale": "demo", "studies": {"glaucoma": {"model": {"options": {"width": 12}}}}})
    same = [
        run
        for run in ("serial_1cpu", "ddp_2cpu_densenet121")
        if before.plan("glaucoma", run, 1) == after.plan("glaucoma", run, 1)
    ]
    assert same == ["ddp_2cpu_densenet121"]
