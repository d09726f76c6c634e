"""`labkit up` and `labkit down`: interrupted, killed, repeated, at once, side by side, after a reboot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.cluster.addresses import Slot
from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.phases import Phase, silent
from labkit.cluster.preflight import free_slots, is_held
from labkit.cluster.processes import cluster_pids, cluster_processes, kill_all
from labkit.cluster.state import cluster_names, clusters_dir
from labkit.cluster.supervisor import NotRunning
from labkit.errors import ClusterError, ConfigError, MachineError, WaitTimeout

from .helpers import config_map, container, until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("state_home")]
Make = Callable[..., EmbeddedCluster]
LABKIT = [sys.executable, "-m", "labkit"]


def started(*args: str) -> subprocess.Popen[str]:
    """The command labkit in the background, with its output in a pipe."""

    def heed() -> None:  # what runs us may ignore them, as nohup does
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    argv = [*LABKIT, *args]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed
    )


def run(*args: str, check: bool = True, limit_s: float = 120) -> subprocess.CompletedProcess[str]:
    """The command labkit, to its end."""
    return subprocess.run([*LABKIT, *args], capture_output=True, text=True, timeout=limit_s, check=check)


def reached(process: subprocess.Popen[str], phase: str) -> int:
    """Wait until a phase's line was printed; returns the slot, if it is known by then."""
    assert process.stdout
    slot = -1
    for line in process.stdout:
        if line.startswith("[certs]"):
            slot = int(line.partition("slot ")[2].split()[0])
        if line.startswith(f"[{phase}]"):
            return slot
    raise AssertionError(f"`labkit up` ended before phase {phase}")


def nothing_is_left(cluster: EmbeddedCluster, slot: int) -> None:
    """No process, no port and no file."""
    assert cluster_pids(cluster.directory) == set()
    assert [path.name for path in clusters_dir().glob(f"*{cluster.name}*")] == []
    ports = {
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    networks = (Slot(slot).service_cidr, Slot(slot).pod_cidr, Slot(slot).load_balancer_cidr)
    left = [port for port in ports if any(_served(port, network) for network in networks)]
    assert left == [] or is_held(Slot(slot))  # by a cluster that somebody else has just made


def _served(port: str, network: object) -> bool:
    from ipaddress import IPv4Address, IPv4Network

    from labkit.cluster.addresses import served

    assert isinstance(network, IPv4Network)
    raw = bytes.fromhex(port.split(":")[0])[::-1]
    first = served(network.network_address)
    return IPv4Address(raw) in IPv4Network((first, network.prefixlen))


def test_up_tells_its_phases_and_down_leaves_nothing() -> None:
    told: list[Phase] = []
    cluster = EmbeddedCluster.up("phases", told.append, workers=2)
    slot = cluster._supervisor.status()[0]
    try:
        done = [phase.name for phase in told if phase.state == "done"]
        assert done[:6] == ["preflight", "binaries", "kernel", "certs", "control-plane", "bootstrap"]
        assert {"objects", "addons", "join worker-1", "join worker-2"} == set(done[6:])
        assert [node.name for node in cluster.nodes()] == ["worker-1", "worker-2"]
        assert {node.ready for node in cluster.nodes()} == {"True"}
        cluster.kubectl(
            "create", "deployment", "web", "--image=labkit/host:latest", "--replicas=2", "--", "sleep", "99"
        )
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    finally:
        cluster.down()
    nothing_is_left(cluster, slot)


def test_a_second_up_resumes_and_refuses_other_options(make_cluster: Make) -> None:
    cluster = make_cluster("again", workers=1)
    before = {process.name: process.pid for process in cluster._supervisor.status()[1]}
    again = EmbeddedCluster.up("again", silent)
    assert {process.name: process.pid for process in again._supervisor.status()[1]} == before
    with pytest.raises(ConfigError, match="workers=1, not 3"):
        EmbeddedCluster.up("again", silent, workers=3)
    with pytest.raises(ConfigError, match="node_monitor_grace_s"):
        EmbeddedCluster.up("again", silent, node_monitor_grace_s=7)
    with pytest.raises(ConfigError, match="no option 'worker'"):
        EmbeddedCluster.up("again", silent, worker=3)


def test_a_killed_supervisor_is_resumed_and_pods_run_on(make_cluster: Make) -> None:
    cluster = make_cluster("killed", workers=1)
    cluster.kubectl("create", "deployment", "web", "--image=labkit/host:latest", "--", "sleep", "600")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("apply", "-f", "-", input=json.dumps(config_map("kept", key="value")))
    path = "jsonpath={.items[0].status.containerStatuses[0].containerID}"
    container_id = cluster.kubectl("get", "pods", "-l", "app=web", "-o", path)
    os.kill(int(cluster._supervisor.request("status")["pid"]), signal.SIGKILL)
    with pytest.raises(NotRunning):
        until(lambda: cluster._supervisor.status() and None, 10, "the supervisor is gone")
    assert cluster.status().state == "stopped"
    EmbeddedCluster.up("killed", silent)
    assert cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.key}") == "value"
    time.sleep(2)
    assert cluster.kubectl("get", "pods", "-l", "app=web", "-o", path) == container_id


