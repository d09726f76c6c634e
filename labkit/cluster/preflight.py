"""What must hold before a cluster can start here, and where it can: slot and ports."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from labkit.acquire import Binaries
from labkit.cluster.addresses import SLOTS, Slot, served, served_port
from labkit.cluster.components import METRICS_PORT, PORTS
from labkit.cluster.processes import owner_of_port
from labkit.cluster.state import Directory
from labkit.cluster.supervisor import SlotBusy, Supervisor
from labkit.errors import ClusterError, MachineError

_PROBE_S = 20


def probe(binaries: Binaries) -> dict[str, Any]:
    """What kernel and sandbox allow, as `shim probe` found by trying it."""
    argv = [str(binaries.shim), "probe"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PROBE_S, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    except (OSError, subprocess.SubprocessError, ValueError) as err:
        raise MachineError(
            f"{binaries.shim} does not run here: {err}", "`labkit doctor` tells more."
        ) from err


def check_kernel(binaries: Binaries) -> dict[str, Any]:
    """Refuse a machine on which pods would have no addresses.

    Raises:
        MachineError: the socket filter does not work; the message says why.
    """
    found = probe(binaries)
    if not found.get("sockets"):
        why = (found.get("reasons") or {}).get("sockets", "no reason given")
        raise MachineError(
            f"Pods cannot have addresses of their own here: {why}",
            "It needs Linux ≥ 5.9 and a sandbox that allows seccomp user notification and pidfd_getfd "
            "(Docker: --security-opt seccomp=unconfined).",
        )
    return found


def endpoints(slot: Slot) -> list[tuple[str, int, str]]:
    """Address, port and user of what the control plane listens on."""
    address = str(slot.control_plane.served)
    found = [(address, port, name) for name, ports in PORTS.items() for port in ports]
    found.append((str(served(slot.metrics_server)), METRICS_PORT, "metrics-server"))
    found.append((str(slot.dns), served_port(slot.dns, 53), "coredns"))
    return found


def taken_port(slot: Slot) -> str:
    """The first port of the slot that is taken, and by whom; "" when all are free."""
    for address, port, name in endpoints(slot):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((address, port))
            except OSError as err:
                if err.errno == errno.EADDRINUSE:
                    return f"{address}:{port}, which {name} needs, is taken by {owner_of_port(address, port)}"
                return f"{address}:{port}, which {name} needs, cannot be bound: {err.strerror}"
    return ""


def claim_slot(supervisor: Supervisor, shim: Path) -> Slot:
    """Start the supervisor of a new cluster in the first slot that is free.

    Raises:
        MachineError: there is none; the message names the port or says that all are held.
    """
    obstacle = ""
    for number in range(SLOTS):
        slot = Slot(number)
        if is_held(slot):
            continue
        port = taken_port(slot)
        if port:
            obstacle = obstacle or port
            continue
        try:
            supervisor.start(shim, number)
        except SlotBusy:
            continue
        return slot
    if obstacle:
        raise MachineError(f"The port {obstacle}.", "End that program, or let it listen elsewhere.")
    raise MachineError(
        f"All {SLOTS} slots of this machine are held by running clusters, of all users together.",
        "`labkit status` lists yours; `labkit down NAME` frees one.",
    )


def reclaim_slot(supervisor: Supervisor, shim: Path, slot: Slot, directory: Directory) -> None:
    """Start the supervisor of an existing cluster in its own slot, which its addresses depend on.

    Raises:
        ClusterError: another cluster holds the slot.
        MachineError: a port is taken.
    """
    deadline = time.monotonic() + 5  # processes of a supervisor that was killed may be about to end
    while True:
        busy = is_held(slot)
        port = "" if busy else taken_port(slot)
        if not busy and not port:
            break
        if time.monotonic() > deadline:
            if busy:
                raise _busy(slot, directory)
            raise MachineError(f"The port {port}.", "End that program, or let it listen elsewhere.")
        time.sleep(0.1)
    try:
        supervisor.start(shim, slot.number)
    except SlotBusy as err:
        raise _busy(slot, directory) from err


def is_held(slot: Slot) -> bool:
    """Whether a running cluster, of whatever user, holds the slot."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.bind(slot.lock)
        except OSError:
            return True
    return False


def free_slots() -> list[int]:
    """Numbers of the slots that no running cluster holds."""
    return [number for number in range(SLOTS) if not is_held(Slot(number))]


def _busy(slot: Slot, directory: Directory) -> ClusterError:
    return ClusterError(
        f"The addresses of cluster {directory.name!r} (slot {slot.number}) are in use by another cluster.",
        "Take that one down first (`labkit status` lists yours), or give this one up: "
        f"`labkit down {directory.name}`.",
    )
