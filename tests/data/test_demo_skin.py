"""Synthetic clinical photographs: layout and faults, copies that leak, overlap of classes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from data_trees import digests, index_and_summary
from medscale.base.errors import MedscaleError
from medscale.data.demo import skin
from medscale.data.demo.generate import generate
from medscale.data.images import read_rgb
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.settings import Source, Split

OPTIONS = {"classes": 4, "each": 24, "seed": 3, "size": 60}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "skin"
    generate("skin", OPTIONS, out)
    return out


def inventory_of(root: Path) -> Inventory:
    return scan(
        Source(kind="skin", synthetic=True, options=OPTIONS).model_copy(update={"path": root}), None
    )


def test_the_source_module_of_the_real_download_reads_it(demo: Path) -> None:
    inventory = inventory_of(demo)
    index, summary = index_and_summary(demo, inventory)
    assert sorted(inventory.classes) == sorted(
        " ".join(name.split()) for name in list(skin.CLASSES)[:4]
    )
    assert index["label"].value_counts().to_dict() == dict.fromkeys(inventory.classes, 24)
    assert summary["by_reason"] == {"not an image by its name": 2, "truncated": 1}
    assert {Path(path).suffix for path in index["path"]} >= {".jpg", ".jpeg", ".JPG", ".png"}
    assert any("  " in path for path in index["path"])
    assert {tuple(Path(path).parts[:2]) for path in index["path"]} == {
        ("balanced_dataset", "balanced_dataset")
    }
    assert len(inventory.notes) == 1  # nothing of a licence or of the real set's size
    assert len(set(zip(index["width"], index["height"], strict=True))) > 10
    assert index[["width", "height"]].min(axis=None) >= 60
    assert index[["width", "height"]].max(axis=None) <= 80


def test_classes_are_balanced_by_copies(demo: Path) -> None:
    rows = index_and_summary(demo, inventory_of(demo))[0]
    assert rows.groupby("label", observed=True)["group"].nunique().to_dict() == {
        "Acne And Rosacea Photos": 12,
        "Ba Cellulitis": 9,
        "Fu Ringworm": 7,
        "Melanoma Skin Cancer Nevi And Moles": 4,
    }


def test_copies_have_the_tone_of_their_original_and_others_do_not(demo: Path) -> None:
    rows = index_and_summary(demo, inventory_of(demo))[0]
    pixels = {path: read_rgb(demo / path).astype(float) for path in rows["path"]}
    tones = {path: np.median(image / image.mean(), axis=(0, 1)) for path, image in pixels.items()}
    copy_distances, other_distances = [], []
    for _, part in rows.groupby("group"):
        first, *copies = part["path"]
        copy_distances += [np.abs(tones[first] - tones[path]).max() for path in copies]
        other_distances += [
            np.abs(tones[first] - tones[path]).max()
            for path in rows["path"]
            if path not in set(part["path"])
        ]
    assert np.median(copy_distances) < np.median(other_distances) / 3


def test_a_random_split_leaks(demo: Path) -> None:
    index, _ = index_and_summary(demo, inventory_of(demo), Split(mode="random"))
    assert index.groupby("group")["split"].nunique().max() > 1
    index, _ = index_and_summary(demo, inventory_of(demo))
    assert index.groupby("group")["split"].nunique().max() == 1


def test_the_seed_decides_every_byte(demo: Path, tmp_path: Path) -> None:
    generate("skin", OPTIONS, tmp_path / "again")
    assert digests(demo) == digests(tmp_path / "again")
    generate("skin", {**OPTIONS, "seed": 4, "classes": 3}, tmp_path / "again")
    assert not set(digests(tmp_path / "again").values()) & {
        value for path, value in digests(demo).items() if path.endswith((".jpg", ".png"))
    }
    assert len(list((tmp_path / "again/balanced_dataset/balanced_dataset").iterdir())) == 3


@pytest.mark.parametrize("classes", [4, 6, 8])
def test_no_classifier_can_be_perfect(classes: int) -> None:
    """Best possible accuracy, by the densities from which the appearance is drawn (Bayes' rule)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 5000)
    appearances = np.stack([skin.appearance(rng, label) for label in labels])
    means = np.array(list(skin.CLASSES.values())[:classes])
    chosen = (((appearances[:, None] - means) / np.array(skin.SPREAD)) ** 2).sum(-1).argmin(1)
    assert 0.85 < (chosen == labels).mean() < 0.98
    if classes == 6:
        assert (chosen == labels).mean() == pytest.approx(0.91, abs=0.015)


def test_classes_can_be_learned_from_the_pixels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 240)
    images = (skin.photograph(rng, skin.appearance(rng, label), 96) for label in labels)
    features = np.array([spots(image) for image in images])
    forest = RandomForestClassifier(100, random_state=0).fit(features[:160], labels[:160])
    assert forest.score(features[160:], labels[160:]) > 0.4  # chance is 0.17


def spots(image: np.ndarray) -> list[float]:
    """Number and size of what differs from the skin, and its colour against the skin's."""
    ratio = cv2.GaussianBlur(image, (0, 0), 1).astype(np.float32) / np.median(
        image.reshape(-1, 3), 0
    )
    mask = (np.abs(ratio.min(-1) - 1) > 0.25).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = [area for area in map(cv2.contourArea, contours) if area > 8] or [0.0]
    inside = ratio[mask > 0] if mask.any() else ratio.reshape(-1, 3)
    return [
        len(areas),
        max(areas),
        float(np.median(areas)),
        mask.mean(),
        *inside.mean(0),
        *inside.std(0),
    ]


@pytest.mark.parametrize("options", [{"classes": 9}, {"each": 2}, {"unique": 3}])
def test_wrong_options_are_one_message(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(
        MedscaleError, match=rf"source\.options\.{next(iter(options))} of the synthetic images"
    ):
        generate("skin", options, tmp_path / "x")
