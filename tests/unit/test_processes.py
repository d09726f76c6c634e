"""Finding and ending the processes of a cluster, tried on real ones."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.cluster.processes import (
    Process,
    cluster_pids,
    cluster_processes,
    continue_all,
    kill_all,
    memory_bytes,
    node_processes,
    owner_of_port,
    state_of,
    stop_all,
)
from labkit.cluster.state import Directory

FORGETS = "import os, subprocess, time; subprocess.Popen(['sleep', '300'], env={}); time.sleep(300)"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list of processes that are killed at the end."""
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for process in made:
        process.kill()
        process.wait(5)


def test_components_pods_and_their_children_are_found_and_nothing_else(
    directory: Directory, processes: list[subprocess.Popen[bytes]]
) -> None:
    sandbox = "0123456789abcdef"
    (directory.node("worker-1") / "pods" / sandbox).mkdir(parents=True)
    shim = shutil.copy(shutil.which("sleep") or "", directory / "shim")
    marks = [{"LABKIT_STATE": str(directory.path)}, {"LABKIT_SANDBOX_ID": sandbox}, {"LABKIT_STATE": "/other"},
             {"LABKIT_SANDBOX_ID": "another"}]  # fmt: skip
    for mark in marks:
        processes.append(subprocess.Popen([sys.executable, "-c", FORGETS], env={**os.environ, **mark}))
    component, pod, other, another = (process.pid for process in processes)
    children = {pid: until_child(pid) for pid in (component, pod, other, another)}
    assert cluster_pids(directory) == {component, pod, children[component], children[pod]}
    assert {one.pid for one in node_processes(directory, "worker-1")} == {pod, children[pod]}
    assert node_processes(directory, "worker-2") == set()
    assert os.access(shim, os.X_OK)
    stop_all(lambda: node_processes(directory, "worker-1"))
    assert {state_of(pid) for pid in (pod, children[pod])} == {"T"}
    assert state_of(component) == "S"
    continue_all(lambda: node_processes(directory, "worker-1"))
    time.sleep(0.1)
    assert {state_of(pid) for pid in (pod, children[pod])} == {"S"}
    assert kill_all(lambda: cluster_processes(directory)) == set()
    assert [processes[i].wait(5) for i in (0, 1)] == [-signal.SIGKILL] * 2
    assert state_of(children[pod]) in "ZX"
    assert state_of(other) == "S"
    for pid in (children[other], children[another]):
        os.kill(pid, signal.SIGKILL)


def identity(pid: int) -> Process:
    """A living process with its start time."""
    return Process(pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]))


REUSED = """
import os, signal, subprocess, sys
from labkit.cluster.processes import Process, kill_all

def start(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    return subprocess.Popen(["sleep", "300"])

def identity(pid):
    with open(f"/proc/{pid}/stat") as file:
        return Process(pid, int(file.read().rpartition(")")[2].split()[19]))

ours = start(20_000)
known = identity(ours.pid)
ours.kill()
ours.wait()
for _ in range(100):
    stranger = start(20_000)
    if stranger.pid == 20_000 and identity(20_000) != known:
        break
    stranger.kill()
    stranger.wait()
known.send(signal.SIGKILL)
left = kill_all(lambda: {known}, limit_s=0.3)
print(stranger.poll(), known.alive(), identity(20_000).alive(), left)
"""


def test_a_number_that_is_used_again_is_another_process() -> None:
    """In a namespace of its own a process may choose the number that the kernel gives next."""
    within = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        "--pid",
        "--fork",
        "--mount",
        "--mount-proc",
    ]
    run = [*within, "--kill-child", sys.executable, "-c", REUSED]
    done = subprocess.run(run, capture_output=True, text=True, timeout=30)
    if "unshare failed" in done.stderr:
        pytest.skip(f"this machine gives no process namespace: {done.stderr.strip()}")
    assert done.stdout == "None False True set()\n", done.stderr


def until_child(pid: int) -> int:
    """The pid of a process's one child."""
    for _ in range(200):
        found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
        if found:
            return int(found[0])
        time.sleep(0.02)
    raise AssertionError("it has no child")


def test_a_process_that_comes_back_is_reported(processes: list[subprocess.Popen[bytes]]) -> None:
    def again() -> set[Process]:
        if not processes or processes[-1].poll() is not None:
            processes.append(subprocess.Popen(["sleep", "300"]))
        return {identity(processes[-1].pid)}

    assert kill_all(again, limit_s=0.3) != set()


def test_memory_counts_what_is_used(processes: list[subprocess.Popen[bytes]]) -> None:
    code = "import sys, time; x = bytearray(50_000_000); print('x', flush=True); time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    processes.append(process)
    assert process.stdout
    process.stdout.readline()
    assert 50e6 < memory_bytes({process.pid}) < 80e6
    assert memory_bytes({process.pid, 2**22 + 1}) == pytest.approx(memory_bytes({process.pid}), rel=0.01)


def test_the_owner_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.9", 0)) as server:
        port = server.getsockname()[1]
        assert f"(pid {os.getpid()})" in owner_of_port("127.0.0.9", port)
    assert owner_of_port("127.0.0.9", port) == "an unknown program"
