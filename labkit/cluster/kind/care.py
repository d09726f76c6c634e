"""Configurations and logs of the kubelets in node containers, and the controller manager's times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from labkit.cluster.care import last_lines, merged
from labkit.cluster.kind.engine import Container, Engine
from labkit.cluster.kind.state import CONTROL_PLANE
from labkit.cluster.waiting import wait_for
from labkit.errors import ClusterError
from labkit.kube import Kube, dig
from labkit.kube.objects import is_true

JOIN_LOG = "/kind/join.log"
_CONFIG = "/var/lib/kubelet/config.yaml"
_JOINED = f"{_CONFIG}.joined"
_MANIFEST = "/etc/kubernetes/manifests/kube-controller-manager.yaml"
_KEEP = '[ -e "$2" ] || cp -p "$1" "$2"; cat "$2"'
# A kubelet that was started in vain several times is started again at once only after this reset.
_CONFIGURE = """cat >"$1.new" && mv "$1.new" "$1" || exit
systemctl reset-failed kubelet; systemctl restart --no-block kubelet
"""
_REPLACE = 'umask 077; cat >"$1" && mv "$1" "$2"'
_POD = f"kube-controller-manager-{CONTROL_PLANE}"
_RESTART_S = 120.0
_JOURNAL = ("journalctl", "--unit", "kubelet", "--output", "cat", "--no-pager", "--lines", "5000")


def configuration(engine: Engine, container: str) -> dict[str, Any]:
    """The KubeletConfiguration that a node's file has."""
    return _mapping(engine.exec(container, "cat", _CONFIG))


def configure(engine: Engine, container: str, changes: Mapping[str, Any] | None) -> None:
    """Write the configuration with which the node joined, changed, and restart the kubelet.

    Args:
        changes: see `labkit.cluster.care.merged`.
    """
    joined = _mapping(engine.exec(container, "sh", "-c", _KEEP, "sh", _CONFIG, _JOINED))
    text = yaml.safe_dump(merged(joined, changes or {}), sort_keys=False)
    engine.exec(container, "sh", "-c", _CONFIGURE, "sh", _CONFIG, input=text)


def log(engine: Engine, container: Container | None, kept: Path, lines: int, matching: str) -> str:
    """The end of what kubeadm said at joins that failed, and of the kubelet's journal.

    Args:
        container: the node's; None where there is none (any more).
        kept: file with the words of failed joins.

    Raises:
        ClusterError: there is no log, or the node is frozen.
    """
    text = kept.read_text(errors="replace") if kept.exists() else ""
    if container is not None:
        text += _journal(engine, container)
    if not text:
        raise ClusterError("The kubelet has written no log.", "Has this worker ever tried to join?")
    return last_lines(text.splitlines(), lines, matching)


def _journal(engine: Engine, container: Container) -> str:
    if container.state == "paused":
        raise ClusterError(
            f"The node is frozen (`docker pause {container.name}`), and nobody can read its journal.",
            "Let it go on first: cluster.thaw(NAME).",
        )
    if container.state != "running":
        return ""
    return engine.exec(container.name, *_JOURNAL)


def tune_node_monitor(engine: Engine, container: str, kube: Kube, grace_s: int, period_s: int) -> None:
    """Write the times into the static pod's manifest; returns when the new controller manager is Ready."""
    wanted = {"--node-monitor-grace-period": f"{grace_s}s", "--node-monitor-period": f"{period_s}s"}
    manifest = _mapping(engine.exec(container, "cat", _MANIFEST))
    command = dig(manifest, "spec.containers[0].command", [])
    now = dict(part.partition("=")[::2] for part in command)
    if all(now.get(flag) == value for flag, value in wanted.items()):
        return
    kept = [part for part in command if part.partition("=")[0] not in wanted]
    manifest["spec"]["containers"][0]["command"] = [*kept, *(f"{k}={v}" for k, v in wanted.items())]
    hidden = str(Path(_MANIFEST).with_name(".kube-controller-manager.yaml"))  # the kubelet passes over it
    text = yaml.safe_dump(manifest, sort_keys=False)
    engine.exec(container, "sh", "-c", _REPLACE, "sh", hidden, _MANIFEST, input=text)
    wait_for(partial(_runs_with, kube, wanted), _RESTART_S, "the controller manager works with other times")


def _runs_with(kube: Kube, wanted: Mapping[str, str]) -> bool:
    pod = kube.find("Pod", _POD, namespace="kube-system") or {}
    command = dig(pod, "spec.containers[0].command", [])
    return is_true(pod, "Ready") and all(f"{flag}={value}" in command for flag, value in wanted.items())


def _mapping(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text)
    if not isinstance(found, dict):
        raise ClusterError(
            "The node has an empty configuration file.", "cluster.restore(NAME), or a new worker."
        )
    return found
