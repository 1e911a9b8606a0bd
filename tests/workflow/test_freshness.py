"""Whether existing files of a report are those of the present settings, code and raw images."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest

from medscale.base.errors import MedscaleError
from medscale.cli.crate import NOT_KNOWN, OUTDATED, pack
from medscale.workflow import freshness
from medscale.workflow.causes import FIRST_TIME, OTHER_IMAGE, missing_raw
from medscale.workflow.graph import Graph
from medscale.workflow.why import Explanation

CHANGED = "src/medscale/evaluate/metrics.py has changed"
ABSENT = "the raw images of mine are missing: nowhere/images"


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """A study whose raw images are not here."""
    study = {"source": {"kind": "folder", "path": "nowhere/images"}, "classes": ["no", "yes"]}
    changes = {"only": ["mine"], "studies": {"mine": study | {"title": "Mine"}}}
    return Graph(changes | {"workdir": str(tmp_path)})


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ([], True),
        ([FIRST_TIME, OTHER_IMAGE], True),
        ([CHANGED], False),
        ([ABSENT], None),
        ([ABSENT, FIRST_TIME], None),
        ([ABSENT, CHANGED], False),
    ],
)
def test_only_a_change_makes_a_report_outdated(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, causes: list[str], expected: bool | None
) -> None:
    explanation = Explanation("paper", causes={cause: Counter(["index"]) for cause in causes})
    monkeypatch.setattr(freshness, "planned", lambda *_, **__: nullcontext())
    monkeypatch.setattr(freshness, "explanation_of", lambda *_: explanation)
    assert freshness.is_current(graph, {}) is expected


def test_without_records_it_is_not_known(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MedscaleError("no rule makes it")

    monkeypatch.setattr(freshness, "planned", refuse)
    assert freshness.is_current(graph, {}) is None


def test_missing_raw_images_are_named_and_synthetic_ones_are_never_missing(graph: Graph) -> None:
    assert missing_raw(graph, "mine") == ABSENT
    demo = Graph({"scale": "demo"})
    assert [missing_raw(demo, study) for study in demo.studies] == [None] * len(demo.studies)


@pytest.mark.parametrize(
    ("state", "note"), [(True, ""), (False, f"note: {OUTDATED}"), (None, f"note: {NOT_KNOWN}")]
)
def test_a_crate_says_that_its_files_were_made_before_a_change(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    state: bool | None,
    note: str,
) -> None:
    context = type("Context", (), {"invoked_subcommand": None})
    monkeypatch.setattr("medscale.workflow.crate.export", lambda *_, **__: (7, Counter()))
    monkeypatch.setattr(freshness, "is_current", lambda *_: state)
    pack(context, scale="demo", to=tmp_path / "crate")  # type: ignore[arg-type]
    text = " ".join(capsys.readouterr().out.split())
    assert text.partition("7 files")[2].strip() == note
    pack(context, scale="demo", to=tmp_path / "crate", as_json=True)  # type: ignore[arg-type]
    word = {True: "true", False: "false", None: "null"}[state]
    assert f'"up_to_date": {word}' in capsys.readouterr().out
