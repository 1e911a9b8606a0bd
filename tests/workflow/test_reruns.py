"""A change reruns what it touches and nothing else, and `medscale why` names it beforehand.

The study is a copy of the checkout whose outputs are empty files that `snakemake --touch` has
recorded as made: Snakemake then decides as after a real study, within seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import Params

import warm_python
from byte_code import copy_byte_code
from medscale.base.code import ROOT
from medscale.base.files import write_json
from medscale.workflow.causes import LONGEST, _changed_params, _differences
from medscale.workflow.graph import Graph
from medscale.workflow.runs import REPLICATE_FILES, Runs

CODE = ("Snakefile", "config.yaml", "reported.yaml", "claims.yaml", "requirements.lock")
FOLDERS = ("rules", "scripts", "src", "report", "profiles", "paper", "checklists")
CLASSIFIER, DETECTOR = "results/pneumonia/serial_1cpu", "results/pneumonia/serial_1gpu_yolov8n"
FIGURE = "figures/pneumonia/gradcam.pdf"
TARGETS = (CLASSIFIER, DETECTOR, FIGURE)


@dataclass
class Checkout:
    """A copy of the checkout, with a study at demo scale."""

    root: Path

    def run(self, *command: str, code: int = 0) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONPATH": str(self.root / "src"), "PATH": path}
        process = warm_python.run(
            ["-m", *command], warm_python.PLANNING, cwd=self.root, environment=environment
        )
        assert process.returncode == code, process.stdout + process.stderr
        return process.stdout + process.stderr

    def planned_jobs(self, *settings: str) -> dict[str, int]:
        """Jobs that Snakemake would run, by rule."""
        text = self.run("snakemake", "-np", *TARGETS, "--config", "scale=demo", *settings)
        counts = re.findall(r"^(\w+) +(\d+)$", text, flags=re.M)
        return {rule: int(count) for rule, count in counts if rule != "total"}

    def explain(self, target: str, *options: str, code: int = 0) -> str:
        return self.run("medscale.cli", "why", target, "--scale", "demo", *options, code=code)

    @contextmanager
    def edit(self, **changes: tuple[str, str]) -> Iterator[None]:
        """Replace a text in modules, which are named with `_` for `/`; undo it afterwards."""
        originals = {}
        for name, (old, new) in changes.items():
            path = self.root / "src" / "medscale" / f"{name.replace('__', '/')}.py"
            originals[path] = path.read_bytes()
            text = path.read_text(encoding="utf-8")
            assert old in text, f"{old!r} is not in {path}"
            path.write_text(text.replace(old, new, 1), encoding="utf-8")
        try:
            yield
        finally:
            for path, content in originals.items():
                path.write_bytes(content)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    root = tmp_path_factory.mktemp("checkout")
    for name in CODE:
        shutil.copy2(ROOT / name, root / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    copy_byte_code(root)
    checkout_copy = Checkout(root)
    text = checkout_copy.run("snakemake", "-np", *TARGETS, "--config", "scale=demo")
    for files in re.findall(r"^    output: (.*)$", text, flags=re.M):
        for file in files.split(", "):
            path = root / "work" / "demo" / file
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}\n", encoding="utf-8")
            else:
                path.mkdir(parents=True, exist_ok=True)
    touch = ("--touch", "--forceall", "--cores", "2", "--config", "scale=demo")
    checkout_copy.run("snakemake", *TARGETS, *touch)
    return checkout_copy


def test_a_new_variant_makes_no_shards_of_its_study_again(checkout):
    variant = "{variant_of: pneumonia, model: {trained: all}, runs: [serial_1cpu]}"
    assert checkout.planned_jobs(f"studies={{pneumonia_all: {variant}}}") == {}


def test_predictor_docstring_caption_and_workers_train_nothing(checkout):
    with checkout.edit(
        serve__predict=("\n\n\n", "\n\nCHANGED = 1\n\n\n"),
        engine__train__loop=('"""', '"""Other words. '),
        report__gradcam__chapter=("*{study}*", "the study *{study}*"),
    ):
        jobs = checkout.planned_jobs("dask={workers: 1}")
    assert not {"index", "shards", "plan", "train"} & jobs.keys()


def test_a_figure_is_made_again_by_its_chapter_alone(checkout):
    with checkout.edit(report__gradcam__make=("\n\n\n", "\n\nCHANGED = 1\n\n\n")):
        assert checkout.planned_jobs() == {"gradcam_report": 1}
        text = checkout.explain(FIGURE)
    assert "src/medscale/report/gradcam/make.py has changed" in text
    assert "Jobs that would run: gradcam_report 1; 1 in all." in text


def test_a_line_of_the_training_loop_trains_again_and_why_says_so(checkout):
    with checkout.edit(engine__train__loop=("\n\n\n", "\n\nCHANGED = 1\n\n\n")):
        assert checkout.planned_jobs()["train"] == 4
        text = checkout.explain(CLASSIFIER)
    assert "src/medscale/engine/train/loop.py has changed (directly concerned: train 2)" in text
    assert "Jobs that would run: train 2, evaluate 1; 3 in all." in text
    assert re.search(r"Expected cost: [\d.]+ min .* [\d.]+ device-hours, [\d.]+ USD", text)
    assert not [line for line in text.splitlines() if "has changed" in line and "loop" not in line]


def test_a_figure_is_current_until_its_code_changes(checkout):
    lines = (
        "from medscale.workflow import freshness",
        "from medscale.workflow.graph import Graph",
        f"freshness.REPORT = {FIGURE!r}",
        "changes = {'scale': 'demo'}",
        "print('current:', freshness.is_current(Graph(changes), changes))",
    )
    (checkout.root / "question.py").write_text("\n".join(lines))
    assert "current: True" in checkout.run("question")
    with checkout.edit(report__gradcam__make=("\n\n\n", "\n\nCHANGED = 1\n\n\n")):
        assert "current: False" in checkout.run("question")


def test_detection_and_classification_are_trained_by_their_own_code(checkout):
    with checkout.edit(engine__detect__task=("\n\n\n", "\n\nCHANGED = 1\n\n\n")):
        assert checkout.planned_jobs()["train"] == 2
        assert "engine/detect/task.py has changed" in checkout.explain(DETECTOR)
    with checkout.edit(engine__models__small=("\n\n\n", "\n\nCHANGED = 1\n\n\n")):
        assert "up to date" not in checkout.explain(CLASSIFIER)


def test_why_names_settings_missing_files_and_wrong_targets(checkout, tmp_path):
    changes = tmp_path / "changes.yaml"
    changes.write_text("studies: {pneumonia: {split: {train: 0.6, test: 0.3}, recipe: {lr: 0.5}}}")
    text = checkout.explain(CLASSIFIER, "--configfile", str(changes))
    for line in ("split.train: 0.7 -> 0.6", "split.test: 0.2 -> 0.3"):
        assert line in text
    assert re.search(r"recipe\.lr: 0\.\d+ -> 0\.5", text)
    assert f"{CLASSIFIER} is up to date." in checkout.explain(CLASSIFIER)
    never = checkout.explain("results/pneumonia/ddp_2gpu")
    assert "outputs were never made (directly concerned: plan 2, train 2, evaluate 1)" in never
    weights = checkout.root / "work/demo/runs/pneumonia/serial_1cpu/seed1/model.safetensors"
    shutil.rmtree(checkout.root / "work/demo" / CLASSIFIER)
    saved_weights = weights.rename(weights.with_suffix(".kept"))
    missing = checkout.explain(CLASSIFIER)
    saved_weights.rename(weights)
    assert "model.safetensors is missing, though it was made before" in missing
    assert "figures/typo: no rule makes it; did you mean" in checkout.explain(
        "figures/typo", code=2
    )
    assert "there is no study 'nix'" in checkout.explain("results/nix/serial_1cpu", code=2)


def test_another_size_of_the_node_trains_no_complete_replicate_again(tmp_path):
    def spec(gpus: int, **study: object) -> str:
        changes = {"workdir": str(tmp_path), "node": {"gpus": gpus}}
        study["model"] = {"options": {"width": 16, "dropout": 0.1}}  # not in alphabetical order
        graph = Graph(changes | {"studies": {"glaucoma": study}})
        wildcards = SimpleNamespace(study="glaucoma", run="ddp_4gpu", replicate="seed1")
        return Runs(graph).spec(wildcards)

    on_one, on_two = spec(4), spec(2)
    folder = tmp_path / "runs" / "glaucoma" / "ddp_4gpu" / "seed1"
    folder.mkdir(parents=True)
    for name in REPLICATE_FILES:
        (folder / name).touch()
    write_json(folder / "spec.json", json.loads(on_one))  # as scripts do
    assert spec(2) == on_one != on_two
    assert '"epochs":3' in spec(2, recipe={"epochs": 3})
    (folder / "model.safetensors").unlink()  # interrupted: it goes on with the cards present
    assert spec(2) == on_two


def test_another_time_limit_trains_no_complete_replicate_again(tmp_path):
    def spec(**parallel: object) -> str:
        recipe = {name: parallel.pop(name) for name in [*parallel] if name in ("half", "ema")}
        study = {"parallel": parallel, "recipe": recipe}
        changes = {"workdir": str(tmp_path), "studies": {"glaucoma": study}}
        wildcards = SimpleNamespace(study="glaucoma", run="serial_1cpu", replicate="seed1")
        return Runs(Graph(changes)).spec(wildcards)

    before = spec()
    folder = tmp_path / "runs" / "glaucoma" / "serial_1cpu" / "seed1"
    folder.mkdir(parents=True)
    for name in REPLICATE_FILES:
        (folder / name).touch()
    write_json(folder / "spec.json", json.loads(before))
    assert spec(timeout_s=500, checkpoint_every_s=600, stop_after_s=3000) == before
    # A run of one replica without mixed precision has neither micro-batches nor half precision.
    assert spec(microbatches=8, schedule="gpipe", half="fp16") == before
    assert spec(ema=0.9) != before
    (folder / "model.safetensors").unlink()
    assert spec(microbatches=8) != before


def test_a_training_depends_on_its_file_of_weights(tmp_path, capsys):
    def changes(name: str) -> dict[str, object]:
        study = {"model": {"name": "medical_cnn", "pretrained": name}}
        return {"workdir": str(tmp_path), "studies": {"glaucoma": study}}

    wildcards = SimpleNamespace(study="glaucoma", run="ddp_2gpu", replicate="seed1")
    folder = tmp_path / "runs" / "glaucoma" / "ddp_2gpu" / "seed1"
    folder.mkdir(parents=True)
    for name in REPLICATE_FILES:
        (folder / name).touch()
    for name in ("weights/a.safetensors", "/somewhere/a.safetensors"):
        runs = Runs(Graph(changes(name)))
        with pytest.raises(SystemExit):  # Snakemake would take the outputs of an earlier plan
            runs.weights(wildcards)
        assert f"{name} does not exist" in capsys.readouterr().err
        write_json(folder / "spec.json", json.loads(runs.spec(wildcards)))
        (weights,) = runs.weights(wildcards)  # trained with it
        assert (tmp_path / weights).resolve() == ROOT.resolve() / name
    assert Runs(Graph({})).weights(wildcards) == []


def test_a_long_setting_is_no_record_of_code(tmp_path):
    job = SimpleNamespace(
        params={"code": "0" * 64},
        resources=SimpleNamespace(script="chapter.py"),
        rule=SimpleNamespace(name="roc_report"),
    )
    recorded = [repr("1" * 64), repr("x" * 5000)]  # of a param that the rule no longer has
    (text,) = _changed_params(recorded, job, SimpleNamespace(workdir=tmp_path))
    assert text.endswith("has changed; which one was not recorded")


def test_each_new_setting_is_compared_with_the_old_one_that_resembles_it(tmp_path):
    old = ["ab" * 32, "cd" * 32, "folders", "An old title", '{"a": 1, "b": 2}', '{"x": 1}']
    params = {
        "code": "0" * 64,
        "state": "3" * 64,
        "settings": '{"a": 1, "b": 3}',
        "title": "New",
        "kind": "folders",
        "plan": '{"x": 2, "y": null}',
        "option": '{"new": 1}',
    }
    job = SimpleNamespace(
        params=Params(fromdict=params),
        resources=SimpleNamespace(script="evaluate.py"),
        rule=SimpleNamespace(name="evaluate"),
        wildcards=SimpleNamespace(study="skin"),
    )
    graph = Graph({"scale": "demo", "workdir": str(tmp_path)})
    assert list(_changed_params(None, job, graph)) == []  # Snakemake recorded none
    code, *texts = _changed_params([*map(repr, old)], job, graph)
    assert code == "scripts/evaluate.py or a module it imports has changed; which one was not " + (
        "recorded"
    )
    assert texts == [
        "files of images or tables of skin were added, removed or edited",
        "settings.b: 2 -> 3",
        'title: "An old title" -> "New"',  # and not a digest
        "x: 1 -> 2",
        'option: null -> {"new": 1}',
    ]


def test_long_settings_are_shortened_to_what_differs():
    old = [{"name": f"claim{number}", "text": "t" * 50} for number in range(20)]
    new = [{**old[0], "text": "u"}, *old[2:], {"name": "added", "text": ""}]
    assert list(_differences("claims", old, new)) == [
        "claims: changed: claim0; new: added; gone: claim1"
    ]
    assert list(_differences("claims", old, old[::-1])) == [
        "claims: the same items in another order"
    ]
    (text,) = _differences("text", "a" * 1000, "b")
    assert text.endswith('… -> "b"')
    assert len(text) < 2 * LONGEST
