"""What is known of a cluster at one moment: its nodes and its processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from labkit import boxes

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True)
class NodeInfo:
    """A node as the API server knows it.

    Attributes:
        ready: status of its Ready condition: "True", "False", or "Unknown" when it stopped reporting.
        address: its InternalIP.
        cpus, memory_bytes: what pods may use of it (allocatable).
        taints: as `kubectl taint` writes them, key=value:effect.
    """

    name: str
    ready: str
    address: str
    kubelet_version: str
    cpus: float
    memory_bytes: int
    schedulable: bool
    pod_cidr: str = ""
    taints: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def is_control_plane(self) -> bool:
        """Whether it runs the control plane, and not the pods of users."""
        return CONTROL_PLANE_LABEL in self.labels


@dataclass(frozen=True)
class ComponentStatus:
    """A process of the cluster that is kept running.

    Attributes:
        state: running, backoff (it ended and will be started again), stopped (on purpose) or failed.
        pid: 0 when it does not run.
        restarts: how often it was started again since the cluster was brought up.
        uptime_s: since its last start.
        memory_bytes: proportional set size; of a node with all its pods.
        last_exit: how it ended the last time, "" when it never did.
    """

    name: str
    state: str
    pid: int = 0
    restarts: int = 0
    uptime_s: float = 0.0
    memory_bytes: int = 0
    last_exit: str = ""


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster at one moment.

    Attributes:
        state: running, degraded (something does not run or is not Ready), stopped, incomplete (its creation
            was cut off) or damaged (its files cannot be read).
        urls: where its parts answer, from this machine.
        reason: why it is damaged, "" where it is not.
    """

    name: str
    provider: str
    state: str
    version: str
    directory: Path | None = None
    uptime_s: float = 0.0
    components: tuple[ComponentStatus, ...] = ()
    nodes: tuple[NodeInfo, ...] = ()
    urls: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def memory_bytes(self) -> int:
        """Memory of all components, nodes and pods."""
        return sum(component.memory_bytes for component in self.components)

    def _repr_html_(self) -> str:
        words = [self.provider, f"Kubernetes {self.version}" if self.version else ""]
        words += [f"up {duration(self.uptime_s)}" if self.uptime_s else ""]
        words += [f"{self.memory_bytes / 2**20:.0f} MiB" if self.memory_bytes else ""]
        nodes = [
            (
                node.name,
                node.ready,
                node.address,
                f"{node.cpus:g}",
                f"{node.memory_bytes / 2**30:.1f} GiB",
                ", ".join([*([] if node.schedulable else ["cordoned"]), *node.taints]),
            )
            for node in self.nodes
        ]
        parts = [
            (each.name, each.state, each.restarts, f"{each.memory_bytes / 2**20:.0f} MiB", each.last_exit)
            for each in self.components
        ]
        return boxes.box(
            f"Cluster {self.name}: {self.state}",
            boxes.line(" · ".join(filter(None, words))),
            boxes.table(("node", "Ready", "address", "CPUs", "memory", ""), nodes),
            boxes.table(("component", "state", "restarts", "memory", "last exit"), parts),
            boxes.table(("where", ""), self.urls.items()),
            state=self.state,
        )


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "5 h 2 min", "3 d 4 h"."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    if days < 2:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{days:.0f} d {hours % 24:.0f} h"
