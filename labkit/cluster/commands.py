"""What the control plane's components were started with, and where that was read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.errors import KubeError
from labkit.kube import Kube, Object, dig

CONTROLLER_MANAGER = "kube-controller-manager"


@dataclass(frozen=True)
class CommandLine:
    """A component's command line.

    Attributes:
        words: program, flags and values; empty where it cannot be seen.
        source: where it was read, to be put after "from"; "" where it cannot be seen.
    """

    words: tuple[str, ...] = ()
    source: str = ""


def running(pid: int, component: str) -> CommandLine:
    """The command line of a process of this machine, as the kernel has it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return CommandLine()  # it has just ended
    return CommandLine(tuple(words), f"the {component} that runs (process {pid})")


def in_pod(kube: Kube, component: str) -> CommandLine:
    """The command line of a component that runs as a pod of kube-system (kind, kubeadm).

    Of several the one that holds the component's lease is meant: the others only wait.
    """
    try:
        pods = kube.list("Pod", namespace="kube-system", labels=f"component={component}")
        leader = _leader(kube, component) if len(pods) > 1 else ""
    except KubeError:
        return CommandLine()
    for pod in sorted(pods, key=lambda each: dig(each, "spec.nodeName", "") != leader):
        container = dig(pod, "spec.containers[0]", {})
        words = (*(container.get("command") or ()), *(container.get("args") or ()))
        if words:
            return CommandLine(words, f"pod kube-system/{dig(pod, 'metadata.name')}")
    return CommandLine()


def _leader(kube: Kube, component: str) -> str:
    """The node whose instance works; "" where no lease tells."""
    lease: Object = kube.find("Lease", component, namespace="kube-system") or {}
    return str(dig(lease, "spec.holderIdentity", "")).rpartition("_")[0]
