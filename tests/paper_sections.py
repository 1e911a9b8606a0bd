"""The text of sections of the paper for given facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medscale.report.paper.build import fill
from synthetic_runs import ROOT

LOSS: dict[str, Any] = {
    "mean": -14.2, "label": "serial + AMP, 1 GPU", "title": "Glaucoma", "replicates": 2,
    "established": True, "factors": ["the precision"], "changes": ["the precision"],
    "parts": [], "points_to_chance": False, "others": [], "within": False,
    "baseline": "serial, 1 GPU",
    "low": -20.0, "high": -8.4, "p": 0.02, "rejected": True, "same_seeds": True, "seed_sd": 2.5,
    "wider": [], "lacking": [], "margin": 2.0,
}  # fmt: skip


NO_EFFECT: dict[str, Any] = {
    "fastest": None, "fastest_above_one": None, "leakage": None, "parallel_effect": None,
    "loss": None, "tested": 0,
    "lost_time": {"runs": 0, "activities": []}, "parallel_stand_ins": 0,
    "margins": [2.0], "fewest_patients": 183, "too_few_patients": [],
}  # fmt: skip


def section(name: str, **variables: Any) -> str:
    """Return the text of a section, on one line."""
    usual = {"mark": "", "demo": False, "studies": [], "scope": {"scaled": True, "project": []}}
    text = fill(ROOT / "paper", Path("sections") / f"{name}.tex.j2", usual | variables)
    return " ".join(text.split())


def conclusion(loss: dict[str, Any] | None, *activities: tuple[str, int]) -> str:
    lost = {
        "runs": sum(runs for _, runs in activities),
        "activities": [{"words": words, "runs": runs} for words, runs in activities],
    }
    synthesis = NO_EFFECT | {"loss": loss, "lost_time": lost, "tested": 3}
    synthesis |= {"tested_parallel": 0, "verdicts": [], "verdicts_parallel": []}
    return section("conclusion", synthesis=synthesis)


def results(
    synthesis: dict[str, Any], *scalings: dict[str, Any], compared: bool = False, runs: int = 0
) -> str:
    """Return the section of results for studies with these facts of scaling and so many runs."""
    usual = {
        "not_comparable": [], "fitted": False, "cores": None, "same_scores": [], "tested_once": 0,
        "shares": {"data": None}, "published": {"pairs": 0}, "repeated_stand_ins": 0,
        "another_network": 0, "reaching": {},
    }  # fmt: skip
    scope = {"project": [], "precisions": ["full"], "stand_ins": False, "scaled": True}
    scope |= {"compared": compared, "prices": []}
    scores = {key: {"mean": 0.9, "low": 0.8, "high": 1.0} for key in ("auroc", "accuracy")}
    studies = [
        {"title": f"S{number}", "name": f"s{number}", "reported": False, "scaling": scaling}
        | {"communication_measured": True, "replicates": 1}
        | {"runs": runs * [{"label": "FSDP", "stand_in": False}]}
        | {"baseline": {"label": "serial", "scores": scores, "linear": "better"}}
        | {"linear": {"scores": scores}}
        for number, scaling in enumerate(scalings)
    ]
    return section("results", synthesis=usual | synthesis, scope=scope, studies=studies)
