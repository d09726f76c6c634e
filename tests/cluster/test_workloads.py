"""Workload controllers and what they promise: Deployments, StatefulSets, DaemonSets, Jobs, CronJobs, garbage collection."""

from __future__ import annotations

import json

import pytest

from labkit.cluster.base import Cluster

from .helpers import HOST_IMAGE, Namespace, container, deployment, namespace, pod, service, until

pytestmark = pytest.mark.cluster


def names(space: Namespace, kind: str, selector: str = "") -> set[str]:
    """Names of the objects of a kind."""
    return {item["metadata"]["name"] for item in space.items(kind, selector)}


def test_deployment_rolls_forward_and_back(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(deployment("web", 2, container={"env": [{"name": "VERSION", "value": "1"}]}))
        space.rolled("deployment/web")
        space.kubectl("set", "env", "deployment/web", "VERSION=2")
        space.rolled("deployment/web")
        assert space.kubectl("exec", "deployment/web", "--", "printenv", "VERSION").strip() == "2"
        space.kubectl("rollout", "undo", "deployment/web")
        space.rolled("deployment/web")
        assert space.kubectl("exec", "deployment/web", "--", "printenv", "VERSION").strip() == "1"
        assert space.kubectl("rollout", "history", "deployment/web").count("<none>") == 2


def test_a_bad_rollout_leaves_the_old_pods_serving(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(deployment("web", 2))
        space.rolled("deployment/web")
        space.kubectl("set", "image", "deployment/web", "main=shop/never-built:v9")
        waiting = until(lambda: pull_failure(space), 60, "a pod waits for its image")
        assert "shop/never-built:v9" in waiting
        assert space.get("deployment", "web")["status"]["availableReplicas"] == 2


def pull_failure(space: Namespace) -> str:
    """Message of a container that waits in ImagePullBackOff."""
    for item in space.items("pods"):
        for status in item["status"].get("containerStatuses", []):
            waiting = status["state"].get("waiting", {})
            if waiting.get("reason") == "ImagePullBackOff":
                return str(waiting["message"])
    return ""


def test_statefulset_has_stable_names_dns_and_storage(cluster: Cluster) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    keep = "echo $HOSTNAME >> /data/names; exec python3 -m http.server 8000 --directory /data"
    spec = {
        "serviceName": "store",
        "replicas": 2,
        "selector": {"matchLabels": {"app": "store"}},
        "template": {
            "metadata": {"labels": {"app": "store"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    container(
                        "main", "sh", "-c", keep,
                        volumeMounts=[{"name": "data", "mountPath": "/data"}],
                        readinessProbe={"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                    )
                ],
            },
        },
        "volumeClaimTemplates": [claim],
    }  # fmt: skip
    store = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "store"}, "spec": spec}
    with namespace(cluster) as space:
        space.apply(store, service("store", 8000, 8000, clusterIP="None"))
        space.rolled("statefulset/store")
        assert names(space, "pods") == {"store-0", "store-1"}
        space.run("client")
        fetch = ("curl", "-sS", "--max-time", "5", "http://store-1.store:8000/names")
        assert until(lambda: space.exec("client", *fetch), 20, "DNS of store-1").split() == ["store-1"]
        space.kubectl("delete", "pod", "store-1")
        space.rolled("statefulset/store")
        answer = until(
            lambda: space.kubectl("exec", "client", "--", *fetch, check=False), 20, "store-1 again"
        )
        assert answer.split() == ["store-1", "store-1"]


def test_daemonset_runs_on_every_node(cluster: Cluster) -> None:
    template = pod("agent")
    body = {"metadata": {"labels": {"app": "agent"}}, "spec": template["spec"]}
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": body}
    with namespace(cluster) as space:
        space.apply(
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": spec}
        )
        space.rolled("daemonset/agent")
        nodes = set(cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split())
        assert {item["spec"]["nodeName"] for item in space.items("pods")} == nodes


def test_jobs_complete_and_give_up(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(job("fine", ["sh", "-c", "echo done by $HOSTNAME"], completions=3, parallelism=2))
        space.apply(job("broken", ["sh", "-c", "echo cannot; exit 3"], backoffLimit=1))
        space.kubectl("wait", "--for=condition=Complete", "job/fine", "--timeout=60s")
        logs = space.kubectl("logs", "-l", "job-name=fine", "--tail=-1")
        assert logs.count("done by fine-") == 3
        space.kubectl("wait", "--for=condition=Failed", "job/broken", "--timeout=90s")
        codes = [state_of(item)["terminated"]["exitCode"] for item in space.items("pods", "job-name=broken")]
        assert codes == [3, 3]


def test_cronjob_starts_on_its_schedule(cluster: Cluster) -> None:
    template = job("tick", ["echo", "tick"])["spec"]
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": template}}
    with namespace(cluster) as space:
        space.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec})
        space.kubectl("create", "job", "by-hand", "--from=cronjob/tick")
        space.kubectl("wait", "--for=condition=Complete", "job/by-hand", "--timeout=30s")
        by_clock = until(lambda: names(space, "jobs") - {"by-hand"}, 75, "the minute's job", every=1)
        space.kubectl("wait", "--for=condition=Complete", f"job/{by_clock.pop()}", "--timeout=30s")


def test_owned_objects_go_with_their_owner(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(deployment("web", 2))
        space.rolled("deployment/web")
        space.kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=30s")
        until(
            lambda: not names(space, "pods") and not names(space, "replicasets"),
            30,
            "pods and ReplicaSets are gone",
        )


def test_a_pod_too_big_for_any_node_says_so(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(pod("huge", container={"resources": {"requests": {"cpu": "64"}}}))
        condition = until(lambda: unscheduled(space), 20, "the scheduler's verdict")
        assert "Insufficient cpu" in condition


def unscheduled(space: Namespace) -> str:
    """Message of PodScheduled=False of pod huge."""
    conditions = space.get("pod", "huge")["status"].get("conditions", [])
    return next(
        (c["message"] for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), ""
    )


def job(name: str, command: list[str], **spec: int) -> dict[str, object]:
    """A Job whose pods run `command` once."""
    body = {
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": HOST_IMAGE, "command": command}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": body}},
    }


def state_of(item: dict[str, object]) -> dict[str, dict[str, int]]:
    """State of a pod's only container."""
    return json.loads(json.dumps(item))["status"]["containerStatuses"][0]["state"]  # type: ignore[no-any-return]
