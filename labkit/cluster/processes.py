"""The processes that belong to a cluster, found in /proc by their environment. Own user's only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.cluster.components import STATE_VARIABLE
from labkit.cluster.state import Directory

SANDBOX_VARIABLE = "LABKIT_SANDBOX_ID"
_ROUNDS = 50


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one that has the same number.

    Attributes:
        pid: its number.
        started: when it started, in clock ticks since the machine booted (field 22 of /proc/PID/stat).
    """

    pid: int
    started: int

    def alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        fields = _stat(self.pid)
        return bool(fields) and _started(fields) == self.started and fields[0] not in "ZX"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; that it has ended is no error, even where its number is another's by now.

        A pidfd stands for one process. If the start time is right once it is open, it is this one.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            handle = os.pidfd_open(self.pid)
            try:
                if _started(_stat(self.pid)) == self.started:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def cluster_processes(directory: Directory) -> set[Process]:
    """All processes of a cluster: supervisor, components, shims, and everything in its pods."""
    return _with_descendants(
        _marked({str(directory.path)}, _sandboxes(directory.path.glob("nodes/*/pods/*")))
    )


def cluster_pids(directory: Directory) -> set[int]:
    """The numbers of a cluster's processes: to look at, never to send signals to."""
    return {process.pid for process in cluster_processes(directory)}


def node_processes(directory: Directory, node: str) -> set[Process]:
    """All processes of a worker but its kubelet: shims and everything in its pods."""
    pods = directory.node(node) / "pods"
    shims = set(_chosen(lambda pid: _is_shim(pid, pods)))
    return _with_descendants(shims | _marked(set(), _sandboxes(pods.glob("*"))))


def kill_all(find: Callable[[], set[Process]], limit_s: float = 10.0) -> set[Process]:
    """Kill what `find` finds until it finds nothing and all of it has ended; returns what is left then.

    A process that ends loses its environment, by which it is found, before it closes its sockets.
    """
    deadline = time.monotonic() + limit_s
    left = find()
    while left and time.monotonic() < deadline:
        for process in left:
            process.send(signal.SIGKILL)
        time.sleep(0.02)
        left = {process for process in left | find() if process.alive()}
    return left


def pid_list(processes: set[Process]) -> str:
    """Their numbers for a message: "7, 9"."""
    return ", ".join(str(pid) for pid in sorted(process.pid for process in processes))


def stop_all(find: Callable[[], set[Process]]) -> None:
    """Stop (SIGSTOP) what `find` finds until nothing new appears."""
    for _ in range(_ROUNDS):
        awake = {process for process in find() if state_of(process.pid) not in "TtZX"}
        if not awake:
            return
        for process in awake:
            process.send(signal.SIGSTOP)
        time.sleep(0.01)


def continue_all(find: Callable[[], set[Process]]) -> None:
    """Let stopped processes go on, children first, so that no parent sees a child that does not answer."""
    for process in sorted(find(), key=lambda process: process.started, reverse=True):
        process.send(signal.SIGCONT)


def state_of(pid: int) -> str:
    """One letter of /proc/PID/stat: R, S, D, T, Z, …; "X" for one that is gone."""
    fields = _stat(pid)
    return fields[0] if fields else "X"


def memory_bytes(pids: set[int]) -> int:
    """Proportional set size of processes: shared pages count in parts."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


def owner_of_port(address: str, port: int) -> str:
    """Which program listens on a TCP port, as far as one may know: "name (pid 7)", or "user 1000"."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(address.split("."))) + f":{port:04X}"
    anywhere = f"00000000:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] in (wanted, anywhere) and fields[3] == "0A":
            return _holder(f"socket:[{fields[9]}]") or f"a program of user {fields[7]}"
    return "an unknown program"


def _holder(link: str) -> str:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) == link for fd in (path / "fd").iterdir()):
                return f"{(path / 'comm').read_text().strip()} (pid {path.name})"
    return ""


def _own_pids() -> Iterator[int]:
    uid, me = os.getuid(), os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != me:
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    yield int(entry.name)


def _chosen(suits: Callable[[int], bool]) -> Iterator[Process]:
    """Own processes that a question is true of, asked of one and the same process before and after."""
    for pid in _own_pids():
        before = _started(_stat(pid))
        if before and suits(pid) and _started(_stat(pid)) == before:
            yield Process(pid, before)


def _marked(states: set[str], sandboxes: set[str]) -> set[Process]:
    """Own processes whose environment names one of these cluster directories or sandboxes."""
    marks = {f"{STATE_VARIABLE}={value}".encode() for value in states}
    marks |= {f"{SANDBOX_VARIABLE}={value}".encode() for value in sandboxes}

    def names_one(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return bool(marks & set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")))
        return False

    return set(_chosen(names_one))


def _is_shim(pid: int, pods: Path) -> bool:
    with contextlib.suppress(OSError):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = Path(os.fsdecode(argv[0])).name
        return name == "shim" and any(os.fsdecode(part).startswith(f"{pods}/") for part in argv[1:])
    return False


def _sandboxes(paths: Iterator[Path]) -> set[str]:
    return {path.name for path in paths}


def _with_descendants(processes: set[Process]) -> set[Process]:
    """Processes with all their children's children: a program may have cleared its environment.

    A child counts only if its parent, looked at once more, is still the same process.
    """
    if not processes:
        return processes
    children: dict[int, set[Process]] = {}
    for pid in _own_pids():
        fields = _stat(pid)
        if fields:
            children.setdefault(int(fields[1]), set()).add(Process(pid, _started(fields)))
    family, todo = set(processes), list(processes)
    while todo:
        parent = todo.pop()
        new = children.get(parent.pid, set()) - family
        if new and _started(_stat(parent.pid)) == parent.started:
            family |= new
            todo += new
    return family


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the program's name: state, parent, …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _started(fields: list[str]) -> int:
    """When the process of these fields started, in clock ticks since the machine booted; 0 for none."""
    return int(fields[19]) if fields else 0
