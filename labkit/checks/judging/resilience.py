"""What a Deployment's manifest and its budget promise for the day on which a machine is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil, inf
from typing import Any

from labkit.checks.judging.placement import tolerates
from labkit.kube import Object, dig

LOST = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
HOSTNAME = "kubernetes.io/hostname"
DEFAULT_TOLERATION_S = 300.0
"""What the API server writes into a pod that says nothing."""
START_S = 4.0
"""Scheduling, start and readiness of a replacement, roughly."""


def toleration_s(pod: Object) -> float:
    """How long a pod (or a pod template) stays bound to a node that is lost; inf for ever."""
    own = [t for t in dig(pod, "spec.tolerations", []) if tolerates({"spec": {"tolerations": [t]}}, LOST)]
    if not own:
        return DEFAULT_TOLERATION_S
    return max(0.0, min(float(t["tolerationSeconds"]) if "tolerationSeconds" in t else inf for t in own))


def keeps_apart(template: Object) -> bool:
    """Whether a pod template asks the scheduler to put its pods on different nodes."""
    spread = dig(template, "spec.topologySpreadConstraints", [])
    apart = "spec.affinity.podAntiAffinity"
    terms = list(dig(template, f"{apart}.requiredDuringSchedulingIgnoredDuringExecution", []))
    preferred = dig(template, f"{apart}.preferredDuringSchedulingIgnoredDuringExecution", [])
    terms += [dig(each, "podAffinityTerm", {}) for each in preferred]
    return any(each.get("topologyKey") == HOSTNAME for each in (*spread, *terms))


def may_go(budget: Object, replicas: int) -> int:
    """How many of so many ready pods a PodDisruptionBudget lets be evicted at a time."""
    spec = budget.get("spec", {})
    if spec.get("maxUnavailable") is not None:
        return max(0, min(replicas, _share(spec["maxUnavailable"], replicas)))
    if spec.get("minAvailable") is not None:
        return max(0, replicas - _share(spec["minAvailable"], replicas))
    return max(0, replicas - 1)  # the API's default: minAvailable is 1


def _share(value: int | str, of: int) -> int:
    """A number, or a percentage rounded up, as the disruption controller has it."""
    match = re.fullmatch(r"(\d+)%", str(value))
    return ceil(of * int(match[1]) / 100) if match else int(value)


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses an object with these labels; one that is missing chooses nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions") or [])


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, operator = labels.get(expression["key"]), expression["operator"]
    if operator in ("Exists", "DoesNotExist"):
        return bool((value is not None) == (operator == "Exists"))
    return bool((value in (expression.get("values") or ())) == (operator == "In"))


def worst_cost(fullest: int, notice_s: float, toleration: float) -> float:
    """Pod-seconds that are missing at worst when the machine with most pods is lost.

    Args:
        fullest: pods on that machine.
        notice_s: until the node counts as lost.
    """
    return fullest * (notice_s + toleration + START_S)
