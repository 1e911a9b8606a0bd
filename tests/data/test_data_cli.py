"""`medscale data`: checks of downloads, and their commands."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import pytest
from typer.testing import CliRunner

from data_trees import class_tree, fundus_pytorch, write
from medscale.base.errors import EXIT_USER, MedscaleError
from medscale.cli.main import app, main
from medscale.data import download
from medscale.data.check import Report, check
from medscale.data.demo.generate import generate
from medscale.data.download import Archives, Kaggle, fetch, instructions
from medscale.data.kind import ALL, Edition
from medscale.data.kinds import isic2017, smdg


def messages(report: Report, level: str) -> str:
    return "\n".join(line.message for line in report.findings if line.level == level)


def counts(report: Report) -> dict[tuple[str, str], tuple[int, int | None]]:
    return {(count.split, count.label): (count.images, count.expected) for count in report.counts}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete fundus-pytorch is said to have four images a split and class."""
    images = {
        (split, name): 4 for split in ("train", "val", "test") for name in ("normal", "glaucoma")
    }
    edition = Edition(
        "small one", images | {("train", ALL): 8}, files={"metadata*.csv": "patients"}
    )
    monkeypatch.setattr(smdg, "KIND", replace(smdg.KIND, editions=(edition,)))


@pytest.mark.usefixtures("small")
def test_a_complete_download_is_complete(tmp_path: Path) -> None:
    root = fundus_pytorch(tmp_path)
    (root / "metadata.csv").write_text("names,types,fundus\n")
    report = check("smdg", root)
    assert report.complete
    assert counts(report)["train", "normal"] == (4, 4)
    assert counts(report)["train", ALL] == (8, 8)
    assert counts(report)[ALL, ALL] == (24, None)
    assert "small one" in messages(report, "ok")


@pytest.mark.usefixtures("small")
def test_what_is_missing_and_odd_is_reported(tmp_path: Path) -> None:
    root = fundus_pytorch(tmp_path)
    (root / "val/0/BEH-9.png").unlink()
    (root / "train/1/BEH-5.png").write_bytes(b"")
    (root / "test.zip").write_bytes(b"PK")
    (root / "test/1/BEH-7.png.part").write_bytes(b"x")
    report = check("smdg", root)
    assert not report.complete
    assert [(c.split, c.label) for c in report.counts if not c.complete] == [("val", "normal")]
    assert messages(report, "error") == "no metadata*.csv (patients)"
    notes = messages(report, "note")
    assert (
        "left out, not an image by its name: 1 .zip (such as test.zip), 1 .part (such as" in notes
    )
    assert "nearly empty files: 1, such as train/1/BEH-5.png" in notes
    assert "unfinished downloads: 1, such as test/1/BEH-7.png.part" in notes
    assert "archives that may hold more: 1, such as test.zip" in notes


def test_small_copies_of_the_real_layouts_are_not_complete(tmp_path: Path) -> None:
    report = check("smdg", fundus_pytorch(tmp_path / "smdg"))
    assert not report.complete
    assert counts(report)["val", ALL] == (8, 5747)
    report = check("skin", class_tree(tmp_path / "skin", {"a": 2, "b": 2}))
    assert not report.complete
    assert counts(report)[ALL, ALL] == (4, 245_000)
    assert "2 classes, expected are at least 34" in messages(report, "error")


def test_a_rough_statement_may_be_missed_by_a_twentieth() -> None:
    edition = Edition("x", {}, approximate=True)
    assert edition.is_complete(245_000, 262_874)
    assert edition.is_complete(245_000, 233_000)
    assert not edition.is_complete(245_000, 200_000)
    assert not Edition("x", {}).is_complete(10, 9)


def test_a_part_of_isic_2017_is_counted_and_its_missing_tables_named(tmp_path: Path) -> None:
    folder = tmp_path / "ISIC-2017_Training_Data"
    for number, answer in enumerate(("0.0,0.0", "1.0,0.0", "0.0,1.0")):
        write(folder / f"ISIC_000000{number}.jpg", number)
        with open(tmp_path / "ISIC-2017_Training_Part3_GroundTruth.csv", "a") as table:
            table.write(
                ("" if number else "image_id,melanoma,seborrheic_keratosis\n")
                + f"ISIC_000000{number},{answer}\n"
            )
    report = check("isic2017", tmp_path)
    assert not report.complete
    assert counts(report)["train", "melanoma"] == (1, 374)
    assert counts(report)["test", "nevus"] == (0, 393)
    assert "no ISIC-2017_Training*_metadata.csv (age and sex)" in messages(report, "error")
    assert "no ground truth table of the val split" in messages(report, "note")


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    report = check("smdg", tmp_path / "gone")
    assert not report.complete
    assert "does not exist" in messages(report, "error")
    assert "kaggle datasets download -d sabari50312/fundus-pytorch" in messages(report, "error")


