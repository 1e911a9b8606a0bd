"""The shapes and buffers of CUDA graphs, and training with them, by pretended graphs on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.loader import Batch, Loader, Shape, Step
from medscale.data.shards import Shards
from medscale.engine.parallel.pipeline import Pipeline
from medscale.engine.plan import Recipe
from medscale.engine.train import graphs, replicate
from medscale.engine.train.capture import NotCaptured
from medscale.engine.train.shapes import FixedShapes
from small_training import FakeGraphs, Small, equal

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("batch", [7, 10, 37, 50])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_split_has_at_most_two_shapes(shards, batch, replicas, accumulate):
    for replica in range(replicas):
        loader = Loader(
            Shards.open(shards),
            "train",
            global_batch=batch,
            replicas=replicas,
            replica=replica,
            accumulate=accumulate,
            training=True,
        )
        steps = [step.shape for step in loader.epoch(0)]
        shapes = loader.shapes()
        assert len(shapes) <= 2
        assert steps == [shape for shape, count in shapes.items() for _ in range(count)]


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_blank_batch_has_the_form_of_a_real_one(shards, channels_last):
    shard_set = Shards.open(shards)
    loader = Loader(
        shard_set,
        "train",
        global_batch=10,
        replicas=1,
        replica=0,
        training=True,
        metadata=np.ones((len(shard_set.labels), 3), np.float32),
        channels_last=channels_last,
    )
    real = next(loader.epoch(0)).batches[0]
    blank = loader.blank(len(real.labels))
    for name in ("images", "labels", "ids", "metadata"):
        real_tensor, blank_tensor = getattr(real, name), getattr(blank, name)
        assert (real_tensor.shape, real_tensor.dtype, real_tensor.stride()) == (
            blank_tensor.shape,
            blank_tensor.dtype,
            blank_tensor.stride(),
        )
        assert not blank_tensor.any()


def test_each_shape_has_buffers_that_do_not_move(shards):
    small = Small(shards, "cpu")
    places = {}
    small.optimize._work = lambda batches, size: places.setdefault(size, []).append(
        (batches[0].images.data_ptr(), batches[0].labels.data_ptr(), batches[0].images.sum())
    )
    steps = [*small.training.epoch(0), *small.training.epoch(1)]
    for step in steps:
        small.optimize(step)
    assert sorted(places) == [9, 10]
    for size, calls in places.items():
        assert len({call[:2] for call in calls}) == 1
        expected = [step.batches[0].images.sum() for step in steps if step.size == size]
        assert [call[2] for call in calls] == expected


def pretend(small, monkeypatch, **settings):
    """Capture with a pretended recorder; return the recorder."""
    recorder = FakeGraphs(**settings)
    monkeypatch.setattr(graphs, "Recorder", lambda device: recorder)
    small.capture()
    return recorder


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "ema": 0.9, "accumulate": 3},
        {"optimizer": "sgd", "number_format": "bf16"},
        {"optimizer": "adam", "number_format": "fp16", "clip_norm": None},
    ],
)
def test_a_captured_training_has_the_bits_of_another(shards, monkeypatch, settings):
    plain, captured = Small(shards, "cpu", **settings), Small(shards, "cpu", **settings)
    before = captured.state()
    recorder = pretend(captured, monkeypatch)
    assert equal(before, captured.state()[: len(before)]), "the warm-up has trained"
    assert not any(tensor.any() for tensor in captured.state()[len(before) :])
    assert recorder.calls[:4] == ["check", "check", "capture", "capture"]
    assert plain.train(9) == captured.train(9)
    assert equal(plain.state(), captured.state())
    assert recorder.calls[4:].count("replay") == 9
    with captured.optimize.eager():
        assert plain.train(2) == captured.train(2)
    assert recorder.calls.count("replay") == 9
    graphs.release(captured)
    assert captured.recorder is None
    assert not captured.optimize._slots


@pytest.mark.parametrize(("epochs", "captured"), [(1, 0), (10, 1), (20, 2)])
def test_evaluation_is_captured_for_shapes_of_many_steps(shards, monkeypatch, epochs, captured):
    small = Small(shards, "cpu", batch=4, epochs=epochs)
    assert list(small.validation.shapes().values()) == [5, 1]  # steps in each epoch
    recorder = pretend(small, monkeypatch)
    assert recorder.calls.count("capture") == len(small.training.shapes()) + captured
    small.model.shares_forward = True  # as FSDP's, whose graphs must be those of all ranks
    graphs.release(small)
    recorder = pretend(small, monkeypatch)
    assert recorder.calls.count("capture") == len(small.training.shapes()) + 2 * (epochs > 1)
    assert set(small.logits._slots) <= set(small.validation.shapes())


def test_ranks_of_fsdp_capture_the_same_evaluation(shards, monkeypatch):
    """In each step all ranks replay a graph, or none does, though their shares differ in size."""

    def captured(images: int, replica: int) -> list[bool]:
        small = Small(shards, "cpu", batch=4, epochs=20)
        small.model.shares_forward = True
        small.validation = Loader(
            Shards.open(shards), "val", global_batch=images, replicas=2, replica=replica
        )
        pretend(small, monkeypatch)
        slots = [small.logits._slots.get(step.shape) for step in small.validation.epoch(0)]
        return [slot is not None and slot.call is not slot.eager for slot in slots]

    assert captured(4, 0) == captured(4, 1) == [True] * 6
    assert captured(2, 0) == captured(2, 1) == [False] * 12, "a rank has no image in a step"


def test_a_prediction_that_one_rank_cannot_capture_is_called_on_all(shards, monkeypatch):
    small = Small(shards, "cpu", batch=4, epochs=20)
    pretend(small, monkeypatch)
    assert small.logits._slots
    small.world.gather = lambda cause: [cause, "a.py:3 waits"]  # the other rank's cause
    graphs.capture_prediction(small, small.validation)
    assert not small.logits._slots


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"cause": "the host waits for the GPU in a.py:3"}, "waits for the GPU in a.py:3"),
        ({"fails": True}, "operation not permitted"),
    ],
)
def test_what_cannot_be_captured_is_named_and_leaves_the_weights(
    shards, monkeypatch, settings, cause
):
    small = Small(shards, "cpu")
    before = small.state()
    with pytest.raises(NotCaptured, match=cause):
        pretend(small, monkeypatch, **settings)
    assert equal(before, small.state()[: len(before)])


def test_one_rank_that_cannot_ends_the_capture_on_all(shards, monkeypatch):
    small = Small(shards, "cpu")
    small.world.gather = lambda cause: [cause, "a.py:3 waits"]  # the other rank's cause
    with pytest.raises(NotCaptured, match=r"a\.py:3 waits"):
        pretend(small, monkeypatch)
    small.world.gather = lambda cause: None  # rank 0 has the causes
    small.world.from_main = lambda cause: "a.py:3 waits"
    with pytest.raises(NotCaptured, match=r"a\.py:3 waits"):
        pretend(small, monkeypatch)


def test_a_pipeline_and_a_cpu_are_not_captured(shards):
    small = Small(shards, "cpu")
    assert graphs.capture(small) is False
    small.world.device = SimpleNamespace(type="cuda")
    small.model.not_captured = "stages of a pipeline"
    with pytest.raises(NotCaptured, match="stages of a pipeline"):
        graphs.capture(small)
    small.plan.recipe = Recipe(graph="off")
    assert graphs.capture(small) is False


def test_a_pipeline_is_captured_only_where_the_setting_is_on(shards, monkeypatch):
    small = Small(shards, "cpu")
    small.model.not_tried = Pipeline.not_tried
    with pytest.raises(NotCaptured, match="no pipeline was captured on GPUs yet"):
        pretend(small, monkeypatch)
    small = Small(shards, "cpu", graph="on")
    small.model.not_tried = Pipeline.not_tried
    assert "capture" in pretend(small, monkeypatch).calls


@pytest.mark.parametrize("graph", ["auto", "on"])
def test_a_replicate_is_built_again_without_graphs_or_refused(monkeypatch, caplog, graph):
    run_plan = plan(load(ROOT / "config.yaml"), "glaucoma", "serial_1gpu", 1)
    run_plan = run_plan.model_copy(
        update={"recipe": run_plan.recipe.model_copy(update={"graph": graph})}
    )
    attempts = []

    def assemble(plan, *_):
        attempts.append(plan.recipe.graph)
        return SimpleNamespace(plan=plan)

    def refuse(trainer):
        if trainer.plan.recipe.graph == "off":
            return False
        raise NotCaptured("the host waits for the GPU in loss.py:88")

    monkeypatch.setattr(replicate, "assemble", assemble)
    monkeypatch.setattr(replicate, "restore", lambda trainer: True)
    monkeypatch.setattr(replicate, "capture", refuse)
    released = []
    monkeypatch.setattr(replicate, "release", released.append)
    arguments = (run_plan, None, None, None, None, None, 0.0)
    if graph == "on":
        with pytest.raises(MedscaleError, match=r"loss.py:88; set recipe.graph: auto or off"):
            replicate.ready(*arguments)
        return
    trainer, resumed = replicate.ready(*arguments)
    assert (attempts, trainer.plan.recipe.graph, resumed) == (["auto", "off"], "off", True)
    assert len(released) == 1
    assert (
        "the step is not captured as a CUDA graph: the host waits for the GPU in loss.py:88"
        in caplog.text
    )


def test_a_step_says_its_shape(shards):
    step = next(Small(shards, "cpu", accumulate=3).training.epoch(0))
    assert isinstance(step, Step)
    assert step.shape.micros == (4, 3, 3)
    assert step.shape.size == 10


def batch_of(images: int, start: int = 0) -> Batch:
    """A batch with metadata whose tensors all differ from those of another start."""
    numbers = torch.arange(start, start + images)
    return Batch(numbers.float().view(-1, 1, 1, 1), numbers + 7, numbers, numbers.float() + 0.5)


@pytest.mark.parametrize("labelled", [True, False])
def test_work_reads_the_step_from_buffers_that_stay(labelled):
    def work(batches, size):
        read = [[*b.arguments, *([b.labels] if labelled else [])] for b in batches]
        seen.append([tensor.data_ptr() for tensors in read for tensor in tensors])
        return [tensor.tolist() for tensors in read for tensor in tensors], size

    def expected(batches):
        tensors = [[*b.arguments, *([b.labels] if labelled else [])] for b in batches]
        return [tensor.tolist() for parts in tensors for tensor in parts]

    seen: list[list[int]] = []
    function = FixedShapes(work, lambda images: batch_of(images, 900), labelled=labelled)
    for start in (0, 50):
        batches = [batch_of(3, start), batch_of(2, start + 10)]
        assert function(Step(batches, 9)) == (expected(batches), 9)
    assert seen[0] == seen[1]
    recorder = SimpleNamespace(capture=lambda eager: captured.append(eager) or (lambda: "replayed"))
    captured: list[object] = []
    for _ in range(2):  # a shape is captured once
        function.capture(Shape((3, 2), 9), recorder)
    assert len(captured) == 1
    step = Step([batch_of(3), batch_of(2)], 9)
    assert function(step) == "replayed"
    with function.eager():
        assert function(step)[1] == 9
