"""What must hold before a kind cluster can start: memory, disk, inotify, and that its name is free."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cluster.kind.engine import CLUSTER_LABEL, STATE_LABEL, Engine
from labkit.cluster.kind.state import KindDirectory
from labkit.errors import ClusterError, MachineError

GIB = 1 << 30
CONTROL_PLANE_BYTES = 900 << 20
WORKER_BYTES = 250 << 20
DISK_BYTES = 3 * GIB
INOTIFY_PER_NODE = 40
_INOTIFY = Path("/proc/sys/fs/inotify")


@dataclass(frozen=True)
class Machine:
    """What a cluster of containers needs of the machine that the engine runs on.

    Attributes:
        memory_bytes: available; 0 where it cannot be told.
        disk_bytes: free where the engine keeps its data; 0 where it cannot be told.
        inotify_instances: the kernel's limit for one user; 0 where it cannot be told.
        remote: the engine is in a virtual machine or on another one: its limits are not to be seen.
    """

    memory_bytes: int = 0
    disk_bytes: int = 0
    inotify_instances: int = 0
    remote: bool = False


def look(info: dict[str, Any], meminfo: Path = Path("/proc/meminfo"), inotify: Path = _INOTIFY) -> Machine:
    """Read it, where the engine runs on this very machine."""
    root = Path(info.get("DockerRootDir") or "/nowhere")
    here = is_here(info)
    memory = _available(meminfo) if here else int(info.get("MemTotal") or 0)
    disk = 0
    if here:
        existing = next((path for path in [root, *root.parents] if path.exists()), None)
        disk = shutil.disk_usage(existing).free if existing else 0
    return Machine(memory, disk, _number(inotify / "max_user_instances") if here else 0, not here)


def is_here(info: dict[str, Any]) -> bool:
    """Whether the engine runs on this very machine and not in a virtual one or elsewhere."""
    desktop = "desktop" in str(info.get("OperatingSystem", "")).lower()
    return platform.system() == "Linux" and not desktop and info.get("Name") == platform.node()


def check_machine(machine: Machine, workers: int) -> None:
    """Refuse a machine on which the cluster would fail half-way.

    Raises:
        MachineError: names what is missing, how much of it, and what to do.
    """
    needed = CONTROL_PLANE_BYTES + workers * WORKER_BYTES
    if machine.memory_bytes and machine.memory_bytes < needed:
        where = "Docker's virtual machine has" if machine.remote else "This machine has"
        raise MachineError(
            f"{where} {machine.memory_bytes / GIB:.1f} GiB of memory available; a kind cluster with "
            f"{workers} workers needs {needed / GIB:.1f} GiB.",
            "Give it more, ask for fewer workers, or use the provider embedded, which needs half.",
        )
    if machine.disk_bytes and machine.disk_bytes < DISK_BYTES:
        raise MachineError(
            f"The disk of the Docker engine has {machine.disk_bytes / GIB:.1f} GiB free; images and nodes "
            f"need {DISK_BYTES / GIB:.0f} GiB.",
            "`docker system df` shows what takes space; `docker system prune` frees what is unused.",
        )
    instances = INOTIFY_PER_NODE * (workers + 1)
    if machine.inotify_instances and machine.inotify_instances < instances:
        raise MachineError(
            f"fs.inotify.max_user_instances is {machine.inotify_instances}; {workers + 1} node containers "
            f"need about {instances}, or their systemd ends with 'too many open files'.",
            f"As root: sysctl fs.inotify.max_user_instances={max(512, 2 * instances)}",
        )


def check_name(engine: Engine, directory: KindDirectory) -> None:
    """Refuse a name under which somebody else's cluster or network is on this engine.

    Raises:
        ClusterError: it is taken; nothing of it is touched.
    """
    network = engine.network(directory.kind_name)
    owner = ((network or {}).get("Labels") or {}).get(STATE_LABEL, "")
    mine = owner == str(directory.path)
    taken = engine.run("ps", "-aq", "--filter", f"label={CLUSTER_LABEL}={directory.kind_name}").split()
    if mine or (network is None and not taken):
        return
    what = f"kind cluster {directory.kind_name}" if taken else f"network {directory.kind_name}"
    by = f", made from {owner}" if owner else ""
    way = f"kind delete cluster --name {directory.kind_name}" if taken else ""
    away = "; ".join(filter(None, [way, f"docker network rm {directory.kind_name}" if network else ""]))
    raise ClusterError(
        f"This Docker engine has a {what} already{by}.",
        f"Choose another name, or remove it if nobody needs it: {away}",
    )


def _available(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0
    facts = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return int(facts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in facts else 0


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
