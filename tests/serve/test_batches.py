"""Predictions by batches of fixed sizes, as CUDA graphs take them; here without a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from medscale.engine.train.capture import NotCaptured
from medscale.serve import batches
from medscale.serve.batches import FixedBatches


def recorder() -> SimpleNamespace:
    """Return a stand-in for ``capture``: outputs keep their place, as those of a graph do."""
    calls: list[int] = []

    def record(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        outputs = function()
        calls.append(len(outputs))
        return lambda: outputs.copy_(function())

    return SimpleNamespace(record=record, calls=calls)


def twice(images: Tensor, features: Tensor) -> Tensor:
    return 2 * images.flatten(1).sum(1, keepdim=True) + features


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 11])
def test_a_batch_of_any_size_is_computed_by_a_few_fixed_ones(rows):
    network = recorder()
    run = FixedBatches(twice, sizes=(1, 2, 4), record=network.record)
    images, features = torch.randn(rows, 3, 5, 5), torch.randn(rows, 2)
    first = run(images, features)
    torch.testing.assert_close(first, twice(images, features))
    first_output = first.clone()
    run(images + 1, features)
    assert torch.equal(first, first_output), "a later batch overwrites no earlier result"
    assert set(network.calls) <= {1, 2, 4}
    assert len(network.calls) == len(set(network.calls)), "each size is captured once"


def test_rows_of_an_earlier_batch_do_not_reach_a_smaller_one():
    run = FixedBatches(lambda x: torch.stack([x, x]), 1, (4,), recorder().record)
    run(torch.full((4, 2), torch.nan))
    outputs = run(torch.ones(3, 2))
    assert outputs.shape == (2, 3, 2)
    assert (outputs == 1).all()


def test_channels_last_images_stay_so():
    layouts = []

    def function(images: Tensor) -> Tensor:
        layouts.append(images.is_contiguous(memory_format=torch.channels_last))
        return images.mean((2, 3))

    run = FixedBatches(function, sizes=(4,), record=recorder().record)
    run(torch.randn(3, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    assert all(layouts)


def test_a_function_that_cannot_be_captured_runs_as_it_is(caplog):
    def refuse(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise NotCaptured("operation not permitted when stream is capturing")

    run = FixedBatches(lambda x: x + 1, sizes=(2,), record=refuse)
    assert run(torch.zeros(3, 1)).tolist() == [[1], [1], [1]]
    assert caplog.messages == [
        "batches of 2 run without a CUDA graph: operation not permitted when stream is capturing"
    ]


def test_a_batch_is_captured_on_the_gpu_that_holds_it(monkeypatch):
    """A capture on a stream of another GPU is empty, and its replay would give old outputs."""
    current, devices = [0], []

    def exchange(device: int) -> int:
        before = current[0]
        current[0] = device if device >= 0 else before
        return before

    def record(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        devices.append(current[0])
        return function

    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    with FakeTensorMode():
        run = FixedBatches(lambda x: x + 1, sizes=(4,), record=record)
        assert run(torch.zeros(3, 2, device="cuda:1")).device == torch.device("cuda", 1)
    assert devices == [1]
    assert current == [0], "the caller's GPU has changed"


def test_all_captures_on_a_gpu_share_a_stream_in_turns(monkeypatch):
    """cuBLAS keeps memory for each stream, and PyTorch allows a process one capture at a time."""
    streams, order = [], []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            streams.append(device)

        def wait_stream(self, other: object) -> None:
            assert other is not self

    class Graphs:
        def __init__(self, device: torch.device) -> None:
            assert device == torch.device("cuda", 1)

        def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
            order.append("begin")
            time.sleep(0.05)  # in which another thread would begin
            order.append("end")
            return function

    caller = Stream(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: caller)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(batches, "Recorder", Graphs)
    batches._stream.cache_clear()
    with ThreadPoolExecutor(2) as threads:
        replays = list(threads.map(batches.capture, [lambda: 1, lambda: 2, lambda: 3]))
    batches._stream.cache_clear()
    assert [replay() for replay in replays] == [1, 2, 3]
    assert streams == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert order == ["begin", "end"] * 3