def test_any_image_folder_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    report = check("folder", class_tree(tmp_path, {"a": 2, "b": 3}))
    assert report.complete
    assert counts(report) == {(ALL, "a"): (2, None), (ALL, "b"): (3, None), (ALL, ALL): (5, None)}


def test_synthetic_images_are_not_taken_for_a_download(tmp_path: Path) -> None:
    generate("isic2017", {"unique": 110, "size": 48, "large": 0}, tmp_path / "raw")
    report = check("isic2017", tmp_path / "raw")
    assert report.complete
    assert "synthetic images, not a download" in messages(report, "note")
    assert all(count.expected is None for count in report.counts)


def test_no_image_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_tree(tmp_path, {"a": 20, "b": 20})
    opened_paths: list[str] = []
    monkeypatch.setattr(Path, "open", lambda path, *_, **__: opened_paths.append(str(path)))
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened_paths.append(str(path)))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: opened_paths.append("decoded"))
    assert check("folder", root).complete
    assert not opened_paths


def test_the_command_prints_a_table_and_fails_where_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = CliRunner().invoke(
        main, ["data", "check", "folder", str(class_tree(tmp_path / "ok", {"a": 2, "b": 3}))]
    )
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()[:3]] == [
        ["split", "class", "present", "expected"],
        ["all", "a", "2"],
        ["all", "b", "3"],
    ]
    monkeypatch.setattr(
        sys, "argv", ["medscale", "data", "check", "smdg", str(fundus_pytorch(tmp_path / "smdg"))]
    )
    with pytest.raises(SystemExit) as stopped:
        app()
    assert stopped.value.code == EXIT_USER
    assert "is not complete for dataset kind smdg" in capsys.readouterr().err
    unknown = CliRunner().invoke(main, ["data", "check", "smgd", str(tmp_path)])
    assert "no dataset kind 'smgd'; did you mean 'smdg'?" in str(unknown.exception)


# fetch


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and an empty folder in front of the programs' search path."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return programs


