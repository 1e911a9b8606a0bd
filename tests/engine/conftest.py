"""Shared fixtures: a small shard set, and PyTorch on one thread."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def shards(make_shards):
    return make_shards(train=37, val=23, test=9, size=16)


@pytest.fixture
def one_thread():
    """Small tensors on several threads are slow where other processes use the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
