"""Samples of the real datasets, if MEDSCALE_SAMPLES or ../shared/data has them."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import lookalike
from data_trees import index_and_summary, listed
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.data.images import read_rgb
from medscale.data.kind import scan
from medscale.data.lookalike import components, pairs
from medscale.data.preprocess import preprocess
from medscale.data.settings import Preprocess, Source
from medscale.data.signature import signature

SAMPLES = Path(os.environ.get("MEDSCALE_SAMPLES") or ROOT.parent / "shared" / "data")
pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="no real samples: set MEDSCALE_SAMPLES to their folder"
)


def sample(name: str) -> Path:
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the real sample {name} is not in {SAMPLES}")
    return SAMPLES / name


def test_chest_xrays_are_split_by_patient() -> None:
    root = sample("cxr-nih")
    index, summary = index_and_summary(root, listed(root))
    assert index["label"].value_counts().to_dict() == {"normal": 301, "pneumonia": 300}
    assert summary["groups"] == 402
    assert index.groupby("group")["split"].nunique().max() == 1
    assert (summary["found"], summary["used"], summary["by_reason"]) == (601, 601, {})
    for label, total in (("normal", 301), ("pneumonia", 300)):
        for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert abs(summary["counts"][label][split] - share * total) <= 3
    assert set(zip(index["width"], index["height"], strict=True)) == {(384, 384)}


@pytest.mark.parametrize(
    ("name", "min_pairs", "max_pairs", "known_pairs"),
    [("cxr-nih", 0.99, 0, 1), ("dermoscopy-uda1", 0.9, 1, 1)],
)
def test_copies_are_found_and_no_two_patients_are_merged(
    name: str, min_pairs: float, max_pairs: int, known_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of copy but crops; many dermoscopic images are only stripes.

    One of them is repeated, and of one patient two chest radiographs are alike.
    """
    monkeypatch.setattr(lookalike, "CROPS", {})
    images = [
        read_rgb(path)
        for path in sorted(sample(name).glob("*/*.jpg"))[:: 2 if name == "cxr-nih" else 1]
    ]
    table = lookalike.measure(name, images)
    assert (table["recall"] >= min_pairs).all(), table
    assert (table["merged"] <= max_pairs).all(), table
    assert set(table["merged_originals"]) == {known_pairs}
    assert (table["comparable"] > 0.7 * len(images)).all()


def signatures_below(folder: Path) -> tuple[list[Path], list[bytes]]:
    paths = sorted(folder.glob("*/*.jpg"))
    return paths, [signature(read_rgb(path)) for path in paths]


def test_the_same_eye_and_the_same_lesion_are_joined_and_no_others() -> None:
    """Scenes are known by the sample's table; also one lesion photographed in two frames."""
    folder = sample("near-duplicates")
    paths, signatures = signatures_below(folder)
    table = pd.read_csv(folder / "truth.csv").set_index("path")["scene"]
    scenes = pd.Series([table[path.relative_to(folder).as_posix()] for path in paths])
    part = components(len(paths), pairs(signatures))
    for kind, count in (("fundus", 174), ("dermoscopy", 58)):
        labelled = [n for n in scenes.dropna().index if paths[n].parent.name == kind]
        scene_pairs = [(a, b) for a, b in combinations(labelled, 2) if scenes[a] == scenes[b]]
        assert len(scene_pairs) == count
        assert sum(part[a] == part[b] for a, b in scene_pairs) >= 0.95 * count
    groups = scenes.groupby(part)
    assert (groups.nunique() <= 1).all()
    assert (groups.count().eq(groups.size()) | groups.size().eq(1)).all()


def test_chest_xrays_of_different_patients_are_never_joined() -> None:
    paths, signatures = signatures_below(sample("cxr-nih"))
    patients = np.array([path.name.split("_")[0] for path in paths])
    links = pairs(signatures)
    assert (patients[links[:, 0]] == patients[links[:, 1]]).all()
    assert len(links) <= 8  # of 437 pairs of one patient


