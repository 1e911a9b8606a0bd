"""Synthetic fundus photographs: layout and faults of the real dataset, reproducible pixels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_trees import digests, index_and_summary
from medscale.base.errors import MedscaleError
from medscale.data.demo.generate import generate
from medscale.data.demo.retina import photograph
from medscale.data.images import read_rgb
from medscale.data.kind import scan
from medscale.data.settings import Source

OPTIONS = {"unique": 30, "seed": 7, "size": 64}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "glaucoma"
    generate("smdg", OPTIONS, out)
    return out


def test_the_source_module_of_the_real_download_reads_it(demo: Path) -> None:
    source = Source(kind="smdg", synthetic=True, options=OPTIONS).model_copy(update={"path": demo})
    index, summary = index_and_summary(demo, scan(source, None))
    assert summary["used"] == summary["unique"] == 30
    assert summary["by_reason"] == {
        "duplicate": 30,
        "conflicting label": 4,
        "not an image by its name": 1,
        "hidden file or folder": 1,
        "not an image": 1,
        "truncated": 1,
        "zero bytes": 1,
    }
    assert index["label"].value_counts().to_dict() == {"normal": 18, "glaucoma": 12}
    assert {"BEH", "OIA-ODIR-TRAIN"} <= set(index["source"])


def test_val_and_test_together_are_train(demo: Path) -> None:
    def of(*splits: str) -> Counter[tuple[str, str]]:
        files = {
            path: digest for path, digest in digests(demo).items() if path.split("/")[0] in splits
        }
        return Counter(
            (path.split("/")[1], digest) for path, digest in files.items() if path.endswith(".png")
        )

    assert not set(of("val")) & set(of("test"))
    val_and_test, train = of("val", "test"), of("train")
    odd = {"truncated": 1, "empty": 1}
    assert sum((val_and_test & train).values()) == 30
    assert sum((val_and_test - train).values()) == sum(odd.values())
    assert sum((train - val_and_test).values()) == 5  # two images under both labels, and a text


def test_the_seed_decides_every_byte(demo: Path, tmp_path: Path) -> None:
    generate("smdg", OPTIONS, tmp_path / "again")
    assert digests(demo) == digests(tmp_path / "again")
    generate("smdg", {**OPTIONS, "seed": 8}, tmp_path / "again")
    other_digests = digests(tmp_path / "again")
    assert len(other_digests) == len(digests(demo))
    assert not {d for p, d in other_digests.items() if p.endswith(".png")} & {
        d for p, d in digests(demo).items() if p.endswith(".png") and "10000" not in p
    }


def test_the_marker_says_what_it_is(demo: Path) -> None:
    assert json.loads((demo / "demo.json").read_text()) == {
        "kind": "smdg",
        "options": OPTIONS,
        "synthetic": True,
    }


def test_the_cup_is_what_the_ratio_says() -> None:
    def pale(ratio: float) -> float:
        image = photograph(np.random.default_rng(3), ratio, 128).astype(int)
        return float((image[..., 2] > 120).mean())  # only the cup is bright in blue

    shares = [pale(ratio) for ratio in (0.2, 0.4, 0.6, 0.8)]
    assert shares == sorted(shares)
    assert shares[3] == pytest.approx(4 * shares[1], rel=0.35)


def test_photographs_are_round_colour_images(demo: Path) -> None:
    image = read_rgb(next((demo / "train/1").glob("[EO]*.png")))
    assert image.shape == (64, 64, 3)
    assert image[0, 0].max() == 0
    red, green, blue = image.reshape(-1, 3).mean(0)
    assert red > green > blue > 5


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/mine.png").write_bytes(b"x")
    with pytest.raises(MedscaleError, match="holds files that were not generated"):
        generate("smdg", OPTIONS, tmp_path / "raw")
    generate("smdg", OPTIONS, tmp_path / "made")
    (tmp_path / "made/train/0/mine.png").write_bytes(b"x")
    before = digests(tmp_path / "made")
    with pytest.raises(MedscaleError, match=r"such as train/0/mine\.png"):
        generate("smdg", OPTIONS, tmp_path / "made")
    assert digests(tmp_path / "made") == before


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("folder", {}, "dataset kind 'folder' has no synthetic images; kinds with a generator: "),
        ("smdg", {"unique": 3}, r"source\.options\.unique"),
        ("smdg", {"number": 3}, r"source\.options\.number"),
    ],
)
def test_wrong_options_are_one_message(
    tmp_path: Path, kind: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(MedscaleError, match=message):
        generate(kind, options, tmp_path / "x")
