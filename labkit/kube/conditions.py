"""What `Kube.wait` can wait for."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import yaml

from labkit.errors import ConfigError
from labkit.kube.objects import Object, condition, dig

Test = Callable[[Object | None], bool]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_EXPRESSION = re.compile(r"\s*([\w.\[\]/-]+)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*")
_CONDITION = re.compile(r"([A-Z]\w*)(?:=(True|False|Unknown))?")


def parse(until: str | Callable[[Object], Any]) -> tuple[Test, str]:
    """The test and its wording.

    Raises:
        ConfigError: the text is no condition.
    """
    if callable(until):
        name = getattr(until, "__name__", "condition")
        return (lambda obj: obj is not None and bool(until(obj))), "as asked" if name == "<lambda>" else name
    special: dict[str, Test] = {
        "exists": lambda obj: obj is not None,
        "deleted": lambda obj: obj is None,
        "rolled out": lambda obj: obj is not None and not rollout_lacks(obj),
    }
    if until.lower() in special:
        return special[until.lower()], until.lower()
    if match := _CONDITION.fullmatch(until):
        kind, status = match[1], match[2] or "True"
        return (lambda obj: obj is not None and _has(obj, kind, status)), until
    if match := _EXPRESSION.fullmatch(until):
        path, compare, wanted = match[1], _OPERATORS[match[2]], yaml.safe_load(match[3])
        return (lambda obj: _holds(obj, path, compare, wanted)), until
    raise ConfigError(
        f"{until!r} is not a condition.",
        'Such as "Available", "Ready=False", "rolled out", "deleted", "status.replicas >= 2", or a function.',
    )


def _has(obj: Object, kind: str, status: str) -> bool:
    """Whether a condition has a status, and is of the object's last change: as `kubectl wait` has it."""
    entry = condition(obj, kind)
    return bool(entry.get("status") == status and not _outdated(obj, entry))


def _outdated(obj: Object, entry: Object | None = None) -> bool:
    """Whether a status (or its condition `entry`) is older than the object's last change."""
    seen = (entry or {}).get("observedGeneration") or dig(obj, "status.observedGeneration")
    return seen is not None and seen < dig(obj, "metadata.generation", 0)


def _holds(obj: Object | None, path: str, compare: Callable[[Any, Any], Any], wanted: Any) -> bool:
    if (
        obj is not None
        and path.startswith("status.")
        and path != "status.observedGeneration"
        and _outdated(obj)
    ):
        return False
    found = dig(obj, path, 0 if isinstance(wanted, int | float) else None)
    try:
        return obj is not None and bool(compare(found, wanted))
    except TypeError:
        return False


def rollout_lacks(obj: Object) -> str:
    """What a rollout still lacks, "" when it is complete; the rules of `kubectl rollout status`."""
    if dig(obj, "status.observedGeneration", 0) < dig(obj, "metadata.generation", 0):
        return "the controller has not seen the change yet"
    status = obj.get("status", {})
    kind = obj["kind"]
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted = dig(obj, "spec.replicas", 1)
        updated = status.get("updatedReplicas", 0)
        ready = status.get("availableReplicas" if kind == "Deployment" else "readyReplicas", 0)
    kept = dig(obj, "spec.updateStrategy.rollingUpdate.partition", 0) if kind == "StatefulSet" else 0
    if updated < wanted - kept:
        return f"{updated} of {wanted - kept} new replicas exist"
    if kind == "Deployment" and status.get("replicas", 0) > updated:
        return f"{status.get('replicas', 0) - updated} old replicas are still there"
    revisions = status.get("updateRevision"), status.get("currentRevision")
    if kind == "StatefulSet" and wanted and not kept and revisions[0] != revisions[1]:
        return "some pods still have the old revision"
    return f"{ready} of {wanted} {'' if kept else 'new '}replicas are available" if ready < wanted else ""


_OPPOSITE = {"Complete": "Failed", "SuccessCriteriaMet": "Failed", "Failed": "Complete"}
"""Conditions of a Job: once the second one is true, the first one stays false."""


def hopeless(until: str | Callable[[Object], Any], obj: Object | None) -> str:
    """Why what is waited for cannot come true any more, although the deadline is not over, or ""."""
    if obj is None or callable(until) or _outdated(obj):
        return ""
    wanted = until.lower() if until.lower() == "rolled out" else until.removesuffix("=True")
    progress = condition(obj, "Progressing")
    over = progress.get("reason") == "ProgressDeadlineExceeded" and not _outdated(obj, progress)
    if obj["kind"] == "Deployment" and wanted in ("rolled out", "Progressing") and over:
        return "its progress deadline is over"
    ended = condition(obj, _OPPOSITE.get(wanted, ""))
    if obj["kind"] == "Job" and ended.get("status") == "True":
        return str(ended.get("message") or f"the Job is {ended['type']}")
    return ""
