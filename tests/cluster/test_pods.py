"""What the kubelet and the process runtime do for a pod: start order, hooks, probes, environment, volumes, restarts."""

from __future__ import annotations

import time

import pytest

from labkit.cluster.base import Cluster
from labkit.images import ImageStore, from_files

from .helpers import Namespace, config_map, container, namespace, pod, until

pytestmark = pytest.mark.cluster
SERVE = ("python3", "-m", "http.server", "8080")


def status(space: Namespace, name: str) -> dict[str, object]:
    """Status of a pod's first container."""
    return space.get("pod", name)["status"]["containerStatuses"][0]  # type: ignore[no-any-return]


def test_init_and_sidecar_containers_start_in_order(cluster: Cluster) -> None:
    shared = [{"name": "shared", "mountPath": "/shared"}]
    sidecar = container(
        "sidecar", "sh", "-c", "echo sidecar >> /shared/order; sleep 600",
        restartPolicy="Always", volumeMounts=shared,
        startupProbe={"exec": {"command": ["grep", "sidecar", "/shared/order"]}, "periodSeconds": 1},
    )  # fmt: skip
    first = container("first", "sh", "-c", "sleep 0.5; echo first >> /shared/order", volumeMounts=shared)
    main = {"volumeMounts": shared}
    with namespace(cluster) as space:
        space.apply(
            pod(
                "staged", "sh", "-c", "echo main >> /shared/order; sleep 600",
                initContainers=[first, sidecar], volumes=[{"name": "shared", "emptyDir": {}}], container=main,
            )
        )  # fmt: skip
        space.ready("staged")
        assert space.exec("staged", "cat", "/shared/order").split() == ["first", "sidecar", "main"]
        assert space.kubectl("get", "pod", "staged", "--no-headers").split()[1] == "2/2"


def test_lifecycle_hooks_and_graceful_termination(cluster: Cluster) -> None:
    trap = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: (print('got SIGTERM', flush=True), time.sleep(1), exit(0)))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.1)"
    )
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /tmp/hook"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1 2>/dev/null; sleep 0.5"]}},
    }
    with namespace(cluster) as space:
        space.apply(pod("polite", "python3", "-u", "-c", trap, container={"lifecycle": hooks}))
        space.ready("polite")
        assert space.exec("polite", "cat", "/tmp/hook").strip() == "started"
        begin = time.monotonic()
        space.kubectl("delete", "pod", "polite")
        assert 1.4 < time.monotonic() - begin < 5, (
            "preStop and the handler were waited for, the grace period was not used up"
        )


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace_period(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.run(
            "stubborn",
            "sh",
            "-c",
            "trap '' TERM; while :; do sleep 0.2; done",
            terminationGracePeriodSeconds=2,
        )
        begin = time.monotonic()
        space.kubectl("delete", "pod", "stubborn")
        assert 1.8 < time.monotonic() - begin < 8


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["test", "-e", "/tmp/healthy"]}},
        {"httpGet": {"path": "/healthy", "port": 8080}},
        {"tcpSocket": {"port": 8080}},
    ],
    ids=["exec", "http", "tcp"],
)
def test_readiness_follows_the_probe(cluster: Cluster, probe: dict[str, object]) -> None:
    """The probe fails at first, passes once the state changes, and fails again after it changed back."""
    script = "cd /tmp; while :; do if [ -e /tmp/healthy ]; then python3 -m http.server 8080 & p=$!; while [ -e /tmp/healthy ]; do sleep 0.1; done; kill $p; wait; fi; sleep 0.1; done"
    with namespace(cluster) as space:
        checked = {"readinessProbe": {**probe, "periodSeconds": 1, "failureThreshold": 1}}
        space.apply(pod("probed", "sh", "-c", script, container=checked))
        until(lambda: "running" in status(space, "probed")["state"], 20, "running")  # type: ignore[operator]
        time.sleep(1.5)
        assert status(space, "probed")["ready"] is False
        space.exec("probed", "touch", "/tmp/healthy")
        until(lambda: status(space, "probed")["ready"], 10, "ready")
        space.exec("probed", "rm", "/tmp/healthy")
        until(lambda: not status(space, "probed")["ready"], 10, "not ready again")
        assert status(space, "probed")["restartCount"] == 0


