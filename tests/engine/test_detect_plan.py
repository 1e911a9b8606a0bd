"""Plans of detection: their recipe, their place in a study, and mistakes in settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from detector_runs import SIZE, configured
from medscale.base import extras
from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.settings import Preprocess
from medscale.engine.models.names import check_model
from medscale.engine.plan import Detect
from medscale.engine.train.progress import Progress
from medscale.report.chapters import chapters_of
from medscale.report.detection.chapter import CHAPTER as DETECTION
from medscale.report.overview.chapter import CHAPTER as OVERVIEW
from medscale.workflow.datasets import Datasets
from medscale.workflow.graph import Graph
from medscale.workflow.preflight import _models
from medscale.workflow.runs import Runs
from training_runs import ROOT


@pytest.mark.parametrize(
    "change", [{"rotate": 5}, {"vflip": 0.5}, {"minority": 2}, {"crop": {"size": 32}}]
)
def test_changes_that_would_leave_boxes_behind_are_refused(change):
    with pytest.raises(ValueError, match=f"augment.{next(iter(change))} is not for detection"):
        Detect(augment=change)


def test_where_losses_do_not_rank_epochs_the_last_finite_one_is_kept():
    progress = Progress()
    losses = [0.3, 7.0, 2.0, float("nan")]
    best = [
        progress.close_epoch({"epoch": n + 1, "val_loss": v}, None, 4, ranks=False)
        for n, v in enumerate(losses)
    ]
    assert best == [True, True, True, False]
    assert progress.best_epoch == 3


def test_detection_stands_apart_from_a_study_s_classifications():
    study = Graph(
        {
            "scale": "demo",
            "studies": {"glaucoma": configured().study("glaucoma").model_dump(mode="json")},
        }
    )
    classified, detected = (
        chapter.inputs(study.config, "glaucoma")["results"] for chapter in (OVERVIEW, DETECTION)
    )
    assert classified == ["results/glaucoma/serial_1cpu"]
    assert detected == [f"results/glaucoma/{run}_yolov8n" for run in ("serial_1cpu", "ddp_2cpu")]
    runs, datasets = Runs(study), Datasets(study)
    detector = SimpleNamespace(study="glaucoma", run="ddp_2cpu_yolov8n")
    assert runs.shards(detector) == "data/glaucoma/shards_detect"
    assert runs.shards(SimpleNamespace(study="glaucoma", run="ddp_2cpu")) == "data/glaucoma/shards"
    shards = SimpleNamespace(study="glaucoma", shards="shards_detect")
    preprocess = Preprocess.model_validate_json(datasets.shard_preprocessing(shards))
    assert preprocess == Preprocess(size=SIZE)
    assert "detection" in [chapter.name for chapter in chapters_of(study.config, "glaucoma")]
    assert "results/glaucoma/ddp_2cpu_yolov8n" in study.results()


def test_a_detection_plan_has_its_own_recipe_and_none_of_the_classification_s_network():
    changes = {"model": {"trained": "last_layer", "metadata": ["age"]}}
    settings = configured(pretrained="some.safetensors")
    study = settings.study("glaucoma").model_dump(mode="json") | changes
    study["model"] |= {"name": "medical_cnn"}
    detection_plan = plan(
        load(ROOT / "config.yaml", {"studies": {"glaucoma": study}}),
        "glaucoma",
        "ddp_4gpu_yolov8n",
        1,
    )
    assert (
        detection_plan.model.trained,
        detection_plan.model.metadata,
        detection_plan.model.pretrained,
    ) == ("all", [], "some.safetensors")
    assert (detection_plan.global_batch, detection_plan.recipe.epochs) == (8, 2)
    changed_plan = plan(configured(images="all"), "glaucoma", "ddp_2cpu_yolov8n", 1)
    assert (
        changed_plan.training_digest
        != plan(configured(), "glaucoma", "ddp_2cpu_yolov8n", 1).training_digest
    )


def test_mistakes_are_reported_before_anything_is_trained(monkeypatch):
    check_model("yolov8n")
    with pytest.raises(MedscaleError, match="yolov9n"):
        check_model("yolov9n")
    with pytest.raises(MedscaleError, match="no section `detect`"):
        plan(load(ROOT / "config.yaml"), "glaucoma", "ddp_2cpu_yolov8n", 1)
    with pytest.raises(MedscaleError, match="a detector is the model of runs"):
        load(ROOT / "config.yaml", {"studies": {"glaucoma": {"model": {"name": "yolov8n"}}}})
    run_plan = plan(configured(), "glaucoma", "ddp_2cpu_yolov8n", 1)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    [finding] = _models(configured(), [run_plan])
    assert finding.level == "error"
    assert "ultralytics, which is not installed" in finding.text
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    [finding] = _models(configured(), [run_plan])
    assert finding.level == "ok"
    for run in ("fsdp_2cpu_yolov8n", "mp_2cpu_yolov8n", "ddp_mp_4gpu_yolov8n"):
        with pytest.raises(MedscaleError, match="detection runs are serial or ddp"):
            plan(configured(), "glaucoma", run, 1)


def test_only_one_module_imports_ultralytics_and_only_within_functions():
    for path in (ROOT / "src").rglob("*.py"):
        lines = [
            line
            for line in path.read_text(encoding="utf-8").splitlines()
            if "import" in line.split("#")[0]
        ]
        using = [
            line
            for line in lines
            if line.lstrip().startswith(("import ultralytics", "from ultralytics"))
        ]
        assert not using or path.name == "yolo.py", path
        assert all(line.startswith("    ") for line in using), path
