"""A missing path on the command line is refused before anything heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import write_json
from medscale.base.paths import (
    SHIFT,
    SUMMARY,
    evaluated_result,
    evaluated_results,
    evaluations,
    refuse_unwritable,
    usable_result,
    workdir_of,
)
from medscale.cli.completion import results_like

COMMANDS = {
    "predict nowhere a.jpg": "nowhere does not exist; name a result folder",
    "predict {result} a.jpg": "a.jpg does not exist; name image files",
    "predict {result} {result} --metadata age.csv": "age.csv does not exist",
    "export nowhere": "nowhere does not exist; name a result folder",
    "show ~no-such-user/skin": "~no-such-user is no user's home folder; write ./~no-such-user/skin",
    "export {result}/inference.json": "inference.json is a file; name a result folder",
    "show {result}": "has no summary.json",
    "evaluate nowhere images": "nowhere does not exist; name a result folder",
    "evaluate {result} images": "images does not exist; name a folder of labelled images",
    "evaluate {result} {result}/inference.json": "inference.json is a file; name a folder",
    "evaluate {result} {result} --kind foldr": "did you mean 'folder'",
    "evaluate {result} {result} --index i.parquet": "i.parquet does not exist",
    "leaks nowhere": "nowhere does not exist; name files or folders",
    "leaks {result} --data nowhere": "nowhere has no index.parquet",
    "data check folder nowhere": "nowhere does not exist; name the raw folder",
    "data check foldr {result}": "did you mean 'folder'",
    "profile glaucoma serial_1cpu --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "study --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "export {result} --to onxx": "there is no export format",
    "export {result} --images b": "b does not exist; name a folder of images",
    "show nowhere": "nowhere does not exist; name a result folder",
    "serve nowhere": "nowhere does not exist; name a result folder",
    "check --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "summary --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "crate --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "size --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "config --configfile c.yaml": "c.yaml does not exist; name a YAML file",
    "why paper --configfile c.yaml": "c.yaml does not exist; name a YAML file",
}
HEAVY = ("torch", "scipy", "sklearn", "pandas", "fastapi", "snakemake", "matplotlib")
CODE = """
import json, sys
from typer.testing import CliRunner
from medscale.cli.main import main
told = {}
for command in json.loads(sys.argv[1]):
    told[command] = str(CliRunner().invoke(main, command.split()).exception)
try:
    import medscale
    medscale.load("nowhere")
except medscale.base.errors.MedscaleError as error:
    told["load"] = str(error)
heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps([told, heavy]))
"""


def test_a_missing_path_is_refused_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "inference.json").write_text("{}")
    commands = {key.format(result=tmp_path): value for key, value in COMMANDS.items()}
    arguments = [json.dumps(list(commands)), json.dumps(HEAVY)]
    process = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    error_text, heavy = json.loads(process.stdout)
    for command, message in (commands | {"load": "nowhere does not exist"}).items():
        assert message in error_text[command], command
    assert heavy == []


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("results/skin/ddp_2gpu", "work/demo/results/skin/ddp_2gpu"),
        ("results/skin", "work/demo/results/skin"),
        ("results/skni/dpp_2gpu", "work/demo/results/skin/ddp_2gpu"),
        ("work/demo/resutls", "work/demo/results"),
        ("work/demo/results/skni", "work/demo/results/skin"),
        ("work/dmeo/results/skni/ddp_2gpu", "work/demo/results/skin/ddp_2gpu"),
    ],
)
def test_a_result_of_another_scale_is_suggested(tmp_path, monkeypatch, path, meant):
    write_json(tmp_path / "work/demo/results/skin/ddp_2gpu" / SUMMARY, {})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedscaleError, match=rf"does not exist; did you mean {meant}\?"):
        evaluated_results(path)


def test_a_folder_of_results_is_answered_with_their_names(tmp_path, monkeypatch):
    write_json(tmp_path / "results/skin/ddp_2gpu" / SUMMARY, {})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedscaleError, match="is not a result; similar names among 1 result: res"):
        evaluated_result("results/skin")


def test_what_a_killed_evaluation_left_is_no_result(tmp_path, monkeypatch):
    for run in ("ddp_2gpu", ".ddp_2gpu.4711", ".serial_1gpu.4711.earlier"):
        write_json(tmp_path / "results/skin" / run / SUMMARY, {})
    assert evaluated_results(tmp_path) == [tmp_path / "results/skin/ddp_2gpu"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedscaleError, match="similar names among 1 result: results/skin/ddp_2gpu"):
        evaluated_result("results/skin")
    assert results_like("results/skin/") == ["results/skin/ddp_2gpu"]


def test_an_evaluation_on_external_images_is_no_result(tmp_path):
    result, external = tmp_path / "results/skin/ddp_2gpu", tmp_path / "external/b/ddp_2gpu"
    for folder in (result, external):
        write_json(folder / SUMMARY, {})
    (external / SHIFT).touch()
    assert evaluated_results(tmp_path) == [result]
    for read in (evaluated_results, usable_result):
        with pytest.raises(MedscaleError, match="is an evaluation on external images, not a res"):
            read(external)
    with pytest.raises(MedscaleError, match="is not a result; name a result folder"):
        evaluated_results(tmp_path / "external")
    for path in (external, tmp_path / "external", tmp_path / "external/b"):
        assert evaluations(path) == [external]
    for path in (result, tmp_path):
        assert evaluations(path) == [result]
    with pytest.raises(MedscaleError, match="data does not exist"):
        evaluations(tmp_path / "data")


@pytest.mark.parametrize(
    ("result", "workdir"),
    [("/study/results/skin/ddp_2gpu", "/study"), ("/model", "/"), ("/volume/model", "/")],
)
def test_a_result_may_lie_anywhere(result, workdir):
    assert workdir_of(Path(result)) == Path(workdir)


def test_another_users_folder_is_refused_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unwritable(tmp_path / "work" / "demo")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(MedscaleError, match=f"write to {tmp_path}, which belongs to") as caught:
        refuse_unwritable(tmp_path / "work" / "demo")
    assert tmp_path.owner() in str(caught.value)


def test_a_read_only_file_system_is_named_and_no_owner(tmp_path, monkeypatch):
    state = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    read_only = SimpleNamespace(f_flag=state.f_flag | os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    with pytest.raises(MedscaleError, match=f"^{tmp_path} is on a read-only file system: name"):
        refuse_unwritable(tmp_path / "work")


def test_a_file_in_the_place_of_the_workdir_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear")
    with pytest.raises(MedscaleError, match=f"{tmp_path}/notes.txt is a file; name a folder by"):
        refuse_unwritable(tmp_path / "notes.txt" / "demo")
