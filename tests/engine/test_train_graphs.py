"""What a CUDA graph needs of a step, tested on the CPU: shapes, buffers, tensors, skipped steps."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import distributed as dist
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage, schedules
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data import ahead as data_ahead
from medscale.data import augment
from medscale.data.ahead import ahead
from medscale.data.loader import Batch, Loader, Step
from medscale.data.shards import Shards
from medscale.engine import compiling
from medscale.engine.models.registry import build, stages
from medscale.engine.parallel.cut import Cut
from medscale.engine.parallel.fsdp import EXCHANGES, FSDP, SMALLEST, UNITS, _groups, _units, shard
from medscale.engine.parallel.model import WholeModel
from medscale.engine.parallel.pipeline import RESEEDS, Pipeline, TimedStage, _is_random
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies.strategy import Setup
from medscale.engine.parallel.waits import Waits
from medscale.engine.plan import Augment, Model, Recipe
from medscale.engine.train import capture, compiled, graphs, replicate
from medscale.engine.train.capture import NotCaptured, Recorder, first_line
from medscale.engine.train.clock import Clock
from medscale.engine.train.ema import Average
from medscale.engine.train.guard import Guard
from medscale.engine.train.loop import Trainer
from medscale.engine.train.recipe import CrossEntropy, optimizer, set_rate
from medscale.engine.train.step import OptimizerStep
from small_training import FakeGraphs, Small, alone, equal, overflow, small_network
from training_runs import Training
from waiting import until

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def shards(make_shards):
    return make_shards(train=37, val=23, test=9, size=16)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on several threads are slow where other processes use the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- shapes and buffers


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


# --- warm-up, capture, and giving it up


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


# --- pipelines: a schedule as a capture meets it


class Transfers:
    """Batches of sends and receives of one stage, with the waits for them."""

    def __init__(self):
        self.received, self.unwaited = [], 0

    def start(self, operations, desc=None):
        self.received += [op.tensor for op in operations if op.op is dist.irecv]
        self.unwaited += len(operations)
        return [SimpleNamespace(wait=self.wait) for _ in operations]

    def wait(self):
        self.unwaited -= 1


def pipeline(stage, schedule, dropout=0.0):
    """Return one of two stages of a network, which is cut in the middle, on fake tensors."""
    parts = [torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)]
    parts += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout(dropout)]
    network = torch.nn.Sequential(*parts, torch.nn.Linear(4, 2))
    blocks = [(name, block) for name, block in network.named_children()]
    shapes = [[3, 8, 8], [4, 8, 8], [4, 8, 8], [4, 1, 1], [4], [4], [2]]
    cut = Cut([0, 2, 6], [1.0] * 6, shapes, ["float32"] * 7)
    world = SimpleNamespace(
        device=CPU,
        stage=stage,
        replicas=1,
        mesh=SimpleNamespace(get_group=lambda _: dist.group.WORLD),
    )
    return Pipeline(
        Setup(
            network=network,
            world=world,
            precision=Precision("fp32", CPU),
            stages=2,
            schedule=schedule,
            microbatches=3,
            channels_last=True,
            compile=False,
            chain=lambda: (blocks, cut),
        )
    )


@pytest.fixture
def two_ranks(request):
    """Pretend to be a rank of a process group of two, whose collectives do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=request.param, world_size=2)
    yield request.param
    dist.destroy_process_group()


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("two_ranks", [0, 1], indirect=True)
def test_a_schedule_has_nothing_that_a_capture_forbids(two_ranks, schedule, monkeypatch):
    """It waits for each transfer within the step, keeps its buffers, and reads no tensor."""
    transfers = Transfers()
    monkeypatch.setattr(schedules, "_batch_p2p", transfers.start)
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: None)
    recipe = Recipe(clip_norm=1.0, graph="on")
    with FakeTensorMode():
        model = pipeline(two_ranks, schedule)
        assert model.not_captured == ""
        step = OptimizerStep(
            model,
            optimizer(model.network, recipe, model.precision),
            Average(model.network, recipe.ema),
            model.precision,
            CrossEntropy(recipe, np.array([1, 2]), CPU),
            recipe.clip_norm,
        )
        labels = torch.zeros(8, dtype=torch.int64)  # micro-batches of three and of two images
        images = torch.zeros(8, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        step([Batch(images, labels, labels)], 8)  # the schedules are made
        monkeypatch.setattr(torch, "tensor", None)  # a copy from the host waits for a GPU
        monkeypatch.setattr(torch, "manual_seed", None)  # refused during a capture
        buffers = []
        for _ in range(2):
            transfers.received.clear()
            step([Batch(images, labels, labels)], 8)
            buffers.append([id(tensor) for tensor in transfers.received])
            assert transfers.unwaited == 0
    assert len(buffers[0]) == 3, "one transfer to this stage for each micro-batch"
    assert buffers[0] == buffers[1]


@pytest.mark.parametrize("two_ranks", [0, 1], indirect=True)
def test_dropout_in_any_stage_keeps_all_stages_from_a_capture(two_ranks):
    assert pipeline(two_ranks, "gpipe", dropout=0.1).not_captured == RESEEDS


@pytest.mark.parametrize(
    ("name", "options", "is_random"),
    [
        ("resnet18", {}, False),
        ("densenet121", {}, False),
        ("densenet121", {"proj_drop_rate": 0.1}, True),  # which its layers call as a function
        ("resnet18", {"drop_rate": 0.1}, True),
        ("efficientnet_b0", {"drop_path_rate": 0.2}, True),
        ("tiny_cnn", {}, False),
    ],
)
def test_the_blocks_that_draw_random_numbers_are_known(name, options, is_random):
    with torch.device("meta"):
        blocks = stages(build(Model(name=name, options=options), 2))
    assert any(_is_random(block) for _, block in blocks) == is_random


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


def test_the_place_where_the_host_waits_is_found(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    recorder = object.__new__(Recorder)

    def waits():
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)

    assert recorder.check(waits).startswith(f"the host waits for the GPU in {__file__}:")
    assert recorder.check(lambda: warnings.warn("something else", stacklevel=1)) is None
    assert modes == ["warn", "default"] * 2


def test_a_layer_that_waits_outside_of_captures_alone_is_captured(monkeypatch):
    """PyTorch's SyncBatchNorm drops empty shares, which the host waits for, unless captured."""
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    recorder = object.__new__(Recorder)

    def synchronizes_batch_norm():
        if not torch.cuda.is_current_stream_capturing():
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    assert recorder.check(synchronizes_batch_norm) is None
    assert not torch.cuda.is_current_stream_capturing()

    def refuses():
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("this layer refuses capture")

    assert recorder.check(refuses) == "this layer refuses capture"
    assert not torch.cuda.is_current_stream_capturing()


def test_the_first_error_is_the_cause():
    first = RuntimeError("operation not permitted when stream is capturing.\nCUDA kernel …")
    last = RuntimeError("capture was invalidated")
    last.__context__ = first
    assert first_line(last) == "operation not permitted when stream is capturing"
    assert first_line(ValueError()) == "ValueError"


def test_a_capture_has_the_stream_and_pool_of_the_recorder(monkeypatch):
    events = []

    class Graph:
        def replay(self):
            events.append("replay")

    @contextmanager
    def capturing(graph, *, pool, stream, capture_error_mode):
        assert isinstance(graph, Graph)
        events.append((pool, stream, capture_error_mode))
        yield

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    recorder = Recorder(torch.device("cuda", 0))
    replays = [recorder.capture(lambda: ["result"]) for _ in range(2)]
    assert events == [((0, 1), "stream of cuda:0", "thread_local")] * 2
    assert replays[0]() is replays[0](), "each replay returns the tensors that it writes"
    assert replays[0]() is not replays[1]()
    assert events[2:] == ["replay"] * 4


def test_losses_of_a_gpu_are_read_a_step_later_from_pinned_memory(monkeypatch):
    log = []
    event = SimpleNamespace(record=lambda: log.append("recorded"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda flags: log.append("pinned") or flags)
    sums = torch.tensor([5, 4, 3])

    class OnGpu:
        device = torch.device("cuda", 0)

        def __getitem__(self, part):
            return sums[part]

    flags, recorded = Guard._fetch(OnGpu())
    assert (flags.tolist(), recorded, log) == ([3, 0, 0], event, ["pinned", "recorded"])


def test_a_failed_capture_leaves_a_device_that_goes_on(monkeypatch):
    class Broken:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            raise RuntimeError("operation not permitted")

        def __exit__(self, *_):
            return None

    states = []
    generator = SimpleNamespace(graphsafe_set_state=states.append)
    monkeypatch.setattr(torch.cuda, "graph", Broken)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    monkeypatch.setattr(
        torch, "Generator", lambda device: SimpleNamespace(graphsafe_get_state=lambda: device)
    )
    ended = []

    def end(device, pool):
        if ended:
            raise RuntimeError("not currently recording to mempool_id")
        ended.append((device, pool))

    released = []
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: released.append(pool))
    recorder = object.__new__(capture.Recorder)
    recorder._device, recorder._stream, recorder._pool = torch.device("cuda", 0), None, (0, 1)
    for _ in range(2):  # as PyTorch 2.11 and 2.12 leave the pool
        with pytest.raises(NotCaptured, match="operation not permitted"):
            recorder.capture(lambda: None)
    assert states == [torch.device("cuda", 0)] * 2
    assert ended == released == [(0, (0, 1))]


def test_runs_of_the_tests_on_a_card_are_on_the_card(tmp_path):
    for on_cards, backend in ((True, "cuda"), (False, "cpu")):
        training = Training(tmp_path, tmp_path, {}, on_cards=on_cards)
        spec = read_json(training.paths("serial_1gpu")[0])
        assert (spec["backend"], spec["stand_in"]) == (backend, not on_cards)


# --- tensors instead of the host's decisions


NUMBER_FORMATS = pytest.mark.parametrize(
    ("number_format", "settings"),
    [
        ("fp32", {"optimizer": "adam"}),
        ("bf16", {"optimizer": "adamw", "class_weights": True, "label_smoothing": 0.1}),
        ("fp16", {"optimizer": "sgd", "ema": 0.9}),
    ],
)


def step_of(model, rated, recipe):
    """Return the optimizer step of a model with two classes, and two batches of four images."""
    step = OptimizerStep(
        model,
        rated,
        Average(model.network, recipe.ema),
        model.precision,
        CrossEntropy(recipe, np.array([1, 2]), model.world.device),
        recipe.clip_norm,
    )
    labels = torch.zeros(4, dtype=torch.int64)
    return step, [Batch(torch.zeros(4, 3, 32, 32), labels, labels)] * 2


@NUMBER_FORMATS
def test_a_step_reads_no_tensor_from_the_host_or_into_it(monkeypatch, number_format, settings):
    """Fake tensors have no values, so reading one raises an error."""
    recipe = Recipe(clip_norm=1.0, **settings)
    with FakeTensorMode():
        network = small_network()
        precision = Precision(number_format, CPU)
        model = WholeModel(network, alone(CPU), precision)
        step, batches = step_of(model, optimizer(network, recipe, precision), recipe)
        monkeypatch.setattr(torch, "tensor", None)  # a copy from the host waits for a GPU
        for _ in range(2):
            step(batches, 8)
        with pytest.raises(DataDependentOutputException):
            float(step.sums[0])


AHEAD = "a copy that the host does not wait for"


class Crossings(TorchDispatchMode):
    """Names of operators that have tensors both of the host and of a GPU; fused kernels do not run.

    A copy from one to the other is such an operator.
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        is_fused = any(part in str(function) for part in ("_fused_", "_amp_update_scale_"))
        result = None if is_fused else function(*arguments, **(options or {}))
        tensors = [t for t in tree_leaves((arguments, options, result)) if torch.is_tensor(t)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            is_ahead = (options or {}).get("non_blocking")
            self.names.append(AHEAD if is_ahead else str(function))
        return result


@NUMBER_FORMATS
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_a_step_copies_nothing_between_host_and_card(monkeypatch, number_format, settings):
    """Fake tensors of a GPU need none; gradients are zeros, as the backward pass needs one."""
    recipe, card = Recipe(clip_norm=1.0, **settings), torch.device("cuda", 0)
    with FakeTensorMode(), card:
        network = build(Model(name="medical_cnn", options={"width": 4}), 2)

        def backward(_):
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        precision = Precision(number_format, card)
        rate = SimpleNamespace(device=card, new_zeros=lambda *_, **__: 1)
        readable = SimpleNamespace(
            scale=rate, scaling=precision.scaling, overflow=precision.overflow
        )
        rated = optimizer(network, recipe, readable)
        for group in rated.param_groups:  # its constructor reads the rate
            group["lr"] = torch.zeros((), device=card)
        model = WholeModel(network, alone(card), precision)
        step, batches = step_of(model, rated, recipe)
        with Crossings() as crossings:
            step(batches, 8)  # the optimizer makes its state
            crossings.names.clear()
            step(batches, 8)
            model.logits(batches[0].inputs)
            assert crossings.names == []
            step.sums.cpu()
            assert crossings.names == ["aten._to_copy.default"]


def test_an_overflow_is_skipped_without_the_host(shards):
    for settings in ({"optimizer": "adam", "ema": 0.9}, {"optimizer": "sgd"}):
        small = Small(shards, "cpu", number_format="fp16", **settings)
        before, after = overflow(small)
        parameters = len(list(small.model.network.parameters()))
        assert equal(before[:parameters], after[:parameters])
        assert small.precision.scale == 2.0**126
        unchanged = [
            equal([tensor_before], [tensor_after])
            for tensor_before, tensor_after in zip(before, after, strict=True)
        ]
        averages, states = len(small.average.weights), len(small.update.state()) - parameters
        buffers = len(list(small.model.network.buffers()))
        start = parameters + buffers
        assert all(unchanged[start : start + averages]), "the average has moved"
        assert all(unchanged[start + averages + 4 :]), "the optimizer's state has changed"
        assert states > averages
        small.precision.scale.fill_(2.0**10)
        small.train(1)
        assert not equal(after[:parameters], small.state()[:parameters])


def test_a_first_step_that_overflows_leaves_no_trace(shards):
    for kind in ("adam", "sgd"):
        small = Small(shards, "cpu", number_format="fp16", optimizer=kind)
        small.precision.scale.fill_(2.0**127)
        small.train(1)
        assert all(tensor.isfinite().all() for tensor in small.state())
        assert not any(tensor.any() for tensor in small.update.state()[-2:])


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_rate_in_a_tensor_trains_as_a_number_does(kind):
    rates = [1e-3, 3e-4 / 7, 2e-2]

    def weights(changed_plan, change):
        torch.manual_seed(0)
        layer = torch.nn.Linear(17, 9)
        chosen = changed_plan(layer)
        for rate in rates:
            change(chosen, rate)
            chosen.zero_grad()
            layer(torch.randn(5, 17)).square().sum().backward()
            chosen.step()
        return [parameter.detach() for parameter in layer.parameters()]

    def number(chosen, rate):
        for group in chosen.param_groups:
            group["lr"] = rate

    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": 0.9, "nesterov": True} if kind == "sgd" else {}
    recipe = Recipe(optimizer=kind, weight_decay=0.01)
    weights_by_tensor = weights(
        lambda layer: optimizer(layer, recipe, Precision("fp32", CPU)), set_rate
    )
    plain = weights(
        lambda layer: kinds[kind](layer.parameters(), 1.0, weight_decay=0.01, fused=True, **extra),
        number,
    )
    assert equal(weights_by_tensor, plain)


def test_logits_are_read_one_batch_later(shards):
    order = []
    small = Small(shards, "cpu")
    small.criterion = None
    real = small.model.logits

    def logits(inputs):
        order.append("computed")
        return real(inputs)

    small.model.logits = logits
    small.watchdog = SimpleNamespace(pet=lambda: None)
    ids = []
    for outputs, labels, numbers in Trainer.outputs(small, small.validation):
        order.append("read")
        assert len(outputs) == len(labels) == len(numbers)
        ids += numbers.tolist()
    assert order == ["computed", "computed", "read", "computed", "read", "read"]
    assert len(set(ids)) == 23


# --- batches ahead


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_is_made_without_waiting_for_the_card(shards, monkeypatch, training):
    """On fake tensors of a GPU; a copy is not waited for if its source is pinned memory."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: pinned.append(1) or values)
    for name in ("_constant", "_noise_sequence"):  # no other test gets the caches' fake tensors
        monkeypatch.setattr(augment, name, cache(getattr(augment, name).__wrapped__))
    crop = {"mode": "resized", "size": 8}
    changes = {"rotate": 10, "hflip": 0.5, "gamma": 0.2, "noise": 0.05, "crop": crop}
    shard_set = Shards.open(shards)
    with FakeTensorMode():
        loader = Loader(
            shard_set,
            "train",
            global_batch=10,
            replicas=1,
            replica=0,
            accumulate=2,
            training=training,
            augment=Augment(**changes),
            metadata=np.ones((len(shard_set.labels), 3), np.float32),
            device="cuda:0",
            resident=True,
        )
        steps = loader._steps(0, 0)
        next(steps)  # copies the split and the constants
        pinned.clear()
        with Crossings() as crossings:
            step = next(steps)
    assert {t.device.type for t in (*step.batches[0].arguments, step.batches[0].labels)} == {"cuda"}
    assert crossings.names == [AHEAD] * len(pinned)
    assert len(pinned) == 9, "positions, six changes, labels, metadata"


@pytest.fixture
def stream(monkeypatch):
    """A pretended stream, to run the thread of a GPU on the CPU."""
    waits = []
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    work = SimpleNamespace(query=lambda: True)  # the stream is idle
    user = SimpleNamespace(wait_event=waits.append, record_event=lambda: work)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: user)
    return SimpleNamespace(record_event=lambda: "ready", waits=waits)


