"""Random autoscalers and what they meet, for comparing the model with the upstream controller."""

from __future__ import annotations

import random
from typing import Any

Json = dict[str, Any]
SOURCE_FIELDS = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def rules(r: random.Random, wild: bool) -> Json:
    """One direction of spec.behavior; what is left out is defaulted."""
    found: Json = {}
    values = [1, 2, 3, 4, 10, 25, 50, 100, 150, 300] + ([2**31 - 1, 10**9] if wild else [])
    if r.random() < 0.8:
        found["stabilizationWindowSeconds"] = r.choice([0, 15, 30, 60, 120, 300, 3600])
    if r.random() < 0.7:
        found["selectPolicy"] = r.choice(["Max", "Max", "Min", "Min", "Disabled"])
    if r.random() < 0.8:
        found["policies"] = [
            {
                "type": r.choice(["Pods", "Percent"]),
                "value": r.choice(values),
                "periodSeconds": r.choice([1, 15, 30, 60, 120, 300, 1800]),
            }
            for _ in range(r.randint(1, 3))
        ]
    if r.random() < 0.4:
        found["tolerance"] = r.choice(["0", "0.05", "0.1", "300m", "0.3", "1", "0.015", "2"])
    return found


def target(r: random.Random, kinds: str) -> Json:
    kind = r.choice(kinds)
    if kind == "u":
        percent = r.choice([1, 10, 20, 50, 60, 70, 80, 100, 150, 200])
        return {"type": "Utilization", "averageUtilization": percent}
    amount = r.choice(["100m", "1", "250m", "500", "30", "3"])
    if kind == "a":
        return {"type": "AverageValue", "averageValue": amount}
    return {"type": "Value", "value": amount}


def metric(r: random.Random, i: int) -> Json:
    source = r.choice(["Resource"] * 4 + ["ContainerResource", "Pods", "Object", "External"])
    name = {"name": f"m{i}"}
    body: Json
    if source == "Resource":
        body = {"name": r.choice(["cpu", "cpu", "cpu", "memory"]), "target": target(r, "uua")}
    elif source == "ContainerResource":
        container = r.choice(["c", "c", "side", "nope"])
        body = {"name": r.choice(["cpu", "memory"]), "container": container, "target": target(r, "uua")}
    elif source == "Object":
        thing = {"kind": "Ingress", "name": "x", "apiVersion": "networking.k8s.io/v1"}
        body = {"metric": name, "describedObject": thing, "target": target(r, "av")}
    else:
        body = {"metric": name, "target": target(r, "a" if source == "Pods" else "av")}
    return {"type": source, SOURCE_FIELDS[source]: body}


def key_of(entry: Json) -> str:
    """The name by which a metric's reading is found."""
    body = entry[SOURCE_FIELDS[entry["type"]]]
    return f"{body.get('name') or body['metric']['name']}/{body.get('container', '')}"


