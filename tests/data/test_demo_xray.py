"""Synthetic chest X-rays: layout and faults of the challenge, boxes around the opacities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread

from data_trees import digests, facts, index_and_summary
from medscale.base.errors import MedscaleError
from medscale.data.demo import xray
from medscale.data.demo.chest import Anatomy, Opacity, radiograph
from medscale.data.demo.generate import generate
from medscale.data.images import read_rgb
from medscale.data.index import make_index
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.kinds.rsna import DETAILS, LABELS, MAPPING, TRAIN
from medscale.data.settings import Source, Split

OPTIONS = {"exams": 60, "tests": 3, "size": 128, "seed": 7}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "pneumonia"
    generate("rsna", OPTIONS, out)
    return out


def inventory_of(demo: Path, **options: object) -> Inventory:
    source = Source(kind="rsna", synthetic=True, options={**OPTIONS, **options})
    return scan(source.model_copy(update={"path": demo}), None)


def test_the_source_module_of_the_real_download_reads_it(demo: Path) -> None:
    index, summary = index_and_summary(demo, inventory_of(demo), Split(balance=True))
    assert summary["found"] == len(digests(demo)) == summary["used"] + summary["excluded"]
    assert summary["by_reason"] == {
        "balanced away": summary["by_reason"]["balanced away"],
        "not an image by its name": 2,
        "table that is read": 3,
        "unlabelled test image": 3,
        "truncated": 1,
    }
    assert summary["kept_by_reason"] == {"odd header": 1} or summary["by_reason"]["balanced away"]
    assert index["label"].value_counts().nunique() == 1
    assert index["group"].str.startswith("NIH:").all()
    assert index.groupby("group")["split"].nunique().max() == 1
    assert set(index["view"]) == {"AP", "PA"}
    assert set(index["sex"]) == {"male", "female"}
    assert index["age"].between(2, 92).mean() > 0.9
    assert set(index["width"]) == {128}
    assert (index["boxes"].map(len) > 0).equals(index["label"] == "pneumonia")


def test_an_implausible_age_is_kept_without_it(demo: Path) -> None:
    inventory = inventory_of(demo)
    index, left_out = make_index(inventory, facts(demo, inventory), Split())
    odd = left_out[left_out["reason"] == "odd header"]
    assert odd["detail"].tolist() == ["PatientAge 148 is over 110 years; taken as not known"]
    assert index["age"].isna().sum() == 1


def test_detailed_classes(demo: Path) -> None:
    counts = inventory_of(demo, classes="detailed").rows["label"].value_counts()
    assert counts.to_dict() == {xray.OPACITY: 24, xray.NORMAL: 18, xray.NOT_NORMAL: 18}


def test_files_are_like_the_challenges(demo: Path) -> None:
    headers = [
        dcmread(path, stop_before_pixels=True) for path in sorted((demo / TRAIN).glob("*.dcm"))
    ]
    assert {str(header.file_meta.TransferSyntaxUID) for header in headers} == {
        "1.2.840.10008.1.2.4.50"
    }
    assert {header.PhotometricInterpretation for header in headers} == {"MONOCHROME2"}
    assert all(str(header.PatientAge).isdigit() for header in headers)
    labels, details = pd.read_csv(demo / LABELS), pd.read_csv(demo / DETAILS)
    assert labels["patientId"].tolist() == details["patientId"].tolist()
    assert labels["patientId"].duplicated().any()
    assert labels.loc[labels["Target"] == 0, xray.BOX].isna().all(axis=None)
    boxes = labels.loc[labels["Target"] == 1, xray.BOX]
    assert (boxes["x"] + boxes["width"]).max() <= 128
    assert (boxes["y"] + boxes["height"]).max() <= 128
    assert boxes.min(axis=None) >= 0


def test_the_seed_decides_every_byte_and_an_option_the_mapping(demo: Path, tmp_path: Path) -> None:
    generate("rsna", OPTIONS, tmp_path / "again")
    assert digests(demo) == digests(tmp_path / "again")
    generate("rsna", {**OPTIONS, "seed": 8, "mapping": False}, tmp_path / "again")
    other_digests = digests(tmp_path / "again")
    assert not set(digests(demo).values()) & set(other_digests.values())
    assert len(other_digests) == len(digests(demo)) - 1
    assert MAPPING not in other_digests
    source = Source(kind="rsna", synthetic=True).model_copy(update={"path": tmp_path / "again"})
    assert [MAPPING in note for note in scan(source, None).notes] == [True]


def test_opacities_are_where_their_boxes_say() -> None:
    anatomy = Anatomy.draw(
        np.random.default_rng(1), np.random.default_rng(2), anteroposterior=False
    )
    opacity = Opacity(0.3, 0.5, 0.05, 0.07, 50)
    bare, ill = (
        radiograph(np.random.default_rng(3), anatomy, 256, opacities=opacities).astype(int)
        for opacities in ((), (opacity,))
    )
    added = ill - bare
    x, y, width, height = map(int, opacity.box(256))
    assert (x, y, width, height) == (58, 101, 38, 54)
    assert added[y : y + height, x : x + width].mean() > 10
    outside = added.copy()
    outside[y : y + height, x : x + width] = 0
    assert outside.sum() < 0.5 * added.sum()
    assert added[:, 150:].max() == 0


def test_findings_differ_in_strength_and_views_in_share() -> None:
    exams = xray.plan(xray.Options(exams=2000))
    greys = np.array(
        [max(opacity.grey for opacity in exam.opacities) for exam in exams if exam.opacities]
    )
    assert 0.03 < (greys < 20).mean() < 0.2  # hardly to be seen among ribs and noise
    share = {d: np.mean([e.view == "AP" for e in exams if e.detail == d]) for d in xray.SHARES}
    ages = {d: np.mean([e.age for e in exams[1:] if e.detail == d]) for d in xray.SHARES}
    assert share[xray.NORMAL] + 0.2 < share[xray.OPACITY]
    assert ages[xray.NORMAL] + 3 < ages[xray.OPACITY]
    assert 800 < len({exam.patient for exam in exams}) < 1000
    assert len({exam.name for exam in exams}) == len(exams)


def test_images_are_like_chest_xrays(demo: Path) -> None:
    for path in sorted((demo / TRAIN).glob("*.dcm"))[:5]:
        if path.stat().st_size < 3000:  # the truncated one
            continue
        grey = read_rgb(path)[..., 0].astype(int)
        assert grey[:, :3].mean() < 60  # air beside the body
        spine, lung = grey[40:80, 60:68].mean(), grey[50:80, 30:45].mean()
        assert spine > lung + 30


def test_wrong_options_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match=r"source\.options\.exams"):
        generate("rsna", {"exams": 3}, tmp_path / "x")
