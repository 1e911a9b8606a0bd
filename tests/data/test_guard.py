"""Small files that would take any memory or time: rows of the audit, and never a crash."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

import hostile
from data_trees import class_tree
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256
from medscale.data import guard
from medscale.data.build import make_chunk
from medscale.data.decoding.dicom import inflate
from medscale.data.decoding.formats import TOO_LARGE, UNDECODABLE, UNREADABLE, Unreadable
from medscale.data.images import decode
from medscale.data.index import build_index
from medscale.data.inspection import inspect
from medscale.data.settings import Dask, Limits, Preprocess, Source, Split
from service_process import picture

QUICK = Limits(megapixels=1, seconds=0.5)


def test_bombs_are_rows_of_the_audit_and_the_other_images_are_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "medscale")
    raw = class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    bombs = hostile.bombs() | {"dicom of 400 MB": hostile.deflated_dicom(400_000_000)}
    for name, data in bombs.items():
        (raw / "a" / f"{name}.png").write_bytes(data)
    source = Source(kind="folder", path=raw, limits=Limits(seconds=3))
    index = build_index(source, Split(), None, Dask(workers=1), tmp_path / "out")
    audit = pd.read_csv(tmp_path / "out" / "audit.csv").set_index("path")
    excluded = audit[audit["action"] == "excluded"].rename(lambda path: path[2:-4])
    reasons, details = excluded["reason"], excluded["detail"]
    notes = read_json(tmp_path / "out" / "audit.json")["notes"]
    counts = [f"{reason} {count}" for reason, count in reasons.value_counts().items()]
    line = next(text for text in caplog.messages if "images used" in text)
    assert line.startswith(f"{len(index)} images used, {len(excluded)} left out (")
    assert all(count in line for count in counts)
    broken = int(reasons.isin([TOO_LARGE, UNDECODABLE]).sum())
    assert any(note.startswith(f"{broken} files take more") for note in notes)
    assert reasons["dicom of 400 MB"] == TOO_LARGE
    assert "256 MiB" in details["dicom of 400 MB"]
    assert reasons["dicom deflated"] == UNDECODABLE
    assert "more than 3 s of computing" in details["dicom deflated"]
    large = [name for name in bombs if "giga" in name or "pages" in name]
    refused = {TOO_LARGE, UNREADABLE}  # the data of GIF and WebP end early
    assert set(reasons[large]) <= refused
    assert reasons["dicom of JPEG-LS, 4 gigapixels"] == TOO_LARGE
    harmless = {f"a/{name}.png" for name in bombs if name.startswith("png with")}
    assert set(index["path"]) - harmless == {f"{c}/{n}.png" for c in "ab" for n in range(12)}


@pytest.mark.parametrize(
    ("function", "arguments", "reason", "detail"),
    [
        (exec, ("while True: pass",), UNDECODABLE, r"more than 0\.5 s of computing"),
        (bytes, (4_000_000_000,), TOO_LARGE, "more memory than an image of the allowed size"),
        (signal.raise_signal, (signal.SIGSEGV,), UNDECODABLE, "ended the process .*SIGSEGV"),
        (os._exit, (3,), UNDECODABLE, "ended the process .*exit status 3"),
    ],
)
def test_what_a_file_does_to_its_process_is_its_fault(function, arguments, reason, detail) -> None:
    with pytest.raises(Unreadable, match=detail) as error:
        guard.call(QUICK, function, *arguments)
    assert error.value.reason == reason
    assert guard.call(QUICK, abs, -1) == 1


def test_limits_count_computing_and_not_waiting() -> None:
    guard.call(QUICK, time.sleep, 0.8)


def test_errors_come_back_as_they_were() -> None:
    with pytest.raises(Unreadable, match="the file is empty") as error:
        guard.call(QUICK, decode, b"")
    assert error.value.reason == "zero bytes"
    with pytest.raises(ZeroDivisionError):
        guard.call(QUICK, divmod, 1, 0)


def test_a_larger_limit_reads_a_larger_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(picture((1200, 1000), kind="PNG"))
    assert guard.call(QUICK, inspect, str(tmp_path), "x.png")[0][4] == TOO_LARGE
    assert guard.call(Limits(megapixels=2), inspect, str(tmp_path), "x.png")[0][4] is None


def test_a_shard_names_the_file_that_breaks_a_limit(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(picture((1200, 1000), kind="PNG"))
    image = ("x.png", sha256(tmp_path / "x.png"), 1200, 1000)
    arguments = (str(tmp_path), 0, "key", str(tmp_path), [image], Preprocess(size=32))
    error = make_chunk(*arguments, QUICK)
    assert isinstance(error, MedscaleError)
    assert "x.png" in str(error)
    assert "1200 x 1000 pixels; at most 1 megapixels" in str(error)
    assert make_chunk(*arguments) == 0


def test_a_deflated_dicom_file_is_the_same_when_it_is_inflated() -> None:
    plain = hostile.dicom(8, 8, bytes(range(64)))
    assert inflate(plain) == plain
    assert (decode(hostile.deflated(plain)) == decode(plain)).all()
