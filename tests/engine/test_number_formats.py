"""The names of number formats, which of them a device has, what a run records, and scaling."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from medscale.base.errors import MedscaleError
from medscale.engine.formats import FORMATS, lacking, number_format, use
from medscale.engine.parallel.precision import DTYPES, GROW_EVERY, Precision

CPU = torch.device("cpu")


class Card:
    """A GPU's facts, in place of torch.cuda's answers."""

    def __init__(self, monkeypatch, capability: tuple[int, int], bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "the card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        self.device = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "bf16", "names"),
    [
        (None, True, ["fp32", "fp32", "bf16"]),  # a CPU
        ((7, 0), False, ["fp32", "fp32", "fp16"]),  # V100
        ((8, 0), True, ["fp32", "tf32", "bf16"]),  # A100
    ],
)
def test_the_format_is_the_one_that_the_device_has(monkeypatch, capability, bf16, names):
    device = CPU if capability is None else Card(monkeypatch, capability, bf16).device
    settings = [(False, False), (False, True), (True, True)]
    assert [number_format(amp, tf32, "auto", device) for amp, tf32 in settings] == names
    missing = {name for name in FORMATS if lacking(name, device)}
    assert missing == {None: {"tf32", "fp16"}, (7, 0): {"tf32", "bf16"}, (8, 0): set()}[capability]


def test_a_format_that_is_named_and_lacking_is_refused():
    assert number_format(True, False, "bf16", CPU) == "bf16"
    with pytest.raises(MedscaleError, match="half is fp16, but mixed precision in fp16 is for GPU"):
        number_format(True, False, "fp16", CPU)


def test_tf32_is_allowed_for_tf32_alone():
    before = torch.backends.cudnn.allow_tf32
    try:
        for name in FORMATS:
            use(name)
            switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            assert switches == (name == "tf32", name == "tf32")
            assert Precision(name, CPU).dtype == DTYPES.get(name)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, before


def test_fp16_scaling_skips_an_overflow_and_grows_again():
    precision = Precision("fp16", CPU)
    start = float(precision.scale)
    precision.update(torch.tensor(math.inf))
    assert precision.overflow == 1
    assert precision.scale == start / 2
    for _ in range(GROW_EVERY):
        precision.update(torch.tensor(1.0))
        assert precision.overflow == 0
    assert precision.scale == start
    for _ in range(40):
        precision.update(torch.tensor(math.nan))
    assert precision.scale == 2.0**-14, "the scale has a lower limit"
    new_precision = Precision("fp16", CPU)
    new_precision.load(precision.state())
    assert new_precision.state() == precision.state()


def test_a_scale_is_that_of_the_same_format():
    """A training goes on in another format if another kind of GPU decides ``recipe.half``."""
    bf16, fp16 = Precision("bf16", CPU), Precision("fp16", CPU)
    first = float(fp16.scale)
    fp16.load(bf16.state())
    assert float(fp16.scale) == first
    bf16.load(fp16.state())
    assert float(bf16.scale) == 1
    fp16.load({"scale": 8.0, "good_steps": 3})
    assert fp16.state() == {"scale": 8.0, "good_steps": 3}
