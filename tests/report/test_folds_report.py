"""The report of a cross-validation: the chapter folds, and what the other chapters say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_parquet
from medscale.data.settings import Split
from medscale.data.split import assign_folds
from medscale.report.chapters import chapters_of, refuse_absent
from medscale.report.checklists.answers import answer
from medscale.report.checklists.items import StudyAnswers, files, read_listing
from medscale.report.claims.checking import check
from medscale.report.claims.planned import plan_claims
from medscale.report.claims.quantities import Files
from medscale.report.paper.build import fill
from medscale.report.paper.facts import read_facts
from synthetic_runs import (
    ROOT,
    configuration,
    make_chapter,
    make_index,
    make_study,
    report,
    report_shared,
)

# The paths of figures and tables keep the underscore, which LaTeX's text would escape.
STUDY, RUNS = "our_photos", ["serial_1cpu", "ddp_2cpu"]
SPLIT = {"folds": 4, "train": None, "test": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs with two seeds and four folds, and its report."""
    folder = tmp_path_factory.mktemp("folds")
    index = make_index(folder / "data" / STUDY, ["a", "b"], images=120)
    index = index.join(assign_folds(index, Split(folds=4)))
    write_parquet(folder / "data" / STUDY / "index.parquet", index)
    settings = {"split": SPLIT, "seeds": [1, 2]}
    results = make_study(folder, STUDY, ["a", "b"], RUNS, index=index, **settings)
    report(folder, STUDY, results)
    config = configuration(STUDY, RUNS, **settings)
    make_chapter(folder, config, STUDY, "folds")
    report_shared(folder, results)
    return folder


def test_the_chapter_has_each_run_pooled_and_by_fold(folder: Path) -> None:
    table = pd.read_csv(folder / "tables" / STUDY / "folds.csv")
    assert table["run"].tolist() == [run for run in RUNS for _ in range(2)]
    summary = read_json(folder / "results" / STUDY / RUNS[0] / "summary.json")
    (row,) = table[(table["run"] == RUNS[0]) & (table["metric"] == "accuracy")].to_dict("records")
    # pandas 3.0 misses the last digit of some numbers in a CSV file
    mean = summary["metrics"]["test"]["accuracy"]["mean"]
    assert row["pooled_mean"] == pytest.approx(mean, rel=1e-12)
    values = [row[f"fold_{fold}"] for fold in range(1, 5)]
    assert row["folds_mean"] == pytest.approx(sum(values) / 4)
    assert row["folds_low"] < row["folds_mean"] < row["folds_high"]
    tests = pd.read_csv(folder / "tables" / STUDY / "fold_tests.csv")
    assert tests["run"].tolist() == [RUNS[1]] * 2
    assert (folder / "figures" / STUDY / "folds.pdf").stat().st_size > 1000


def test_folds_are_replicates_of_times_and_seeds_are_of_scores(folder: Path) -> None:
    summary = read_json(folder / "results" / STUDY / RUNS[0] / "summary.json")
    assert len(summary["timing"]["seconds_per_epoch"]["values"]) == 8
    assert len(summary["metrics"]["test"]["accuracy"]["values"]) == 2
    speedups = pd.read_csv(folder / "tables" / STUDY / "scaling.csv")
    assert set(speedups["replicates"]) == {8}
    runs = pd.read_csv(folder / "tables" / "runs.csv")
    assert list(zip(runs["seed"], runs["fold"], strict=True))[:5] == [
        *((1, fold) for fold in range(1, 5)),
        (2, 1),
    ]
    scores = pd.read_csv(folder / "results" / STUDY / RUNS[0] / "folds.csv")
    first = scores[(scores["metric"] == "accuracy") & (scores["fold"] == 3)]
    assert runs["value"].iloc[2] == pytest.approx(first["seed_1_value"].item())


def test_tables_and_text_say_that_scores_are_pooled(folder: Path) -> None:
    results = (folder / "tables" / STUDY / "results.tex").read_text()
    assert "4-fold, pooled out-of-fold" in results
    facts = [folder / "tables" / STUDY / f"{name}.json" for name in ("facts", "scaling", "folds")]
    facts_read = read_facts(facts, [folder / "tables" / "provenance.json"])
    facts_read["studies"][0]["chapters"].append("folds")
    text = fill(ROOT / "paper", Path("sections/folds.tex.j2"), facts_read)
    assert "4 folds, 120 images of 60 patients or groups." in text
    assert r"\studytable{our_photos}{fold_tests}" in text


