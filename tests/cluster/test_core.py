"""labkit.kube, load, record and images on a running cluster: what the labs do with them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import load
from labkit.cluster.base import Cluster
from labkit.errors import KubeError, WaitTimeout
from labkit.kube import Conflict, Kube, NotFound, dig
from labkit.record import Recorder

from .helpers import HOST_IMAGE, Namespace, namespace

pytestmark = pytest.mark.cluster
SERVER = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("x-pod", os.environ["HOSTNAME"])
        self.send_header("x-version", os.environ.get("VERSION", "v1"))
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    with namespace(cluster, "core") as made:
        yield made


def kube_of(cluster: Cluster, space: Namespace) -> Kube:
    return Kube(cluster.kubeconfig, namespace=space.name)


def manifest(
    name: str, *command: str, replicas: int = 1, image: str = HOST_IMAGE, cpu: str = "10m", probe: int = 0
) -> str:
    """A Deployment as YAML, its pods run `command`."""
    ready = f"\n          readinessProbe: {{httpGet: {{port: {probe}}}, periodSeconds: 1}}" if probe else ""
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  progressDeadlineSeconds: 20
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: {image}
          command: {json.dumps(command)}
          resources: {{requests: {{cpu: {cpu}}}}}{ready}
"""


def late(kube: Kube, name: str, timeout_s: float = 20) -> str:
    """The hint of a rollout that does not come true."""
    with pytest.raises(WaitTimeout) as caught:
        kube.wait("Deployment", name, "rolled out", timeout_s=timeout_s)
    return caught.value.hint


def test_apply_wait_scale_restart_and_delete(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    kube.apply(manifest("web", "sleep", "600", replicas=2))
    web = kube.wait("Deployment", "web", "rolled out", timeout_s=60)
    assert dig(web, "status.readyReplicas") == 2
    assert dig(web, "metadata.managedFields[0].manager") == "labkit"
    kube.scale("Deployment", "web", 3)
    kube.wait("deploy", "web", "status.readyReplicas == 3", timeout_s=60)
    before = {pod["metadata"]["uid"] for pod in kube.list("Pod", labels="app=web")}
    kube.restart("Deployment", "web")
    kube.wait("Deployment", "web", "rolled out", timeout_s=60)
    pods = [pod for pod in kube.list("Pod", labels="app=web") if "deletionTimestamp" not in pod["metadata"]]
    assert not before & {pod["metadata"]["uid"] for pod in pods} and len(pods) == 3
    assert "rolled back" in kube.undo("Deployment", "web")
    kube.delete("Deployment", "web")
    assert kube.wait("Deployment", "web", "deleted", timeout_s=30) is None
    kube.delete("Deployment", "web")  # what is gone is no error
    assert kube.find("Deployment", "web") is None


def test_apply_twice_changes_nothing_and_create_twice_conflicts(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {a: b}\n"
    [first], [second] = kube.apply(text), kube.apply(text)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}})


def test_a_typo_is_refused_with_file_line_field_and_nothing_of_it_is_applied(
    cluster: Cluster, space: Namespace, tmp_path: Path
) -> None:
    kube = kube_of(cluster, space)
    file = tmp_path / "web.yaml"
    file.write_text(manifest("web", "true").replace("image:", "imagee:"))
    with pytest.raises(KubeError) as caught:
        kube.apply(file)
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "imagee" in text)
    assert f"{file}, line {line}, document 1 (Deployment web): there is no field" in caught.value.message
    assert "spec.template.spec.containers.imagee" in caught.value.message
    assert kube.find("Deployment", "web") is None
    with pytest.raises(NotFound, match="no kind 'Deploymentt'"):
        kube.apply(manifest("web", "true").replace("kind: Deployment", "kind: Deploymentt"))
    with pytest.raises(KubeError, match=r"spec\.replicas: expected numeric"):
        kube.apply(manifest("web", "true").replace("replicas: 1", "replicas: two"))