def test_one_item_is_made_ahead_and_waited_for(stream):
    prepared_items, consumed_items = [], []

    def items():
        for number in range(4):
            prepared_items.append(number)
            yield number

    waits = []
    for number in ahead(items(), stream, lambda item: [], waits.append):
        until(lambda: len(prepared_items) >= min(number + 2, 4), "the next item")  # noqa: B023
        assert len(prepared_items) == min(number + 2, 4), (
            "the next item is made meanwhile, and no other"
        )
        consumed_items.append(number)
    assert consumed_items == [0, 1, 2, 3]
    assert stream.waits == ["ready"] * 4
    assert len(waits) == 5, "the end is waited for, too"


def test_a_gpu_that_works_on_the_item_before_does_not_wait(stream, monkeypatch):
    """The item is ready at 1.5 s, and the GPU has finished the one before at 1.0 s."""
    now, idle, waits = [0.0], Event(), []

    def query():
        if now[0] >= 1.0:
            idle.set()
            return True
        now[0] += 0.5
        return False

    def items():
        assert idle.wait(60)
        now[0] = 1.5
        yield "item"

    monkeypatch.setattr(data_ahead, "perf_counter", lambda: now[0])
    user = torch.cuda.current_stream()  # cannot be synchronized with
    monkeypatch.setattr(user, "record_event", lambda: SimpleNamespace(query=query))
    assert list(ahead(items(), stream, lambda item: [], waits.append)) == ["item"]
    assert waits == [0.5, 0.0]


