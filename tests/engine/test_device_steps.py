"""A step is done on the device alone: the host decides nothing and copies nothing in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from device_steps import STEPS, Crossings, faked, step_of, world_of
from medscale.engine.parallel.model import WholeModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Recipe
from medscale.engine.train.loop import Trainer
from medscale.engine.train.recipe import optimizer, set_rate
from small_training import Small, equal, overflow

pytestmark = pytest.mark.usefixtures("one_thread")


CPU = torch.device("cpu")


class Ticks:
    """A pretended CUDA event."""

    def __init__(self, **_):
        pass

    def record(self):
        pass


@STEPS
def test_a_step_reads_no_tensor_from_the_host_or_into_it(monkeypatch, case):
    """Fake tensors have no values, so reading one raises an error."""
    recipe = Recipe(**{"clip_norm": 1.0, **case.settings})
    with FakeTensorMode(), world_of(CPU, case.replicas) as world:
        network, criterion = faked(case, recipe, CPU)
        precision = Precision(case.number_format, CPU)
        model = WholeModel(network, world, precision)
        rated = optimizer(network, recipe, precision)
        step, batches = step_of(model, rated, recipe, case, criterion)
        monkeypatch.setattr(torch, "tensor", None)  # a copy from the host waits for a GPU
        for _ in range(2):
            step(batches, 8)
        with pytest.raises(DataDependentOutputException):
            float(step.sums[0])


@STEPS
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_a_step_copies_nothing_between_host_and_card(monkeypatch, case):
    """Fake tensors of a GPU need none; gradients are zeros, as the backward pass needs one."""
    recipe, card = Recipe(**{"clip_norm": 1.0, **case.settings}), torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    with FakeTensorMode(), world_of(card, case.replicas) as world:
        network, criterion = faked(case, recipe, card)
        precision = Precision(case.number_format, card)
        rate = SimpleNamespace(device=card, new_zeros=lambda *_, **__: 1)
        readable = SimpleNamespace(
            scale=rate, scaling=precision.scaling, overflow=precision.overflow
        )
        rated = optimizer(network, recipe, readable)
        for group in rated.param_groups:  # its constructor reads the rate
            group["lr"] = torch.zeros((), device=card)
        model = WholeModel(network, world, precision)
        step, batches = step_of(model, rated, recipe, case, criterion)
        evaluated = SimpleNamespace(
            world=model.world,
            criterion=step._criterion,
            validation=None,
            outputs=lambda _: ((model.logits(b.inputs), b.labels, None) for b in batches),
        )

        def backward(_):
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        # As within a capture, which the optimizer and SyncBatchNorm ask for.
        for name in ("is_available", "is_bf16_supported", "is_current_stream_capturing"):
            monkeypatch.setattr(torch.cuda, name, lambda: True)
        with Crossings() as crossings:
            step(batches, 8)  # the optimizer makes its state
            crossings.names.clear()
            step(batches, 8)
            model.train(False)
            Trainer._evaluate(evaluated)
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
