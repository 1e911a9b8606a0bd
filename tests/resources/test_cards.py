"""Runs on one machine take different GPUs, wait in turn, and a killed run's cards are free again; no GPU is needed."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from medscale.base.errors import MedscaleError
from medscale.resources import cards

POOL = ["GPU-a", "GPU-b", "GPU-c", "MIG-GPU-d/1/0"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cards, "EACH_S", 0.01)


def later(folder, count, taken, release):
    """A run in a thread: writes down its cards when it gets them and holds them until told."""

    def run():
        with cards.lease("later", count, POOL, folder) as mine:
            taken.append(mine)
            release.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_runs_take_different_cards(tmp_path):
    with ExitStack() as held:
        mine = [
            held.enter_context(cards.lease("run", n, POOL, tmp_path / "new")) for n in (1, 2, 1)
        ]
    assert sorted(card for lease in mine for card in lease) == sorted(POOL)
    with cards.lease("run", 4, POOL, tmp_path / "new") as all_four:  # free again
        assert all_four == POOL


def test_who_finds_too_few_free_waits_and_is_not_passed_by(tmp_path):
    big, small, release = [], [], threading.Event()
    with cards.lease("first", 2, POOL, tmp_path):
        waits = later(tmp_path, 4, big, release)
        time.sleep(0.1)
        behind = later(tmp_path, 1, small, release)  # a card is free for it, but it came later
        time.sleep(0.1)
        assert (big, small) == ([], [])
    for _ in range(500):
        time.sleep(0.01)
        if big:
            break
    assert (big, small) == ([POOL], [])
    release.set()
    waits.join(10)
    behind.join(10)
    assert small == [POOL[:1]]


def test_cards_of_a_killed_run_are_free(tmp_path):
    program = (
        "import time; from pathlib import Path; from medscale.resources import cards\n"
        f"with cards.lease('run', 4, {POOL!r}, Path({str(tmp_path)!r})) as mine:\n"
        "    print(mine, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as other:
        assert "GPU-a" in other.stdout.readline()
        taken, release = [], threading.Event()
        waits = later(tmp_path, 1, taken, release)
        time.sleep(0.1)
        assert taken == []
        other.kill()
        release.set()
        waits.join(10)
    assert taken == [POOL[:1]]


def test_more_cards_than_there_are_is_said_at_once(tmp_path):
    with pytest.raises(MedscaleError, match="ddp_4gpu needs 4 GPUs on this machine, 2 found"):
        cards.lease("ddp_4gpu", 4, POOL[:2], tmp_path).__enter__()


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (None, ["GPU-a", "GPU-b", "GPU-c"]),
        ("2, 0", ["GPU-c", "GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("MIG-x", ["MIG-x"]),
        ("1,7,0", ["GPU-b"]),
        ("", []),
        ("-1", []),
    ],
)
def test_only_cards_that_cuda_may_see_are_taken(said, seen, monkeypatch):
    monkeypatch.setattr(cards, "found", lambda: POOL[:3])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert cards.visible() == seen


def test_cores_go_with_the_cards():
    eight = list(range(8))
    assert cards.cores(POOL[:1], POOL, eight) == [0, 1]
    assert cards.cores(POOL[1:3], POOL, eight) == [2, 3, 4, 5]
    assert cards.cores(POOL, POOL, [*eight, 8]) == [*eight, 8]
    assert cards.cores(POOL[:1], POOL, [0, 1]) == [0, 1]  # fewer cores than cards: shared
