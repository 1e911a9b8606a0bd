"""Synthetic dermoscopic images: layout of ISIC 2017, shares of classes, age, overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_trees import digests, index_and_summary
from medscale.data.demo import dermoscopy
from medscale.data.demo.generate import generate
from medscale.data.images import read_rgb
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.kinds.isic2017 import CLASSES, COMPLETE, DUPLICATES
from medscale.data.settings import Source, Split

OPTIONS = {"unique": 150, "seed": 3, "size": 60, "large": 1}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "melanoma"
    generate("isic2017", OPTIONS, out)
    return out


def inventory_of(root: Path) -> Inventory:
    return scan(
        Source(kind="isic2017", synthetic=True, options=OPTIONS).model_copy(update={"path": root}),
        None,
    )


def test_the_source_module_of_the_real_download_reads_it(demo: Path) -> None:
    inventory = inventory_of(demo)
    index, summary = index_and_summary(demo, inventory, Split(mode="published"))
    assert inventory.classes == CLASSES
    assert summary["by_reason"] == {
        "superpixels, not a photograph": len(index),
        "not an image by its name": 1,
        "table that is read": 6,
        "hidden file or folder": 1,
        "listed but missing": 1,
        "truncated": 1,
    }
    assert abs(len(index) - 152) <= 4
    shares = (index["label"].value_counts() / len(index)).to_dict()
    real = np.sum(list(COMPLETE.values()), axis=0) / 2750
    assert [shares[name] for name in CLASSES] == pytest.approx(real.tolist(), abs=0.03)
    assert (index["split"] == "test").mean() == pytest.approx(600 / 2750, abs=0.03)
    assert 0 < index["age"].isna().mean() < 0.3
    assert 0 < index["sex"].isna().mean() < 0.3
    assert set(index["sex"].dropna()) == {"female", "male"}
    assert sorted(set(zip(index["width"], index["height"], strict=True))) == [
        (80, 60),
        (3000, 2000),
    ]


def test_the_duplicates_are_those_of_the_real_set(demo: Path) -> None:
    for first, second in DUPLICATES:
        images = [read_rgb(next(demo.rglob(f"{name}.jpg"))).astype(int) for name in (first, second)]
        assert 0 < np.abs(images[0] - images[1]).mean() < 4
    inventory = inventory_of(demo)
    assert all(
        any(name in note for note in inventory.notes) for pair in DUPLICATES for name in pair
    )


def test_superpixels_number_the_cells_in_the_size_of_the_image(demo: Path) -> None:
    path = next(demo.rglob("ISIC_0012271_superpixels.png"))
    cells = read_rgb(path).astype(int)
    assert cells.shape == read_rgb(path.with_name("ISIC_0012271.jpg")).shape
    numbers = cells @ [1, 256, 65536]
    assert len(np.unique(numbers)) > 300
    assert numbers[0, 0] == 0


def test_the_seed_decides_every_byte(demo: Path, tmp_path: Path) -> None:
    generate("isic2017", OPTIONS, tmp_path / "again")
    assert digests(demo) == digests(tmp_path / "again")


def test_age_tells_a_little_of_melanoma() -> None:
    plan = pd.DataFrame(dermoscopy.plan(dermoscopy.Options(unique=5000)))
    known_age = plan[plan["age"] != "unknown"]
    assert 1 - len(known_age) / len(plan) == pytest.approx(256 / 2000, abs=0.02)
    ages, melanoma = known_age["age"].astype(int), known_age["label"] == 2
    assert set(ages % 5) == {0}
    ranks = ages.rank()
    area = (ranks[melanoma].mean() - (melanoma.sum() + 1) / 2) / (~melanoma).sum()
    assert 0.55 < area < 0.72  # area under the ROC curve (Mann-Whitney)


def test_names_are_unique_at_any_size() -> None:
    for unique in (110, 30_000):
        lesions = dermoscopy.plan(dermoscopy.Options(unique=unique))
        assert len({lesion.name for lesion in lesions}) == len(lesions)


def test_no_classifier_can_be_perfect() -> None:
    """Best possible accuracy, by the densities from which the appearance is drawn (Bayes' rule)."""
    rng = np.random.default_rng(0)
    counts = np.sum(list(COMPLETE.values()), axis=0)
    labels = rng.choice(3, 5000, p=counts / counts.sum())
    appearances = np.stack([dermoscopy.appearance(rng, label) for label in labels])
    distance = (
        ((appearances[:, None] - np.array(dermoscopy.APPEARANCE)) / np.array(dermoscopy.SPREAD))
        ** 2
    ).sum(-1)
    chosen = (np.log(counts) - distance / 2).argmax(1)
    assert (chosen == labels).mean() == pytest.approx(0.90, abs=0.02)


def test_what_the_lesion_shows_is_in_the_pixels() -> None:
    def part(appearances: tuple[float, ...], test: str) -> float:
        images = [
            dermoscopy.photograph(np.random.default_rng(k), np.array(appearances), 96, 128).astype(
                int
            )
            for k in range(8)
        ]
        red, green, blue = np.moveaxis(np.stack(images), -1, 0)
        bluish, dark = blue > green, red + green + blue < 200
        return float({"bluish": bluish, "dark": dark}[test].mean())

    nevus, melanoma = dermoscopy.APPEARANCE[0], dermoscopy.APPEARANCE[2]
    assert part(melanoma, "bluish") > 2 * part(nevus, "bluish")
    assert part(melanoma, "dark") > 2 * part(nevus, "dark")
