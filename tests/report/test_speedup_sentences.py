"""Sentences of the paper about speedups and losses follow from facts by stated rules."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from medscale.report.scaling.facts import above_devices
from paper_sections import LOSS, NO_EFFECT, conclusion, results, section

TWO = ["the strategy", "the precision"]


def test_speedups_above_the_number_of_devices_are_named_ours_and_published():
    def series(*speedups):
        table = pd.DataFrame({"devices": [1, 2, 4], "speedup": speedups})
        return SimpleNamespace(table=lambda: table)

    analysis = SimpleNamespace(measured=[series(1, 2.58, 3)], published=[series(1, 2.01, 4.4)])
    assert above_devices(analysis) == [
        {"origin": "measured", "speedup": 2.58, "devices": 2},
        {"origin": "published", "speedup": 4.4, "devices": 4},
    ]


def test_the_conclusion_says_where_the_time_goes_and_what_loses_accuracy():
    text = conclusion(LOSS, ("communication", 3), ("waiting for data", 1))
    assert (
        r"\emph{Why:} what keeps the parallel runs from the ideal is mostly "
        "communication in three runs and waiting for data in one. The "
        r"largest loss of accuracy (14.2 points, serial + AMP, 1 GPU, \emph{Glaucoma}) is "
        "established; it comes with a change of the precision."
    ) in text
    alone = conclusion(LOSS, ("communication", 1))
    assert "what keeps the parallel run from the ideal is mostly communication. The" in alone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicates": 1}, "is established for the test images alone (one seed); it comes"),
        (
            {"established": False, "points_to_chance": True},
            "is not established; it comes with a change of the precision, but runs with the "
            "same change lose less.",
        ),
        ({"factors": [], "changes": []}, "is established."),
        ({"established": False, "within": True}, "is less than the margin; it comes with"),
        (
            {"changes": ["the precision", "the kind of device"]},
            "with a change of the precision and the kind of device.",
        ),
        (
            {"factors": TWO, "changes": TWO},
            "a change of the strategy and the precision, which no other run separates.",
        ),
        (
            {
                "established": False,
                "others": [LOSS | {"label": "DDP, 2 GPU", "title": "Skin", "replicates": 1}],
            },
            ". Established for the test images alone (one seed) is the loss of DDP, 2 GPU in "
            r"\emph{Skin} (14.2 points), with a change of the precision.",
        ),
    ],
)
def test_a_loss_of_accuracy_is_claimed_as_far_as_it_is_established(changes, words):
    assert words in conclusion(LOSS | changes)


PART = {"label": "DDP, 2 GPU", "mean": -1.0, "low": -3.0, "high": 1.0, "factors": ["the strategy"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "0.020, adjusted). The choice of test images does not explain this loss."),
        ({"established": False, "high": 0.0}, "is not established: the interval includes zero."),
        ({"established": False, "within": True}, r"is less than the margin of $\pm$2 points."),
        ({"established": False, "rejected": False}, "the exact test does not reject equality."),
        ({"established": False}, "does not exceed twice its standard error over seeds."),
        ({}, "over the two seeds of a run is up to 2.5 points. The run has the baseline's seeds"),
        ({"seed_sd": None}, "the spread over seeds is not known and may be as large."),
        ({"same_seeds": False}, "Apart from the seeds, the run differs from the baseline in the"),
        (
            {"changes": ["the precision", "the kind of device"]},
            "differs from it in the precision and the kind of device.",
        ),
        ({}, "Further seeds of serial + AMP, 1 GPU and of serial, 1 GPU would show whether"),
        ({"factors": []}, "differs from the baseline in nothing but the device."),
        (
            {"wider": [PART], "points_to_chance": True},
            "is part of DDP, 2 GPU (-1.0 points, -3.0 to +1.0), which loses less: this points to "
            "the chance of single trainings rather than to the precision as such.",
        ),
        ({"wider": [PART, PART], "points_to_chance": True}, "+1.0), which lose less: this"),
        ({"factors": TWO, "parts": [PART]}, "Of these, DDP, 2 GPU changes only the strategy; its"),
        (
            {"factors": TWO, "lacking": [{"factor": "the precision", "run": "serial_amp_1gpu"}]},
            "No run separates the precision; the run \\texttt{serial_amp_1gpu} would.",
        ),
        ({"factors": TWO}, "No run of this study separates these causes."),
        (
            {"others": [LOSS | {"label": "DDP, 2 GPU", "title": "Skin", "replicates": 1}]},
            r"The loss of DDP, 2 GPU in \emph{Skin} is established for the test images alone: 14.2",
        ),
    ],
)
def test_the_largest_loss_is_explained_as_far_as_runs_separate_its_causes(changes, words):
    counts = {"tested": 3, "tested_parallel": 3, "verdicts": [], "loss": LOSS | changes}
    text = results(NO_EFFECT | counts).replace("~", " ").replace(r"\_\allowbreak{}", "_")
    assert words in re.sub(r"\\ensuremath\{(.)\}", r"\1", text)


def test_runs_without_a_loss_are_said_to_have_none():
    assert r"\emph{Why:} no run has a lower accuracy than its baseline." in conclusion(None)
    assert "Why" not in section("conclusion", synthesis=NO_EFFECT)


def test_stand_ins_are_not_counted_as_faster_or_slower():
    best = {"label": "DDP, 2 CPU", "title": "Skin", "speedup": 1.7, "low": 1.5, "high": 1.9}
    counts = {"parallel": 2, "unrepeated": 0, "faster": 1, "slower": 1, "parallel_stand_ins": 7}
    text = section("conclusion", synthesis=NO_EFFECT | counts | {"fastest": best})
    assert (
        "Of two parallel runs with several replicates, one is shown to be faster and one is "
        r"slower than one device by a 95\,\% interval; seven runs by CPU processes in place of "
        "GPUs are not counted."
    ) in text
    text = section("conclusion", synthesis=NO_EFFECT | {"parallel_stand_ins": 7})
    assert (
        "not measured, since all parallel runs were carried out by CPU processes in place of GPUs."
    ) in text


@pytest.mark.parametrize(
    ("counts", "in_results", "in_conclusion"),
    [
        (
            {"faster": 1},
            "It is faster (95",
            "The parallel run with several replicates is faster than",
        ),
        (
            {"slower": 1},
            "It is slower (95",
            "The parallel run with several replicates is slower than",
        ),
        (
            {},
            "It is not shown to be faster or slower (the 95",
            "The parallel run with several replicates is not shown to be faster or slower than",
        ),
        (
            {"parallel": 2, "unrepeated": 1, "faster": 1},
            "one of them has one seed, and so no interval. The other is faster",
            "The parallel run with several replicates is faster than one device by",
        ),
        ({"unrepeated": 1}, "; with one seed, it has no", ". With one seed, the speedup has no"),
        (
            {"parallel": 2, "unrepeated": 2},
            "; with one seed each, none has an interval.",
            ". With one seed each, no speedup has an interval.",
        ),
    ],
)
def test_a_single_parallel_run_is_not_counted_among_several(counts, in_results, in_conclusion):
    best = {"label": "DDP, 2 CPU", "title": "Skin", "speedup": 1.7, "low": 1.5, "high": 1.9}
    usual = {"parallel": 1, "unrepeated": 0, "faster": 0, "slower": 0, "fastest": best}
    synthesis = NO_EFFECT | usual | counts
    assert in_conclusion in section("conclusion", synthesis=synthesis)
    synthesis |= {"fastest": best | {"efficiency": 0.85}}
    assert in_results in results(synthesis)


def test_an_interval_that_includes_one_shows_no_speedup():
    best = {"label": "DDP, 2 CPU", "title": "Skin", "speedup": 2.78, "efficiency": 1.39}
    usual = {"parallel": 2, "unrepeated": 0, "faster": 0, "slower": 0}
    open_ends = NO_EFFECT | usual | {"fastest": best | {"low": 0.02, "high": 274.6}}
    words = (
        r"o speedup is established: the fastest parallel run, DDP, 2 CPU in \emph{Skin}, has 2.78 "
        r"times the speed of one device, with a 95\,\% interval of 0.02--274.60."
    )
    assert words in section("conclusion", synthesis=open_ends)
    assert words in results(open_ends)
    assert "the interval of each includes 1" in results(open_ends)
    other = {"label": "DDP, 2 CPU", "title": "Glaucoma", "speedup": 1.12, "low": 1.02, "high": 1.24}
    assert (
        r"The largest speedup whose 95\,\% interval lies above 1 is 1.12 (1.02--1.24), by DDP, 2 "
        r"CPU in \emph{Glaucoma}; the fastest parallel run, DDP, 2 CPU in \emph{Skin}, has 2.78 "
        r"times the speed of one device, but an interval of 0.02--274.60."
    ) in results(open_ends | {"fastest_above_one": other, "faster": 1})
    above = open_ends | {"fastest": best | {"low": 2.5, "high": 3.1}, "faster": 1}
    assert "The largest speedup is 2.78 (95" in results(above)
    assert "No speedup is established" not in results(above)
    once = open_ends | {"fastest": best | {"speedup": 0.48, "low": None}, "unrepeated": 2}
    assert "No parallel run was faster than one device: the fastest, DDP" in results(once)


def test_runs_are_counted_by_what_is_known_of_their_accuracy():
    def verdict(short: str, runs: int, once: int = 0) -> dict[str, Any]:
        return {"short": short, "runs": runs, "once": once, "titles": ["Skin"]}

    def words(linear: str, *verdicts: dict[str, Any]) -> str:
        total = sum(v["runs"] for v in verdicts)
        counts = {"tested": total, "tested_parallel": total}
        counts |= {"verdicts_parallel": list(verdicts), "loss": LOSS}
        studies = [{"title": "Skin", "baseline": {"linear": linear}}]
        text = section("conclusion", synthesis=NO_EFFECT | counts, studies=studies)
        return text.partition(r"\emph{At what cost:} ")[2].partition(r" \emph{Why:}")[0]

    open_verdicts = verdict("not established to differ", 2, 1), verdict("inconclusive", 5, 3)
    assert words("", verdict("equal", 2), verdict("lower", 1, 1), *open_verdicts) == (
        r"of ten parallel runs, two have the baseline's accuracy within $\pm$2 points; one is "
        "less accurate than the baseline (one seed); for seven no difference in accuracy is "
        "established (four with one seed)."
    )
    assert words("worse", verdict("equal", 2)) == (
        r"of two parallel runs, both have the baseline's accuracy within $\pm$2 points, though "
        "their baseline is worse than a linear reference."
    )
    assert words("", open_verdicts[1]) == (
        "of five parallel runs, no difference in accuracy is established for any (three with one "
        "seed)."
    )
    assert words("", open_verdicts[1] | {"runs": 1, "once": 0}) == (
        "for the parallel run no difference in accuracy is established."
    )


def test_published_speedups_are_compared_in_short_sentences():
    facts = {"pairs": 5, "above": 1, "inside": 2, "below": 0, "without": 2, "studies": ["skin"]}
    facts |= {"stand_ins": 0}
    text = results(NO_EFFECT | {"published": facts})
    comparison = text.partition("Of five published speedups")[2]
    assert (
        "one lies above our 95 % interval and two lie within our interval (Figure~\\ref{fig:"
        "how_far}). Of ours, two have one seed and no interval. Appendix~"
    ) in comparison.replace("\\,\\%", " %")
    sentences = re.split(r"\. ", comparison)
    assert max(len(sentence.split()) for sentence in sentences) <= 30
    assert "further" not in comparison
    text = results(NO_EFFECT | {"published": facts | {"stand_ins": 4}})
    assert (
        "Four further ones are not counted, since our runs were carried out by CPU processes in "
        "place of GPUs. Appendix~"
    ) in text


def test_the_time_that_parallel_runs_lose_is_that_of_runs_with_a_serial_one():
    def words(*runs: int) -> str:
        names = ("slower computing", "communication")
        activities = [{"words": w, "runs": n} for w, n in zip(names, runs, strict=False)]
        text = results(NO_EFFECT | {"lost_time": {"runs": sum(runs), "activities": activities}})
        return text.partition("$1/p$ of the serial time. ")[2].partition(r" \allfigure")[0]

    assert words(8, 1) == (
        "Nine parallel runs that have a serial run to compare with need more. Most of the excess "
        "is slower computing in eight of them and communication in one."
    )
    assert words(2).endswith("Most of the excess is slower computing in both.")
    assert words(3).endswith("Most of the excess is slower computing in all.")
    assert words(1) == (
        "One parallel run that has a serial run to compare with needs more. Most of the excess is "
        "slower computing."
    )


def test_runs_with_the_same_fact_are_named_in_one_sentence():
    def lacking(title: str, label: str, device: str) -> dict[str, str]:
        return {"title": title, "label": label, "lacking": device}

    absent = [lacking("Skin", "DDP, 2 GPU", "1 GPU"), lacking("Eyes", "DDP, 4 CPU", "1 CPU")]
    absent += [lacking("Skin", f"DDP, {n} GPU", "1 GPU") for n in (3, 4)]
    equal = [{"title": "Skin", "label": f"{n} GPU", "of": "1 CPU"} for n in (2, 3, 4)]
    facts = {"parallel_stand_ins": 1, "tested": 1, "tested_parallel": 1, "verdicts": []}
    facts |= {"not_comparable": absent, "same_scores": equal}
    scaling = {"target": None, "best": []}
    text = results(NO_EFFECT | facts, scaling)
    assert text.count("no speedup is given") == 2
    assert r"For DDP, 2 GPU; DDP, 3 GPU; and DDP, 4 GPU in \emph{Skin} no speedup" in text
    assert "the study has no serial run on 1 CPU in full precision that did the same work." in text
    assert r"In \emph{Skin}, 2 GPU, 3 GPU and 4 GPU have the accuracy and the AUROC of" in text
