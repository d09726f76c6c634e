"""On which nodes the scheduler may place a pod, as far as its manifest decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.kube import Object, dig

_HARD = ("NoSchedule", "NoExecute")


def tolerates(pod: Object, taint: Mapping[str, Any]) -> bool:
    """Whether a pod tolerates a taint."""
    return any(_fits(each, taint) for each in dig(pod, "spec.tolerations", []))


def _fits(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    exists = bool(toleration.get("operator", "Equal") == "Exists")
    if not toleration.get("key"):
        return exists
    if toleration["key"] != taint.get("key"):
        return False
    return exists or bool((toleration.get("value") or "") == (taint.get("value") or ""))


def kept_out_by(pod: Object, node: Object) -> list[str]:
    """The taints of a node that keep a pod from being placed there, as `kubectl taint` writes them."""
    taints = [taint for taint in dig(node, "spec.taints", []) if taint.get("effect") in _HARD]
    return [
        f"{taint['key']}{'=' + taint['value'] if taint.get('value') else ''}:{taint['effect']}"
        for taint in taints
        if not tolerates(pod, taint)
    ]


def wants(pod: Object, node: Object) -> bool:
    """Whether a pod's nodeSelector and required node affinity accept a node."""
    labels = dig(node, "metadata.labels", {})
    if any(labels.get(key) != value for key, value in (dig(pod, "spec.nodeSelector", {}) or {}).items()):
        return False
    required = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    terms = dig(pod, f"{required}.nodeSelectorTerms")
    return terms is None or any(_meets(term, node) for term in terms)


def _meets(term: Mapping[str, Any], node: Object) -> bool:
    """Whether a node meets all expressions of a term; a term without any matches no node."""
    labels = dig(node, "metadata.labels", {})
    fields = {"metadata.name": dig(node, "metadata.name", "")}
    wanted = [(labels, each) for each in term.get("matchExpressions") or []]
    wanted += [(fields, each) for each in term.get("matchFields") or []]
    return bool(wanted) and all(_holds(values, each) for values, each in wanted)


def _holds(values: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    value, operator = values.get(expression["key"]), expression.get("operator")
    listed: Sequence[str] = expression.get("values") or ()
    if operator in ("Exists", "DoesNotExist"):
        return bool((value is not None) == (operator == "Exists"))
    if operator == "NotIn":
        return value not in listed
    if operator == "In":
        return value in listed
    try:
        number, limit = int(value or ""), int(listed[0])
    except (ValueError, IndexError):
        return False
    return {"Gt": number > limit, "Lt": number < limit}.get(str(operator), False)
