"""Recordings and loads as a lab would measure them, from a small simulation with a seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from labkit import load
from labkit.load.result import frame_of
from labkit.record import Recording
from labkit.record.facts import COLUMNS

STARTED = 1_700_000_000.0
HPA: dict[str, Any] = {
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "pricing", "namespace": "shop"},
    "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "pricing"},
        "minReplicas": 1,
        "maxReplicas": 8,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 60}}}],
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 60,
                "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}],
            },
        },
    },
}


def table(name: str, rows: list[list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS[name])


def hpa_run(seed: int = 1) -> tuple[Recording, load.LoadResult]:
    """A load step and a ramp down on pods that serve 40 requests per second each; the HPA acts every 5 s."""
    profile = load.constant(8, 30) + load.constant(110, 80) + load.ramp(110, 8, 40) + load.constant(8, 90)
    rng = np.random.default_rng(seed)
    offset = 12.0
    replicas = desired = ready = 1
    arrivals_ready: list[tuple[float, int]] = []
    ups: list[tuple[float, int]] = []
    downs: list[tuple[float, int]] = []
    wished: list[tuple[float, int]] = []
    able, limited, seen = "ReadyForNewScale", "DesiredWithinRange", 20.0
    rows: list[list[Any]] = []
    deployments: list[list[Any]] = []
    capacity: list[tuple[float, int]] = []
    for second in range(int(profile.duration_s + offset)):
        t = float(second)
        while arrivals_ready and arrivals_ready[0][0] <= t:
            ready = arrivals_ready.pop(0)[1]
        ready = min(ready, replicas)
        capacity.append((t - offset, ready))
        rate = float(np.mean(profile.rate(np.linspace(t - offset - 12, t - offset, 9))))
        if second % 5 == 0:
            seen = min(200.0, 100 * rate / (40 * ready)) + rng.normal(0, 1.5)
            ratio = seen / 60
            wish = replicas if abs(ratio - 1) <= 0.1 else max(1, math.ceil(ready * ratio))
            wished = [(at, count) for at, count in wished if t - at < 60] + [(t, wish)]
            stable = max(count for _, count in wished) if wish < replicas else wish
            stable = min(stable, replicas) if wish < replicas else stable
            able = "ScaleDownStabilized" if stable != wish else "ReadyForNewScale"
            goal = stable
            if goal > replicas:
                limit = replicas + 2 - sum(count for at, count in ups if t - at < 15)
                limited = (
                    "ScaleUpLimit"
                    if goal > min(limit, 8) and limit < 8
                    else "TooManyReplicas"
                    if goal > 8
                    else "DesiredWithinRange"
                )
                goal = max(replicas, min(goal, limit, 8))
            elif goal < replicas:
                start = replicas + sum(count for at, count in downs if t - at < 15)
                floor = math.ceil(start * 0.5)
                limited = "ScaleDownLimit" if goal < floor else "DesiredWithinRange"
                goal = min(replicas, max(goal, floor))
            else:
                limited = "DesiredWithinRange"
            if goal != replicas:
                (ups if goal > replicas else downs).append((t, abs(goal - replicas)))
                able = "SucceededRescale"
                if goal > replicas:
                    arrivals_ready += [
                        (t + 3 + place, replicas + place + 1) for place in range(goal - replicas)
                    ]
                replicas = goal
            desired = goal
        rows.append(
            [
                t,
                "shop",
                "pricing",
                1,
                8,
                replicas,
                desired,
                round(seen),
                60.0,
                able,
                "ValidMetricFound",
                limited,
            ]
        )
        deployments.append(
            [t, "shop", "pricing", replicas, replicas, replicas, min(ready, replicas), "shop/pricing:v1"]
        )
    recording = Recording(
        STARTED, 1.0, hpas=table("hpas", rows), deployments=table("deployments", deployments),
        transitions=table("transitions", []), nodes=table("nodes", []), pods=table("pods", []),
    )  # fmt: skip
    return recording, served(profile, capacity, rng, STARTED + offset)


def served(
    profile: load.Profile, capacity: list[tuple[float, int]], rng: np.random.Generator, started: float
) -> load.LoadResult:
    """Requests through a queue with a server per pod; more than 3 s of waiting is a timeout."""
    times, counts = np.array(capacity).T
    free_at, rows = 0.0, []
    for arrival in profile.arrivals(seed=3):
        pods = max(1, counts[max(0, np.searchsorted(times, arrival) - 1)])
        work = rng.gamma(4, 1 / 4) / (40 * pods)
        free_at = max(free_at, arrival) + work
        latency = (free_at - arrival) * 1000 + rng.gamma(2, 4) + 8
        late = latency > 3000
        if late:
            free_at -= work
        rows.append(
            [
                arrival,
                min(latency, 3000),
                0.4,
                0 if late else 200,
                "timeout" if late else "",
                f"pricing-{rng.integers(pods)}",
                "v1",
                0.4,
                0.1,
            ]
        )
    return load.LoadResult(frame_of(rows, ["pod", "version"]), profile, started, 3.0, 200.0)


def rollout_run(failed: int = 0) -> load.LoadResult:
    """60 requests per second for 40 s; v1 to v2 between 10 and 16 s, and back between 26 and 31 s."""
    rng = np.random.default_rng(5)
    profile = load.constant(60, 40)
    rows = []
    for arrival in profile.arrivals(seed=5):
        share = np.interp(arrival, [10, 16, 26, 31], [0, 1, 1, 0])
        version = "v2" if rng.random() < share else "v1"
        rows.append(
            [
                arrival,
                rng.gamma(3, 3) + (4 if 10 < arrival < 16 else 0),
                0.3,
                200,
                "",
                f"web-{version}-{rng.integers(3)}",
                version,
                0.3,
                0.1,
            ]
        )
    for at in np.linspace(11, 14, failed):
        rows.append([at, 1.2, 0.3, 0, "refused", "", "", 0.3, 0.1])
    return load.LoadResult(frame_of(rows, ["pod", "version"]), profile, STARTED, 1.0, 40.0)


def pods_run() -> load.LoadResult:
    """Four pods share the load; one dies at 12 s and its replacement comes at 16 s."""
    rng = np.random.default_rng(6)
    profile = load.constant(80, 30)
    rows = []
    for arrival in profile.arrivals(seed=6):
        pods = ["web-7f4-b2x", "web-7f4-k9d", "web-7f4-qm5"] + (
            ["web-7f4-zz1"] if arrival < 12 else ["web-7f4-new"] if arrival > 16 else []
        )
        rows.append([arrival, rng.gamma(3, 2), 0.3, 200, "", pods[rng.integers(len(pods))], "v1", 0.3, 0.1])
    return load.LoadResult(frame_of(rows, ["pod", "version"]), profile, STARTED, 1.0, 30.0)


def node_run() -> Recording:
    """A node dies at 20 s, is NotReady at 31 s, its pods are evicted at 42 s, and it is back at 70 s."""
    changes: list[list[Any]] = []

    def change(t: float, kind: str, name: str, **facts: Any) -> None:
        space = "shop" if kind == "Pod" else ""
        changes.extend([t, kind, space, name, what, None, after] for what, after in facts.items())

    change(0, "Node", "worker-2", exists=True, ready="True", taints="")
    change(0, "Node", "worker-1", exists=True, ready="True", taints="")
    for number in (1, 2, 3):
        change(
            0,
            "Pod",
            f"web-{number}",
            exists=True,
            node="worker-2" if number < 3 else "worker-1",
            phase="Running",
            ready=True,
            terminating=False,
            owner="ReplicaSet/web-7f4",
        )
    change(
        31,
        "Node",
        "worker-2",
        ready="Unknown",
        taints="node.kubernetes.io/unreachable:NoExecute,node.kubernetes.io/unreachable:NoSchedule",
    )
    change(31.2, "Pod", "web-1", ready=False)
    change(31.2, "Pod", "web-2", ready=False)
    for number in (1, 2):
        change(42.0, "Pod", f"web-{number}", terminating=True)
        change(
            42.1,
            "Pod",
            f"web-{number + 3}",
            exists=True,
            node="",
            phase="Pending",
            ready=False,
            terminating=False,
            owner="ReplicaSet/web-7f4",
        )
        change(42.2, "Pod", f"web-{number + 3}", node="worker-1")
        change(43.4 + number / 2, "Pod", f"web-{number + 3}", phase="Running", ready=True)
        change(70.8, "Pod", f"web-{number}", exists=False)
    change(70, "Node", "worker-2", ready="True", taints="")
    changes.sort(key=lambda row: row[0])
    nodes = table("nodes", [[float(t), "", "worker-2", "True", "", False, ""] for t in range(86)])
    return Recording(STARTED, 1.0, nodes=nodes, transitions=table("transitions", changes))


def outage_run() -> Recording:
    """`node_run` with what else an outage is read from: the Deployment web of three, and worker-2's heartbeats."""
    run = node_run()
    more: list[list[Any]] = []
    counts = [(0, 3), (31.2, 1), (43.9, 2), (44.4, 3)]
    more += [[t, "Deployment", "shop", "web", "ready_replicas", None, count] for t, count in counts]
    more.append([0, "Deployment", "shop", "web", "replicas", None, 3])
    more.append([0, "ReplicaSet", "shop", "web-7f4", "owner", None, "Deployment/web"])
    more += [
        [t, "Lease", "kube-node-lease", "worker-2", "renewed_at", None, STARTED + t] for t in (0, 8, 18, 70.5)
    ]
    changes = pd.concat([run.transitions, table("transitions", more)]).sort_values("t_seconds", kind="stable")
    return Recording(run.started_at, 1.0, nodes=run.nodes, transitions=changes.reset_index(drop=True))
