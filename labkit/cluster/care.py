"""What a Cluster offers to whoever looks after its nodes: configurations, logs, tokens, repair."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from labkit.cluster.join import TOKEN_MINUTES
from labkit.cluster.waiting import wait_for
from labkit.errors import ClusterError, ConfigError, KubeError
from labkit.kube import Kube, dig
from labkit.kube.objects import is_true

if TYPE_CHECKING:
    from labkit.cluster.discovery import JoinToken

NODE_MONITOR_GRACE_S = 50
NODE_MONITOR_PERIOD_S = 5
"""Defaults of the controller manager's --node-monitor-grace-period and --node-monitor-period."""
_ILL = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class NodeCare(ABC):
    """The part of `Cluster` that configures nodes and makes them well."""

    provider: str = ""

    @property
    @abstractmethod
    def kube(self) -> Kube: ...
    @property
    @abstractmethod
    def kubeconfig(self) -> Path: ...
    @abstractmethod
    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str: ...
    @abstractmethod
    def start_kubelet(self, name: str) -> None: ...
    @abstractmethod
    def thaw(self, name: str) -> None: ...
    @abstractmethod
    def restore(self, name: str) -> None: ...

    def kubelet_config(self, name: str) -> dict[str, Any]:
        """A node's KubeletConfiguration, as its file has it."""
        self._cannot(f"read the kubelet's configuration of {name}")

    def configure_kubelet(self, name: str, changes: Mapping[str, Any] | None = None) -> None:
        """Change a node's KubeletConfiguration and restart its kubelet, without waiting for what comes of it.

        Each call begins with the configuration with which the node joined, so that calls do not add up.
        Nothing is judged but by the kubelet itself: with a file that it refuses it will not start.

        Args:
            changes: fields to set; mappings merge, lists are replaced, None removes a field. Without
                changes the node is as it was when it joined.
        """
        self._cannot(f"change {', '.join(changes or ())} of the kubelet of {name}")

    def kubelet_log(self, name: str, lines: int = 20, matching: str = "") -> str:
        """The end of a kubelet's log, also when it does not run.

        Args:
            lines: at most so many.
            matching: a regular expression; only lines in which it is found.
        """
        self._cannot(f"read {lines} lines {matching!r} of the kubelet's log of {name}")

    def tune_node_monitor(
        self, grace_s: int = NODE_MONITOR_GRACE_S, period_s: int = NODE_MONITOR_PERIOD_S
    ) -> None:
        """Restart the controller manager with other times for watching over nodes; complete when it returns.

        Args:
            grace_s: a node that does not report for so long becomes Unknown; more than the 10 s at which
                kubelets report.
            period_s: how often the nodes are looked at.
        """
        self._cannot(f"set grace {grace_s} s and period {period_s} s of the controller manager")

    def _cannot(self, what: str) -> NoReturn:
        raise ClusterError(
            f"The provider {self.provider} cannot {what} in this version.", "The provider embedded can."
        )

    def join_token(self, seconds: float = 60 * TOKEN_MINUTES) -> JoinToken:
        """A new bootstrap token, and what else `kubeadm join` wants to know.

        Args:
            seconds: how long it is valid.
        """
        from labkit.cluster.discovery import create_join_token

        return create_join_token(self.kube, seconds)

    def repair(self, name: str, limit_s: float = 120.0) -> None:
        """Make a node well, whatever was done to it: thawed, restored, configured as it joined, uncordoned.

        Raises:
            ClusterError: there is no such node.
            WaitTimeout: it is not Ready within `limit_s`.
        """
        self.thaw(name)
        self.restore(name)
        self.configure_kubelet(name)
        wait_for(
            lambda: self._is_well(name), limit_s, f"{name} is Ready and takes pods",
            lambda: self.kubelet_log(name, 5, r"^[EF]\d{4}|rror"),
        )  # fmt: skip
        self.kubectl("uncordon", name)

    def _drain(self, name: str) -> None:
        """Move a worker's pods elsewhere, also those that nobody would make again."""
        moved = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
        self.kubectl("drain", name, *moved)

    def _delete_node(self, name: str) -> None:
        """Delete a Node that is no more, and its pods, whose end no kubelet will confirm."""
        for pod in self.kube.list("Pod", everywhere=True, fields=f"spec.nodeName={name}"):
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            with suppress(KubeError):
                self.kube.request("DELETE", path, query={"gracePeriodSeconds": 0})
        with suppress(KubeError):
            self.kube.request("DELETE", f"/api/v1/nodes/{name}")

    def _is_well(self, name: str) -> bool:
        node = self.kube.get("Node", name)
        ill = [taint["key"] for taint in dig(node, "spec.taints", []) if taint["key"] in _ILL]
        return is_true(node, "Ready") and not ill and self._kubelet_answers(name)

    def _kubelet_answers(self, name: str) -> bool:
        """Through the API server; the node's conditions may still be of the kubelet before a restart."""
        impatient = Kube(self.kubeconfig, patience_s=0)
        return bool(impatient.request("GET", f"/api/v1/nodes/{name}/proxy/healthz", timeout_s=5) == "ok")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with changes: mappings merge, other values replace, None removes."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def last_lines(text: Iterable[str], lines: int, matching: str = "") -> str:
    """The last lines in which a regular expression is found.

    Raises:
        ConfigError: it is not a regular expression.
    """
    try:
        wanted = re.compile(matching)
    except re.error as err:
        raise ConfigError(f"{matching!r} is not a regular expression: {err}.") from err
    found = [line.rstrip("\n") for line in text if wanted.search(line)]
    return "\n".join(found[-lines:] if lines > 0 else [])