def test_only_a_step_that_is_not_ready_is_waited_for(shards):
    loader = Loader(Shards.open(shards), "val", global_batch=4, replicas=1, replica=0)
    clock = Clock(CPU, {})
    assert sum(1 for _ in clock.waiting(loader.epoch(0), loader.waited)) == 6
    assert clock.spent["data"] > 0, "a CPU prepares the steps itself"
    loader._device = torch.device("cuda", 0)
    steps = iter([(0.0, "first"), (0.5, "second")])

    def source():
        for seconds, step in steps:
            loader._add_wait(seconds)
            yield step

    clock = Clock(CPU, {})
    assert list(clock.waiting(source(), loader.waited)) == ["first", "second"]
    assert clock.spent["data"] == 0.5


def test_a_split_of_a_gpu_is_loaded_before_the_first_batch(shards, stream, monkeypatch):
    loader = Loader(Shards.open(shards), "val", global_batch=4, replicas=1, replica=0)
    loader.load()
    assert "_on_device" not in vars(loader), "a CPU maps the files"
    loader = Loader(
        Shards.open(shards), "val", global_batch=4, replicas=1, replica=0, resident=True
    )
    loader._stream = stream  # as a GPU has one
    loader.load()
    assert len(vars(loader)["_on_device"]) == loader.images


