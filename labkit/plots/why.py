"""What held an autoscaler back, and when: read from the conditions that it wrote itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from labkit.kube import dig, quantity

LANES = ("tolerance", "stabilization", "policy", "limit")
DEFAULT_TOLERANCE = 0.1
_DEFAULT_POLICIES: dict[str, list[dict[str, Any]]] = {
    "scaleUp": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
    "scaleDown": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_STABILIZED = {"ScaleDownStabilized": "scaleDown", "ScaleUpStabilized": "scaleUp"}
_RATE = {"ScaleDownLimit": "scaleDown", "ScaleUpLimit": "scaleUp"}
_LIMIT = {"TooManyReplicas": "maxReplicas", "TooFewReplicas": "minReplicas"}
_WORD = {"scaleUp": "scale-up", "scaleDown": "scale-down"}


@dataclass(frozen=True)
class Held:
    """One stretch of time in which a rule decided; `lane` is one of LANES, times as in the recording."""

    lane: str
    begin_s: float
    end_s: float
    text: str
    short: str

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


def holds(hpas: pd.DataFrame, hpa: Mapping[str, Any]) -> list[Held]:
    """What tolerance, stabilization windows, policies and min/max did.

    Args:
        hpas: rows of one HPA of `Recording.hpas`.
        hpa: the HPA object (or its manifest), for the rules themselves.
    """
    if hpas.empty:
        return []
    step = float(hpas["t_seconds"].diff().median()) if len(hpas) > 1 else 1.0
    rules = [_rule(row, hpa) for row in hpas.to_dict("records")]
    times = hpas["t_seconds"].tolist()
    found: list[Held] = []
    for lane in LANES:
        names = [rule.get(lane, "") for rule in rules]
        found += [
            Held(lane, begin, end, *_words(lane, name, end - begin, hpa))
            for name, begin, end in _runs(times, names, step)
        ]
    return found


def _rule(row: Mapping[Any, Any], hpa: Mapping[str, Any]) -> dict[str, str]:
    """Lane → what was at work in one sample."""
    able, limited = str(row["able_to_scale"]), str(row["scaling_limited"])
    found = {
        "stabilization": _STABILIZED.get(able, ""),
        "policy": _RATE.get(limited, ""),
        "limit": _LIMIT.get(limited, ""),
    }
    now, target = row["cpu_utilization_percent"], row["cpu_target_percent"]
    down, up = tolerances(hpa)
    inside = target and now == now and now is not None and 1 - down <= now / target <= 1 + up
    if inside and not any(found.values()) and row["desired_replicas"] == row["current_replicas"]:
        found["tolerance"] = "no change"
    return found


def _runs(times: list[float], names: list[str], step: float) -> list[tuple[str, float, float]]:
    """(name, begin, end) of stretches of equal names that are not ""."""
    found: list[tuple[str, float, float]] = []
    for time, name in zip(times, names, strict=True):
        if name and found and found[-1][0] == name and time - found[-1][2] <= step * 1.5:
            found[-1] = (name, found[-1][1], time + step)
        elif name:
            found.append((name, time, time + step))
    return found


def _words(lane: str, name: str, seconds: float, hpa: Mapping[str, Any]) -> tuple[str, str]:
    """What happened, in a sentence and in two words."""
    if lane == "tolerance":
        return "within tolerance: no change", "no change"
    if lane == "stabilization":
        window = dig(hpa, f"spec.behavior.{name}.stabilizationWindowSeconds")
        of = f" (window {window} s)" if window is not None else ""
        return f"held {seconds:.0f} s{of}", f"held {seconds:.0f} s"
    if lane == "policy":
        return policy_text(hpa, name), "limited"
    count = dig(hpa, f"spec.{name}", 1)
    return (
        f"{'more' if name == 'maxReplicas' else 'fewer'} wanted, but {name} is {count}",
        f"{name[:3]} {count}",
    )


def policy_text(hpa: Mapping[str, Any], direction: str) -> str:
    """The policies of a direction in words: `at most +4 pods per 15 s`."""
    rules = dig(hpa, f"spec.behavior.{direction}", {})
    choice = rules.get("selectPolicy", "Max")
    if choice == "Disabled":
        return f"{_WORD[direction]} is disabled"
    sign = "+" if direction == "scaleUp" else "−"
    policies: list[dict[str, Any]] = rules.get("policies") or _DEFAULT_POLICIES[direction]
    units = [
        "%" if policy["type"] == "Percent" else "pods" if policy["value"] > 1 else "pod"
        for policy in policies
    ]
    parts = [
        f"{sign}{policy['value']} {unit} per {policy['periodSeconds']} s"
        for policy, unit in zip(policies, units, strict=True)
    ]
    word = " or " if choice == "Max" else " and "
    return f"at most {word.join(parts)}"


def tolerances(hpa: Mapping[str, Any]) -> tuple[float, float]:
    """(down, up): the fractions of the target by which utilization may differ without a change."""
    down, up = (
        dig(hpa, f"spec.behavior.{way}.tolerance", DEFAULT_TOLERANCE) for way in ("scaleDown", "scaleUp")
    )
    return quantity(down), quantity(up)
