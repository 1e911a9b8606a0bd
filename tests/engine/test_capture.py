"""The recorder of CUDA graphs, tested without a card: causes, streams, and failed captures."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medscale.base.files import read_json
from medscale.engine.train import capture
from medscale.engine.train.capture import NotCaptured, Recorder, first_line
from medscale.engine.train.guard import Guard
from training_runs import Training

pytestmark = pytest.mark.usefixtures("one_thread")


ROOT = Path(__file__).parents[2]


CPU = torch.device("cpu")


def test_the_place_where_the_host_waits_is_found(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    recorder = object.__new__(Recorder)

    def waits():
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a user may set by PYTHONWARNINGS
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