def test_published_originals_become_like_the_prepared_copies() -> None:
    originals, copies = sample("cxr-nih-originals"), sample("cxr-nih")
    files = sorted(originals.glob("*/*.png"))
    assert len(files) == 12
    for file in files:
        copy = copies / file.parent.name / f"{file.stem}.jpg"
        small = [
            preprocess(read_rgb(path), Preprocess(size=64)).astype(float) for path in (file, copy)
        ]
        assert np.abs(small[0] - small[1]).mean() < 4


def test_real_dermoscopy_folder_lists() -> None:
    inventory = listed(sample("dermoscopy-uda1"), ["nevus", "melanoma"])
    assert inventory.rows["label"].value_counts().to_dict() == {"nevus": 395, "melanoma": 153}


def test_the_real_table_of_smdg(tmp_path: Path) -> None:
    """The parent set's own CSV, with empty files in the place of its images."""
    table = pd.read_csv(sample("reference") / "metadata - standardized.csv")
    (tmp_path / "metadata - standardized.csv").write_bytes(
        (SAMPLES / "reference" / "metadata - standardized.csv").read_bytes()
    )
    folder = tmp_path / "full-fundus" / "full-fundus"
    folder.mkdir(parents=True)
    for name in table["names"]:
        (folder / f"{name}.png").touch()
    inventory = scan(Source(kind="smdg", path=tmp_path), None)
    assert inventory.rows["label"].value_counts().to_dict() == {"normal": 7299, "glaucoma": 4617}
    assert inventory.excluded["reason"].value_counts().to_dict() == {
        "suspect": 133,
        "table that is read": 1,
    }
    odir = inventory.rows[inventory.rows["source"].str.startswith("OIA-ODIR")]
    assert odir["group"].notna().all()
    assert odir["group"].nunique() < len(odir) < 2 * odir["group"].nunique() + 1
    assert (inventory.rows["source"] == "EyePACS-Glaucoma").sum() == 3269
    assert (
        inventory.rows.loc[inventory.rows["source"] == "PAPILA", "group"].value_counts().max() == 2
    )


def test_the_incomplete_isic_2017_says_so() -> None:
    with pytest.raises(
        MedscaleError, match="1940 of the 2000 images of the train split are missing"
    ) as caught:
        scan(Source(kind="isic2017", path=sample("isic2017")), None)
    assert "curl" in str(caught.value)
    assert "allow_missing" in str(caught.value)


def test_what_is_there_of_isic_2017_is_indexed() -> None:
    """Each label is compared with the published tables, which are read in another way."""
    root = sample("isic2017")
    inventory = scan(Source(kind="isic2017", path=root, options={"allow_missing": True}), None)
    index, summary = index_and_summary(root, inventory)
    assert (len(index), summary["by_reason"]["listed but missing"]) == (60, 1940)
    assert index["label"].value_counts().to_dict() == {"nevus": 49, "melanoma": 11}
    truth = pd.read_csv(root / "ISIC-2017_Training_Part3_GroundTruth.csv").set_index("image_id")
    metadata = pd.read_csv(
        root / "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv"
    ).set_index("image_id")
    assert len(truth) == 2000
    for row in index.itertuples():
        number = Path(row.path).stem
        assert (row.label == "melanoma") == (truth["melanoma"][number] == 1)
        age, sex = metadata["age_approximate"][number], metadata["sex"][number]
        assert (pd.isna(row.age) and age == "unknown") or row.age == float(age)
        assert (pd.isna(row.sex) and sex == "unknown") or row.sex == sex
    assert 0 < index["age"].isna().sum() < 60
    assert any(
        "1940 of the 2000" in note and "seborrheic_keratosis" in note for note in summary["notes"]
    )


def test_the_real_class_folders_of_the_skin_set(tmp_path: Path) -> None:
    """The folder names seen in a real copy, with an empty file in each."""
    names = (
        (sample("reference") / "skin_class_folders.txt").read_text(encoding="utf-8").splitlines()
    )
    for name in names:
        (tmp_path / "balanced_dataset" / name).mkdir(parents=True)
        (tmp_path / "balanced_dataset" / name / "aug_3_x.jpg").touch()
    inventory = scan(Source(kind="skin", path=tmp_path), None)
    assert len(inventory.classes) == len(inventory.rows) == 35
    assert {"Ba Cellulitis", "Heathy"} <= set(inventory.classes)
