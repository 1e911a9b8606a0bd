"""The names of number formats, which of them a device has, and what a run records."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from medscale.base.errors import MedscaleError
from medscale.engine.formats import FORMATS, lacking, number_format, use
from medscale.engine.parallel.precision import DTYPES, Precision

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
