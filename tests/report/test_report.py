"""Figures and tables of studies with any classes: reproducible bytes, marks, complete."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.base.text import latex as escaped
from medscale.config.configuration import load
from medscale.report import style
from medscale.report.chapters import CHAPTERS
from medscale.report.marks import mark
from medscale.report.names import class_name, family, look
from medscale.report.overview.linear import read_linear
from medscale.report.overview.parity import parity
from medscale.report.overview.tables import results as results_table
from medscale.report.reported import compare, in_words, read_reported
from medscale.report.result.reading import differences, read_result
from medscale.report.variants.chapter import changed
from synthetic_runs import ROOT, make_chapter, make_study, report

RUNS = ["serial_1cpu", "ddp_2cpu", "serial_1gpu", "ddp_amp_2gpu"]


TWO, ODD = ["normal", "glaucoma"], ["a_b & 50 %", "mélanome", "#x {y}", "\\end{document}"]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("study")
    results = make_study(folder, "glaucoma", TWO, RUNS, drawn=True)
    return SimpleNamespace(
        folder=folder, results=results, facts=report(folder, "glaucoma", results)
    )


def test_all_declared_figures_and_tables_exist_and_no_others(study):
    figures = {file.name for file in (study.folder / "figures" / "glaucoma").iterdir()}
    tables = {file.name for file in (study.folder / "tables" / "glaucoma").iterdir()}
    written_names = [
        c for c in CHAPTERS if c.name in ("overview", "datasheet", "samples", "quality", "scaling")
    ]
    assert figures == {f"{name}.pdf" for chapter in written_names for name in chapter.figures}
    declared_names = {f"{name}.csv" for chapter in written_names for name in chapter.tables}
    declared_names |= {f"{name}.tex" for chapter in written_names for name in chapter.printed}
    assert tables == declared_names | {"facts.json", "quality.json", "scaling.json"}


def test_the_same_results_give_the_same_bytes(study):
    folders = [study.folder / part / "glaucoma" for part in ("figures", "tables")]
    before = {file: file.read_bytes() for folder in folders for file in folder.iterdir()}
    report(study.folder, "glaucoma", study.results)
    for file, content in before.items():
        assert file.read_bytes() == content, file.name


def test_fonts_are_embedded_and_there_is_no_date(study):
    content = (study.folder / "figures" / "glaucoma" / "accuracy.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"CreationDate" not in content


def test_a_caller_s_style_changes_nothing(study, tmp_path):
    import matplotlib as mpl

    from medscale.report.result import figures as run_figures

    def draw(path):
        with style.house():
            style.save(run_figures.curves(curves, RUNS[0]), path, "demo")

    curves = read_result(study.results[0]).curves
    draw(tmp_path / "a.pdf")
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        draw(tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


@pytest.mark.parametrize(
    ("synthetic", "stand_in", "scale", "text"),
    [
        (True, True, "demo", "demo: synthetic images; CPU processes in place of GPUs"),
        (False, True, "demo", "demo: CPU processes in place of GPUs"),
        (False, False, "demo", "demo: not at full scale"),
        (True, False, "full", "synthetic images"),
        (False, False, "full", ""),
    ],
)
def test_marks(synthetic, stand_in, scale, text):
    assert mark([{"synthetic": synthetic, "stand_in": stand_in, "scale": scale}]) == text


def test_a_figure_shows_its_mark(study, tmp_path):
    unmarked = tmp_path / "none.pdf"
    from medscale.report.overview import figures as study_figures

    evaluations = [read_result(folder) for folder in study.results]
    with style.house():
        style.save(study_figures.accuracy(evaluations, RUNS[0]), unmarked)
    assert (
        unmarked.read_bytes()
        != (study.folder / "figures" / "glaucoma" / "accuracy.pdf").read_bytes()
    )


def test_stand_in_runs_are_marked_in_tables(study):
    text = (study.folder / "tables" / "glaucoma" / "results.tex").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"(serial|DDP)", line)]
    assert len(lines) == len(RUNS)
    assert all(("GPU" in line.split("&")[0]) == ("textdagger" in line) for line in lines)


def test_differences_are_paired(study):
    evaluations = [read_result(folder) for folder in study.results]
    table = differences(evaluations, RUNS[0]).set_index("run")
    assert table.loc[RUNS[0]].tolist() == [0, 0, 0]
    expected = 100 * (
        evaluations[1].score("accuracy")["mean"] - evaluations[0].score("accuracy")["mean"]
    )
    assert table.loc[RUNS[1], "mean"] == pytest.approx(expected)
    low, high = (100 * evaluations[1].score("accuracy")[end] for end in ("low", "high"))
    assert table.loc[RUNS[1], "low"] <= expected <= table.loc[RUNS[1], "high"]
    assert high > low
    evaluations[1].summary["bootstrap"]["paired_with"] = "other images"
    with pytest.raises(MedscaleError, match="different test images"):
        differences(evaluations, RUNS[0])
    with pytest.raises(MedscaleError, match="baseline ddp_8cpu is not among"):
        differences(evaluations, "ddp_8cpu")


def test_training_is_compared_where_the_steps_are_the_same(study):
    evaluations = [read_result(folder) for folder in study.results]
    evaluations[2].summary["global_batch"] = 64
    table = parity(evaluations, RUNS[0]).set_index("run")
    assert table["same_steps"].tolist() == [True, True, False, True]
    assert table["images"].tolist() == [32, 16, 64, 16]
    assert table.loc[RUNS[0], ["first", "largest", "accuracy"]].tolist() == [0, 0, 0]
    assert table.loc[RUNS[2], ["first", "largest", "accuracy"]].isna().all()
    losses = [
        r.curves[r.curves["quantity"] == "train_loss"]["mean"].to_numpy() for r in evaluations
    ]
    assert table.loc[RUNS[1], "first"] == pytest.approx(abs(losses[1][0] - losses[0][0]))
    assert table.loc[RUNS[1], "largest"] == pytest.approx(abs(losses[1] - losses[0]).max())
    assert table.loc[RUNS[3], "accuracy"] == pytest.approx(
        differences(evaluations, RUNS[0])["mean"][3]
    )


def test_a_network_without_batch_normalization_sees_no_images(tmp_path):
    results = make_study(tmp_path, "plain", TWO, RUNS[:2], baseline=RUNS[0])
    for folder in results:
        summary = read_json(folder / "summary.json")
        write_json(folder / "summary.json", summary | {"batch_norm": False})
    evaluations = [read_result(folder) for folder in results]
    assert parity(evaluations, RUNS[0])["images"].isna().all()


def test_a_run_with_the_scores_of_another_is_named_without_numbers(study):
    runs = [read_result(folder) for folder in study.results]
    twin = replace(runs[0], name="serial_1gpu")
    linear = read_linear(study.folder / "measured" / "glaucoma" / "reference.json")
    text, _ = results_table([runs[0], twin, runs[1]], runs[0].name, linear)
    lines = [line for line in text.splitlines() if "serial, 1 GPU" in line]
    assert len(lines) == 1
    assert "scores as serial, 1 CPU" in lines[0]
    assert "(" not in lines[0].split("&", 1)[1]


def test_no_two_families_of_runs_are_drawn_alike():
    studies = load(ROOT / "config.yaml").studies.values()
    for study in studies:
        families = {family(run): look(run) for run in study.runs}
        styles = [(style.colour, style.marker) for style in families.values()]
        assert len(set(styles)) == len(styles)
        assert len({style.marker for style in families.values()}) == len(
            styles
        )  # for print in grey


def test_files_that_are_unaccounted_for_stop_the_report(study):
    file = study.folder / "data" / "glaucoma" / "audit.json"
    audit = read_json(file)
    write_json(file, audit | {"found": audit["found"] + 1})
    with pytest.raises(MedscaleError, match="244 files were found, but 240 used and 3 excluded"):
        report(study.folder, "glaucoma", study.results)
    write_json(file, audit)


@pytest.mark.parametrize("classes", [ODD, [f"class {i}" for i in range(12)]])
def test_many_classes_with_odd_names(tmp_path, classes):
    settings = {"title": "Skin & more: 100 % of_it", "baseline": "serial_1cpu"}
    results = make_study(
        tmp_path,
        "skin",
        classes,
        ["serial_1cpu", "ddp_2cpu_bs16"],
        images=400,
        drawn=True,
        **settings,
    )
    facts = read_json(report(tmp_path, "skin", results))
    assert facts["classes"] == list(classes)
    assert "sensitivity" not in facts["baseline"]
    assert not facts["reported"] or facts["name"] == "skin"
    data = (tmp_path / "tables" / "skin" / "data.tex").read_text(encoding="utf-8")
    for name in classes:
        assert escaped(class_name(name)) in data


def test_every_published_figure_of_glaucoma_stands_in_the_table(study):
    reported = read_reported(ROOT / "reported.yaml", "glaucoma")
    table = compare(reported, [read_result(folder) for folder in study.results])
    assert len(table) == 6 + 7 + 1 + 3 + 3 + 2
    two_gpus = table.set_index("item").loc["minutes / ddp_cpu / 2"]
    assert (two_gpus["reported"], two_gpus["run"], two_gpus["unit"]) == (383.4, "ddp_2cpu", "min")
    summary = read_json(study.results[1] / "summary.json")
    assert two_gpus["ours"] == pytest.approx(summary["timing"]["wall_seconds"]["mean"] / 60)
    assert two_gpus["speedup_reported"] == pytest.approx(756.0 / 383.4)
    assert two_gpus["speedup_ours"] > 1
    four = table.set_index("item").loc["minutes / ddp_cpu / 4"]
    single = table.set_index("item").loc["minutes / ddp_cpu / 1"]
    assert (single["meant"], single["run"]) == ("ddp_1cpu", "serial_1cpu")
    pipeline = table.set_index("item").loc["minutes / ddp_amp_mp_gpu / 4"]
    assert (pipeline["against"], pipeline["speedup_reported"]) == (
        "ddp_amp_1gpu",
        pytest.approx(7.18 / 4.20),
    )
    assert four["run"] == "ddp_4cpu"
    assert math.isnan(four["ours"])


@pytest.mark.parametrize("name", ["skin", "dermatology", "melanoma", "pneumonia", "unheard_of"])
def test_other_studies_published_figures_can_be_read(name):
    reported = read_reported(ROOT / "reported.yaml", name)
    assert bool(reported) == (name != "unheard_of")
    table = compare(reported, [])
    assert len(table) or not reported
    assert table["ours"].isna().all()


def test_a_damaged_result_is_named(study, tmp_path):
    import shutil

    folder = tmp_path / "ddp_2cpu"
    shutil.copytree(study.results[1], folder)
    (folder / "roc.csv").unlink()
    with pytest.raises(MedscaleError, match=r"roc\.csv cannot be read"):
        read_result(folder)


def test_a_study_stands_beside_its_variants(tmp_path):
    main_study = {
        "variant_of": "glaucoma",
        "title": "split at random",
        "split": {"mode": "random"},
        "runs": ["serial_1cpu"],
    }
    results = [
        make_study(tmp_path, name, TWO, ["serial_1cpu"])[0] for name in ("glaucoma", "other")
    ]
    config = load(ROOT / "config.yaml", {"scale": "demo", "studies": {"other": main_study}})
    make_chapter(tmp_path, config, "glaucoma", "variants", results=list(map(str, results)))
    tables = tmp_path / "tables" / "glaucoma"
    table = pd.read_csv(tables / "variants.csv")
    assert table["study"].tolist() == ["glaucoma", "other"]
    assert table["split"].tolist() == ["grouped", "random"]
    test_images = read_json(results[0] / "summary.json")["counts"]["test"]["images"]
    assert table["test_images"].tolist() == [test_images, test_images]
    sentences = [
        read_json(folder / "summary.json")["metrics"]["test"]["accuracy"]["mean"]
        for folder in results
    ]
    assert table["accuracy_mean"].tolist() == pytest.approx(sentences)
    assert (tmp_path / "figures" / "glaucoma" / "variants.pdf").stat().st_size > 1000
    text = (tables / "variants.tex").read_text()
    assert "split at random" in text
    assert "grouped" in text
    assert "all layers" not in text  # what is the same for all is told nowhere
    assert "serial" not in text
    assert r"repli-\\cates" in text  # which intervals depend on, though it is the same for all
    facts = read_json(tables / "variants.json")
    (run,) = facts["runs"]
    (variant,) = run["variants"]
    assert variant["title"] == "split at random"
    assert not variant["collapsed"]
    assert [run["accuracy"]["mean"], variant["accuracy"]["mean"]] == sentences
    assert facts["changed"]["split"]


def test_what_the_variants_change_is_recognized_by_their_settings():
    full = load(ROOT / "config.yaml")
    no_changes = dict.fromkeys(("split", "trained", "metadata", "seeds", "frozen"), False)
    assert changed(full, "glaucoma") == no_changes | {"split": True}
    assert changed(full, "melanoma") == no_changes | {"trained": True, "metadata": True}
    demo = changed(load(ROOT / "config.yaml", {"scale": "demo"}), "melanoma")
    assert demo == no_changes | {"trained": True, "metadata": True, "frozen": True}
    assert changed(load(ROOT / "config.yaml", {"scale": "demo"}), "glaucoma")["seeds"]
    assert changed(full, "dermatology") == no_changes


def test_the_file_of_published_figures_says_which_run_each_belongs_to():
    table = compare(read_reported(ROOT / "reported.yaml", "dermatology"), []).set_index("item")
    assert table.loc["seconds_5_epochs / 2", "run"] == "ddp_amp_2gpu"
    assert table.loc["f1_macro", "run"] == "ddp_amp_4gpu"
    assert (
        "inference_images_per_second" not in table.index
    )  # which stands in the table of inference
    assert table.loc["seconds_5_epochs / 4", "speedup_reported"] == pytest.approx(3548.2 / 1051.7)


def test_the_use_of_gpus_is_compared_where_it_was_measured(study):
    reported = read_reported(ROOT / "reported.yaml", "skin")
    result = next(r for r in map(read_result, study.results) if r.name == "ddp_amp_2gpu")
    assert result.summary["timing"]["gpu_use_percent"] is None  # CPU processes stand in
    row = compare(reported, [result]).set_index("item").loc["gpu_use_percent"]
    assert math.isnan(row["ours"])
    timing = {**result.summary["timing"], "gpu_use_percent": {"mean": 93.5}}
    measured = replace(result, summary={**result.summary, "timing": timing})
    row = compare(reported, [measured]).set_index("item").loc["gpu_use_percent"]
    assert (row["reported"], row["reported_high"], row["unit"], row["ours"]) == (90, 100, "%", 93.5)


def test_published_confusions_stand_in_the_table_in_words():
    table = compare(read_reported(ROOT / "reported.yaml", "dermatology"), []).set_index("item")
    row = table.loc["confusions / nail fungus as hair disorders"]
    assert (row["quantity"], row["reported"], row["meant"]) == ("confused images", 101, "")
    assert in_words(row.name) == "nail fungus as hair disorders"


def test_a_study_without_parallel_runs_has_its_scaling_analysis(tmp_path):
    results = make_study(tmp_path, "alone", TWO, ["serial_1cpu"], baseline="serial_1cpu")
    report(tmp_path, "alone", results)
    facts = read_json(tmp_path / "tables" / "alone" / "scaling.json")
    assert not facts["series"]
    assert not facts["advice"]
    for name in ("scaling", "laws"):
        assert not list((tmp_path / "tables" / "alone").glob(f"{name}.tex"))
    assert pd.read_csv(tmp_path / "tables" / "alone" / "scaling.csv").empty
    assert 0 < facts["target"] <= 1


def test_the_scaling_analysis_of_a_study_with_stand_ins_says_so(study):
    facts = read_json(study.folder / "tables" / "glaucoma" / "scaling.json")
    (advice,) = facts["advice"]
    assert advice["device"] == "cpu"  # no GPU run has a counterpart on one
    assert "CPU processes" in advice["text"]
    assert facts["alone"] == ["DDP + AMP, 2 GPU"]
    verdicts = {series["label"]: series["verdict"] for series in facts["published"]}
    assert verdicts["DDP on CPUs"] == "consistent up to 16 of 32 devices"
    costs = pd.read_csv(study.folder / "tables" / "glaucoma" / "cost.csv").set_index("run")
    assert costs.loc["ddp_amp_2gpu", "stand_in"]
    assert costs["reached"].le(costs["replicates"]).all()
    assert costs.loc["serial_1cpu", "reached"] == 2
