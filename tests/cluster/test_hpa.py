"""`labkit hpa explain` on a running cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from labkit.cluster.base import Cluster
from labkit.hpa import Controller
from labkit.hpa.live import explain_live, seen_controller
from labkit.kube import Kube, NotFound

from .helpers import deployment, namespace

pytestmark = pytest.mark.cluster
BURN = "import time\nwhile True:\n t = time.time()\n while time.time() - t < 0.03: pass\n time.sleep(0.07)"


def autoscaler(name: str, percent: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "maxReplicas": 2,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def test_why_and_what_it_would_take(cluster: Cluster) -> None:
    with namespace(cluster, "hpa") as space:
        space.apply(
            deployment(
                "busy", 1, "python3", "-c", BURN, container={"resources": {"requests": {"cpu": "100m"}}}
            ),
            deployment("nameless", 1, "sleep", "600"),
            autoscaler("busy", 20),
            autoscaler("nameless", 50),
        )
        deadline = time.monotonic() + 120
        while True:
            busy = explain_live(cluster.kube, "busy", space.name)
            if busy.decision.before == 2 and not busy.problems:
                break
            assert time.monotonic() < deadline, str(busy)
            time.sleep(2)
        assert busy.headline.startswith(f"{space.name}/busy: Deployment busy has 2 replicas")
        assert "New size: 2" in busy.why[0]
        assert busy.grow == "not possible: maxReplicas 2 is reached."
        assert busy.shrink.startswith("cpu at 10 % of the request or less, 10m per pod (now ")

        (problem,) = [
            p for p in explain_live(cluster.kube, "nameless", space.name).problems if "request" in p
        ]
        assert "missing request for cpu in container main" in problem
        assert json.loads(command(cluster, space.name, "busy", "--json"))["grow"] == busy.grow
        with pytest.raises(NotFound):
            explain_live(cluster.kube, "nobody", space.name)


def test_it_counts_with_the_flags_of_the_controller_that_runs(cluster: Cluster) -> None:
    """The fixture's cluster has the embedded provider's 5, 10 and 5 s, not upstream's 15, 300 and 30."""
    line = cluster.controller_manager()
    assert "--horizontal-pod-autoscaler-cpu-initialization-period=10s" in line.words
    expected = Controller(5, initial_readiness_delay_s=5, cpu_initialization_period_s=10)
    for where in (cluster, cluster.kube, Kube(cluster.kubeconfig)):
        assert seen_controller(where) == (expected, line.source)
    with namespace(cluster, "hpa") as space:
        space.apply(deployment("calm", 1, "sleep", "600"), autoscaler("calm", 50))
        settings = json.loads(command(cluster, space.name, "calm", "--json"))["settings"]
    assert "a round every 5 s" in settings and "initial readiness delay 5 s" in settings
    assert "read from the kube-controller-manager that runs (process " in settings


def test_a_second_autoscaler_on_the_same_pods_is_told_as_the_controller_does(cluster: Cluster) -> None:
    with namespace(cluster, "hpa") as space:
        twin = autoscaler("second", 50)
        twin["spec"]["scaleTargetRef"]["name"] = "busy"
        space.apply(
            deployment("busy", 1, "sleep", "600", container={"resources": {"requests": {"cpu": "100m"}}}),
            autoscaler("busy", 20),
            twin,
        )
        cluster.kube.wait("Deployment", "busy", "rolled out", namespace=space.name)
        cluster.kube.wait("HPA", "second", "ScalingActive=False", namespace=space.name, timeout_s=60)

        def told(hpa: dict[str, Any]) -> bool:
            return "AmbiguousSelector" in json.dumps(hpa.get("status", {}))

        cluster.kube.wait("HPA", "second", told, namespace=space.name, timeout_s=60)
        found = explain_live(cluster, "second", space.name)
        assert found.decision.conditions["ScalingActive"] == "AmbiguousSelector"
        assert "AmbiguousSelector" in found.grow and "AmbiguousSelector" in found.problems[0]


def command(cluster: Cluster, where: str, *arguments: str) -> str:
    """The command's output, run as a user would."""
    code = "from labkit.hpa.cli import app; app()"
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    argv = [sys.executable, "-c", code, "explain", "--namespace", where, *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60).stdout
