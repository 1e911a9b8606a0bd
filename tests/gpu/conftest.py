"""Fixtures of the tests on a CUDA card.

Without a card they are skipped. MEDSCALE_TEST_DEVICE=cpu runs them on the CPU with pretended graphs
instead, which tests the tests and says nothing about a card.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from medscale.engine.parallel.launch import CAPTURED_COLLECTIVES
from medscale.engine.train import graphs
from small_training import FakeGraphs

# As the launcher sets them.
os.environ |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **CAPTURED_COLLECTIVES}
LIMIT_S = 200  # of a test; most take seconds, compiling takes a minute


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """Fail a test that takes too long; ``faulthandler_timeout`` ends one that hangs in C code."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"not finished within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The card, with all work on a stream that can be captured, as ``parallel.join`` sets it."""
    if os.environ.get("MEDSCALE_TEST_DEVICE") == "cpu":
        monkeypatch.setattr(graphs, "Recorder", lambda device: FakeGraphs())
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card")
    card = torch.device("cuda", 0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    with torch.cuda.stream(torch.cuda.Stream(card)):
        yield card
        torch.cuda.synchronize()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def kind(device: torch.device) -> str:
    """The kind of device in the names of runs."""
    return "gpu" if device.type == "cuda" else "cpu"