def test_checklists_tell_the_test_images_of_a_fold_from_those_of_all(folder: Path) -> None:
    tables = folder / "tables"
    facts = read_facts(
        [tables / STUDY / f"{name}.json" for name in ("facts", "scaling", "quality")],
        [tables / "provenance.json"],
    )
    studies = {STUDY: StudyAnswers(personal=True, answers={}, stops=False)}
    items = {
        f"{path.stem}.{number}": item
        for path in files()
        for number, item in read_listing(path).items.items()
    }

    def text(name: str) -> str:
        return answer(name, items[name], studies, facts)

    counts = pd.read_parquet(folder / "data" / STUDY / "index.parquet")["split"].value_counts()
    sizes = " / ".join(str(counts[split]) for split in ("train", "val", "test"))
    folds = f"4 folds, each of which is the test split once; in the first, {sizes} images"
    for name in ("claim.19", "reproducibility.7", "tripod.10", "tripod.12a", "tripod.21"):
        assert folds in text(name), name
    assert text("claim.21").startswith("120 test images of 60 patients or groups")
    assert text("claim.32").startswith("120 test images, none of which is in the training split")


def test_only_a_study_with_folds_has_the_chapter() -> None:
    config = configuration(STUDY, RUNS, split=SPLIT)
    assert "folds" in [chapter.name for chapter in chapters_of(config, STUDY)]
    with pytest.raises(MedscaleError, match=r"split\.folds"):
        refuse_absent(configuration(STUDY, RUNS), STUDY, "figures", "folds")


@pytest.mark.parametrize("measure", ["accuracy_difference", "speedup"])
def test_a_claim_about_a_cross_validation_reads_the_replicates_of_all_folds(
    folder: Path, tmp_path: Path, measure: str
) -> None:
    fields = {"statement": "It is so.", "table": "verdicts", "study": STUDY, "measure": measure}
    fields |= {"run": RUNS[1], "compare": "at_least", "expected": -100, "tolerance": 0}
    fields |= {"reason": "made", "minutes": 1, "hardware": "a core", "demo": {"reason": "same"}}
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps({"claims": {"made": fields}}), encoding="utf-8")
    config = configuration(STUDY, RUNS, split=SPLIT, seeds=[1, 2])
    (claim,) = plan_claims(config.model_copy(update={"claims": path}))
    assert len(claim.timings(STUDY, RUNS[1])) == 8
    row = check(claim, Files(lambda name: folder / name, resamples=100))
    assert (row["verdict"], row["missing"]) == ("holds", [])
    column = {"speedup": "speedup", "accuracy_difference": "change"}[measure]
    runs = pd.read_csv(folder / "tables" / "verdicts.csv").set_index("run")
    assert row["value"] == pytest.approx(runs[column][RUNS[1]])


def test_the_paper_counts_folds_as_replicates_of_times(folder: Path) -> None:
    tables = folder / "tables"
    names = ("facts", "quality", "scaling", "folds")
    shared = ("provenance", "synthesis", "claims", "checklists")
    facts = read_facts(
        [tables / STUDY / f"{name}.json" for name in names],
        [tables / f"{name}.json" for name in shared],
    )
    text = {
        name: " ".join(fill(ROOT / "paper", Path(f"sections/{name}.tex.j2"), facts).split())
        for name in ("abstract", "studies", "methods", "results")
    }
    assert "is cross-validated in four folds." in text["abstract"]
    counts = pd.read_parquet(folder / "data" / STUDY / "index.parquet")["split"].value_counts()
    assert (
        "Each is a test image in one of 4 folds: 120 test images of 60 patients or groups. In the "
        f"first fold there are {counts['train']} images for training, {counts['val']} for the "
        f"choice of the epoch whose weights are kept, and {counts['test']} for the test (Table"
    ) in text["studies"]
    assert "(mean over replicates, each of which has its own), fitted on" in text["studies"]
    assert "so a run with one replicate has none" in text["methods"]
    assert "a value without an interval is that of one replicate" in text["results"]
    assert "the parallel run with several replicates is" in text["abstract"].lower()
    assert "Each run has 8 replicates (seeds 1, 2; 4 folds each) on" in text["studies"]
