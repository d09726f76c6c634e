"""From a recommendation to a replica count: stabilization windows, rate limits, minimum and maximum.

Behaviour of Kubernetes v1.37: normalizeDesiredReplicas, normalizeDesiredReplicasWithBehaviors and
storeScaleEvent in pkg/controller/podautoscaler/horizontal.go. A window or period counts what is strictly
younger than itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from labkit.hpa import words
from labkit.hpa.gomath import INT32_MAX, INT32_MIN, ceil32, float_to_int32, int32, nanoseconds
from labkit.hpa.spec import Controller, HpaSpec, ScalingRules

Entry = tuple[int, int]
"""(time in nanoseconds, replicas recommended or changed)."""


@dataclass(frozen=True, slots=True)
class History:
    """What the controller remembers of one autoscaler: recommendations, and scalings in each direction."""

    recommendations: tuple[Entry, ...] = ()
    scale_ups: tuple[Entry, ...] = ()
    scale_downs: tuple[Entry, ...] = ()

    def started(self, replicas: int, now_ns: int) -> History:
        """With the present count as first recommendation, where there is none yet."""
        return self if self.recommendations else replace(self, recommendations=((now_ns, replicas),))

    def scaled(self, before: int, after: int, spec: HpaSpec, now_ns: int) -> History:
        """With a scaling remembered; without `behavior` nothing would read it."""
        if spec.behavior is None:
            return self
        up = after > before
        rules = spec.behavior.scale_up if up else spec.behavior.scale_down
        longest = max(policy.period_seconds for policy in rules.policies) * 10**9
        entry = (now_ns, abs(after - before))
        if up:
            return replace(self, scale_ups=_remember(self.scale_ups, entry, longest))
        return replace(self, scale_downs=_remember(self.scale_downs, entry, longest))


def _remember(entries: tuple[Entry, ...], entry: Entry, keep_ns: int) -> tuple[Entry, ...]:
    """With `entry` in the place of the last outdated one, or at the end."""
    for place in reversed(range(len(entries))):
        if entry[0] - entries[place][0] >= keep_ns:
            return (*entries[:place], entry, *entries[place + 1 :])
    return (*entries, entry)


def _younger(entries: Iterable[Entry], now_ns: int, window_ns: int) -> Iterable[int]:
    return (count for at, count in entries if now_ns - at < window_ns)


@dataclass(frozen=True, slots=True)
class Normalized:
    """A recommendation brought within windows and limits.

    Args:
        stabilized: after the windows; `able` is the reason of the AbleToScale condition.
        replicas: after rates, minimum and maximum; `limited` is the reason of ScalingLimited.
        reasons: a sentence for each limit that mattered.
    """

    replicas: int
    stabilized: int
    history: History
    able: str
    limited: str
    reasons: tuple[str, ...]


def normalize(
    spec: HpaSpec, current: int, desired: int, history: History, now_s: float, controller: Controller
) -> Normalized:
    """Apply windows, rate limits, minimum and maximum to a recommendation made at `now_s` (seconds)."""
    now_ns = nanoseconds(now_s)
    history = history.started(current, now_ns)
    steps = _builtin if spec.behavior is None else _configured
    return steps(spec, current, desired, history, now_ns, controller)


def _builtin(
    spec: HpaSpec, current: int, desired: int, history: History, now_ns: int, controller: Controller
) -> Normalized:
    """Without `spec.behavior`: a scale-down window, and at most doubling (or 4) at once."""
    window_s = controller.downscale_stabilization_s
    window_ns = nanoseconds(window_s)
    stabilized = max([desired, *_younger(history.recommendations, now_ns, window_ns)])
    history = replace(
        history, recommendations=_remember(history.recommendations, (now_ns, desired), window_ns)
    )
    story, able = [], "ReadyForNewScale"
    if stabilized != desired:
        able = "ScaleDownStabilized"
        story.append(words.stabilized(desired, stabilized, window_s, "down"))
    fastest = float_to_int32(max(2.0 * current, 4.0))
    replicas, limited = stabilized, "DesiredWithinRange"
    if stabilized < spec.min_replicas:
        replicas, limited = spec.min_replicas, "TooFewReplicas"
        story.append(words.bounded(stabilized, replicas, "minReplicas"))
    elif stabilized > min(spec.max_replicas, fastest):
        replicas = min(spec.max_replicas, fastest)
        limited = "ScaleUpLimit" if fastest < spec.max_replicas else "TooManyReplicas"
        rule = f"twice the present {current}, or 4"
        story.append(_limit_words(limited, "up", stabilized, replicas, rule))
    return Normalized(replicas, stabilized, history, able, limited, tuple(story))


def _limit_words(limited: str, direction: str, wanted: int, limit: int, rule: str) -> str:
    if limited.startswith("Scale"):
        return words.rate_limited(direction, limit, wanted, rule)
    return words.bounded(wanted, limit, "maxReplicas" if direction == "up" else "minReplicas")


def _configured(
    spec: HpaSpec, current: int, desired: int, history: History, now_ns: int, controller: Controller
) -> Normalized:
    """With `spec.behavior`: a window and policies for each direction."""
    assert spec.behavior is not None
    up, down = spec.behavior.scale_up, spec.behavior.scale_down
    up_s = up.window_seconds or 0
    down_s = int(controller.downscale_stabilization_s) if down.window_seconds is None else down.window_seconds
    memory = history.recommendations
    lowest = min([desired, *_younger(memory, now_ns, up_s * 10**9)])
    highest = max([desired, *_younger(memory, now_ns, down_s * 10**9)])
    stabilized = min(max(current, lowest), highest)
    kept = _remember(memory, (now_ns, desired), max(up_s, down_s) * 10**9)
    history = replace(history, recommendations=kept)

    story, able = [], "ReadyForNewScale"
    if stabilized != desired:
        able = "ScaleUpStabilized" if desired >= current else "ScaleDownStabilized"
        window, direction = (up_s, "up") if desired >= current else (down_s, "down")
        story.append(words.stabilized(desired, stabilized, window, direction))
    replicas, limited = stabilized, "DesiredWithinRange"
    if stabilized > current:
        rate, rule = _fastest(up, current, history, now_ns, +1)
        bound = min(spec.max_replicas, max(rate, current))
        if stabilized > bound:
            limited = "ScaleUpLimit" if bound < spec.max_replicas else "TooManyReplicas"
            replicas = bound
            story.append(_limit_words(limited, "up", stabilized, bound, rule))
    elif stabilized < current:
        rate, rule = _fastest(down, current, history, now_ns, -1)
        bound = max(spec.min_replicas, min(rate, current))
        if stabilized < bound:
            limited = "ScaleDownLimit" if bound > spec.min_replicas else "TooFewReplicas"
            replicas = bound
            story.append(_limit_words(limited, "down", stabilized, bound, rule))
    return Normalized(replicas, stabilized, history, able, limited, tuple(story))


def _fastest(
    rules: ScalingRules, current: int, history: History, now_ns: int, direction: int
) -> tuple[int, str]:
    """The furthest count the policies allow now, and the policy that says so; direction +1 or -1."""
    if rules.select == "Disabled":
        return current, "selectPolicy Disabled"
    lowest_wins = (rules.select == "Min") == (direction > 0)
    pick: Callable[[int, int], int] = min if lowest_wins else max
    limit, rule = (INT32_MAX if lowest_wins else INT32_MIN), ""
    for policy in rules.policies:
        period = policy.period_seconds * 10**9
        added = sum(_younger(history.scale_ups, now_ns, period))
        removed = sum(_younger(history.scale_downs, now_ns, period))
        began = int32(current - added + removed)
        if policy.type == "Pods":
            proposed = int32(began + direction * policy.value)
        else:
            share = float(began) * (1 + direction * (policy.value / 100))
            proposed = ceil32(share) if direction > 0 else float_to_int32(math.trunc(share))
        if pick(limit, proposed) != limit or not rule:
            rule = f"{policy}, {began} at the period's start"
        limit = pick(limit, proposed)
    return limit, rule
