"""`make bench`, side by side: the same figures of the embedded cluster and of kind, one after the other in one run.

python -m tests.bench providers
"""

from __future__ import annotations

import statistics
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import labkit
from labkit.cluster import Cluster
from labkit.cluster.kind.engine import Engine
from labkit.errors import LabkitError
from tests.cluster.helpers import Namespace, namespace, service, until
from tests.parity.behaviours import PROVIDERS
from tests.parity.conftest import IMAGE
from tests.parity.pods import python_deployment, server_deployment

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
REQUESTS = 300
Row = dict[str, str]


def measure(provider: str) -> Row:
    """All figures of one provider; its cluster is made for that, and removed."""
    begin = time.perf_counter()
    cluster = labkit.up("bench-side", provider, workers=2, listener=lambda _: None)
    try:
        row = {"control plane and 2 workers Ready, s": f"{time.perf_counter() - begin:.1f}"}
        time.sleep(20)
        row["memory at rest, MiB"] = f"{cluster.status().memory_bytes / MIB:.0f}"
        build = time.perf_counter()
        cluster.build_image(ROOT / "services/hello", IMAGE)
        row["an image built and given to the nodes, s"] = f"{time.perf_counter() - build:.1f}"
        with namespace(cluster, "bench") as space:
            row["pods created → Ready, 1 → 6 replicas, s"] = pods(space)
            row["latency of a Service from this machine, p50 and p99, ms"] = latency(cluster, space)
        with namespace(cluster, "bench") as space:
            row["HPA: load begins → first scale-up, s"] = reaction(space)
        down = time.perf_counter()
    finally:
        cluster.down()
    row["down, s"] = f"{time.perf_counter() - down:.1f}"
    return row


def pods(space: Namespace) -> str:
    """From `scale` until all replicas are Ready."""
    space.apply(server_deployment("web", 1), service("web", 80, 8080))
    space.rolled("deployment/web")
    begin = time.perf_counter()
    space.kubectl("scale", "deployment/web", "--replicas=6")
    space.rolled("deployment/web")
    return f"{time.perf_counter() - begin:.1f}"


def latency(cluster: Cluster, space: Namespace) -> str:
    """Requests one after the other, each with a connection of its own."""
    url, took = cluster.url("web", space.name), []
    for _ in range(REQUESTS):
        begin = time.perf_counter()
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
        took.append(1000 * (time.perf_counter() - begin))
    return f"{statistics.median(took):.1f} and {statistics.quantiles(took, n=100)[98]:.1f}"


def reaction(space: Namespace) -> str:
    """An idle Deployment with an autoscaler begins to burn CPU; until more replicas are asked for."""
    idle = "import os, signal, time\nwhile not os.path.exists('/tmp/go'): time.sleep(0.1)\nwhile True: pass"
    requests = {"resources": {"requests": {"cpu": "100m", "memory": "32Mi"}}}
    space.apply(python_deployment("busy", 1, idle, container=requests))
    space.rolled("deployment/busy")
    space.kubectl("autoscale", "deployment", "busy", "--cpu=50%", "--min=1", "--max=4")

    def knows() -> bool:
        status = space.get("hpa", "busy").get("status", {})
        metrics = status.get("currentMetrics") or [{}]
        return "current" in metrics[0].get("resource", {})

    until(knows, 180, "the autoscaler sees the pod", every=1)
    begin = time.perf_counter()
    (pod,) = space.items("pods", "app=busy")
    space.exec(pod["metadata"]["name"], "touch", "/tmp/go")
    until(lambda: space.get("deployment", "busy")["spec"]["replicas"] > 1, 120, "a scale-up", every=0.5)
    return f"{time.perf_counter() - begin:.0f}"


def side_by_side(add: Callable[[str, str], None]) -> None:
    """Tell `add` of each figure, for both providers; a provider that cannot run here says why."""
    rows: dict[str, Row] = {}
    for provider in PROVIDERS:
        try:
            if provider == "kind":
                Engine().info()
            rows[provider] = measure(provider)
        except LabkitError as err:
            add(provider, f"not measured: {err.message}")
    for figure in next(iter(rows.values()), {}):
        add(figure, " · ".join(f"{name} {row[figure]}" for name, row in rows.items()))
