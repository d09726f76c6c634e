"""`labkit down`: end every process of a cluster and remove its files, also when it is half-made."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from labkit.cluster.addresses import Slot
from labkit.cluster.kubelet import node_of
from labkit.cluster.preflight import is_held, taken_port
from labkit.cluster.processes import Process, cluster_processes, kill_all, pid_list
from labkit.cluster.state import Directory
from labkit.cluster.supervisor import Supervisor
from labkit.errors import ClusterError

_NODES_S = 3.0
_COMPONENT_S = 5.0
STOP_ORDER = (
    "vip", "metrics-server", "coredns", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd",
)  # fmt: skip


def tear_down(directory: Directory) -> None:
    """End everything and remove the directory.

    Raises:
        ClusterError: a process does not end, a file cannot be removed, or the directory is not labkit's.
    """
    directory.check_is_labkits()
    end_processes(directory)
    try:
        directory.remove()
    except OSError as err:
        raise ClusterError(
            f"{directory.path} cannot be removed: {err}", "Remove it by hand; no process uses it any more."
        ) from err


def end_processes(directory: Directory) -> None:
    """End the kubelets, the pods, then the control plane in order, then whatever is left.

    Raises:
        ClusterError: a process does not even end by SIGKILL.
    """
    if not directory.exists:
        return
    with contextlib.suppress(ClusterError):  # none runs, or it does not answer: the sweep below does it
        _shut_down(Supervisor(directory), directory)
    left = kill_all(lambda: cluster_processes(directory))
    if left:
        raise ClusterError(
            f"Processes {pid_list(left)} of cluster {directory.name!r} do not end, not even by SIGKILL.",
            "They wait for the disk or another device; repeat `labkit down` later.",
        )
    with contextlib.suppress(ClusterError):  # a damaged state does not tell the slot
        state = directory.load()
        if state:
            _ports_free(Slot(state.slot))


def _ports_free(slot: Slot) -> None:
    """Wait a little for ports of processes that ended by themselves, as they do with their supervisor."""
    deadline = time.monotonic() + 3
    while taken_port(slot) and not is_held(slot) and time.monotonic() < deadline:
        time.sleep(0.02)


def _shut_down(supervisor: Supervisor, directory: Directory) -> None:
    _, running = supervisor.status()
    nodes = [process.name for process in running if node_of(process.name)]
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        list(pool.map(lambda name: supervisor.stop(name, "KILL", _NODES_S), nodes))
    kill_all(lambda: _unsupervised(directory, supervisor), limit_s=5)
    known = {process.name for process in running}
    for name in STOP_ORDER:
        if name in known:
            supervisor.stop(name, "TERM", _COMPONENT_S)
    supervisor.shutdown([])
    deadline = time.monotonic() + 5
    while supervisor.running and time.monotonic() < deadline:
        time.sleep(0.02)


def _unsupervised(directory: Directory, supervisor: Supervisor) -> set[Process]:
    """The processes of a cluster without its supervisor and components: those of its pods."""
    kept = supervised(supervisor)
    return {process for process in cluster_processes(directory) if process.pid not in kept}


def supervised(supervisor: Supervisor) -> set[int]:
    """Pids of the supervisor and of its components."""
    answer = supervisor.request("status")
    return {int(answer["pid"])} | {int(c.get("pid") or 0) for c in answer.get("components") or []}