def test_custom_resources_can_follow_their_definition(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    group = f"{space.name}.labkit.test"
    definition = f"""\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: cups.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: cups, singular: cup, kind: Cup}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""
    cup = f"apiVersion: {group}/v1\nkind: Cup\nmetadata: {{name: mine}}\nsize: 3\n"
    try:
        kube.apply(f"{definition}---\n{cup}")
        assert kube.get(f"{group}/v1/Cup", "mine")["size"] == 3
    finally:
        kube.delete(definition)


def test_waiting_in_vain_names_the_reason(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    kube.apply(manifest("big", "sleep", "600", cpu="64"))
    kube.apply(manifest("unknown", "sleep", "600", image="shop/nothing:v9"))
    kube.apply(manifest("crash", "sh", "-c", "echo the disk is on fire; exit 3"))
    kube.apply(manifest("absent", "/no/such/program"))
    kube.apply(manifest("unready", "sleep", "600", probe=8080))
    hint = late(kube, "big", 10)
    assert "Insufficient cpu" in hint and "requests 64000 millicores" in hint and "largest node has" in hint
    assert "image shop/nothing:v9 cannot be pulled" in late(kube, "unknown", 10)
    kube.wait(
        "Pod",
        until=lambda pod: dig(pod, "status.containerStatuses[0].restartCount", 0) > 0,
        labels="app=crash",
    )
    hint = late(kube, "crash", 10)
    assert "exit code 3" in hint and "the disk is on fire" in hint
    assert "/no/such/program" in late(kube, "absent", 10)
    assert "Readiness probe failed" in late(kube, "unready", 10)


def test_a_rollout_over_its_own_deadline_ends_the_wait_early(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    kube.apply(
        manifest("stuck", "sleep", "600", image="shop/nothing:v9").replace("Seconds: 20", "Seconds: 3")
    )
    begin = time.monotonic()
    with pytest.raises(WaitTimeout, match="progress deadline"):
        kube.wait("Deployment", "stuck", "rolled out", timeout_s=60)
    assert time.monotonic() - begin < 30


def test_a_failed_job_ends_the_wait_early(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    container = {"name": "main", "image": HOST_IMAGE, "command": ["false"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
    kube.apply({**job, "spec": {"backoffLimit": 0, "template": template}})
    begin = time.monotonic()
    with pytest.raises(WaitTimeout, match="backoff limit"):
        kube.wait("Job", "job", "Complete", timeout_s=60)
    assert time.monotonic() - begin < 30


def test_logs_are_read_and_followed_and_commands_executed(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    kube.apply(manifest("talk", "sh", "-c", "for i in $(seq 100); do echo line $i; sleep 0.2; done"))
    kube.wait("Deployment", "talk", "Available", timeout_s=60)
    name = kube.list("Pod", labels="app=talk")[0]["metadata"]["name"]
    assert kube.logs(name).startswith("line 1\n")
    lines = list(kube.follow_logs(name, timeout_s=3))
    assert lines[0] == "line 1" and len(lines) > 8
    result = kube.exec(name, ["sh", "-c", "echo out; echo err >&2"])
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)
    assert kube.exec(name, ["sh", "-c", "exit 7"], check=False).exit_code == 7
    with pytest.raises(KubeError, match="exit code 7"):
        kube.exec(name, ["sh", "-c", "exit 7"])
    with pytest.raises(KubeError, match="did not end within"):
        kube.exec(name, ["sleep", "30"], timeout_s=1)


def test_watch_and_requests_survive_a_killed_api_server(cluster: Cluster, space: Namespace) -> None:
    kube = kube_of(cluster, space)
    kube.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {n: '0'}\n")
    seen: list[str] = []
    watch = kube.watch("ConfigMap", "cm", timeout_s=60)
    thread = threading.Thread(target=lambda: seen.extend(e.object["data"]["n"] for e in watch))
    thread.start()
    pid = next(part.pid for part in cluster.status().components if part.name == "kube-apiserver")
    for number in range(1, 4):
        kube.patch("ConfigMap", "cm", {"data": {"n": str(number)}})
        if number == 1:
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and "3" not in seen:
        time.sleep(0.1)
    watch.close()
    thread.join(10)
    assert seen[-1] == "3" and seen == sorted(seen) and not thread.is_alive()


def serve(cluster: Cluster, space: Namespace, replicas: int) -> str:
    """A Service of `replicas` pods that name themselves; returns its URL."""
    kube = kube_of(cluster, space)
    kube.apply(manifest("web", "python3", "-c", SERVER, replicas=replicas, probe=8080))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    kube.apply({**service, "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080}]}})
    kube.wait("Deployment", "web", "rolled out", timeout_s=90)
    return cluster.url("web", namespace=space.name)


def test_load_through_a_service_reaches_every_pod(cluster: Cluster, space: Namespace) -> None:
    result = load.run(serve(cluster, space, 3), load.constant(40, 5))
    summary = result.summary()
    assert summary.failed == 0
    counts = result.requests["pod"].value_counts()
    assert len(counts) == 3 and counts.min() > 0.15 * counts.sum()


def test_recorder_sees_a_scale_up_sample_by_sample_and_by_transition(
    cluster: Cluster, space: Namespace
) -> None:
    url = serve(cluster, space, 1)
    kube = kube_of(cluster, space)
    with Recorder(kube, namespaces=[space.name], interval_s=0.5) as recorder:
        with load.start(url, load.constant(5, 60)):
            kube.scale("Deployment", "web", 3)
            kube.wait("Deployment", "web", "rolled out", timeout_s=60)
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline and recorder.recording().usage.empty:
                time.sleep(0.5)
        recording = recorder.stop()
    assert (
        recording.deployments["ready_replicas"].iloc[0] == 1
        and recording.deployments["ready_replicas"].iloc[-1] == 3
    )
    ready = recording.transitions.query("kind == 'Pod' and what == 'ready' and after == True")
    assert ready["name"].nunique() == 3
    assert (recording.nodes["ready"] == "True").all() and recording.nodes["name"].nunique() >= 1
    assert (recording.usage["cpu_millicores"] >= 0).all() and len(recording.usage)
    assert set(recording.gaps["source"]) <= {"usage", "node_usage"}


def test_images_are_built_and_run(cluster: Cluster, space: Namespace, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SERVER)
    (tmp_path / "Dockerfile").write_text(
        'FROM python:3.11\nWORKDIR /app\nCOPY main.py .\nENV VERSION=v7\nCMD ["python", "main.py"]\n'
    )
    cluster.build_image(tmp_path, f"{space.name}/web:v7")
    kube = kube_of(cluster, space)
    text = manifest("web", "x", image=f"{space.name}/web:v7", probe=8080)
    kube.apply("\n".join(line for line in text.splitlines() if "command:" not in line) + "\n")
    kube.wait("Deployment", "web", "rolled out", timeout_s=60)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    kube.apply({**service, "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080}]}})
    slices = "kubernetes.io/service-name=web"
    kube.wait("EndpointSlice", until=lambda each: bool(each["endpoints"]), labels=slices, timeout_s=20)
    result = load.run(cluster.url("web", namespace=space.name), load.constant(10, 2))
    assert set(result.requests.loc[~result.requests["failed"], "version"]) == {"v7"}
