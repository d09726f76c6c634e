"""Pods and what controls them."""

from __future__ import annotations

import subprocess
import time

import pytest

from labkit.errors import KubeError
from labkit.tools import kubectl
from tests.cluster.helpers import Namespace, until
from tests.parity.behaviours import behaviour
from tests.parity.pods import python_deployment, python_pod, server_deployment


@behaviour("A rolling update replaces all pods, and `rollout undo` brings the old ones back")
def test_rollout_and_rollback(space: Namespace) -> None:
    space.apply(server_deployment("web", 3, "v1"))
    space.rolled("deployment/web")
    space.apply(server_deployment("web", 3, "v2"))
    space.rolled("deployment/web")
    assert versions(space) == {"v2"}
    space.kubectl("rollout", "undo", "deployment/web")
    space.rolled("deployment/web")
    assert versions(space) == {"v1"}


def versions(space: Namespace) -> set[str]:
    """VERSION of the pods that are not on their way out."""
    pods = [p for p in space.items("pods") if "deletionTimestamp" not in p["metadata"]]
    return {p["spec"]["containers"][0]["env"][0]["value"] for p in pods}


@behaviour("A container whose liveness probe fails is restarted in its pod")
def test_liveness(space: Namespace) -> None:
    probe = {
        "exec": {"command": ["python", "-c", "raise SystemExit(1)"]},
        "periodSeconds": 1,
        "failureThreshold": 2,
    }
    space.apply(python_pod("ill", container={"livenessProbe": probe}))
    before = until(lambda: space.get("pod", "ill")["metadata"]["uid"], 20, "the pod")
    until(lambda: restarts(space, "ill") >= 1, 60, "a restart")
    assert space.get("pod", "ill")["metadata"]["uid"] == before


def restarts(space: Namespace, name: str) -> int:
    """How often a pod's container was started again."""
    return int(space.get("pod", name)["status"]["containerStatuses"][0]["restartCount"])


@behaviour("A pod that is not ready gets no requests, and gets them when it is")
def test_readiness(space: Namespace) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    touch = "import os, signal; os.path.exists('/tmp/ready') and os.remove('/tmp/ready'); signal.sigwait([signal.SIGTERM])"
    space.apply(python_pod("slow", touch, container={"readinessProbe": probe}))
    space.kubectl("expose", "pod", "slow", "--port", "80")
    until(lambda: space.get("pod", "slow")["status"]["phase"] == "Running", 60, "the pod runs")
    assert not addresses(space, "slow")
    space.exec("slow", "touch", "/tmp/ready")
    until(lambda: addresses(space, "slow"), 30, "an endpoint")


def addresses(space: Namespace, service: str) -> list[str]:
    """Ready addresses of a Service."""
    slices = space.items("endpointslices", f"kubernetes.io/service-name={service}")
    ends = [end for each in slices for end in each.get("endpoints") or []]
    return [address for end in ends if end["conditions"].get("ready") for address in end["addresses"]]


@behaviour("`kubectl exec` runs a command in a pod and hands on its exit code")
def test_exec(space: Namespace) -> None:
    space.apply(python_pod("one"))
    space.ready("one")
    assert space.exec("one", "python", "-c", "print(6 * 7)").strip() == "42"
    with pytest.raises(KubeError, match="exit code 7"):
        space.exec("one", "sh", "-c", "exit 7")


@behaviour("`kubectl logs` shows what a container writes, and `--previous` what the one before it wrote")
def test_logs(space: Namespace) -> None:
    program = "import os, time, pathlib; print('round', os.getpid(), flush=True); time.sleep(2); raise SystemExit(3)"
    space.apply(python_pod("talks", program))
    until(lambda: restarts(space, "talks") >= 1, 60, "a restart")
    assert "round" in until(lambda: space.kubectl("logs", "talks", "--previous", check=False), 20, "its log")


@behaviour("A Job runs to completion and counts")
def test_job(space: Namespace) -> None:
    template = python_pod("job", "print('done')", restartPolicy="Never")
    spec = {"completions": 3, "parallelism": 2, "template": {"spec": template["spec"]}}
    space.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec})
    space.kubectl("wait", "--for=condition=Complete", "job/job", "--timeout=90s")
    assert space.get("job", "job")["status"]["succeeded"] == 3


@behaviour("A StatefulSet gives its pods names that stay, each found by DNS")
def test_stateful_set(space: Namespace) -> None:
    template = server_deployment("db", 2)["spec"]
    spec = {**template, "serviceName": "db"}
    headless = {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 8080}]}
    space.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": headless},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec},
    )
    space.rolled("statefulset/db")
    look = "import socket; print(socket.gethostbyname('db-1.db'))"
    address = space.get("pod", "db-1")["status"]["podIP"]
    until(lambda: space.exec("db-0", "python", "-c", look).strip() == address, 40, "db-1 by its name")


