"""Three hundred hostile files in a raw folder: the audit lists them and uses the other images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import hostile
from data_trees import class_tree

pytestmark = pytest.mark.attack
COUNT = 300
LARGEST_MB = 3500  # of a process: 50 megapixels of 40 bytes, and what libraries take
INDEX = """
import json, resource, sys
from pathlib import Path
from medscale.data.index import build_index
from medscale.data.settings import Dask, Source, Split
raw, out = map(Path, sys.argv[1:])
build_index(Source(kind="folder", path=raw), Split(), None, Dask(workers=2), out)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def hostile_files() -> dict[str, bytes]:
    """Bombs, damaged files and images with changed bytes, by name."""
    files = hostile.bombs() | hostile.damaged()
    files |= {f"deflated {size} GB": hostile.deflated_dicom(size * 10**9) for size in (1, 2, 4, 8)}
    random_files = hostile.random_files(COUNT - len(files))
    return files | {f"fuzzed {number}": data for number, data in enumerate(random_files)}


def test_hostile_files_are_rows_and_the_other_images_are_used(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("tried", COUNT + 1)
    record_property("survived", 0)
    raw, files = class_tree(tmp_path / "raw", {"a": 40, "b": 40}), hostile_files()
    assert len(files) == COUNT
    for number, (name, data) in enumerate(files.items()):
        (raw / "ab"[number % 2] / f"{name}.png").write_bytes(data)
    (raw / "a" / "sparse.png").touch()
    with open(raw / "a" / "sparse.png", "r+b") as file:
        file.truncate(10**12)
    line = [sys.executable, "-c", INDEX, str(raw), str(tmp_path / "out")]
    process = subprocess.run(line, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "Traceback" not in process.stderr
    assert json.loads(process.stdout) < LARGEST_MB
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    audit = pd.read_csv(tmp_path / "out" / "audit.csv")
    left_out = set(audit.loc[audit["action"] == "excluded", "path"])
    used_paths = {path.partition("[")[0] for path in index["path"]}
    assert {f"{label}/{number}.png" for label in "ab" for number in range(40)} <= used_paths
    listed_paths = used_paths | left_out
    record_property("survived", len(listed_paths) - 80)
    assert len(listed_paths) == COUNT + 81
    reasons = audit.set_index("path")["reason"]
    assert reasons["a/sparse.png"] == "too large"
    assert set(reasons[reasons.index.str.contains("deflated . GB")]) == {"too large"}
