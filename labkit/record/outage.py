"""A node's failure as a recording has it: what came when, and the time-out that explains it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan, nan

import pandas as pd

from labkit.errors import ConfigError
from labkit.record.recording import Recording

UNREACHABLE = "node.kubernetes.io/unreachable:NoExecute"
Span = tuple[float, float, str]


@dataclass(frozen=True)
class Settings:
    """The times that decide how long each part takes.

    Attributes:
        grace_s: --node-monitor-grace-period of the controller manager.
        period_s: its --node-monitor-period.
        toleration_s: tolerationSeconds of the pods for the taint unreachable.
    """

    grace_s: float
    period_s: float
    toleration_s: float


@dataclass(frozen=True)
class Outage:
    """What happened to a node and to a Deployment's pods; in seconds since the failure, NaN for "never".

    Attributes:
        heartbeat_s: the node's last heartbeat before it failed; not positive.
        noticed_s: its condition Ready became Unknown.
        tainted_s: it got the taint unreachable:NoExecute.
        evicted_s: the first of the Deployment's pods on it was deleted.
        replaced_s: as many pods as wanted were ready on other nodes.
        restored_s: the machine was started again.
        ready_s: it was Ready again.
        cleared_s: the last of the evicted pods' objects was gone.
        end_s: end of the recording.
        pods: one row per pod and state: name, node, begin_s, end_s, state ("ready", "not ready" or
            "terminating").
        serving: steps: t_seconds, really (ready pods that exist), said (what the Deployment's status counts).
        taints, conditions: of the node, as (begin, end, text).
        heartbeats: when the node's lease was renewed.
    """

    node: str
    settings: Settings
    replicas: int
    heartbeat_s: float
    noticed_s: float
    tainted_s: float
    evicted_s: float
    replaced_s: float
    restored_s: float
    ready_s: float
    cleared_s: float
    end_s: float
    pods: pd.DataFrame
    serving: pd.DataFrame
    conditions: tuple[Span, ...]
    taints: tuple[Span, ...]
    heartbeats: tuple[float, ...]

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """One row per gap: gap, explained_by, predicted_s (least), predicted_max_s, measured_s."""
        grace, period, toleration = self.settings.grace_s, self.settings.period_s, self.settings.toleration_s
        rows = [
            ("last heartbeat → NotReady", "node-monitor-grace-period", grace, grace + period,
             self.noticed_s - self.heartbeat_s),
            ("NotReady → taint NoExecute", "nothing to wait for", 0.0, 1.0, self.tainted_s - self.noticed_s),
            ("taint → eviction", "tolerationSeconds", toleration, toleration + 1,
             self.evicted_s - self.tainted_s),
            ("eviction → replacements ready", "scheduling, start, readiness", nan, nan,
             self.replaced_s - self.evicted_s),
            ("machine back → Ready", "the kubelet's start", nan, nan, self.ready_s - self.restored_s),
            ("machine back → old pods gone", "the kubelet's start, grace period", nan, nan,
             self.cleared_s - self.restored_s),
        ]  # fmt: skip
        columns = ["gap", "explained_by", "predicted_s", "predicted_max_s", "measured_s"]
        return pd.DataFrame(rows, columns=columns).round(1)

    @property
    def explained(self) -> pd.DataFrame:
        """`gaps` as a table to read: explained by, predicted, measured; in words, indexed by gap."""
        gaps = self.gaps
        low, high = gaps["predicted_s"], gaps["predicted_max_s"]
        predicted = ["" if isnan(a) else f"{a:g} … {b:g} s" for a, b in zip(low, high, strict=True)]
        measured = ["did not happen" if isnan(s) else f"{s:.1f} s" for s in gaps["measured_s"]]
        table = {"explained by": gaps["explained_by"], "predicted": predicted, "measured": measured}
        return pd.DataFrame(table).set_index(gaps["gap"].rename(None))

    @property
    def pod_seconds_lost(self) -> float:
        """Replicas that were missing, times how long."""
        steps = self.serving[self.serving["t_seconds"] >= 0]
        until = self.replaced_s if not isnan(self.replaced_s) else self.end_s
        ends = [*steps["t_seconds"].iloc[1:], self.end_s]
        return float(
            sum(
                max(0.0, min(end, until) - begin) * max(0, self.replicas - ready)
                for begin, end, ready in zip(steps["t_seconds"], ends, steps["really"], strict=True)
            )
        )

    @property
    def nobody_serves_s(self) -> float:
        """For how long no pod at all was there."""
        steps = self.serving[self.serving["t_seconds"] >= 0]
        ends = [*steps["t_seconds"].iloc[1:], self.end_s]
        spans = zip(steps["t_seconds"], ends, steps["really"], strict=True)
        return float(sum(end - begin for begin, end, ready in spans if ready == 0))


def outage(
    recording: Recording,
    node: str,
    settings: Settings,
    *,
    failed_s: float,
    restored_s: float = nan,
    deployment: str,
    namespace: str = "default",
) -> Outage:
    """Read a node's failure out of a recording that was begun before it.

    Args:
        failed_s, restored_s: when the machine was lost and started again, in the recording's t_seconds.
        deployment: whose pods are followed: those of the ReplicaSets that it owns.

    Raises:
        ConfigError: the recording has no such node or Deployment.
    """
    times = recording.transitions["t_seconds"] - failed_s
    values = recording.transitions["after"].map(_text)  # a saved recording has only text
    changes = recording.transitions.assign(t_seconds=times, after=values)
    own = changes[(changes["kind"] == "Node") & (changes["name"] == node)]
    here = changes[changes["namespace"] == namespace]
    pods = here[(here["kind"] == "Pod") & here["name"].isin(_pods_of(here, deployment))]
    status = here[(here["kind"] == "Deployment") & (here["name"] == deployment)]
    if own.empty or status.empty:
        raise ConfigError(
            f"The recording does not have both node {node!r} and Deployment {deployment!r}.",
            "Begin it when both are there.",
        )
    end = float(recording.nodes["t_seconds"].max()) - failed_s
    restored = restored_s - failed_s
    leases = changes[(changes["kind"] == "Lease") & (changes["name"] == node)]
    beats = leases[leases["what"] == "renewed_at"]["after"]
    renewed = [float(at) - recording.started_at - failed_s for at in beats if at]
    states = _pod_states(pods, end)
    wanted = int(float(status[status["what"] == "replicas"]["after"].iloc[-1]))
    conditions, taints = _spans(own, "ready", end), _spans(own, "taints", end)
    noticed = _first(conditions, lambda begin, text: begin > 0 and text != "True")
    evicted = _evicted(states, node)
    serving = _serving(states, status, node, restored, end)
    made = Outage(
        node=node, settings=settings, replicas=wanted,
        heartbeat_s=max((at for at in renewed if at <= 0), default=nan),
        noticed_s=noticed,
        tainted_s=_first(taints, lambda begin, text: begin > 0 and UNREACHABLE in text),
        evicted_s=float(evicted["begin_s"].min()) if len(evicted) else nan,
        replaced_s=nan,
        restored_s=restored,
        ready_s=_first(conditions, lambda begin, text: begin > restored and text == "True"),
        cleared_s=float(evicted["end_s"].max()) if len(evicted) and evicted["end_s"].max() < end else nan,
        end_s=end, pods=states, serving=serving, conditions=conditions, taints=taints,
        heartbeats=tuple(at for at in renewed if at <= 0 or (at >= restored)),
    )  # fmt: skip
    return replace(made, replaced_s=_full_again(serving, wanted))


def _pods_of(changes: pd.DataFrame, deployment: str) -> set[str]:
    """Names of all pods of a Deployment: pods of ReplicaSets of it, by their owner references."""
    owners = changes[changes["what"] == "owner"]
    sets = owners[(owners["kind"] == "ReplicaSet") & (owners["after"] == f"Deployment/{deployment}")]
    of_sets = owners["after"].isin("ReplicaSet/" + sets["name"])
    return set(owners.loc[(owners["kind"] == "Pod") & of_sets, "name"])


def _text(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and isnan(value)) else str(value)


def _spans(changes: pd.DataFrame, what: str, end: float) -> tuple[Span, ...]:
    found = changes[changes["what"] == what]
    begins = [float(t) for t in found["t_seconds"]]
    return tuple(zip(begins, [*begins[1:], end], list(found["after"]), strict=True))


def _first(spans: tuple[Span, ...], wanted: object) -> float:
    return next((begin for begin, _, text in spans if wanted(begin, text)), nan)  # type: ignore[operator]


def _pod_states(changes: pd.DataFrame, end: float) -> pd.DataFrame:
    """Rows (name, node, begin_s, end_s, state) of all pods."""
    rows: list[tuple[str, str, float, float, str]] = []
    for name, own in changes.groupby("name", sort=False):
        facts: dict[str, str] = {}
        points: list[tuple[float, str]] = []
        for t, same in own.groupby("t_seconds", sort=True):
            facts.update(zip(same["what"], same["after"], strict=True))
            state = _state(facts)
            if not points or points[-1][1] != state:
                points.append((float(str(t)), state))
        ends = [*(at for at, _ in points[1:]), end]
        where = facts.get("node", "")
        rows += [
            (str(name), where, at, until, state)
            for (at, state), until in zip(points, ends, strict=True)
            if state
        ]
    return pd.DataFrame(rows, columns=["name", "node", "begin_s", "end_s", "state"])


def _state(facts: dict[str, str]) -> str:
    if facts.get("exists") != "True":
        return ""
    if facts.get("terminating") == "True":
        return "terminating"
    return "ready" if facts.get("ready") == "True" else "not ready"


def _evicted(states: pd.DataFrame, node: str) -> pd.DataFrame:
    ended = (states["node"] == node) & (states["state"] == "terminating") & (states["begin_s"] > 0)
    return states[ended]


def _serving(
    states: pd.DataFrame, status: pd.DataFrame, node: str, restored: float, end: float
) -> pd.DataFrame:
    """Ready pods that exist, and those that the API counts, at each change."""
    ready = states[states["state"] == "ready"]
    gone = ready["node"] == node
    back = restored if not isnan(restored) else end
    said = status[status["what"] == "ready_replicas"]
    start = min(float(states["begin_s"].min()), 0.0)
    times = {0.0, *ready["begin_s"], *ready["end_s"], *said["t_seconds"].astype(float)}
    rows = []
    for t in [start, *sorted(time for time in times if 0 <= time < end)]:
        seen = 0.0 if t == start else t  # before the failure everything was as at its moment
        alive = ~gone | (t < 0) | (t >= back)
        here = (ready["begin_s"] <= seen) & (seen < ready["end_s"]) & alive
        counted = said[said["t_seconds"] <= seen]["after"]
        rows.append((t, int(here.sum()), int(float(counted.iloc[-1] or 0)) if len(counted) else 0))
    return pd.DataFrame(rows, columns=["t_seconds", "really", "said"])


def _full_again(serving: pd.DataFrame, wanted: int) -> float:
    """When the pods were complete again, after the failure took some."""
    after = serving[serving["t_seconds"] >= 0]
    missing = after[after["really"] < wanted]
    if missing.empty:
        return nan
    full = after[(after["t_seconds"] > missing["t_seconds"].iloc[0]) & (after["really"] >= wanted)]
    return float(full["t_seconds"].iloc[0]) if len(full) else nan
