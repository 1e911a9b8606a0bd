"""Tests of the lease of GPUs: separate cards, waiting in turn, killed runs; need no GPU."""

import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from medscale.base.errors import MedscaleError
from medscale.resources import cards
from waiting import until

POOL = ["GPU-a", "GPU-b", "GPU-c", "MIG-GPU-d/1/0"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cards, "POLL_S", 0.01)


def later(folder, count, lease_names, release):
    """A run in a thread: records its cards when it gets them, and holds them until released."""

    def run():
        with cards.lease("later", count, POOL, folder) as run_cards:
            lease_names.append(run_cards)
            release.wait(120)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_runs_take_different_cards(tmp_path):
    with ExitStack() as leases:
        card_groups = [
            leases.enter_context(cards.lease("run", n, POOL, tmp_path / "new")) for n in (1, 2, 1)
        ]
    assert sorted(card for lease in card_groups for card in lease) == sorted(POOL)
    with cards.lease("run", 4, POOL, tmp_path / "new") as all_four:  # free again
        assert all_four == POOL


def test_a_reservation_ends_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "visible", lambda: POOL)
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    monkeypatch.setattr(cards.lease.__wrapped__, "__defaults__", (tmp_path,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    cores = os.sched_getaffinity(0)
    with cards.reserve("run", 1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == POOL[0]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert os.sched_getaffinity(0) == cores


def test_who_finds_too_few_free_waits_and_is_not_passed_by(tmp_path):
    big, small, release = [], [], threading.Event()
    with cards.lease("first", 2, POOL, tmp_path):
        waits = later(tmp_path, 4, big, release)
        time.sleep(0.1)
        behind = later(tmp_path, 1, small, release)  # a card is free for it, but it came later
        time.sleep(0.1)
        assert (big, small) == ([], [])
    until(lambda: big, "the run that waits first gets its cards")
    assert (big, small) == ([POOL], [])
    release.set()
    waits.join(120)
    behind.join(120)
    assert small == [POOL[:1]]


def test_cards_of_a_killed_run_are_free(tmp_path):
    program = (
        "import time; from pathlib import Path; from medscale.resources import cards\n"
        f"with cards.lease('run', 4, {POOL!r}, Path({str(tmp_path)!r})) as mine:\n"
        "    print(mine, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert "GPU-a" in process.stdout.readline()
        lease_names, release = [], threading.Event()
        waits = later(tmp_path, 1, lease_names, release)
        time.sleep(0.1)
        assert lease_names == []
        process.kill()
        release.set()
        waits.join(120)
    assert lease_names == [POOL[:1]]


def test_more_cards_than_there_are_is_reported_at_once(tmp_path):
    assert "serial_1gpu needs 1 GPU, but" in str(cards.too_few_cards("serial_1gpu", 1, 0))
    with pytest.raises(MedscaleError, match="ddp_4gpu needs 4 GPUs, but this machine has 2"):
        cards.lease("ddp_4gpu", 4, POOL[:2], tmp_path).__enter__()


@pytest.mark.parametrize(
    ("visible_devices", "expected_cards"),
    [
        (None, ["GPU-a", "GPU-b", "GPU-c1d2"]),
        ("2, 0", ["GPU-c1d2", "GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("MIG-x", ["MIG-x"]),
        ("1,7,0", ["GPU-b"]),
        ("GPU-c1,GPU-", ["GPU-c1d2", "GPU-"]),  # the second could be any
        ("0,1,0", []),
        ("GPU-c1,2", []),
        ("", []),
        ("-1", []),
    ],
)
def test_only_cards_that_cuda_may_see_are_taken(visible_devices, expected_cards, monkeypatch):
    monkeypatch.setattr(cards, "installed_cards", lambda: ["GPU-a", "GPU-b", "GPU-c1d2"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible_devices is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible_devices)
    assert cards.visible() == expected_cards


def test_cores_go_with_the_cards():
    eight = list(range(8))
    assert cards.cores(POOL[:1], POOL, eight) == [0, 1]
    assert cards.cores(POOL[1:3], POOL, eight) == [2, 3, 4, 5]
    assert cards.cores(POOL, POOL, [*eight, 8]) == [*eight, 8]
    assert cards.cores(POOL[:1], POOL, [0, 1]) == [0, 1]  # fewer cores than cards: shared


def test_other_users_can_lock_the_files_but_not_remove_them(tmp_path):
    folder = tmp_path / "cards"
    before = os.umask(0o077)
    try:
        with cards.lease("run", 1, POOL, folder):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666}


def test_the_folder_of_an_older_version_becomes_safe(tmp_path):
    tmp_path.chmod(0o777)
    with cards.lease("run", 1, POOL, tmp_path):
        assert tmp_path.stat().st_mode & stat.S_ISVTX


def plant_link(folder, target):
    folder.symlink_to(target)


def plant_file(folder, target):
    folder.write_text("planted")


def plant_lock_link(folder, target):
    folder.mkdir()
    (folder / "GPU-a.lock").symlink_to(target / "victim")


def plant_lock_folder(folder, target):
    (folder / "queue.lock").mkdir(parents=True)


@pytest.mark.parametrize("plant", [plant_link, plant_file, plant_lock_link, plant_lock_folder])
def test_a_planted_folder_or_link_is_one_message_and_nothing_is_touched(tmp_path, plant):
    target = tmp_path / "target"
    target.mkdir()
    plant(tmp_path / "cards", target)
    with pytest.raises(MedscaleError, match="was not created by medscale"):
        cards.lease("run", 1, POOL, tmp_path / "cards").__enter__()
    assert not list(target.iterdir())


def test_a_folder_of_another_user_whose_files_anyone_can_remove_is_refused(tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(MedscaleError, match="was not created by medscale"):
        cards.lease("run", 1, POOL, tmp_path).__enter__()
