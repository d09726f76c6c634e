"""A worker's kubelet: its configuration file and what it is started with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from labkit.acquire import Binaries
from labkit.cluster.addresses import Slot
from labkit.cluster.care import merged
from labkit.cluster.components import KUBELET_PORT, Component
from labkit.cluster.state import Directory, Node
from labkit.errors import ClusterError, ConfigError
from labkit.folders import write

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def configuration(directory: Directory, slot: Slot, name: str, node: Node) -> dict[str, Any]:
    """The KubeletConfiguration, as kubeadm writes it but for addresses.

    There is no eviction by disk space, because the disk is the user's own.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(slot.machine(node.machine).served),
        "port": KUBELET_PORT,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "0s"},
            "x509": {"clientCAFile": str(directory / "pki/ca.crt")},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"},
        },
        "clusterDNS": [str(slot.dns)],
        "clusterDomain": "cluster.local",
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "staticPodPath": str(directory.node(name) / "manifests"),
        "registerWithTaints": taints(node.taints),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
    }


def taints(texts: list[str]) -> list[dict[str, str]]:
    """Taints as objects; each given as `kubectl taint` takes it.

    Raises:
        ConfigError: one is not a taint.
    """
    return [_taint(text) for text in texts]


def _taint(text: str) -> dict[str, str]:
    """ "key=value:Effect" or "key:Effect", as `kubectl taint` takes them."""
    left, _, effect = text.rpartition(":")
    key, _, value = left.partition("=")
    if not key or effect not in EFFECTS:
        raise ConfigError(f"{text!r} is not a taint.", f"key=value:Effect; effects: {', '.join(EFFECTS)}.")
    return {"key": key, "value": value, "effect": effect}


def write_configuration(
    directory: Directory, slot: Slot, name: str, node: Node, changes: Mapping[str, Any] | None = None
) -> Path:
    """Write kubelet.yaml, and the directories the kubelet expects.

    Args:
        changes: see `labkit.cluster.care.merged`.
    """
    file = directory.node(name) / "kubelet.yaml"
    content = merged(configuration(directory, slot, name, node), changes or {})
    write(file, yaml.safe_dump(content, sort_keys=False))
    for part in ("manifests", "pki", "pods"):
        (directory.node(name) / part).mkdir(mode=0o700, exist_ok=True)
    return file


def read_configuration(directory: Directory, name: str) -> dict[str, Any]:
    """What kubelet.yaml says."""
    file = directory.node(name) / "kubelet.yaml"
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as err:
        raise ClusterError(f"The kubelet's configuration of {name} cannot be read: {err}") from err
    return dict(found)


def component(
    directory: Directory, slot: Slot, name: str, node: Node, binaries: Binaries, images: Path
) -> Component:
    """The worker's process."""
    home, machine = directory.node(name), slot.machine(node.machine)
    labels = ",".join(f"{key}={value}" for key, value in node.labels.items())
    argv = [
        str(binaries.kube), "node", f"--name={name}", f"--config={home / 'kubelet.yaml'}",
        f"--kubeconfig={home / 'kubelet.kubeconfig'}",
        f"--bootstrap-kubeconfig={home / 'bootstrap.kubeconfig'}", f"--cert-dir={home / 'pki'}",
        f"--root-dir={directory.kubelet_root(node.machine)}", f"--pods-dir={home / 'pods'}",
        f"--images-dir={images}",
        f"--shim={binaries.shim}", f"--node-ip={machine.address}", f"--pod-cidr={machine.pod_cidr}",
        f"--cpus={node.cpus}", f"--memory={node.memory}",
        f"--provider-id=labkit://{directory.name}/{name}",
    ]  # fmt: skip
    return Component(component_name(name), argv + ([f"--node-labels={labels}"] if labels else []))


def component_name(node: str) -> str:
    """The name of a worker's process for the supervisor."""
    return f"node-{node}"


def forget_certificates(directory: Directory, name: str) -> None:
    """Remove keys and certificates of a worker that joins (again)."""
    shutil.rmtree(directory.node(name) / "pki", ignore_errors=True)


def has_certificate(directory: Directory, name: str) -> bool:
    """Whether a worker has joined: its request was approved and it has stored its certificate."""
    return (directory.node(name) / "pki/kubelet-client-current.pem").exists()


def node_of(component: str) -> str:
    """The worker that a process belongs to, "" for those of the control plane."""
    return component.removeprefix("node-") if component.startswith("node-") else ""