def zip_bytes(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


def install_kaggle(programs: Path, archive: Path, status: int = 0) -> None:
    """Install a stand-in for `kaggle` that copies an archive into the folder after -p."""
    program = programs / "kaggle"
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        f"assert sys.argv[1:4] == ['datasets', 'download', '-d'], sys.argv\n"
        f"shutil.copy({str(archive)!r}, sys.argv[sys.argv.index('-p') + 1])\nsys.exit({status})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """A web server of this machine that offers a folder; its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def token(home: Path) -> None:
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/kaggle.json").write_text("{}")


def test_each_download_belongs_to_a_source() -> None:
    message = (
        "dataset kind 'folder' has no download; kinds with a download: isic2017, rsna, skin, smdg"
    )
    with pytest.raises(MedscaleError, match=message):
        download.find_download("folder")


@pytest.mark.usefixtures("bare")
def test_missing_credentials_give_download_instructions(tmp_path: Path) -> None:
    text = instructions("rsna", tmp_path / "raw")
    assert "kaggle competitions download -c rsna-pneumonia-detection-challenge -p" in text
    assert "rules must be accepted" in text
    assert "~/.kaggle/kaggle.json" in text
    assert "`kaggle` was not found" in text
    with pytest.raises(MedscaleError, match="cannot run here") as caught:
        fetch("rsna", tmp_path / "raw")
    assert "rules must be accepted" in str(caught.value)
    assert not (tmp_path / "raw").exists()
    assert "curl nor wget" in instructions("isic2017", tmp_path)


def test_credentials_are_a_file_or_the_environment(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_kaggle(bare, bare)
    assert Kaggle("a/b").missing() == [download.NO_TOKEN]
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    assert Kaggle("a/b").missing() == [download.NO_TOKEN]
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert Kaggle("a/b").missing() == []
    monkeypatch.delenv("KAGGLE_KEY")
    token(Path(os.environ["HOME"]))
    assert Kaggle("a/b").missing() == []


@pytest.mark.usefixtures("small")
def test_run_downloads_unpacks_and_checks(bare: Path, tmp_path: Path) -> None:
    (fundus_pytorch(tmp_path / "made") / "metadata.csv").write_text("names,types,fundus\n")
    install_kaggle(bare, zip_bytes(tmp_path / "made", tmp_path / "fundus-pytorch.zip"))
    token(tmp_path / "home")
    result = CliRunner().invoke(
        main, ["data", "fetch", "smdg", "--to", str(tmp_path / "raw/glaucoma"), "--run"]
    )
    assert result.exit_code == 0, result.exception
    assert "compared with the complete small one" in result.output
    assert sorted(os.listdir(tmp_path / "raw")) == ["glaucoma"]
    assert len(list((tmp_path / "raw/glaucoma").rglob("*.png"))) == 24
    with pytest.raises(MedscaleError, match="already holds files"):
        fetch("smdg", tmp_path / "raw/glaucoma")


def test_without_run_only_the_command_is_printed(bare: Path, tmp_path: Path) -> None:
    install_kaggle(bare, tmp_path / "nothing.zip")
    token(tmp_path / "home")
    result = CliRunner().invoke(main, ["data", "fetch", "smdg", "--to", str(tmp_path / "raw")])
    assert result.exit_code == 0
    assert (
        f"kaggle datasets download -d sabari50312/fundus-pytorch -p {tmp_path}/raw" in result.output
    )
    assert "first:" not in result.output
    assert not (tmp_path / "raw").exists()


def test_without_to_it_goes_to_the_raw_folder_of_the_study() -> None:
    result = CliRunner().invoke(main, ["data", "fetch", "smdg"])
    assert "data/raw/glaucoma" in result.output


@pytest.mark.parametrize("fault", ["damaged", "failed"])
def test_a_failed_download_leaves_no_raw_folder_and_goes_on(
    bare: Path, tmp_path: Path, fault: str
) -> None:
    archive = zip_bytes(fundus_pytorch(tmp_path / "made"), tmp_path / "fundus-pytorch.zip")
    data = archive.read_bytes()
    if fault == "damaged":
        archive.write_bytes(data[: len(data) // 2])
    install_kaggle(bare, archive, status=int(fault == "failed"))
    token(tmp_path / "home")
    with pytest.raises(
        MedscaleError, match={"damaged": "cannot be unpacked", "failed": "download failed"}[fault]
    ):
        fetch("smdg", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    assert "interrupted download" in messages(check("smdg", tmp_path / "raw"), "error")
    archive.write_bytes(data)
    install_kaggle(bare, archive)
    fetch("smdg", tmp_path / "raw")
    assert len(list((tmp_path / "raw").rglob("*.png"))) == 24


def test_a_disk_that_is_too_small_is_reported_before_unpacking(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_kaggle(bare, zip_bytes(fundus_pytorch(tmp_path / "made"), tmp_path / "x.zip"))
    token(tmp_path / "home")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(MedscaleError, match=r"needs .* GB unpacked"):
        fetch("smdg", tmp_path / "raw")
    assert not list(tmp_path.rglob("*BEH-1.png"))[1:]


@pytest.mark.parametrize("program", ["curl", "wget"])
def test_open_archives_come_through_curl_or_wget(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    program_path = shutil.which(program, path=os.defpath)
    if program_path is None:
        pytest.skip(f"{program} is not installed")
    server = tmp_path / "server"
    server.mkdir()
    zip_bytes(class_tree(tmp_path / "made/Part", {"a": 2}), server / "X-1_Data.zip")
    (server / "X-1_Truth.csv").write_text("image_id\n")
    (bare / program).symlink_to(program_path)
    with file_server(server) as address:
        archives = Archives(f"{address}/X-", (("1",), ("_Data.zip", "_Truth.csv")))
        monkeypatch.setattr(isic2017, "KIND", replace(isic2017.KIND, download=archives))
        fetch("isic2017", tmp_path / "raw")
    assert sorted(
        str(p.relative_to(tmp_path / "raw")) for p in (tmp_path / "raw").rglob("*") if p.is_file()
    ) == ["X-1_Truth.csv", "a/0.png", "a/1.png"]
    with pytest.raises(MedscaleError, match="download failed"):
        fetch("isic2017", tmp_path / "again")
