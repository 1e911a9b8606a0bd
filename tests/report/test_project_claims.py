"""The claims of this project: what they name exists, and their minutes are the cost model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medscale.config.configuration import Config, load
from medscale.config.layers import read_yaml
from medscale.report.chapters import outputs
from medscale.report.claims.costs import minutes, trainings
from medscale.report.claims.measures import MEASURES
from medscale.report.claims.planned import plan_claims, shown_by
from medscale.report.claims.quantities import FUNCTIONS
from medscale.report.claims.schema import PATH, schema_text
from medscale.report.claims.statements import Claim, read_claims
from synthetic_runs import ROOT

ALL = load(ROOT / "config.yaml")
DEMO = load(ROOT / "config.yaml", {"scale": "demo"})


def test_each_measure_has_a_function_and_the_project_claims_each_but_none_other():
    assert set(FUNCTIONS) == set(MEASURES)
    claims = read_claims(ROOT / "claims.yaml")
    assert {claim.measure for claim in claims.values()} == set(MEASURES)


@pytest.mark.parametrize("config", [ALL, DEMO], ids=["full", "demo"])
def test_the_projects_claims_name_what_exists(config: Config):
    claims = plan_claims(config)
    assert len(claims) == len(read_claims(ROOT / "claims.yaml"))
    for claim_text in claims:
        assert shown_by(claim_text, outputs()).startswith(("figures/", "tables/"))
        assert claim_text.lowest is not None or claim_text.highest is not None
        if claim_text.test:
            file, _, name = claim_text.test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    if config.scale == "full":
        assert [claim_text.name for claim_text in claims if claim_text.absent] == ["exact_restart"]


def test_a_claim_on_other_devices_at_demo_scale_says_so_first():
    for name, fields in read_claims(ROOT / "claims.yaml").items():
        if isinstance(fields.demo, str) or not fields.demo.statement:
            continue
        statement = fields.demo.statement
        assert not statement.startswith("Stand-in"), name
        if (fields.run or "").endswith("4gpu"):
            words = "At demo scale, two CPU processes in place of four GPUs: "
            assert statement.startswith(words), name


def test_stated_minutes_are_those_of_the_cost_model():
    for claim_text in plan_claims(ALL):
        if runs := trainings(claim_text):
            model = minutes(ALL, runs)
            assert claim_text.minutes == pytest.approx(model, rel=0.5), (claim_text.name, model)


def test_the_schema_is_that_of_the_file():
    text = PATH.read_text(encoding="utf-8")
    assert text == schema_text(), "make settings"
    assert set(json.loads(text)["$defs"]["Claim"]["properties"]) == set(Claim.model_fields)


def test_no_file_is_read_again_for_each_claim(monkeypatch: pytest.MonkeyPatch):
    """Each process of Snakemake plans the claims: on a cluster that is each job."""
    paths: list[Path] = []

    def counted(path: Path) -> dict[str, object]:
        paths.append(path)
        return read_yaml(path)

    monkeypatch.setattr("medscale.report.claims.planned.read_yaml", counted)
    assert len(plan_claims(ALL)) > 5
    assert len(paths) == len(set(paths))