def test_after_a_reboot_everything_comes_back(make_cluster: Make) -> None:
    cluster = make_cluster("reboot", workers=1)
    cluster.kubectl("create", "deployment", "web", "--image=labkit/host:latest", "--", "sleep", "600")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kill_all(lambda: cluster_processes(cluster.directory)) == set()
    EmbeddedCluster.up("reboot", silent)
    assert {node.ready for node in cluster.nodes()} == {"True"}
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=90s")
    restarts = ("-o", "jsonpath={.items[0].status.containerStatuses[0].restartCount}")
    until(
        lambda: cluster.kubectl("get", "pods", "-l", "app=web", *restarts) == "1",
        30,
        "it counts as a restart",
    )


@pytest.mark.parametrize("phase", ["kernel", "certs", "control-plane", "bootstrap"])
def test_up_killed_in_the_middle_can_be_repeated(phase: str) -> None:
    process = started("up", "broken", "--workers", "1")
    reached(process, phase)
    process.kill()
    process.wait(10)
    cluster = EmbeddedCluster.up("broken", silent, workers=1)
    try:
        slot = cluster._supervisor.status()[0]
        assert [node.ready for node in cluster.nodes()] == ["True"]
    finally:
        cluster.down()
    nothing_is_left(cluster, slot)


@pytest.mark.parametrize(("phase", "how"), [("certs", signal.SIGINT), ("control-plane", signal.SIGINT),
                                            ("control-plane", signal.SIGTERM), ("bootstrap", signal.SIGHUP)])  # fmt: skip
def test_up_interrupted_leaves_nothing(phase: str, how: signal.Signals) -> None:
    process = started("up", "stopped")
    slot = reached(process, phase)
    process.send_signal(how)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + how, said
    assert "Traceback" not in said
    nothing_is_left(EmbeddedCluster("stopped"), slot)


def test_half_a_cluster_can_be_taken_down() -> None:
    process = started("up", "half")
    reached(process, "certs")
    process.kill()
    process.wait(10)
    cluster = EmbeddedCluster.open("half")
    assert cluster.status().state in ("incomplete", "degraded", "running")
    slot = cluster._supervisor.status()[0]
    run("down", "half")
    nothing_is_left(cluster, slot)


def test_down_works_without_a_supervisor(make_cluster: Make) -> None:
    cluster = make_cluster("headless", workers=1)
    cluster.kubectl("create", "deployment", "web", "--image=labkit/host:latest", "--", "sleep", "600")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    slot = cluster._supervisor.status()[0]
    os.kill(int(cluster._supervisor.request("status")["pid"]), signal.SIGKILL)
    cluster.down()
    nothing_is_left(cluster, slot)


def test_two_ups_of_one_name_at_once_make_one_cluster() -> None:
    first, second = (started("up", "twice", "--workers", "1") for _ in range(2))
    said = [process.communicate(timeout=120)[0] for process in (first, second)]
    cluster = EmbeddedCluster("twice")
    try:
        assert [first.returncode, second.returncode] == [0, 0], said
        assert sorted("create" in text for text in said) == [False, True]
        assert sorted("resume" in text for text in said) == [False, True]
        assert len(cluster.nodes()) == 1
    finally:
        cluster.down()


