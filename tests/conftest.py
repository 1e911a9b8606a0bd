"""Shared fixtures: small shard sets that a network can learn in seconds."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medscale.base.log import log
from medscale.data.shards import seal, write_chunk
from training_runs import TINY, Training

# Files of tests that take longest. They are started first, so that no process of pytest-xdist, to
# each of which files are given whole, works at the end while the others have nothing to do.
LONGEST = (
    *("test_train_restart", "test_paper", "test_user_papers", "test_docs_commands", "test_report"),
    *("test_restore", "test_recipes", "test_crate", "test_train_failures", "test_workflow"),
    *("test_folds_study", "test_train_parity", "test_reruns", "test_profiling"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """pytest's fixture that records also the package's log, from INFO.

    Earlier tests of the same process may have set that log up for a terminal, and libraries may
    have raised the level of the root logger.
    """
    monkeypatch.setattr(log, "propagate", True)
    with caplog.at_level("INFO", logger=log.name):
        yield caplog


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a shard set of bright and dark noisy images and returns its folder."""

    def make(
        train: int = 40,
        val: int = 10,
        test: int = 10,
        size: int = 16,
        classes: int = 2,
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        total = train + val + test
        labels = rng.integers(0, classes, total)
        base = 60 + 120 * labels / max(classes - 1, 1)
        images = np.clip(
            base[:, None, None, None] + rng.normal(0, 40, (total, size, size, 3)), 0, 255
        )
        folder = tmp_path / f"shards-{total}-{seed}"
        folder.mkdir()
        for number, start in enumerate(range(0, total, 32)):
            write_chunk(folder, number, images[start : start + 32].astype(np.uint8))
        split = np.repeat(["train", "val", "test"], [train, val, test])
        rows = pd.DataFrame(
            {
                "id": np.arange(total),
                "label": labels,
                "split": split,
                "group": np.arange(total).astype(str),
            }
        )
        rows["age"] = np.where(
            rng.random(total) < 0.2, np.nan, 40 + 10 * labels + rng.normal(0, 5, total)
        )
        rows["sex"] = pd.Series(rng.choice(["f", "m"], total), dtype="str")
        seal(folder, rows, [f"class{i}" for i in range(classes)], {"preprocess": {}})
        return folder

    return make


@pytest.fixture
def training(tmp_path: Path, make_shards: Callable[..., Path]) -> Training:
    """Trains a small network without batch norm; 37 images in two uneven steps by default."""
    return Training(tmp_path, make_shards(train=37, val=11, test=9), TINY)


@pytest.fixture
def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
