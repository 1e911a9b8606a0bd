"""`medscale check` on a person's own images: patients, and splits that the index would refuse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_trees import class_tree
from medscale.workflow.graph import Graph
from medscale.workflow.preflight import examine


def findings(root: Path, split: dict[str, object], patient: str | None = None) -> dict[str, str]:
    """Return level and text of what the check says on the study ``mine``."""
    study = {
        "like": "glaucoma",
        "source": {"kind": "folder", "path": str(root), "patient": patient},
        "classes": ["a", "b"],
        "split": split,
        "runs": ["serial_1cpu"],
    }
    changes = {"scale": "demo", "workdir": str(root / "work"), "only": ["mine"], "seeds": [1]}
    graph = Graph(changes | {"studies": {"mine": study}})
    return {
        finding.subject: f"{finding.level}: {finding.text}"
        for finding in examine(graph)
        if finding.subject.endswith("of mine")
    }


def test_the_check_says_whether_patients_are_known(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    assert findings(tmp_path / "raw", {})["patients of mine"].startswith(
        "note: The patients are not known"
    )
    finding_text = findings(tmp_path / "raw", {}, r"(\d+)\.png")["patients of mine"]
    assert finding_text == r"ok: 24 images are of 12 patients. From: the expression (\d+)\.png"


@pytest.mark.parametrize(
    ("folders", "split", "says"),
    [
        (("train", "val"), {"mode": "published"}, "error: .* has no test split"),
        (("train", "test"), {"mode": "published"}, None),
        (("",), {"mode": "published"}, "error: .* no train, test split"),
    ],
)
def test_the_check_refuses_what_the_index_will_refuse(
    tmp_path: Path, folders: tuple[str, ...], split: dict[str, object], says: str | None
) -> None:
    for number, folder in enumerate(folders):
        class_tree(tmp_path / "raw" / folder, {"a": 5, "b": 5}, seed=100 * number)
    finding_text = findings(tmp_path / "raw", split).get("split of mine")
    assert (finding_text is None) == (says is None)
    assert says is None or re.match(says, str(finding_text))