def test_a_second_cluster_beside_the_first(make_cluster: Make) -> None:
    clusters = [make_cluster(name, workers=1) for name in ("left", "right")]
    assert len({cluster._supervisor.status()[0] for cluster in clusters}) == 2
    for cluster in clusters:
        serve = 'echo "$1" > /tmp/index.html; exec python3 -m http.server 80 --directory /tmp'
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}}
        mount = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
        pod["spec"] = {
            "containers": [container("web", "sh", "-c", serve, "sh", cluster.name, **mount)], "volumes": [{"name": "tmp", "emptyDir": {}}],
        }  # fmt: skip
        cluster.kubectl("apply", "-f", "-", input=json.dumps(pod))
        cluster.kubectl("expose", "pod", "web", "--port=80")
    for cluster in clusters:
        cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        answer = until(lambda cluster=cluster: fetched(cluster.url("web")), 30, "an answer from the pod")
        assert answer == cluster.name
        shell = run("shell", cluster.name, "-c", "curl -sS --max-time 5 http://web.default/")
        assert shell.stdout.strip() == cluster.name
    clusters[0].down()
    assert fetched(clusters[1].url("web")) == "right"


def fetched(url: str) -> str:
    """Body of an answer, stripped."""
    import urllib.request

    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode().strip())


def test_a_taken_port_is_named_and_nothing_is_started() -> None:
    with contextlib.ExitStack() as held:
        for number in free_slots():
            with contextlib.suppress(OSError):  # another user's cluster is about to take it
                held.enter_context(socket.create_server((str(Slot(number).control_plane.served), 10257)))
        with pytest.raises(MachineError) as caught:
            EmbeddedCluster.up("blocked", silent)
    assert ":10257, which kube-controller-manager needs, is taken by" in caught.value.message
    assert f"pid {os.getpid()}" in caught.value.message
    assert cluster_pids(EmbeddedCluster("blocked").directory) == set()
    EmbeddedCluster("blocked").down()
    assert "blocked" not in cluster_names()


def test_a_cluster_whose_slot_is_taken_says_so(make_cluster: Make) -> None:
    cluster = make_cluster("evicted", workers=0)
    slot = Slot(cluster._supervisor.status()[0])
    kill_all(lambda: cluster_processes(cluster.directory))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        until(lambda: not is_held(slot), 5, "the slot is free")
        other.bind(slot.lock)
        other.listen()
        with pytest.raises(ClusterError, match="in use by another cluster"):
            EmbeddedCluster.up("evicted", silent)
    EmbeddedCluster.up("evicted", silent)
    assert cluster.status().state == "running"


def test_a_component_that_cannot_start_is_named_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.cluster import components

    plan = components._Plan.etcd
    monkeypatch.setattr(components._Plan, "etcd", lambda self: [*plan(self), "--no-such-flag"])
    with pytest.raises(WaitTimeout, match="the API server is ready") as caught:
        EmbeddedCluster.up("wrong", silent, workers=0)
    assert "no-such-flag" in str(caught.value)
    assert cluster_pids(EmbeddedCluster("wrong").directory) == set()
    monkeypatch.undo()
    logs = run("logs", "etcd", "--cluster", "wrong")
    assert "no-such-flag" in logs.stdout
    EmbeddedCluster.up("wrong", silent, workers=0).down()


def test_a_state_folder_that_cannot_be_written_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    with pytest.raises(MachineError, match="cannot be written") as caught:
        EmbeddedCluster.up("nowhere", silent)
    assert "XDG_STATE_HOME" in caught.value.hint


def test_a_full_disk_is_one_clear_error_and_leaves_no_process() -> None:
    small = tempfile.mkdtemp(prefix="lk.")
    inside = 'mount -t tmpfs -o size=300k none "$XDG_STATE_HOME" && exec "$@"'
    argv = ["unshare", "-rm", "sh", "-c", inside, "sh", *LABKIT, "up", "full", "--workers", "0"]
    env = {**os.environ, "XDG_STATE_HOME": small}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, env=env)
    Path(small).rmdir()
    if "unshare" in done.stderr:
        pytest.skip("this machine allows no user namespaces")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "space" in done.stderr
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert small not in processes


def test_a_damaged_state_is_reported_and_can_be_removed(make_cluster: Make) -> None:
    cluster = make_cluster("damaged", workers=0)
    slot = cluster._supervisor.status()[0]
    (cluster.directory / "state.json").write_text("{")
    with pytest.raises(ClusterError, match="damaged"):
        EmbeddedCluster.up("damaged", silent)
    assert cluster.status().state == "damaged"
    cluster.down()
    nothing_is_left(cluster, slot)