@behaviour("A DaemonSet has a pod on every worker")
def test_daemon_set(space: Namespace) -> None:
    template = python_deployment("each", 1, "import signal; signal.sigwait([signal.SIGTERM])")["spec"]
    spec = {key: template[key] for key in ("selector", "template")}
    space.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "each"}, "spec": spec})
    space.rolled("daemonset/each")
    names = {p["spec"]["nodeName"] for p in space.items("pods")}
    assert names == {node.name for node in space.cluster.workers()}


@behaviour("Init containers run one after the other, before the others")
def test_init_containers(space: Namespace) -> None:
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    write = "open('/shared/note', 'a').write('{} ')"
    inits = [
        python_pod(f"i{n}", write.format(n), container=mount)["spec"]["containers"][0] | {"name": f"i{n}"}
        for n in (1, 2)
    ]
    volumes = [{"name": "shared", "emptyDir": {}}]
    space.apply(python_pod("after", container=mount, initContainers=inits, volumes=volumes))
    space.ready("after")
    assert space.exec("after", "cat", "/shared/note").split() == ["1", "2"]


@behaviour("A pod that ends gets SIGTERM, and the time it asks for")
def test_graceful_end(space: Namespace) -> None:
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(2); print('in good order', flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True)\n"
        "while True: time.sleep(0.1)"
    )
    space.apply(python_pod("polite", program, terminationGracePeriodSeconds=20))
    space.ready("polite")
    follow = follow_log(space, "polite")
    assert follow.stdout and follow.stdout.readline().strip() == "up"
    space.kubectl("delete", "pod", "polite", "--timeout=40s")
    assert "in good order" in follow.communicate(timeout=30)[0]


@behaviour("A program without a handler for SIGTERM goes on until its grace period is over")
def test_the_first_process_ignores(space: Namespace) -> None:
    program = (
        "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.2); print(time.time(), flush=True)"
    )
    space.apply(python_pod("deaf", program, terminationGracePeriodSeconds=5))
    space.ready("deaf")
    follow = follow_log(space, "deaf")
    assert follow.stdout and follow.stdout.readline().strip() == "up"
    begin = time.time()
    space.kubectl("delete", "pod", "deaf", "--timeout=60s")
    last = max(float(line) for line in follow.communicate(timeout=30)[0].splitlines() if line[:1].isdigit())
    assert last - begin > 3, f"it ended {last - begin:.1f} s after its deletion began"


def follow_log(space: Namespace, name: str) -> subprocess.Popen[str]:
    """`kubectl logs -f` of a pod."""
    argv = [
        str(kubectl()),
        "--kubeconfig",
        str(space.cluster.kubeconfig),
        "-n",
        space.name,
        "logs",
        "-f",
        name,
    ]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@behaviour("An image that is not there leaves a pod in ImagePullBackOff")
def test_unknown_image(space: Namespace) -> None:
    space.apply(
        python_pod("none", container={"image": "parity/nobody:v0", "imagePullPolicy": "IfNotPresent"})
    )

    def reason() -> bool:
        status = space.get("pod", "none")["status"]["containerStatuses"][0]
        return status["state"].get("waiting", {}).get("reason") in ("ImagePullBackOff", "ErrImagePull")

    until(reason, 90, "ImagePullBackOff")


@behaviour("A ResourceQuota refuses what goes beyond it")
def test_quota(space: Namespace) -> None:
    spec = {"hard": {"pods": "1"}}
    space.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": spec})
    until(lambda: space.get("resourcequota", "few").get("status", {}).get("hard"), 20, "the quota counts")
    space.apply(python_pod("first"))
    with pytest.raises(KubeError, match="exceeded quota"):
        space.apply(python_pod("second"))


@behaviour("In a pod the API server is asked with the pod's own token, and RBAC decides")
def test_service_account(space: Namespace) -> None:
    program = (
        "import os, ssl, urllib.request, urllib.error\n"
        "home = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "host = os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT']\n"
        "tls = ssl.create_default_context(cafile=home + 'ca.crt')\n"
        "tls.check_hostname = True\n"
        "def ask(what):\n"
        "    url = f'https://{host}/api/v1/namespaces/' + open(home + 'namespace').read() + '/' + what\n"
        "    head = {'Authorization': 'Bearer ' + open(home + 'token').read()}\n"
        "    try: return urllib.request.urlopen(urllib.request.Request(url, headers=head), context=tls).status\n"
        "    except urllib.error.HTTPError as err: return err.code\n"
        "print(ask('pods'), ask('secrets'))"
    )
    space.kubectl("create", "role", "looks", "--verb=list", "--resource=pods")
    space.kubectl("create", "rolebinding", "looks", "--role=looks", f"--serviceaccount={space.name}:default")
    space.apply(python_pod("asks"))
    space.ready("asks")
    assert space.exec("asks", "python", "-c", program).split() == ["200", "403"]
