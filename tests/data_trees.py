"""Small image files and raw folders for the tests of medscale.data."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from medscale.base.files import sha256
from medscale.data.index import make_index, summarize
from medscale.data.inspection import FACTS, inspect
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.settings import Source, Split

NOT_KNOWN = (
    "The patients are not known: images of one patient can stand on both sides of the split."
)

APART = Split(near_duplicates=False, train=0.5, val=0.25, test=0.25)  # enough for few groups


def picture(
    seed: int, size: tuple[int, int] = (40, 30), cells: tuple[int, int] = (4, 5)
) -> Image.Image:
    """A smooth RGB picture of (width, height), different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (*cells, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def image_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, seed: int) -> Path:
    """Write the picture of ``seed`` as the kind that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    # enough cells that no two pictures look alike
    path.write_bytes(image_bytes(picture(seed, cells=(12, 16)), kind))
    return path


def class_tree(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """``<class>/<number>.png`` with different pictures everywhere."""
    for label, count in counts.items():
        for number in range(count):
            write(root / label / f"{number}.png", seed := seed + 1)
    return root


def fundus_pytorch(root: Path, per_class: int = 4, seed: int = 0) -> Path:
    """``train|val|test/0|1/BEH-<n>.png`` with different pictures everywhere."""
    for split in ("train", "val", "test"):
        for label in ("0", "1"):
            for _ in range(per_class):
                write(root / split / label / f"BEH-{(seed := seed + 1)}.png", seed)
    return root


def listed(root: Path, classes: list[str] | None = None, **settings: str) -> Inventory:
    """The files of a folder of images, read with these settings of the source."""
    return scan(Source(kind="folder", path=root, **settings), classes)


def settings_of(message: str) -> dict[str, Any]:
    """Return the settings that a hint names."""
    match = re.search(r"set in source (\{.*?\})", message)
    assert match is not None, message
    return dict(yaml.safe_load(match[1]))


def reasons(inventory: Inventory) -> dict[str, str]:
    """Why each file that is left out is, by path."""
    return dict(zip(inventory.excluded["path"], inventory.excluded["reason"], strict=True))


def check_complete(root: Path, inventory: Inventory) -> None:
    """Every file is listed exactly once, used or left out."""
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())
    absent = [path for path, reason in reasons(inventory).items() if reason == "listed but missing"]
    assert sorted([*inventory.rows["path"], *inventory.excluded["path"]]) == sorted(
        [*files, *absent]
    )


def facts(root: Path, inventory: Inventory, frames: str = "first") -> pd.DataFrame:
    """What ``audit.inspect_all`` gives, without Dask."""
    rows = [row for path in inventory.rows["path"] for row in inspect(str(root), path, frames)]
    return pd.DataFrame(rows, columns=FACTS)


def index_and_summary(
    root: Path, inventory: Inventory, division: Split | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The index of a listed raw folder, and its summary (audit.json)."""
    index, _, summary = audited(root, inventory, division or Split())
    return index, summary


def audited(
    root: Path, inventory: Inventory, division: Split, frames: str = "first"
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return the index of a listed raw folder, what is left out (audit.csv), and the summary."""
    index, left_out = make_index(inventory, facts(root, inventory, frames), division)
    return index, left_out, summarize(index, left_out, inventory, division)


def checked_index(
    root: Path, kind: str = "folder", **split: object
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Scan and audit a raw folder, and check that every file is counted once."""
    inventory = scan(Source(kind=kind, path=root), None)
    index, left_out, summary = audited(root, inventory, Split.model_validate(split))
    files = sum(not path.is_dir() and path.name != "index.csv" for path in root.rglob("*"))
    absent = summary["by_reason"].get("listed but missing", 0)
    assert summary["found"] == files + absent == summary["used"] + summary["excluded"]
    assert len(index) == summary["used"]
    assert not set(index["path"]) & set(left_out.loc[left_out["action"] == "excluded", "path"])
    return index, left_out, summary


def reasons_of(left_out: pd.DataFrame, action: str = "excluded") -> dict[str, str]:
    """The reason of each file that audit.csv has with this action, by path."""
    rows = left_out[left_out["action"] == action]
    return dict(zip(rows["path"], rows["reason"], strict=True))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by path."""
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
