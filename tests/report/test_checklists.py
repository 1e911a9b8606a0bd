"""Checklists: each item has an answer at full scale, and the answers are those of the facts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.data.leaks import shared_with_training
from medscale.report.checklists import chapter
from medscale.report.checklists.answers import answer
from medscale.report.checklists.items import (
    Item,
    StudyAnswers,
    check_names,
    files,
    read_listing,
    remedy,
    stopping,
    study_answers,
    unanswered,
)
from medscale.report.checklists.make import counts, make
from synthetic_runs import ROOT, configuration

LISTS = {path.stem: read_listing(path) for path in files()}
OWN = {"kind": "folder", "path": "raw", "synthetic": False, "options": {}}
PROJECT = StudyAnswers(personal=False, answers={}, stops=True)
PERSONAL = StudyAnswers(personal=True, answers={}, stops=False)
A = {"name": "a", "title": "Study A", "images": {"test": 12}, "share": 0.12345}
B = {"name": "b", "title": "Study B", "images": {"test": 30}, "share": None}


def answer_text(
    item: dict[str, Any], studies: dict[str, StudyAnswers], *facts: dict[str, Any]
) -> str:
    content = Item.model_validate({"asks": "What?", **item})
    return answer("claim.1", content, studies, {"studies": list(facts), "count": 3})


def test_the_checklists_have_the_items_of_their_publications():
    assert list(LISTS) == ["acm", "claim", "reproducibility", "tripod"]
    assert list(LISTS["claim"].items) == [str(number) for number in range(1, 45)]
    assert list(LISTS["reproducibility"].items) == [str(number) for number in range(1, 22)]
    numbers = {int(re.match(r"\d+", item)[0]) for item in LISTS["tripod"].items}  # type: ignore[index]
    assert numbers == set(range(1, 28))
    assert len(LISTS["tripod"].items) == 52
    library = (ROOT / "paper" / "references.bib").read_text(encoding="utf-8")
    for listing in LISTS.values():
        assert f"{{{listing.cite}," in library


def test_at_full_scale_every_item_of_the_projects_own_studies_is_answered():
    studies = study_answers(load(ROOT / "config.yaml"))
    assert len(studies) == 5
    assert all(of_study.stops for of_study in studies.values())
    assert stopping(LISTS, studies) == {}


def test_an_item_without_an_answer_stops_full_scale_with_one_message(tmp_path: Path):
    settings = {"checklist": {"unanswered": "stop"}, "source": OWN, "scale": "full"}
    config = configuration("mine", ["serial_1cpu"], **settings)
    missing = stopping(LISTS, study_answers(config))
    assert "claim.11" in missing
    message = remedy(missing)
    assert "claim.11 (mine)" in message
    assert "studies.mine.checklist.answers" in message
    arguments = chapter.settings(config, "")
    listings = [str(path) for path in files()]
    with pytest.raises(MedscaleError, match=r"claim\.11 \(mine\)"):
        make("", listings=listings, facts=[], shared=[], **arguments)
    answers = dict.fromkeys(missing, "as said in the protocol")
    settings["checklist"] = {"unanswered": "stop", "answers": answers}
    config = configuration("mine", ["serial_1cpu"], **settings)
    assert stopping(LISTS, study_answers(config)) == {}


@pytest.mark.parametrize(("scale", "checklist"), [("full", {}), ("demo", {"unanswered": "stop"})])
def test_ones_own_folder_and_the_demo_stop_at_nothing(scale, checklist):
    config = configuration("mine", ["serial_1cpu"], scale=scale, source=OWN, checklist=checklist)
    studies = study_answers(config)
    assert stopping(LISTS, studies) == {}
    assert unanswered(LISTS["claim"].items["11"], "claim.11", studies) == ["mine"]


def test_an_answer_to_an_unknown_item_is_refused():
    studies = {"a": StudyAnswers(personal=True, answers={"claim.45": "x"}, stops=False)}
    with pytest.raises(MedscaleError, match=r"'claim\.45'; did you mean 'claim\.\d"):
        check_names(LISTS, studies)


def test_answers_are_filled_by_hand():
    two_studies, one_study = {"a": PROJECT, "b": PROJECT}, {"a": PROJECT}
    assert answer_text({"answer": "<< count >> runs"}, two_studies, A, B) == "3 runs"
    by_study = {"by_study": "<< s.images.test >> images"}
    assert answer_text(by_study, two_studies, A, B) == "Study A: 12 images; Study B: 30 images"
    assert answer_text(by_study, one_study, A) == "12 images"
    assert answer_text({"by_study": "the same"}, two_studies, A, B) == "The same"
    assert (
        answer_text({"by_study": "<< s.share >>"}, two_studies, A, B)
        == "Study A: 0.1235; Study B: not known"
    )
    assert (
        answer_text({"not_done": "nobody can"}, two_studies, A, B) == "Not done, because nobody can"
    )
    mixed = {"a": PROJECT, "b": PERSONAL}
    assert (
        answer_text({"project": "By them."}, mixed, A, B)
        == "Study A: By them.; Study B: not answered"
    )
    assert answer_text({}, one_study, A) == "Not answered"
    assert answer_text({"answer": "`make x` runs it"}, one_study, A) == "`make x` runs it"


def test_items_not_done_for_some_studies_are_counted_apart():
    answers = ["Yes.", "Not done, because x", "Study A: yes; Study B: not done, because x"]
    answers += ["Study A: not answered"]
    item_counts = counts(pd.DataFrame({"answer": answers}))
    assert item_counts == {"items": 4, "not_done": 1, "partly": 1, "unanswered": 1}


def test_a_test_set_of_one_class_has_no_sensitivity():
    by_study = LISTS["claim"].items["38"].by_study
    absent = {"mean": None, "low": None, "high": None}
    baseline = {"sensitivity": absent, "specificity": {"mean": 0.9}}
    text = answer_text({"by_study": by_study}, {"a": PROJECT}, A | {"baseline": baseline})
    assert text == "Not known, as the test images are of one class"


def test_test_images_of_the_training_split_are_counted_as_the_audit_counts_them():
    item = {"by_study": LISTS["claim"].items["32"].by_study}
    facts = {"split": {"near_duplicates": True}, "patients": "not known", "test_in_training": 2}
    facts["test_images"] = 12
    assert answer_text(item, {"a": PROJECT}, A | facts) == (
        "12 test images, of which 2 are in the training split too or look like an image in it; "
        "patients are not known"
    )
    facts |= {"split": {"near_duplicates": False}, "patients": "known", "test_in_training": 0}
    assert (
        answer_text(item, {"a": PROJECT}, A | facts)
        == "12 test images, none of which is in the training split"
    )
    index = pd.DataFrame({"split": ["train", "train", "test", "test"], "group": list("abbc")})
    assert shared_with_training(index, "group") == 1


def test_near_duplicates_stay_together_only_where_they_were_searched():
    item = {"by_study": LISTS["claim"].items["20"].by_study}
    for searched, words in ((True, "near-duplicates stay together"), (False, "were not searched")):
        split = {"mode": "grouped", "near_duplicates": searched}
        text = answer_text(item, {"a": PROJECT}, A | {"split": split, "groups": "patients"})
        assert text.startswith("Patients; near-duplicates ")
        assert text.endswith(words)


@pytest.mark.parametrize("item", ["claim.5", "claim.11", "claim.16", "tripod.17"])
def test_no_publisher_is_named_where_a_program_draws_the_images(item: str):
    listing, _, number = item.partition(".")
    content = {"project": LISTS[listing].items[number].project}
    drawn, real = A | {"synthetic": True}, B | {"synthetic": False}
    text = answer_text(content, {"a": PROJECT}, drawn)
    assert "program" in text
    assert not re.search("publish|public", text)
    mixed = answer_text(content, {"a": PROJECT, "b": PROJECT}, drawn, real)
    assert re.fullmatch("Study A: .*program.*; Study B: .*(publish|Public).*", mixed)


def test_a_studys_own_answer_comes_first():
    own_answers = StudyAnswers(personal=True, answers={"claim.1": "Ours."}, stops=False)
    assert answer_text({"project": "By them."}, {"a": own_answers}, A) == "Ours."
    two_studies = {"a": PROJECT, "b": own_answers}
    assert (
        answer_text({"project": "By them."}, two_studies, A, B)
        == "Study B: Ours.; Study A: By them."
    )
    assert answer_text({"answer": "All."}, two_studies, A, B) == "All.; Study B: Ours."


def test_wrong_facts_and_fields_name_the_item(tmp_path: Path):
    with pytest.raises(MedscaleError, match=r"claim\.1: .*no attribute 'shoes'"):
        answer_text({"by_study": "<< s.shoes >>"}, {"a": PROJECT}, A)
    with pytest.raises(ValueError, match="one of answer"):
        Item(asks="What?", answer="a", not_done="b")
    path = tmp_path / "x.yaml"
    path.write_text("title: X\ncite: y\nitems: {'1': {ask: What}}\n", encoding="utf-8")
    with pytest.raises(MedscaleError, match=r"items\.1\.asks"):
        read_listing(path)


def test_commands_and_files_in_answers_are_code_words():
    """Their names keep their small letters where an answer begins with one."""
    for name, listing in LISTS.items():
        for number, item in listing.items.items():
            texts = filter(None, (item.answer, item.by_study, item.project, item.not_done))
            for text in texts:
                words = re.sub("`[^`]*`|<%.*?%>|<<.*?>>", "", text, flags=re.S)
                commands = re.findall(
                    r"medscale [a-z]+|make [a-z]+|\S+\.(?:csv|json|lock|py)", words
                )
                assert not commands, f"{name}.{number}"


def test_answers_name_sections_that_the_paper_has():
    paper, answers = (
        " ".join(path.read_text(encoding="utf-8") for path in ROOT.glob(place))
        for place in ("paper/*/*", "checklists/*")
    )
    for title in ("Introduction", "Related work", "Methods in full", "Threats to validity"):
        assert title.lower() in answers.lower()
        assert rf"\section{{{title}}}" in paper
    assert "methods in detail" not in answers.lower()
    assert r"\subsection{Images of another origin}" in paper
    places = r"Images of another\s+origin|table of external|study's table<|confusions in a table"
    assert {" ".join(place.split()) for place in re.findall(places, answers)} == {
        "Images of another origin"
    }
    assert ("figure of calibration" in answers) == ("{calibration}" in paper)
    cited = re.findall(r"CLAIM[^.]*?\\cite\{(\w+)\}", paper)
    assert set(cited) == {LISTS["claim"].cite}