def test_liveness_restarts_and_startup_probe_protects(cluster: Cluster) -> None:
    slow = "sleep 3; touch /tmp/up; sleep 600"
    probes = {
        "startupProbe": {
            "exec": {"command": ["test", "-e", "/tmp/up"]},
            "periodSeconds": 1,
            "failureThreshold": 20,
        },
        "livenessProbe": {
            "exec": {"command": ["test", "-e", "/tmp/up"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
    }
    with namespace(cluster) as space:
        space.apply(pod("slow", "sh", "-c", slow, container=probes))
        space.ready("slow", 30)
        assert status(space, "slow")["restartCount"] == 0, "the startup probe held the liveness probe back"
        space.exec("slow", "rm", "/tmp/up")
        until(lambda: status(space, "slow")["restartCount"] == 1, 20, "restarted by its liveness probe")
        assert "Liveness probe failed" in space.kubectl("describe", "pod", "slow")


def test_environment_comes_from_everywhere(cluster: Cluster) -> None:
    env = [
        {"name": "PLAIN", "value": "plain"},
        {"name": "FROM_FIELD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "COMPOSED", "value": "$(PLAIN)-$(KEY)"},
    ]
    of_container = {
        "env": env,
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "resources": {"requests": {"cpu": "25m"}},
    }
    with namespace(cluster) as space:
        space.apply(config_map("settings", COLOUR="blue"))
        space.kubectl("create", "secret", "generic", "keys", "--from-literal=token=s3cret")
        space.run("env", container=of_container)
        seen = dict(line.split("=", 1) for line in space.exec("env", "env").splitlines() if "=" in line)
        wanted = {
            "PLAIN": "plain",
            "FROM_FIELD": "env",
            "CPU": "25",
            "KEY": "s3cret",
            "COLOUR": "blue",
            "COMPOSED": "plain-s3cret",
        }
        assert {key: seen.get(key) for key in wanted} == wanted
        assert seen["POD_IP"] == space.get("pod", "env")["status"]["podIP"]
        assert seen["HOSTNAME"] == "env"


def test_volumes_hold_their_content_and_follow_changes(cluster: Cluster) -> None:
    volumes = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {
            "name": "labels",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
        {
            "name": "all",
            "projected": {"sources": [{"configMap": {"name": "settings"}}, {"secret": {"name": "keys"}}]},
        },
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/etc/volumes/{v['name']}"} for v in volumes]
    mounts.append({"name": "settings", "mountPath": "/etc/single.conf", "subPath": "colour"})
    with namespace(cluster) as space:
        space.apply(config_map("settings", colour="blue"))
        space.kubectl("create", "secret", "generic", "keys", "--from-literal=token=s3cret")
        space.run("holder", container={"volumeMounts": mounts}, volumes=volumes)
        read = lambda path: space.exec("holder", "cat", path)  # noqa: E731
        assert read("/etc/volumes/settings/colour") == "blue"
        assert read("/etc/volumes/keys/token") == "s3cret"
        assert 'app="holder"' in read("/etc/volumes/labels/labels")
        assert read("/etc/volumes/all/colour") + read("/etc/volumes/all/token") == "blues3cret"
        assert read("/etc/single.conf") == "blue"
        space.exec("holder", "sh", "-c", "echo kept > /etc/volumes/scratch/file")
        assert read("/etc/volumes/scratch/file") == "kept\n"
        space.apply(config_map("settings", colour="green"))
        space.kubectl("label", "pod", "holder", "stage=two")
        until(
            lambda: read("/etc/volumes/settings/colour") == "green",
            90,
            "the ConfigMap volume follows",
            every=1,
        )
        until(lambda: read("/etc/volumes/all/colour") == "green", 90, "the projected volume follows", every=1)
        until(
            lambda: 'stage="two"' in read("/etc/volumes/labels/labels"),
            90,
            "the downward volume follows",
            every=1,
        )


def test_an_image_is_a_volume(cluster: Cluster) -> None:
    name = "labkit-test/page:v1"
    from_files(name, {"/site/index.html": b"hello from an image\n"})
    volumes = [{"name": "page", "image": {"reference": name, "pullPolicy": "IfNotPresent"}}]
    mounts = [{"name": "page", "mountPath": "/srv/page"}]
    try:
        with namespace(cluster) as space:
            space.run("holder", container={"volumeMounts": mounts}, volumes=volumes)
            assert space.exec("holder", "cat", "/srv/page/site/index.html") == "hello from an image\n"
    finally:
        ImageStore().remove(name)


def test_crashing_container_backs_off_and_keeps_its_last_log(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(pod("crash", "sh", "-c", "echo about to fail; exit 7"))
        until(lambda: status(space, "crash")["restartCount"], 40, "restarted")
        until(lambda: "Back-off restarting" in space.kubectl("get", "events"), 40, "the back-off is told")
        assert status(space, "crash")["lastState"]["terminated"]["exitCode"] == 7  # type: ignore[index]
        assert "about to fail" in space.kubectl("logs", "crash", "--previous")


def test_restart_policy_never_and_on_failure(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(pod("never", "sh", "-c", "exit 1", restartPolicy="Never"))
        space.apply(pod("once", "sh", "-c", "exit 0", restartPolicy="OnFailure"))
        until(lambda: space.get("pod", "never")["status"]["phase"] == "Failed", 30, "Failed")
        until(lambda: space.get("pod", "once")["status"]["phase"] == "Succeeded", 30, "Succeeded")


def test_a_command_that_does_not_exist_is_named(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(pod("typo", "no-such-program"))
        message = until(lambda: start_failure(space), 30, "the runtime's message")
        assert "no-such-program" in message


def start_failure(space: Namespace) -> str:
    """Why pod typo's container does not start."""
    state = status(space, "typo")
    for part in (state["state"], state.get("lastState", {})):
        for detail in part.values():  # type: ignore[attr-defined]
            if "no-such-program" in detail.get("message", ""):
                return str(detail["message"])
    return ""


def test_usage_counts_children(cluster: Cluster) -> None:
    """A shell's busy grandchildren are the container's CPU."""
    burn = "sh -c 'python3 -c \"while True: pass\"' & sleep 600"
    with namespace(cluster) as space:
        space.run("busy", "sh", "-c", burn, container={"resources": {"requests": {"cpu": "100m"}}})
        millicores = until(lambda: cpu(space, "busy"), 60, "usage above 300m", every=2)
        assert 300 < millicores < 2200


def cpu(space: Namespace, name: str) -> int:
    """CPU in millicores by `kubectl top`, 0 below 300 or unknown."""
    words = space.kubectl("top", "pod", name, "--no-headers", check=False).split()
    found = int(words[1].rstrip("m")) if len(words) > 1 else 0
    return found if found > 300 else 0


def test_memory_over_the_limit_is_oom_killed(cluster: Cluster) -> None:
    eat = "import time; a = bytearray(200 << 20); a[::4096] = b'x' * len(a[::4096]); time.sleep(60)"
    with namespace(cluster) as space:
        limit = {"resources": {"limits": {"memory": "64Mi"}}}
        space.apply(pod("hungry", "python3", "-c", eat, restartPolicy="Never", container=limit))
        until(lambda: space.get("pod", "hungry")["status"]["phase"] == "Failed", 30, "Failed")
        ended = status(space, "hungry")["state"]["terminated"]  # type: ignore[index]
        assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
