"""The graph as a person meets it: targets, scales, profiles, and one message for each mistake."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from medscale.base.errors import MedscaleError
from medscale.base.provenance import SITE
from medscale.workflow.causes import FIRST_TIME
from medscale.workflow.dag import planned
from medscale.workflow.graph import PROFILES, Graph
from medscale.workflow.outlook import facts, lines
from medscale.workflow.targets import check_target, in_order, in_workdir, unknown_target
from medscale.workflow.why import Explanation, explain, job_cost
from snakemake_command import snakemake

ROOT = Path(__file__).parents[2]
POINT = "glaucoma_lr_0_002_scaling_none"  # of a sweep


@dataclass
class Rule:
    """A rule of Snakemake whose outputs begin with one of some texts."""

    name: str
    outputs: list[str]

    def has_wildcards(self) -> bool:
        return "/" in self.outputs[0] and self.outputs[0].endswith("/")

    def is_producer(self, path: str) -> bool:
        return any(path == out or (out[-1] == "/" and path.startswith(out)) for out in self.outputs)


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
def test_commands_of_users_are_planned(arguments, tmp_path):
    process = snakemake("-n", "--forceall", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "train" in process.stdout + process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
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
        (
            ("--profile", "demo", "--configfile", "profiles/slurm/site.yaml"),
            "--configfile replaces profiles/demo/scale.yaml, which --profile demo reads; name",
        ),
    ],
)
def test_a_mistake_gets_one_message_and_no_traceback(arguments, message):
    process = snakemake("-n", *arguments)
    assert process.returncode != 0
    assert "medscale: error: " in process.stderr
    assert message in process.stderr
    assert "Traceback" not in process.stderr + process.stdout


def test_a_configfile_with_the_settings_of_the_profile_may_replace_its_file():
    arguments, settings = ["--profile", "slurm"], {"cluster": {"partition": "main"}, "node": {}}
    Graph(settings, arguments=arguments, files=["mine.json"])
    with pytest.raises(SystemExit):
        Graph({"node": {}}, arguments=arguments, files=["mine.json"])


def test_what_is_given_on_the_command_line_goes_on_top_of_the_demo():
    process = snakemake(
        "-np",
        "--forceall",
        "--profile",
        "demo",
        "results/glaucoma/serial_1gpu",
        "--config",
        "seeds=[5]",
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "runs/glaucoma/serial_1gpu/seed5/" in process.stdout
    assert "demo_data" in process.stdout


def test_a_removed_result_or_figure_is_made_again_although_the_paper_exists():
    changes = {"scale": "demo"}
    with planned(Graph(changes), changes, "all", in_image=False) as dag:
        (job,) = [job for job in dag.jobs if job.rule.name == "all"]
        inputs = {str(file) for file in job.input}
    assert {"paper/paper.pdf", "results/skin/ddp_2gpu", "measured/skin/reference.json"} <= inputs
    assert {"figures/skin/roc.pdf", "tables/skin/results.tex"} <= inputs


def test_scales_share_target_names_and_no_folder():
    full, demo = Graph({}), Graph({"scale": "demo"})
    assert "results/glaucoma/ddp_amp_2gpu" in set(full.results()) & set(demo.results())
    assert demo.workdir != full.workdir
    assert demo.config.raw("glaucoma").is_relative_to(demo.workdir)


def test_a_changed_recipe_touches_exactly_the_runs_that_use_it():
    before = Graph({"scale": "demo"})
    after = Graph({"scale": "demo", "studies": {"glaucoma": {"model": {"options": {"width": 12}}}}})
    unchanged_plans = [
        run
        for run in ("serial_1cpu", "ddp_2cpu_densenet121")
        if before.plan("glaucoma", run, 1) == after.plan("glaucoma", run, 1)
    ]
    assert unchanged_plans == ["ddp_2cpu_densenet121"]


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("papr", "paper"),
        ("paper.pdf", "paper"),
        ("figures/glaucoma/formts.pdf", "figures/glaucoma/formats.pdf"),
        ("tables/verdict.csv", "tables/verdicts.csv"),
        ("figurs/glaucoma/formats.pdf", "figures/glaucoma/formats.pdf"),
        ("result/skin/serial_1gpu", "results/skin/serial_1gpu"),
        ("paper/papr.pdf", "paper/paper.pdf"),
        ("skin/serial_1gpu", "results/skin/serial_1gpu"),
        ("ddp_amp_2gpu", "results/glaucoma/ddp_amp_2gpu"),
        ("figures\\glaucoma\\formts.pdf", "figures/glaucoma/formats.pdf"),
    ],
)
def test_a_misspelt_target_is_answered_in_words(target, meant):
    rules = [
        Rule("paper", ["paper/paper.pdf"]),
        Rule("evaluate", ["results/"]),
        Rule("formats_report", ["figures/glaucoma/formats.pdf"]),
    ]
    config = Graph({}).config
    assert f"{target}: no rule makes it; did you mean {meant!r}?" in str(
        unknown_target(config, target, rules)
    )
    assert unknown_target(config, "./results/skin/serial_1gpu/", rules) is None
    assert unknown_target(config, "paper", rules) is None
    assert unknown_target(config, str(ROOT / "config.yaml"), rules) is None
    answer = unknown_target(config, os.path.abspath("figures/glaucoma/formats.pdf"), rules)
    assert str(answer).endswith("in the study's folder: figures/glaucoma/formats.pdf")


@pytest.mark.parametrize("end", ["", "/"])
def test_a_path_of_the_shell_is_understood_as_a_target(end, tmp_path, monkeypatch):
    result = f"results/skin/ddp_2gpu{end}"
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "work/demo"
    for typed in (f"work/demo/{result}", f"{workdir}/{result}", f"./work/demo/./{result}"):
        assert in_workdir(typed, workdir) == "results/skin/ddp_2gpu"
    (tmp_path / "link").symlink_to(workdir)
    assert in_workdir(f"{tmp_path}/link/{result}", workdir) == "results/skin/ddp_2gpu"
    for other in (result, "paper", "", f"work/full/{result}"):
        assert in_workdir(other, workdir) == other
    assert in_workdir(result, tmp_path) == in_workdir(result, tmp_path.parent) == result
    assert in_workdir(f"work/demo{end}", workdir) == in_workdir(str(workdir), workdir) == "all"
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")  # names of targets are the same everywhere
    assert in_workdir(result, tmp_path) == result
    (workdir / "results").mkdir(parents=True)
    monkeypatch.chdir(workdir / "results")
    assert in_workdir(f"skin/ddp_2gpu{end}", workdir) == "results/skin/ddp_2gpu"


def test_commands_in_messages_read_the_same_configuration(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("seeds: [1]\n")
    demo = PROFILES / "demo" / "scale.yaml"
    for changes, files, options, own_options in (
        ({}, [], "", ""),
        ({"scale": "demo"}, [], " --profile demo", " --scale demo"),
        ({"scale": "demo"}, [demo], " --profile demo", " --scale demo"),
        ({"seeds": [1]}, [own], f" --configfile {own}", f" --configfile {own}"),
        ({}, [ROOT / SITE], " --profile slurm", " --cluster"),
    ):
        graph = Graph(changes, files=files)
        assert graph.snakemake("paper", "-n") == f"snakemake paper -n{options}"
        assert graph.medscale("why", "paper") == f"medscale why paper{own_options}"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("exported/skin", "skin measures no export; give it a section benchmarks.export"),
        ("./exported/skn/", "there is no study 'skn'; did you mean 'skin'"),
        ("external/skin/serial_1gpu", "skin is no external set; give a study `external`"),
        ("measured/skin/formats.csv", "skin measures no formats"),
        ("data/skin/shards_detect/meta.json", "skin has no section `detect`"),
        ("data/raw/skin/demo.json", "the images of skin are real"),
        (f"data/{POINT}/shards/meta.json", "point of the sweep of glaucoma and has that study's"),
        (f"measured/{POINT}/reference.json", f"results alone: results/{POINT}/serial_1gpu"),
    ],
)
def test_a_file_that_a_study_does_not_have_is_refused(target, message):
    full, demo = Graph({}).config, Graph({"scale": "demo"}).config
    with pytest.raises(MedscaleError, match=message):
        check_target(full, target)
    check_target(demo, "data/raw/skin/demo.json")  # synthetic
    with pytest.raises(MedscaleError, match=r"those of glaucoma are glaucoma_external1$"):
        check_target(demo, "external/glaucoma/serial_1cpu")
    for possible in (
        *("exported/dermatology", "measured/glaucoma/formats.csv", "measured/skin/reference.json"),
        *("data/pneumonia/shards_detect/meta.json", "data/skin/shards/meta.json"),
    ):
        check_target(full, possible)


@pytest.mark.parametrize(
    ("target", "message"),
    [("", "name a target, such as"), (".", r"^\. exists, but is no output of a rule")],
)
def test_why_refuses_no_target_and_a_file_of_no_rule(target: str, message: str) -> None:
    with pytest.raises(MedscaleError, match=message):
        explain({"scale": "demo"}, target)


def test_rules_of_many_files_and_the_report_are_answered_in_words():
    config, rules = Graph({"scale": "demo"}).config, [Rule("train", ["runs/"])]
    assert "name a file, or a result such as results/" in str(
        unknown_target(config, "train", rules)
    )
    assert "make report" in str(unknown_target(config, "report.html", rules))
    answer = unknown_target(config, "glaucoma", rules, "--profile demo")
    assert "snakemake results --profile demo --config only=glaucoma;" in str(answer)


@pytest.mark.parametrize("end", ["", "/", "/seed1", "/seed1/"])
def test_a_folder_of_trainings_is_answered_by_what_to_type(end):
    config, rules = Graph({"scale": "demo"}).config, [Rule("train", ["timing.json"])]
    answer = str(unknown_target(config, f"runs/skin/ddp_2gpu{end}", rules))
    assert "one training: runs/skin/ddp_2gpu/seed1/timing.json;" in answer
    assert answer.endswith("and their evaluation: results/skin/ddp_2gpu")


def test_the_targets_of_the_page_of_runs_are_targets():
    page = (ROOT / "docs" / "reference" / "runs.md").read_text(encoding="utf-8")
    table = page.split("## Targets")[1].split("```")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    text = " ".join(re.findall("`([^`]+)`", " ".join(row.split("|")[1] for row in rows)))
    names = {"study": "glaucoma", "run": "ddp_2gpu", "name": "formats", "k": "1"}
    names["set"] = "glaucoma_external1"
    targets = re.sub("<([a-z]+)>", lambda part: names[part[1]], text).split()
    assert len(targets) == 9
    process = snakemake("-n", *targets, "--config", "scale=demo")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("glaucoma", "snakemake results --config only=glaucoma"),
        ("results/glaucoma/", "snakemake results --config only=glaucoma"),
        ("tables/skin", "snakemake figures --config only=skin"),
        ("measured/skin", "snakemake figures --config only=skin"),
        ("data/skin_random", "snakemake data --config only=skin; one result: results/skin_random"),
        ("skin_external1", "figures --config only=skin; one result: external/skin_external1/"),
        (f"results/{POINT}", "snakemake figures --config only=glaucoma;"),
    ],
)
def test_a_whole_study_is_answered_by_what_to_type(target, command):
    external = [{"title": "B", "source": {"kind": "folder", "path": "b"}}]
    config = Graph({"studies": {"skin": {"external": external}}}).config
    answer = unknown_target(config, target, [Rule("paper", ["paper/paper.pdf"])])
    assert command in str(answer)


@pytest.mark.parametrize(
    ("changes", "profiles", "own", "options"),
    [
        ({}, [], "", ""),
        ({"scale": "demo"}, [], "", "--profile demo"),
        ({"scale": "demo"}, ["demo/scale.yaml"], "", "--profile demo"),
        ({}, ["slurm/site.yaml"], "", "--profile slurm"),
        ({}, [], "seeds: [1]", "--configfile {own}"),
        ({"scale": "demo"}, [], "scale: demo", "--configfile {own}"),
        # Snakemake reads the files of --configfile alone, not the one of a profile beside them.
        ({"scale": "demo"}, [], "", "--profile demo --configfile {demo} {own}"),
        ({}, ["slurm/site.yaml"], "seeds: [1]", "--profile slurm --configfile {site} {own}"),
        # Snakemake takes the last of two profiles.
        ({"scale": "demo"}, ["slurm/site.yaml"], "", "--profile slurm --configfile {demo} {site}"),
    ],
)
def test_advice_names_the_files_of_settings_in_force(changes, profiles, own, options, tmp_path):
    files = [ROOT / "profiles" / name for name in profiles]
    if "{own}" in options:
        files.append(tmp_path / "my study.yaml")
        files[-1].write_text(own)
    names = {"demo": "profiles/demo/scale.yaml", "site": "profiles/slurm/site.yaml"}
    names["own"] = f"'{tmp_path / 'my study.yaml'}'"
    assert Graph(changes, files=files).options == options.format(**names)


@pytest.mark.parametrize("run", ["amp_ddp_2gpu", "ddp-amp-2GPU", "2gpu_ddp_amp"])
def test_the_parts_of_a_runs_name_in_another_order_are_understood(run):
    with pytest.raises(MedscaleError, match="did you mean 'ddp_amp_2gpu'") as caught:
        check_target(Graph({}).config, f"results/glaucoma/{run}")
    assert "did you mean" in str(caught.value).splitlines()[0]
    assert in_order("ddp_two_gpu") is None


@pytest.mark.parametrize(
    ("folds", "wrong", "right"), [(3, "seed1", "seed1_fold1"), (None, "seed1_fold1", "seed1")]
)
def test_a_replicate_has_a_fold_where_its_study_has_folds(folds, wrong, right):
    split = {"folds": folds, "train": None, "val": 0.1, "test": None} if folds else {}
    config = Graph({"seeds": [1], "studies": {"skin": {"split": split}}}).config
    check_target(config, f"runs/skin/serial_1gpu/{right}/model.safetensors")
    with pytest.raises(MedscaleError, match=f"{wrong}: the study skin .* is called {right}$"):
        check_target(config, f"runs/skin/serial_1gpu/{wrong}/model.safetensors")


def test_a_run_over_several_nodes_is_not_profiled():
    config = Graph({"node": {"gpus": 2}}).config
    check_target(config, "profiled/skin/ddp_2gpu")
    with pytest.raises(MedscaleError, match=r"2 nodes cannot be profiled; .* such as ddp_2gpu"):
        check_target(config, "profiled/skin/ddp_4gpu")


def test_missing_images_end_snakemake_before_the_first_job(tmp_path):
    process = snakemake(
        "results/glaucoma/serial_1cpu", "--cores", "1", "--config", f"workdir={tmp_path}"
    )
    assert process.returncode == 2
    assert f"the raw folder {tmp_path}/data/raw/glaucoma does not exist" in process.stderr
    assert "kaggle datasets download" in process.stderr
    assert "rule plan" not in process.stdout + process.stderr


def test_a_record_that_cannot_be_written_ends_snakemake_with_one_message(tmp_path):
    (tmp_path / "data" / "raw" / "glaucoma").mkdir(parents=True)
    (tmp_path / ".snakemake").mkdir()
    (tmp_path / ".snakemake" / "code").touch()  # as a full disk: no record can be written
    process = snakemake(
        "results/glaucoma/serial_1cpu", "--cores", "1", "--config", f"workdir={tmp_path}"
    )
    assert process.returncode == 2
    assert "cannot be written" in process.stderr
    assert "in file" not in process.stderr + process.stdout


def test_snakemake_answers_all_misspelt_targets_at_once_and_takes_no_option_for_one():
    process = snakemake("-n", "--cores", "2", "--quiet", "rules", "--", "papr", "figurs", "all")
    assert process.returncode != 0
    assert "papr: no rule makes it; did you mean 'paper'?" in process.stderr
    assert "figurs: no rule makes it; did you mean 'figures'?" in process.stderr
    assert process.stderr.count("no rule makes it") == 2


def test_a_dry_run_ends_with_jobs_cost_missing_data_and_causes(tmp_path):
    process = snakemake("-n", "results/glaucoma/serial_1cpu", "--config", f"workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    lines = process.stderr.splitlines()
    start = lines.index("9 jobs would run; nothing was run")
    words = [line.split(maxsplit=1) for line in lines[start + 1 :]]
    facts = dict(words)
    assert facts["jobs"].startswith("plan 3, train 3")
    assert "device-hours" in facts["cost"]
    assert "USD" in facts["cost"]
    assert facts["data"].startswith(f"missing: {tmp_path}/data/raw/glaucoma (kind smdg);")
    assert facts["first"] == "9 jobs make outputs that were never made"
    assert len(words) <= 14


def test_missing_folders_are_those_of_the_jobs_that_would_run(tmp_path):
    external = [{"title": "B", "source": {"kind": "folder", "path": str(tmp_path / "b")}}]
    studies = {"melanoma": {"external": external}, "pneumonia": {"source": {"path": str(tmp_path)}}}
    graph = Graph({"workdir": str(tmp_path), "studies": studies})

    def missing(*names):
        rows = facts(graph, Explanation("all", studies=list(names)))["missing_data"]
        return {row["folder"].removeprefix(f"{tmp_path}/"): row["kind"] for row in rows}

    assert missing("dermatology", "pneumonia") == {"data/raw/skin": "skin"}
    raw = {"glaucoma": "smdg", "skin": "skin", "melanoma": "isic2017"}
    assert missing() == {  # for jobs of all studies, such as the paper
        **{f"data/raw/{study}": kind for study, kind in raw.items()},
        "b": "folder",
    }


def test_a_profile_costs_the_devices_of_its_run_and_not_the_cores_of_their_nodes():
    minutes, hours, _ = job_cost(
        Graph({"node": {"gpus": 2}}), "profile", (("study", "skin"), ("run", "ddp_2gpu")), 1
    )
    assert hours == pytest.approx(2 * minutes / 60)


def test_the_outlook_has_at_most_15_lines_and_counts_the_causes_that_it_leaves_out():
    explanation = Explanation("all", currency="USD", minutes=300)
    for number in range(9):
        explanation.causes[f"recipe.lr: {number}"] = Counter(train=2, skin_report=1)
    explanation.causes[FIRST_TIME] = Counter(index=4)
    explanation.stages = Counter(train=20, skin_report=2, export_report=1)
    outlook_lines = list(lines(Graph({"scale": "demo"}), explanation))
    assert len(outlook_lines) <= 15
    assert "  jobs   train 20, report 3" in outlook_lines
    assert any("about 5.0 hours" in line for line in outlook_lines)
    assert "         - recipe.lr: 0 (train 2, report 1)" in outlook_lines
    assert "         - and 3 more causes" in outlook_lines
    assert "  first  4 jobs make outputs that were never made" in outlook_lines
    assert next(lines(Graph({}), Explanation("all"))).startswith("nothing would run")
    explanation.causes = {f"cause {number}": Counter(train=1) for number in range(7)}
    explanation.causes[FIRST_TIME] = Counter(index=1)
    explanation.stages, explanation.minutes = Counter(train=1), 119.9
    outlook_lines = list(lines(Graph({"scale": "demo"}), explanation))
    assert outlook_lines[0] == "1 job would run; nothing was run"
    assert "about 119.9 minutes" in outlook_lines[2]
    assert "  first  1 job makes outputs that were never made" in outlook_lines
    assert "         - and 1 more cause" in outlook_lines
    assert outlook_lines[-1].startswith("  more   snakemake -np")
    del explanation.causes["cause 6"]
    assert "more cause" not in "".join(lines(Graph({"scale": "demo"}), explanation))


def test_the_outlook_says_which_images_are_generated(tmp_path):
    def data_of(**source):
        graph = Graph({"scale": "demo", "studies": {"pneumonia": {"source": source}}})
        (line,) = (x for x in lines(graph, Explanation("all")) if x.startswith("  data"))
        return line.removeprefix("  data   ")

    assert data_of() == "synthetic images are generated"
    real = data_of(synthetic=False, path=str(tmp_path))
    assert real == "synthetic images are generated, real ones are present"


def test_dask_has_the_configured_workers_or_those_of_the_machine_or_node():
    cores = len(os.sched_getaffinity(0))
    assert Graph({}).dask_workers() == cores
    assert Graph({"dask": {"workers": cores + 3}}).dask_workers() == cores + 3
    on_cluster = {"cluster": {}, "node": {"cpus": cores + 5}}
    assert Graph(on_cluster).dask_workers() == cores + 5