def test_an_error_of_the_thread_comes_where_the_item_is_used(stream):
    def items():
        yield 1
        raise MedscaleError("the disk is gone")

    iterator = ahead(items(), stream, lambda item: [])
    assert next(iterator) == 1
    with pytest.raises(MedscaleError, match="the disk is gone"):
        next(iterator)
    early = ahead(iter(range(9)), stream, lambda item: [])
    assert next(early) == 0
    early.close()


# --- waiting, sharding, compilation, settings


def test_events_of_the_last_step_stand_for_all(monkeypatch):
    waits = Waits(CPU)
    waits.add(waits.mark() - 0.5)
    assert 0.5 <= waits.take(3) < 0.6
    assert waits.take(0) == 0
    times = iter([1.0, 2.0])
    event = lambda **_: SimpleNamespace(  # noqa: E731
        record=lambda: None, elapsed_time=lambda other: next(times)
    )
    gpu = Waits(torch.device("cuda", 0))
    gpu.spans = [(event(), event()), (event(), event())]
    assert gpu.take(100) == pytest.approx(0.3)  # 3 ms a step
    gpu.begin_step()
    assert gpu.take(100) == 0


class Ticks:
    """A pretended CUDA event: each recording is 1 ms after the one before."""

    count = 0

    def __init__(self, **_):
        self.time = None

    def record(self):
        Ticks.count += 1
        self.time = Ticks.count

    def elapsed_time(self, end):
        return float(end.time - self.time)


