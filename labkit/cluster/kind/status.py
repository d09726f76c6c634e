"""A kind cluster at one moment: containers with their memory, the control plane's pods, nodes, addresses."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labkit.cluster.kind.engine import Container, Engine
from labkit.cluster.kind.state import CONTROL_PLANE
from labkit.cluster.status import ClusterStatus, ComponentStatus, NodeInfo
from labkit.errors import ClusterError, KubeError, LabkitError, MachineError
from labkit.kube import Kube, dig
from labkit.versions import versions

if TYPE_CHECKING:
    from labkit.cluster.kind.cluster import KindCluster

_STATUS_S = 2.0
_STATES = {"exited": "stopped", "created": "stopped", "dead": "failed", "restarting": "backoff"}
_UNITS = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
_STATIC = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def read_status(cluster: KindCluster) -> ClusterStatus:
    """See Cluster.status; without an engine the cluster counts as stopped."""
    name, directory = cluster.name, cluster.directory
    try:
        state, unknown = directory.read(), "incomplete"
    except ClusterError:
        state, unknown = None, "damaged"
    version = versions().kind.node_image.partition("@")[0].rpartition(":v")[2]
    if state is None:
        return ClusterStatus(name, cluster.provider, unknown, version, directory.path)
    try:
        there = {each.name: each for each in cluster.engine.containers(directory.kind_name)}
    except MachineError:
        there = {}
    boxes = {CONTROL_PLANE: directory.control_plane}
    boxes |= {node: entry.container for node, entry in state.nodes.items()}
    running = [each for each in there.values() if each.state == "running"]
    nodes, pods = _api(cluster) if running else ([], [])
    now = _state(state.ready, bool(running), boxes, there, nodes)
    components = _containers(cluster.engine, boxes, there) + _pods(pods)
    version = next((node.kubelet_version.lstrip("v") for node in nodes if node.kubelet_version), version)
    return ClusterStatus(
        name, cluster.provider, now, version, directory.path,
        uptime_s=max((each.uptime_s for each in components), default=0.0),
        components=tuple(components), nodes=tuple(nodes), urls=_urls(cluster, running),
    )  # fmt: skip


def _state(
    ready: bool, running: bool, boxes: dict[str, str], there: dict[str, Container], nodes: list[NodeInfo]
) -> str:
    if not running:
        return "stopped" if ready else "incomplete"
    whole = all(box in there and there[box].state == "running" for box in boxes.values())
    well = len(nodes) == len(boxes) and all(node.ready == "True" for node in nodes)
    return "running" if ready and whole and well else "degraded"


def _api(cluster: KindCluster) -> tuple[list[NodeInfo], list[dict[str, Any]]]:
    try:
        hasty = Kube(cluster.kubeconfig, patience_s=_STATUS_S)
        pods = hasty.request("GET", "/api/v1/namespaces/kube-system/pods")["items"]
        return cluster._node_infos(hasty), pods
    except (KubeError, OSError):
        return [], []


def _urls(cluster: KindCluster, running: list[Container]) -> dict[str, str]:
    if not running:
        return {}
    try:
        import yaml

        server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        return {"api": str(server), **cluster.component_urls()}
    except (LabkitError, OSError, ValueError, KeyError):
        return {}


def _containers(engine: Engine, boxes: dict[str, str], there: dict[str, Container]) -> list[ComponentStatus]:
    up = [box for box in boxes.values() if box in there and there[box].state in ("running", "paused")]
    memory = _memory(engine, up)
    facts = {raw["Name"].lstrip("/"): raw for raw in json.loads(engine.run("inspect", *up))} if up else {}
    components = []
    for node, box in boxes.items():
        raw = facts.get(box)
        state = there[box].state if box in there else "stopped"
        components.append(
            ComponentStatus(
                f"node-{node}", _STATES.get(state, state), int(raw["State"]["Pid"]) if raw else 0,
                int(raw.get("RestartCount") or 0) if raw else 0,
                _since(raw["State"]["StartedAt"]) if raw else 0.0, memory.get(box, 0),
                "" if box in there else "its container is gone",
            )
        )  # fmt: skip
    return components


def _memory(engine: Engine, boxes: list[str]) -> dict[str, int]:
    """Bytes of each container, without the page cache, as `docker stats` counts."""
    if not boxes:
        return {}
    done = engine.attempt("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *boxes)
    found = {}
    for line in done.stdout.splitlines():
        match = re.match(r"(\S+) ([\d.]+)([A-Za-z]+)", line)
        if match and match[3] in _UNITS:
            found[match[1]] = int(float(match[2]) * _UNITS[match[3]])
    return found


def _pods(pods: list[dict[str, Any]]) -> list[ComponentStatus]:
    """The control plane's own pods; their memory is in that of their node."""
    found = []
    for pod in pods:
        label = dig(pod, "metadata.labels.component", "") or dig(pod, "metadata.labels.k8s-app", "")
        if label not in (*_STATIC, "kube-dns", "metrics-server"):
            continue
        status = (dig(pod, "status.containerStatuses", []) or [{}])[0]
        ready = bool(status.get("ready"))
        started = dig(status, "state.running.startedAt", "")
        found.append(
            ComponentStatus(
                {"kube-dns": "coredns"}.get(label, label), "running" if ready else "backoff", 0,
                int(status.get("restartCount") or 0), _since(started) if started else 0.0, 0,
                str(dig(status, "lastState.terminated.reason", "")),
            )
        )  # fmt: skip
    order = {name: number for number, name in enumerate(_STATIC)}
    return sorted(found, key=lambda each: (order.get(each.name, 9), each.name))


def _since(moment: str) -> float:
    begin = datetime.fromisoformat(moment[:19] + "+00:00").timestamp()
    return max(0.0, time.time() - begin)
