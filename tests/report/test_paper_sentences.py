"""Sentences of the paper follow from facts by stated rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medscale.config.yaml_file import read_yaml
from medscale.report.paper.build import fill
from medscale.report.paper.filters import share
from medscale.report.scaling.facts import is_first_apart
from medscale.report.sources import REPORTED
from paper_sections import NO_EFFECT, results, section
from synthetic_runs import ROOT


def test_the_runs_that_alone_reach_the_target_stand_in_one_sentence():
    best = {"target": 0.9, "share": None, "metric": "AUROC", "first_apart": False}
    best |= {"target_words": "an AUROC of 0.9"}
    scalings = [best | {"best": labels} for labels in (["DDP"], ["serial"], ["FSDP", "serial"])]
    facts = NO_EFFECT | {"reaching": {"s0": 1, "s1": 1, "s2": 3}}
    text = results(facts, *scalings, compared=True)
    assert (
        r"In two studies, only one run reaches it: DDP in \emph{S0} and serial in \emph{S1}. "
        r"In \emph{S2}, FSDP has the shortest time and serial the lowest cost."
    ) in text
    partly = "A run that does not reach the target does not count here."
    assert [partly in results(facts, *scalings, compared=True, runs=n) for n in (3, 4)] == [0, 1]
    three = [best | {"best": [name]} for name in ("DDP", "serial", "FSDP")]
    facts |= {"reaching": dict.fromkeys(("s0", "s1", "s2"), 1)}
    text = results(facts, *three, compared=True)
    assert r"DDP in \emph{S0}, serial in \emph{S1}, and FSDP in \emph{S2}." in text


def test_the_communication_of_a_single_parallel_run_is_stated_in_the_singular():
    scaling = {"target": None, "best": []}
    for runs, words in ((1, "in the parallel run."), (2, "in the parallel runs.")):
        shares = {
            part: {"low": 0.1, "high": 0.1, "runs": runs} for part in ("data", "communication")
        }
        text = results(NO_EFFECT | {"shares": shares}, scaling)
        assert rf"of this time, communication 10.0\,\% {words}" in text


def test_a_single_verdict_is_stated_without_a_count():
    verdict = {"words": "inconclusive", "runs": 1, "once": 1, "everywhere": ""}
    counts = {"tested": 1, "tested_once": 1, "tested_parallel": 1, "verdicts": [verdict]}
    text = results(NO_EFFECT | counts)
    assert "Its accuracy is inconclusive (one seed) (Figure" in text
    assert "too small" not in text
    assert "This verdict rests on one seed" in text


@pytest.mark.parametrize(
    ("studies", "small", "words"),
    [
        (1, ["S0"], "The test set is too small to show equality within the margin, which takes 1"),
        (2, ["S0", "S1"], "All test sets are too small"),
        (2, ["S0"], r"The test set of \emph{S0} is too small"),
        (3, ["S0", "S2"], r"The test sets of \emph{S0} and \emph{S2} are too small"),
    ],
)
def test_test_sets_that_cannot_show_equality_are_named(studies: int, small: list[str], words: str):
    scaling = {"target": None, "best": []}
    counts = {"tested": 2, "tested_parallel": 2, "verdicts": [], "too_few_patients": small}
    assert words in results(NO_EFFECT | counts, *[scaling] * studies)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([0.95], r"the target, which is 95\,\% of the best validation accuracy that every"),
        ([None], r"until a validation accuracy of at least 80\,\%."),
        ([0.95, 0.95], r"the target, which is 95\,\% of the best validation accuracy that every"),
        ([None, 0.95], r"the target, which Appendix~\ref{sec:studies} states for each study."),
    ],
)
def test_a_target_is_that_of_the_configuration_or_derived(shares: list[float | None], words: str):
    usual = {"metric": "validation accuracy", "target": 0.8, "best": []}
    usual |= {"target_words": "validation accuracy of at least 80 %"}
    assert words in results(NO_EFFECT, *(usual | {"share": share} for share in shares))


@pytest.mark.parametrize(
    ("larger", "overlap", "in_results", "in_conclusion"),
    [
        (True, False, "The two intervals do not overlap.", "one seed each)."),
        (False, True, "The two intervals overlap, so", ", with intervals that overlap."),
        (False, False, "do not overlap, but the split is not shown", "one seed each)."),
    ],
)
def test_intervals_of_two_effects_are_compared(larger, overlap, in_results, in_conclusion):
    effect = {"title": "Skin", "words": "a split", "mode": "random", "amp": False}
    effect |= {"accuracy": 0.5, "accuracy_other": 0.7, "change": 24.0, "once": "one seed each"}
    effect |= {"change_low": 10.0, "change_high": 40.0, "train": None}
    facts = {"leakage": effect, "parallel_effect": effect, "other_splits": []}
    facts |= {"leakage_is_larger": larger, "effects_overlap": overlap}
    assert in_results in results(NO_EFFECT | facts)
    text = section("conclusion", synthesis=NO_EFFECT | facts)
    assert in_conclusion in text.removesuffix(text.partition(" Nothing here")[1])


@pytest.mark.parametrize(
    ("copies", "shared", "words"),
    [
        (8, 8, "All 8 test images of the published split are also training images; it has 40"),
        (3, 8, "3 of the 8 test images of the published split are also training images; it has"),
        (0, 5, "Of the 8 test images of the published split, 5 show a patient of the training"),
        (0, 0, "The published split has 40 training images instead of 30."),
    ],
)
def test_images_that_a_split_leaks_are_counted(tmp_path, copies, shared, words):
    (tmp_path / "sections").mkdir()
    name = Path("sections") / "phrases.tex.j2"
    macros = (ROOT / "paper" / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(macros + "<< leaking_images(split)|latex >>", encoding="utf-8")
    split = {"mode": "published", "train": 30, "train_other": 40, "test_other": 8}
    split |= {"copies": copies, "shared_groups": shared}
    text = " ".join(fill(tmp_path, name, {"split": split}).split())
    assert text.startswith(words)
    assert text.endswith("40 training images instead of 30.")
    text = " ".join(fill(tmp_path, name, {"split": split | {"train_other": 30}}).split())
    assert text.endswith("has as many training images (30).")


def test_no_recommendation_is_derived_from_stand_ins():
    advice = {"device": "gpu", "series": "DDP", "stand_in": True, "text": "Use them."}
    studies = [{"title": "Glaucoma", "scaling": {"advice": [advice]}}]
    text = section("discussion", studies=studies)
    assert "No recommendation is derived from CPU processes in place of GPUs." in text
    assert "Use them" not in text
    studies[0]["scaling"] = {"advice": [advice | {"stand_in": False}]}
    text = section("discussion", studies=studies)
    assert r"\item \emph{Glaucoma}, DDP on GPUs: Use them." in text
    assert "No recommendation" not in text


def test_each_project_is_cited_with_what_is_not_known_of_it():
    bibliography = (ROOT / "paper" / "references.bib").read_text(encoding="utf-8")
    for project, figures in read_yaml(REPORTED).items():
        entry = re.search(rf"@misc{{project-{project},(.*?)\n}}", bibliography, flags=re.S)
        assert entry is not None, project
        words = " ".join(entry[1].split())
        assert "are not known to us" in words
        models = re.findall(r"[A-Z]\d{2,3}|\d+[- ]core", str(figures["hardware"]))
        text = words.replace("8 CPU cores", "8 core")
        assert [model for model in models if model not in text] == []
    studies = [{"name": "skin", "reported": True}, {"name": "pneumonia", "reported": True}]
    synthesis = {
        "published_changes": [{"study": "pneumonia", "label": "DDP, 2 CPU", "change": -11.2}]
    }
    scope = {"scaled": True, "project": ["a", "b"], "personal": [], "leaking": []}
    text = section("introduction", studies=studies, synthesis=synthesis, scope=scope)
    assert "We repeat these experiments with one program and ask" in text
    demo = [study | {"synthetic": True} for study in studies]
    shown = section("introduction", studies=demo, synthesis=synthesis, scope=scope, demo=True)
    assert "with one program (here with synthetic images and reduced networks) and ask" in shown
    assert r"Two earlier course projects \cite{project-skin,project-pneumonia} measured" in text
    assert (
        "By the published figures, the accuracy fell by 11.2 points with DDP, 2 CPU "
        r"\cite{project-pneumonia}; the figures do not show why."
    ) in text


def test_the_introduction_is_about_parallel_training_only_where_there_is_some():
    studies = [{"name": "skin", "title": "Skin", "reported": False}]
    scope = {"project": [], "personal": ["Skin"], "leaking": []}
    usual: dict[str, Any] = {"studies": studies, "synthesis": {"published_changes": []}}
    for scaled in (True, False):
        text = section("introduction", **usual, scope=scope | {"scaled": scaled})
        assert ("Data-parallel training" in text) == scaled
        assert r"We train networks for \emph{Skin}" in text


def test_an_order_of_times_is_stated_only_beyond_the_ranges_of_replicates():
    cost = pd.DataFrame(
        {
            "run": ["ddp_2cpu", "serial_1cpu"],
            "replicates": 2,
            "seconds_high": [7.0, 11.0],
            "seconds_low": [5.0, 8.0],
        }
    )
    best = ["ddp_2cpu", "serial_1cpu"]
    assert is_first_apart(cost, best)
    assert not is_first_apart(cost.assign(seconds_low=6.9), best)
    assert not is_first_apart(cost.assign(replicates=1), best)
    assert not is_first_apart(cost, best[:1])
    middle = {"run": "ddp_4cpu", "replicates": 2, "seconds_high": 9.0, "seconds_low": 6.0}
    three = pd.concat([cost, pd.DataFrame([middle])])
    assert is_first_apart(three, ["ddp_2cpu", "ddp_4cpu", "serial_1cpu"])  # of the cheapest alone


def test_no_text_leaves_the_number_of_things_open():
    folders = (ROOT / "paper", ROOT / "src")
    files = [file for folder in folders for file in folder.rglob("*.j2")]
    files += (ROOT / "checklists").glob("*.yaml")
    assert len(files) > 20
    assert [
        path.name for path in files if re.search(r"\w\((s|es)\)", path.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ([True], r"\item A program draws images and labels."),
        (
            [True, False],
            r"Labels are those of the datasets, but for \emph{S0}, where a program draws images "
            "and labels. Where they were merged",
        ),
        ([False], "Labels are those of the datasets. Where they were merged"),
    ],
)
def test_labels_are_those_of_a_dataset_only_where_there_is_one(drawn: list[bool], words: str):
    studies = [
        {"title": f"S{number}", "synthetic": synthetic, "test_images": 900}
        for number, synthetic in enumerate(drawn)
    ]
    scope = {"scaled": False, "parallel": False, "project": [], "compared": False}
    scope |= {"unknown_patients": [], "partly_known": []}
    provenance = {"mixed": []}
    assert words in section("threats", studies=studies, provenance=provenance, scope=scope)


def test_a_chosen_learning_rate_is_stated_with_the_range_and_the_images_it_rests_on():
    choice = {"label": "serial, 1 CPU", "global_batch": 32, "learning_rate": 0.002, "tried": 3}
    choice |= {"configured": 0.001, "edge": "largest", "result": "results/a/b", "tied": 1}
    sweep = {"points": 3, "replicates": 1, "metric": "validation accuracy", "chosen": [choice]}
    study = {"name": "a", "title": "A", "images": {"val": 44}, "sweep": sweep}
    text = section("convergence", studies=[study])
    assert (
        "the best of the three is 0.002, the largest tried; the configured value is 0.001" in text
    )
    assert "It rests on one seed and 44 validation images." in text
    tied = choice | {"tied": 2}
    assert (
        "(32 images a step) two of the three have the best value; of these, the smallest "
        "validation loss is that of 0.002, the largest tried; the configured value is 0.001"
    ) in section("convergence", studies=[study | {"sweep": sweep | {"chosen": [tied]}}])
    both, every = tied | {"tried": 2}, tied | {"tied": 3}
    text = section("convergence", studies=[study | {"sweep": sweep | {"chosen": [both, every]}}])
    assert "(32 images a step) both have the best value; of these" in text
    assert "(32 images a step) all three have the best value; of these" in text
    choice |= {"learning_rate": 0.001, "edge": ""}
    text = section("convergence", studies=[study])
    assert "the best of the three is 0.001, the configured value (target" in text


def test_a_target_that_is_not_configured_is_explained_and_few_seeds_have_no_verdict():
    facts = {"metric": "validation accuracy", "target": "validation accuracy of at least 80 %"}
    facts |= {"is_derived": True, "share": 0.95, "margin": 0.2, "baseline": "serial, 1 CPU"}
    facts |= {"fewest": 5, "level": 0.9, "with_folds": False, "has_intervals": False}
    facts |= {"is_established": False, "verdicts": [], "censored": []}
    study = {"name": "a", "title": "A", "runs": [], "convergence": facts}
    text = section("convergence", studies=[study, study])
    words = "it is 95\\,\\% of a validation accuracy that every replicate of the baseline reaches."
    assert f"If no target is configured, {words}" in text
    assert "With fewer than five seeds of each run no verdict is given." in text
    study = study | {"convergence": facts | {"is_derived": False}}
    assert "If no target" not in section("convergence", studies=[study])


@pytest.mark.parametrize(
    ("slowdown", "words"), [(0.2, "(20\\,\\% longer"), (-0.03, "(3\\,\\% shorter")]
)
def test_a_traced_step_is_longer_or_shorter(slowdown: float, words: str):
    run = {"label": "DDP", "device": "AMD EPYC", "format": "fp32", "seconds": 0.02}
    run |= {"images_per_second": 1000, "slowdown": slowdown, "bottleneck": "", "stand_in": False}
    profile = {"runs": [run], "has_kinds_in_brackets": False}
    study = {"name": "a", "title": "A", "profile": profile}
    assert words in section("profiling", studies=[study])


def test_methods_name_the_studies_whose_near_duplicates_were_not_searched():
    studies = [
        {"title": title, "split": {"mode": "grouped", "near_duplicates": searched}}
        | {"patients": "known", "repeated": False}
        for title, searched in (("Skin", True), ("Pneumonia", False))
    ]
    scope = {"scaled": True, "project": [], "over": ["patients"]}
    scope |= {"compared": False, "parallel": False}
    text = section("methods", studies=studies, scope=scope, synthesis=NO_EFFECT)
    assert "near-duplicates stay, in one group (in Pneumonia none were searched). " in text


@pytest.mark.parametrize(
    ("studies", "words"),
    [
        ([("grouped", "known"), ("source", "known")], r"patients kept\\together};"),
        ([("grouped", "not known")], r"patients are\\not known};"),
        ([("grouped", "known"), ("grouped", "not known")], r"patients kept\\together where\\known"),
        ([("grouped", "partly")], r"patients kept\\together where\\known"),
        ([("grouped", "known"), ("published", "known")], r"as stated for\\each dataset"),
    ],
)
def test_the_figure_of_the_steps_says_whether_patients_are_known(studies, words):
    studies = [
        {"title": "Skin", "split": {"mode": mode, "near_duplicates": True}}
        | {"patients": state, "repeated": False}
        for mode, state in studies
    ]
    scope = {"scaled": True, "project": [], "over": ["patients"]}
    scope |= {"compared": False, "parallel": False}
    text = section("methods", studies=studies, scope=scope, synthesis=NO_EFFECT)
    assert rf"(split) {{split:\\{words}" in text


def test_the_abstract_says_that_nothing_was_learned_and_how_external_images_fare():
    score = {"mean": 0.6, "low": 0.5, "high": 0.7}
    outside = {"auroc": {"outside": {"mean": 0.71, "low": 0.6, "high": 0.8}}}
    sets = [
        {"title": "Clinic B", "images": 122, "label": label, "scores": outside, "overlap": 0}
        for label in ("serial, 1 CPU", "DDP, 2 CPU")
    ]
    study: dict[str, Any] = {
        "title": "Chest", "repeated": False, "seeds": [1], "files": {"used": 120},
        "classes": ["a", "b"], "split": {}, "runs": [{"label": "serial, 1 CPU"}], "collapsed": [],
        "baseline": {
            "label": "serial, 1 CPU, fp32", "scores": {"accuracy": score, "auroc": score},
        },
    }  # fmt: skip
    scope = {"scaled": False, "runs": 1, "precisions": ["full"], "unknown_patients": []}
    scope |= {"partly_known": []}

    def abstract(**changes: Any) -> str:
        return section("abstract", studies=[study | changes], scope=scope, synthesis=NO_EFFECT)

    plain = abstract()
    assert "Clinic B" not in plain
    assert "no learning" not in plain
    text = abstract(collapsed=["serial, 1 CPU"], external={"sets": sets})
    # The other run's scores are in the study's section alone.
    words = r"On \emph{Clinic B} (122 images of another origin), its AUROC is 0.710 (0.600--0.800)."
    assert text.count("Clinic B") == 1
    assert words in text
    assert "serial, 1 CPU gave every test image the same class: the accuracy shows no" in text
    text = abstract(collapsed=["serial, 1 CPU", *(f"DDP, {n} CPU" for n in (2, 4, 8))])
    words = r"Four runs gave every test image the same class (in \emph{Chest}): their accuracy"
    assert words in text
    assert "DDP, 4 CPU" not in text
    text = abstract(external={"sets": [sets[0] | {"overlap": 20}]})
    assert "another origin, 20 of which, or their patients, are in the study too), its" in text


@pytest.mark.parametrize(("images", "is_small"), [([3], True), ([900], False), ([900, 3], True)])
def test_a_small_test_set_is_a_threat_of_any_study(images: list[int], is_small: bool):
    studies = [
        {"title": f"S{count}", "synthetic": False, "test_images": count, "runs": []}
        for count in images
    ]
    scope = {"scaled": False, "parallel": False, "project": [], "compared": False}
    scope |= {"unknown_patients": [], "partly_known": []}
    for mark in ("", "demo: few epochs"):
        facts: dict[str, Any] = {"studies": studies, "provenance": {"mixed": []}, "scope": scope}
        text = section("threats", **facts, mark=mark)
        assert ("so that intervals are wide" in text) == is_small
        own = section("threats", **facts, mark=mark, demo=True)
        assert "images are reduced" not in own  # the demo scale changes no setting of one's own
        assert ("(3 images)" in text) == (images == [3])


def test_the_shares_of_folds_have_two_decimals():
    assert [str(share(part)) for part in (1 / 3, 0.7, 0.125, 0.5)] == [
        *("33.33", "70", "12.5", "50")
    ]