class Case:
    """An autoscaler, and the rounds it lives through; `meet` makes up each round as it comes."""

    def __init__(self, r: random.Random, wild: bool = False) -> None:
        self.r, self.wild = r, wild
        metrics = [metric(r, i) for i in range(r.choice([1, 1, 1, 2, 3]))]
        zero = any(m["type"] in ("Object", "External") for m in metrics)
        low = r.choice([1, 1, 2, 3] + ([0] * 4 if zero else []))
        high = low + r.randint(0 if low else 1, 40)
        spec: Json = {"minReplicas": low, "maxReplicas": high, "metrics": metrics}
        if r.random() < 0.6:
            spec["behavior"] = {n: rules(r, wild) for n in ("scaleUp", "scaleDown") if r.random() < 0.8}
        self.json: Json = {
            "spec": spec,
            "tolerance": r.choice([0, 0.1, 0.1, 0.05, 0.3]),
            "downscale_stabilization_s": r.choice([0, 30, 60, 300]),
            "cpu_initialization_period_s": r.choice([0, 10, 120, 300]),
            "initial_readiness_delay_s": r.choice([0, 5, 10, 30]),
            "rounds": [],
        }
        self.requests = r.choice(["ok"] * 6 + ["missing", "pod", "pod in part", "zero"])
        self.sidecar, self.base = r.random() < 0.2, r.choice([50, 100, 250, 500])
        self.trouble, self.level = r.choice([0, 0, 0.1, 0.4]), r.choice([0.1, 0.5, 1, 1.5, 3])

    def meet(self, replicas: int) -> Json:
        """The next round, for a target that now has so many replicas."""
        r, spec, first = self.r, self.json["spec"], not self.json["rounds"]
        turn: Json = {"dt": r.choice([5, 15, 15, 15, 20, 60, 0.5])}
        low, high = spec["minReplicas"], spec["maxReplicas"]
        if first or r.random() < 0.06:
            turn["replicas"] = r.choice([low, high, r.randint(0, high + 3), r.randint(1, high)])
        if r.random() < 0.15:
            turn["status"] = r.randint(0, high + 3)
        if r.random() < 0.03:
            turn["rival"] = True
        self.level = min(max(self.level * r.choice([1, 1, 1, 0.5, 1.3, 2, 0.8, 0.1]), 0.01), 20)
        count = r.choice([turn.get("replicas", replicas)] * 6 + [0, 1, 2, 5, 12])
        pods = [self.pod(i) for i in range(count)]
        turn["readings"] = self.readings(pods)
        turn["pods"] = [{k: v for k, v in pod.items() if k != "silent"} for pod in pods]
        self.json["rounds"].append(turn)
        return turn

    def pod(self, i: int) -> Json:
        """A pod; with some probability one of the troubles that pods have."""
        r = self.r
        pod: Json = {"name": f"p{i}", "phase": "Running", "deleting": False, "ready": "True"}
        pod |= {"ready_age": 900.5, "age": 1000.5}
        if r.random() < self.trouble:
            pod |= self.troubled()
        own = {"cpu": f"{self.base}m", "memory": f"{self.base}Mi"}
        if self.requests == "missing" and r.random() < 0.3:
            del own[r.choice(["cpu", "memory"])]
        if self.requests == "zero":
            own = {"cpu": "0", "memory": "0"}
        pod["containers"] = [{"name": "c", "requests": own}]
        if self.sidecar:
            beside = {"cpu": "10m", "memory": "1Mi"} if r.random() < 0.9 else {}
            pod["containers"].append({"name": "side", "requests": beside, "sidecar": True})
        if self.requests == "pod":
            pod["pod_requests"] = {"cpu": "300m", "memory": "100Mi"}
        if self.requests == "pod in part":
            pod["pod_requests"] = r.choice([{"memory": "100Mi"}, {"cpu": "200m"}])
        return pod

    def troubled(self) -> Json:
        r = self.r
        age = r.choice([5.5, 10, 40.5, 120, 119.5, 200.5, 300])
        old = r.choice([40.0, 200.0, 1000.0])
        return r.choice(
            [
                {"phase": "Pending", "ready": r.choice([None, "False"]), "age": r.choice([None, 3.5])},
                {"phase": "Failed"},
                {"phase": r.choice(["Succeeded", "Unknown", ""])},
                {"deleting": True},
                {"ready": r.choice(["False", "Unknown", None])},
                {
                    "age": r.choice([age, age, age, None]),
                    "ready": r.choice(["False", "True", "True", "Unknown"]),
                    "ready_age": age * r.choice([0, 0.1, 0.2, 0.5, 0.9, 0.99, 1]),
                },
                {
                    "age": old,
                    "ready_age": old - r.choice([0, 5, 10, 30, 31]),
                    "ready": r.choice(["False", "True"]),
                },
                {"silent": True},
            ]
        )

    def readings(self, pods: list[Json]) -> list[Json]:
        found: dict[str, Json] = {}
        for entry in self.json["spec"]["metrics"]:
            if key_of(entry) not in found:
                found[key_of(entry)] = {"key": key_of(entry), **self.reading(entry, pods)}
        return list(found.values())

    def reading(self, entry: Json, pods: list[Json]) -> Json:
        r = self.r
        if r.random() < 0.07:
            return {"error": "api down"}
        if entry["type"] == "Object":
            sign = r.choice([1, 1, 1, 0, -1 if self.wild else 1])
            return {"value": sign * self.total()}
        if entry["type"] == "External":
            return {"values": [self.total() for _ in range(r.randint(1, 3))]}
        memory = key_of(entry).startswith("memory")
        unit = self.base * (2**20 * 1000 if memory else 1)
        if entry["type"] == "Pods":
            unit = r.choice([100, 1000])
        found = {}
        for pod in pods:
            if pod.get("silent") or (pod["phase"] == "Pending" and r.random() < 0.8):
                continue
            value = int(unit * self.level * r.uniform(0.8, 1.2))
            if self.wild and r.random() < 0.05:
                value = max(-(2**62), min(value * r.choice([-1, 10**6, 10**10]), 2**62))
            found[pod["name"]] = {
                "value": value,
                "age": r.choice([10.5, 5, 30]),
                "window": r.choice([30, 15, 10]),
            }
        if r.random() < 0.05:
            found["stranger"] = {"value": unit, "age": 1, "window": 30}
        return {"pods": found}

    def total(self) -> int:
        huge = 2**62 if self.wild and self.r.random() < 0.05 else 1
        value = int(self.r.choice([100, 1000, 30_000, 500_000]) * self.level * self.r.random() * huge)
        return min(value, 2**62)
