"""What kind and kubeadm are told: the cluster's configuration, and that of a worker that joins later."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml

from labkit.cluster.kind.state import CONTROL_PLANE, KindNode, KindOptions
from labkit.cluster.kubelet import taints as checked_taints
from labkit.kube import quantity

KUBEADM = "kubeadm.k8s.io/v1beta4"
PATCHES = "/kind/labkit-patches"
_MIB = 1 << 20
_TO_MACHINE = "100Mi"
_TIMEOUTS = {
    "controlPlaneComponentHealthCheck": "6m0s",
    "kubeletHealthCheck": "5m0s",
    "kubernetesAPICall": "4m0s",
    "discovery": "6m0s",
    "tlsBootstrap": "6m0s",
}
"""Of kubeadm, several times its own: on a laptop that does other work too, slow is no reason to fail."""


@dataclass(frozen=True)
class Host:
    """The machine that the engine's containers share.

    Attributes:
        cpus, memory_bytes: all of it.
        cgroup: version of its control groups, "1" or "2".
    """

    cpus: int
    memory_bytes: int
    cgroup: str

    @classmethod
    def of(cls, info: dict[str, Any]) -> Host:
        """As `docker info` tells."""
        return cls(int(info["NCPU"]), int(info["MemTotal"]), str(info.get("CgroupVersion") or "1"))

    def reserved(self, cpus: int, memory: str) -> dict[str, str]:
        """What a kubelet must leave alone so that pods get only so much of the machine."""
        spare = self.memory_bytes - int(quantity(memory)) - int(quantity(_TO_MACHINE))
        return {"cpu": str(max(0, self.cpus - cpus)), "memory": f"{max(0, spare) // _MIB}Mi"}

    def fits(self, cpus: int, memory: str) -> str:
        """What of a worker's size the machine has not got, "" when it has all."""
        if cpus > self.cpus:
            return f"{cpus} CPUs, and the machine has {self.cpus}"
        if quantity(memory) > self.memory_bytes:
            return f"{memory} of memory, and the machine has {self.memory_bytes >> 30} GiB"
        return ""


def kubelet_configuration(host: Host, cpus: int, memory: str) -> dict[str, Any]:
    """The fields in which a kubelet differs from what kind gives it.

    Serving certificates are asked for from the cluster, so that metrics-server can verify them.
    """
    fields: dict[str, Any] = {
        "kind": "KubeletConfiguration",
        "serverTLSBootstrap": True,
        "systemReserved": host.reserved(cpus, memory),
        "evictionHard": {"memory.available": _TO_MACHINE},
    }
    if host.cgroup == "1":
        fields["failCgroupV1"] = False
    return fields


def cluster_configuration(options: KindOptions, nodes: dict[str, KindNode], host: Host) -> str:
    """The file for `kind create cluster --config`."""
    template = files("labkit.cluster.kind").joinpath("cluster.yaml").read_text()
    # Comments may have a dollar sign of their own.
    text = Template("\n".join(line for line in template.splitlines() if not line.startswith("#"))).substitute(
        eviction=options.eviction_after_s,
        monitor_period=options.node_monitor_period_s,
        monitor_grace=options.node_monitor_grace_s,
        hpa_sync=options.hpa_sync_s,
        hpa_initial_readiness=options.hpa_initial_readiness_s,
        hpa_cpu_initialization=options.hpa_cpu_initialization_s,
    )
    config: dict[str, Any] = yaml.safe_load(text)
    kubelet = kubelet_configuration(host, options.cpus, options.memory)
    config["kubeadmConfigPatches"].append(yaml.safe_dump(kubelet))
    named = [{"role": "control-plane", "kubeadmConfigPatches": [_name("InitConfiguration", CONTROL_PLANE)]}]
    named += [
        {"role": "worker", "kubeadmConfigPatches": [_name("JoinConfiguration", name)]} for name in nodes
    ]
    config["nodes"] = named
    return yaml.safe_dump(config, sort_keys=False)


def _name(kind: str, name: str) -> str:
    """A node's name in Kubernetes, else kubeadm takes the container's; and kubeadm's patience."""
    return yaml.safe_dump({"kind": kind, "nodeRegistration": {"name": name}, "timeouts": _TIMEOUTS})


@dataclass(frozen=True)
class Joining:
    """What a joining worker must know.

    Attributes:
        server: host and port of the API server in the cluster's network.
        ca_cert_hash: what the authority's key must have as its hash.
        token: a bootstrap token.
        discovery_s: how long kubeadm looks for the cluster; None for its own patience.
    """

    server: str
    ca_cert_hash: str
    token: str
    discovery_s: float | None = None


def join_configuration(name: str, node: KindNode, kind_name: str, to: Joining, limit_s: float) -> str:
    """The file for `kubeadm join --config`; kubeadm waits up to `limit_s` for the kubelet's certificate."""
    arguments = {"node-ip": node.address, "provider-id": f"kind://docker/{kind_name}/{node.container}"}
    if node.labels:
        arguments["node-labels"] = ",".join(f"{key}={value}" for key, value in node.labels.items())
    discovery = {"discovery": f"{to.discovery_s:g}s"} if to.discovery_s else {}
    configuration = {
        "apiVersion": KUBEADM,
        "kind": "JoinConfiguration",
        "nodeRegistration": {
            "name": name,
            "criSocket": "unix:///run/containerd/containerd.sock",
            "taints": checked_taints(node.taints),
            "kubeletExtraArgs": [{"name": key, "value": value} for key, value in arguments.items()],
        },
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": to.server,
                "token": to.token,
                "caCertHashes": [to.ca_cert_hash],
            }
        },
        "patches": {"directory": PATCHES},
        "skipPhases": ["preflight"],
        "timeouts": {**_TIMEOUTS, "tlsBootstrap": f"{int(limit_s) + 30}s", **discovery},
    }
    return yaml.safe_dump(configuration, sort_keys=False)


def authority_of(kubeconfig: Path) -> bytes:
    """The cluster's authority as a kubeconfig has it, PEM."""
    config = yaml.safe_load(kubeconfig.read_text())
    return base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
