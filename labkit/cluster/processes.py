"""The processes that belong to a cluster, found in /proc by their environment. Own user's only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from labkit.cluster.components import STATE_VARIABLE
from labkit.cluster.state import Directory

SANDBOX_VARIABLE = "LABKIT_SANDBOX_ID"
_ROUNDS = 50


def cluster_pids(directory: Directory) -> set[int]:
    """All processes of a cluster: supervisor, components, shims, and everything in its pods."""
    return _with_descendants(
        _marked({str(directory.path)}, _sandboxes(directory.path.glob("nodes/*/pods/*")))
    )


def node_pids(directory: Directory, node: str) -> set[int]:
    """All processes of a worker but its kubelet: shims and everything in its pods."""
    pods = directory.node(node) / "pods"
    shims = {pid for pid in _own_pids() if _is_shim(pid, pods)}
    return _with_descendants(shims | _marked(set(), _sandboxes(pods.glob("*"))))


def kill_all(find: Callable[[], set[int]], limit_s: float = 10.0) -> set[int]:
    """Kill what `find` finds until it finds nothing and all of it has ended; returns what is left then.

    A process that ends loses its environment, by which it is found, before it closes its sockets.
    """
    deadline = time.monotonic() + limit_s
    left = find()
    while left and time.monotonic() < deadline:
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)
        left = {pid for pid in left | find() if state_of(pid) not in "ZX"}
    return left


def stop_all(find: Callable[[], set[int]]) -> None:
    """Stop (SIGSTOP) what `find` finds until nothing new appears."""
    for _ in range(_ROUNDS):
        awake = {pid for pid in find() if state_of(pid) not in "TtZX"}
        if not awake:
            return
        for pid in awake:
            send(pid, signal.SIGSTOP)
        time.sleep(0.01)


def continue_all(find: Callable[[], set[int]]) -> None:
    """Let stopped processes go on, children first, so that no parent sees a child that does not answer."""
    for pid in sorted(find(), reverse=True):
        send(pid, signal.SIGCONT)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


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


def _marked(states: set[str], sandboxes: set[str]) -> set[int]:
    """Own processes whose environment names one of these cluster directories or sandboxes."""
    wanted = {f"{STATE_VARIABLE}={value}".encode() for value in states}
    wanted |= {f"{SANDBOX_VARIABLE}={value}".encode() for value in sandboxes}
    found = set()
    for pid in _own_pids():
        with contextlib.suppress(OSError):
            if wanted & set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                found.add(pid)
    return found


def _is_shim(pid: int, pods: Path) -> bool:
    with contextlib.suppress(OSError):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = Path(os.fsdecode(argv[0])).name
        return name == "shim" and any(os.fsdecode(part).startswith(f"{pods}/") for part in argv[1:])
    return False


def _sandboxes(paths: Iterator[Path]) -> set[str]:
    return {path.name for path in paths}


def _with_descendants(pids: set[int]) -> set[int]:
    """Pids with all their children's children: a program may have cleared its environment."""
    if not pids:
        return pids
    children: dict[int, set[int]] = {}
    for pid in _own_pids():
        fields = _stat(pid)
        if fields:
            children.setdefault(int(fields[1]), set()).add(pid)
    found, todo = set(pids), list(pids)
    while todo:
        for child in children.get(todo.pop(), set()) - found:
            found.add(child)
            todo.append(child)
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the program's name: state, parent, …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
