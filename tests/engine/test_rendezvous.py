"""A run listens on the loopback interface alone, and the rendezvous runs no code of others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest
import torch.distributed as dist

from medscale.base.errors import MedscaleError
from medscale.engine.parallel import orphan, rendezvous
from waiting import until


def test_a_run_listens_on_loopback_alone_and_has_no_launchers_store(training):
    running = training.start("ddp_2cpu", recipe={"epochs": 100000})
    try:
        training.wait_for("epoch 1/", "ddp_2cpu", 120)
        launcher = psutil.Process(running.pid)
        ranks = launcher.children(recursive=True)
        assert len(ranks) == 2
        listening = {
            process.pid: {
                entry.laddr.ip
                for entry in process.net_connections("inet")
                if entry.status == psutil.CONN_LISTEN
            }
            for process in (launcher, *ranks)
        }
        assert listening[launcher.pid] == set()
        assert all(addresses <= {"127.0.0.1", "::1"} for addresses in listening.values())
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def meeting(monkeypatch, free_port):
    """The environment of nodes that meet on the loopback interface."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    monkeypatch.delenv(rendezvous.STORE, raising=False)
    for name, value in rendezvous.place(f"127.0.0.1:{free_port}").items():
        monkeypatch.setenv(name, value)
    return free_port


def test_several_nodes_meet_at_one_address_of_one_interface(meeting):
    store = rendezvous.open_store(0, 1)
    assert isinstance(store, dist.TCPStore)
    (address,) = {
        entry.laddr.ip
        for entry in psutil.Process().net_connections("inet")
        if entry.status == psutil.CONN_LISTEN and entry.laddr.port == meeting
    }
    assert address == "127.0.0.1"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_a_port_in_use_is_one_message(meeting):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", meeting))
        listener.listen()
        with pytest.raises(MedscaleError, match="cannot listen on"):
            rendezvous.open_store(0, 2)


def test_a_node_whose_name_is_a_loopback_address_has_that_of_its_job(monkeypatch):
    names = {
        "debian": ["127.0.1.1"],
        "cloud": ["::1", "127.0.0.1"],
        "both": ["127.0.1.1", "10.0.0.8"],
        "localhost": ["127.0.0.1"],
        "10.0.0.7": ["10.0.0.7"],
        "127.0.0.1": ["127.0.0.1"],
    }
    monkeypatch.setattr(
        "socket.getaddrinfo",
        lambda host, port, **_: [(socket.AF_INET, 1, 6, "", (ip, port)) for ip in names[host]],
    )
    monkeypatch.delenv("SLURM_LAUNCH_NODE_IPADDR", raising=False)
    for host in ("debian", "cloud"):
        with pytest.raises(MedscaleError, match=rf"{host}:1 \(other nodes do not reach"):
            rendezvous._listen(host, 1)
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    for host, ip in (
        ("debian", "10.0.0.7"),
        ("cloud", "10.0.0.7"),
        ("both", "10.0.0.8"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
    ):
        assert rendezvous._own_address(host, 1) == (socket.AF_INET, (ip, 1))


def test_the_store_of_one_node_is_a_private_file(tmp_path, monkeypatch):
    monkeypatch.setenv(rendezvous.STORE, str(tmp_path / "store"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    assert isinstance(rendezvous.open_store(0, 1), dist.FileStore)


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:port"])
def test_a_wrong_rendezvous_is_one_message(text):
    with pytest.raises(MedscaleError, match="write HOST:PORT"):
        rendezvous.place(text)


def test_the_number_of_a_node_is_that_of_its_task_in_a_job_step():
    assert rendezvous.node_number({"SLURM_STEP_NODELIST": "a,b", "SLURM_PROCID": "1"}) == 1
    assert rendezvous.node_number({"SLURM_PROCID": "1"}) is None


def test_a_rank_whose_launcher_is_gone_ends_before_it_imports_anything(tmp_path):
    (tmp_path / "slow.py").write_text("import pathlib, time\npathlib.Path('ran').touch()\n")
    command = [sys.executable, "-m", "medscale.engine.parallel.orphan", "slow"]
    search = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": search}
    process = subprocess.run(
        command, env=environment | {orphan.LAUNCHER: "1"}, cwd=tmp_path, timeout=60
    )
    assert process.returncode == 1
    assert not (tmp_path / "ran").exists()
    launcher_environment = environment | {orphan.LAUNCHER: str(os.getpid())}
    assert (
        subprocess.run(command, env=launcher_environment, cwd=tmp_path, timeout=60).returncode == 0
    )
    assert (tmp_path / "ran").exists()


def test_a_launcher_killed_while_its_rank_imports_leaves_none(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(600)"
    )
    start = (
        "import os, subprocess, sys, time\n"
        f"os.environ['{orphan.LAUNCHER}'] = str(os.getpid())\n"
        "command = [sys.executable, '-m', 'medscale.engine.parallel.orphan', 'slow']\n"
        "child = subprocess.Popen(command, start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    )
    search = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", start],
        env=os.environ | {"PYTHONPATH": search},
        stdout=subprocess.PIPE,
        text=True,
    ) as launcher:
        rank = int(launcher.stdout.readline())
        assert launcher.stdout.readline() == "importing\n"
        launcher.kill()
        launcher.wait()
        until(lambda: has_ended(rank), "the rank ends after its launcher")


def has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_launcher_does_without_pytorch():
    """Its import takes seconds, in which no rank has been started yet."""
    code = (
        "import sys, medscale.engine.train.launcher, medscale.resources.cards\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node[1-2]", "node1"),
        ("n[07-09,12],m3", "n07"),
        ("a-b3,a-b7", "a-b3"),
        ("r[2,4]n-ib", "r2n-ib"),
    ],
)
def test_nodes_meet_at_the_first(nodes: str, first: str) -> None:
    assert rendezvous.first_host(nodes) == first


def test_the_meeting_point_is_the_same_for_all_and_another_for_each_job() -> None:
    step = {"SLURM_STEP_NODELIST": "localhost,other", "SLURM_JOB_ID": "123456"}
    assert (
        rendezvous.meeting_point({**step, "SLURM_PROCID": "0"})
        == rendezvous.meeting_point({**step, "SLURM_PROCID": "1"})
        == "localhost:23456"
    )
    assert rendezvous.meeting_point({**step, "SLURM_JOB_ID": "123457"}) == "localhost:23457"
    unknown = {
        **step,
        "SLURM_STEP_NODELIST": "no-such-node.invalid",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    }
    assert rendezvous.meeting_point(unknown) == "10.0.0.7:23456"
    assert rendezvous.meeting_point({}) is None