def test_events_are_recorded_within_a_step_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    waits = Waits(torch.device("cuda", 0))
    waits.add(waits.mark())  # as an evaluation does
    assert (waits.spans, waits.take(1)) == ([], 0)
    waits.begin_step()
    for _ in range(3):
        waits.add(waits.mark())
    spans = waits.end_step()
    waits.add(waits.mark())
    assert len(spans) == 3
    assert waits.take(100) == pytest.approx(0.3)


def test_a_stage_waits_between_its_micro_batches(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    monkeypatch.setattr(PipelineStage, "forward_one_chunk", lambda *_: Ticks().record())
    monkeypatch.setattr(PipelineStage, "backward_one_chunk", lambda *_: Ticks().record())
    stage = object.__new__(TimedStage)
    stage.submod = SimpleNamespace(chunk=0)
    stage.waits = Waits(torch.device("cuda", 0))
    stage.waits.begin_step()
    stage.idle = stage.waits.mark()
    stage.forward_one_chunk(0)
    stage.forward_one_chunk(1)
    stage.backward_one_chunk(0)
    stage.waits.add(stage.idle)
    assert len(stage.waits.end_step()) == 4, "before, between and after three micro-batches"
    assert stage.waits.take(1) == pytest.approx(0.004), "computing is left out"


def test_the_exchanges_of_fsdp_are_timed_by_events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    model = object.__new__(FSDP)
    model.waits = Waits(torch.device("cuda", 0))
    group = SimpleNamespace(**{name: lambda value=None: value for name in EXCHANGES})
    model._measure_waits([group])
    model.waits.begin_step()
    assert [getattr(group, name)(name) for name in EXCHANGES] == list(EXCHANGES)
    assert len(model.waits.end_step()) == len(EXCHANGES)
    assert model.waits.measured


# Attributes of FSDP2 that hold buffers and events of exchanges: of all groups, and of each.
PENDING = ("gather_state", "scatter_state", "scatter_states", "_events")
RESULTS = (
    "_all_gather_result",
    "_post_reduce_event",
    "_reshard_after_forward_event",
    "_all_reduce_state",
)


@pytest.fixture
def sharded():
    """Return a function that makes FSDP's step of two ranks, whose collectives do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("dp", "pp"))
    world = SimpleNamespace(
        device=CPU, size=2, replica=0, replicas=2, replica_group=mesh.get_group("dp"), mesh=mesh
    )

    def make(number_format):
        network = build(Model(name="medical_cnn", options={"width": 16}), 2)
        model = shard(network, world, Precision(number_format, CPU))
        recipe = Recipe(clip_norm=1.0, ema=0.9)
        rated = optimizer(model.network, recipe, model.precision)
        return model, *step_of(model, rated, recipe)

    yield make
    dist.destroy_process_group()


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_a_step_of_fsdp_leaves_nothing_to_wait_for(sharded, number_format):
    """An event from outside of a capture would make the capture fail."""
    model, step, batches = sharded(number_format)
    groups = _groups(model.network)
    for work in (
        lambda: step(batches, 8),
        lambda: step(batches, 8),
        lambda: model.train(False),
        lambda: model.logits(batches[0].inputs),
        lambda: model.train(True),
        lambda: step(batches, 8),
    ):
        work()
        context = vars(groups[0].comm_ctx)
        pending = [name for name, value in context.items() if value and name.endswith(PENDING)]
        for group in groups:
            assert vars(group.comm_ctx) is context
            assert group.is_sharded
            pending += [name for name in RESULTS if getattr(group, name, None) is not None]
        assert not pending


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_each_exchange_of_fsdp_is_timed_once(sharded, monkeypatch, number_format):
    """A unit of several modules, as that of the normalization layers, has one group."""
    model, step, batches = sharded(number_format)
    depth, deepest = 0, 0

    def mark():
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        return 0.0

    def add(_):
        nonlocal depth
        depth -= 1

    monkeypatch.setattr(model.waits, "mark", mark)
    monkeypatch.setattr(model.waits, "add", add)
    step(batches, 8)
    assert (depth, deepest) == (0, 1)


def test_an_fsdp_of_other_names_is_not_measured_and_says_so(caplog):
    model = object.__new__(FSDP)
    model.waits = Waits(CPU)
    model._measure_waits([SimpleNamespace(unshard=print)])
    assert not model.waits.measured
    assert "counts as computing" in caplog.text


def test_units_of_fsdp_hold_every_large_block_once():
    network = build(Model(name="medical_cnn"), 2)
    units = list(_units(network))
    assert 2 <= len(units) <= UNITS
    blocks = [block for unit in units for block in unit]
    assert len(set(map(id, blocks))) == len(blocks)
    total = sum(p.numel() for p in network.parameters())
    for unit in units[:-1]:
        assert sum(p.numel() for block in unit for p in block.parameters()) >= total // UNITS
    assert not list(_units(build(Model(name="tiny_cnn"), 2))), f"all are below {SMALLEST}"


def test_compilation_pays_for_long_runs_of_measured_networks():
    def decided(run, images, side=224, number_format="bf16", card="NVIDIA H200"):
        run_plan = plan(load(ROOT / "config.yaml"), "glaucoma", run, 1)
        return compiling.pays(run_plan, images, side, card, number_format)

    # docs/gpu.csv: 5,778 and 8,182 images/s, and 4 and 48 s until the first step.
    pays, reason = decided("serial_amp_1gpu", 10_000_000)
    assert pays
    assert reason == (
        "it saves 509 s and takes 44 s, as measured with a plain loop on the NVIDIA H200"
        " (docs/gpu.csv)"
    )
    assert not decided("serial_amp_1gpu", 20 * 8621)[0], "it takes longer than it saves"
    assert not decided("serial_amp_1gpu", 10_000_000, side=64)[0], "small images are fast"
    assert not decided("ddp_amp_16gpu", 10_000_000)[0], "devices share the images"
    assert "on the NVIDIA H200" in decided("serial_amp_1gpu", 10_000_000, card="NVIDIA L4")[1]
    assert decided("serial_1gpu", 10**9, number_format="fp32") == (
        False,
        "docs/gpu.csv has no compiled medical_cnn in fp32",
    )


def test_compiled_code_is_kept_beside_the_replicates_of_a_run(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    folder = compiled.keep(tmp_path / "run", CPU)
    assert folder == compiled.keep(tmp_path / "run", CPU)
    assert folder.parent == tmp_path / "run" / "compiled"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder.resolve())
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(torch, "__version__", "another")
    assert compiled.keep(tmp_path / "run", CPU) != folder
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(MedscaleError, match="belongs to another user"):
        compiled.keep(tmp_path / "run", CPU)


def test_on_and_off_may_be_written_as_yaml_reads_them():
    assert (Recipe(graph=True).graph, Recipe(compile=False).compile) == ("on", "off")
    assert (Recipe().graph, Recipe().compile) == ("auto", "auto")
    with pytest.raises(ValidationError, match="'auto', 'on' or 'off'"):
        Recipe(graph="never")


def test_graphs_do_not_decide_the_weights_and_compilation_does():
    def digest(**recipe):
        studies = {"studies": {"glaucoma": {"recipe": recipe}}}
        return plan(
            load(ROOT / "config.yaml", studies), "glaucoma", "serial_1gpu", 1
        ).training_digest

    assert digest(graph="off") == digest(graph="on")
    assert digest(compile="off") != digest(compile="on")


def test_a_step_says_its_shape(shards):
    step = next(Small(shards, "cpu", accumulate=3).training.epoch(0))
    assert isinstance(step, Step)
    assert step.shape.micros == (4, 3, 3)
    assert step.shape.size == 10
