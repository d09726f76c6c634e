"""A kind cluster on a real engine: what `up` makes and leaves alone, how it comes back, what its faults say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import labkit
from labkit.addons.tunnel import listening
from labkit.cluster.existing import ExistingCluster
from labkit.cluster.kind.cluster import KindCluster
from labkit.cluster.kind.engine import CLUSTER_LABEL, OWN_LABEL, STATE_LABEL, Engine
from labkit.cluster.kind.state import KindDirectory
from labkit.cluster.phases import Phase, Plain, silent
from labkit.cluster.providers import open_cluster
from labkit.errors import ClusterError, ConfigError, ImageError, MachineError
from tests.cluster.helpers import namespace, own_state_home, service, until
from tests.parity.pods import server_deployment
from tests.parity.test_network import ask

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def stranger(engine: Engine) -> Iterator[str]:
    """A container and a network of somebody else, on the same engine."""
    image = engine.run("images", "-q").split()[0]
    name = f"labkit-stranger-{os.getpid()}"
    engine.run("network", "create", name)
    engine.run("create", "--name", name, "--network", name, image, "true")
    yield name
    engine.run("rm", "-f", name)
    engine.run("network", "rm", name)


def test_up_has_a_network_and_a_kubeconfig_of_its_own(cluster: KindCluster, engine: Engine) -> None:
    network = engine.network("labkit-t-kind")
    assert network and network["Labels"][OWN_LABEL] == "t-kind"
    assert network["Labels"][STATE_LABEL] == str(cluster.directory.path)
    assert oct(cluster.kubeconfig.stat().st_mode)[-3:] == "600"
    users = Path.home() / ".kube/config"
    assert not users.exists() or "labkit-t-kind" not in users.read_text()
    first, last = cluster.load_balancer_range()
    used = [each.address for each in engine.containers("labkit-t-kind")]
    assert not [a for a in used if tuple(map(int, first.split("."))) <= tuple(map(int, a.split(".")))]
    assert last.rpartition(".")[0] == first.rpartition(".")[0]


def test_status_finds_the_provider_by_itself(cluster: KindCluster) -> None:
    argv = [sys.executable, "-m", "labkit", "status", cluster.name, "--json"]
    (found,) = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert found["provider"] == "kind" and found["state"] == "running"
    names = {component["name"] for component in found["components"]}
    assert names >= {"node-control-plane", "node-worker-1", "etcd", "kube-apiserver", "metrics-server"}
    assert all(c["memory_bytes"] > 20 << 20 for c in found["components"] if c["name"].startswith("node-"))
    assert {node["name"] for node in found["nodes"]} == {"control-plane", "worker-1"}
    assert set(found["urls"]) >= {"api", "scheduler", "controller-manager"}
    assert isinstance(open_cluster(cluster.name), KindCluster)
    with pytest.raises(ConfigError, match="its provider is kind"):
        labkit.up(cluster.name, "embedded", listener=silent)
    with pytest.raises(ConfigError, match="was made with workers=1, not 3"):
        labkit.up(cluster.name, listener=silent, workers=3)


def test_logs_and_shell(cluster: KindCluster) -> None:
    run = [sys.executable, "-m", "labkit"]
    log = subprocess.run(
        [*run, "logs", "node-worker-1", "-c", cluster.name, "--tail", "5"], capture_output=True, text=True
    )
    assert len(log.stdout.splitlines()) >= 5, log.stderr
    log = subprocess.run(
        [*run, "logs", "kube-scheduler", "-c", cluster.name, "--tail", "5"], capture_output=True, text=True
    )
    assert log.returncode == 0 and log.stdout
    inside = cluster.engine.exec(cluster.directory.control_plane, "crictl", "ps", "--name", "kube-scheduler")
    assert "Running" in inside
    wrong = subprocess.run([*run, "logs", "nobody", "-c", cluster.name], capture_output=True, text=True)
    assert wrong.returncode == 2 and "node-worker-1" in wrong.stderr
    inside = subprocess.run(
        [*run, "shell", cluster.name, "-c", "getent hosts kubernetes.default"], capture_output=True, text=True
    )
    assert "kubernetes.default.svc.cluster.local" in inside.stdout, inside.stderr


def test_an_image_is_built_loaded_and_later_workers_have_it(cluster: KindCluster, tmp_path: Path) -> None:
    image = cluster.build_image(ROOT / "services/hello", "t-kind/hello:v1")
    assert image.digest.startswith("sha256:") and image.tags == ("t-kind/hello:v1",) and image.size_bytes > 0
    join = cluster.add_worker("late", limit_s=240)
    try:
        join.wait()
        stored = ("ctr", "--namespace", "k8s.io", "images", "list", "--quiet")
        assert "t-kind/hello:v1" in cluster.engine.exec("labkit-t-kind-late", *stored)
        with namespace(cluster, "late") as space:
            container = {"image": "t-kind/hello:v1"}
            space.apply(
                server_deployment("web", 1, nodeName="late", container=container), service("web", 80, 8080)
            )
            space.rolled("deployment/web")
            assert "web-" in ask(cluster.url("web", space.name))
    finally:
        cluster.remove_worker("late", drain=True)
    assert "late" not in [node.name for node in cluster.nodes()]
    assert "labkit-t-kind-late" not in [each.name for each in cluster.engine.containers("labkit-t-kind")]
    (tmp_path / "Dockerfile").write_text("FROM t-kind/hello:v1\nRUN true\nRUN exit 3\n")
    with pytest.raises(ImageError, match=r"Dockerfile, line 3: .*non-zero code: 3"):
        cluster.build_image(tmp_path, "t-kind/broken:v1")
    with pytest.raises(ImageError, match="There is no"):
        cluster.build_image(tmp_path / "..", "t-kind/none:v1")


def test_it_comes_back_after_its_engine_was_stopped_with_other_addresses(
    cluster: KindCluster, engine: Engine
) -> None:
    """As an engine that restarts does it: all containers end, and come back in another order."""
    boxes = [each.name for each in engine.containers("labkit-t-kind")]
    before = {each.name: each.address for each in engine.containers("labkit-t-kind")}
    engine.run("kill", *boxes)
    assert cluster.status().state == "stopped"
    taken = engine.run(
        "run", "-d", "--name", "labkit-t-kind-squatter", "--network", "labkit-t-kind", "--entrypoint", "sleep",
        engine.containers("labkit-t-kind")[0].image, "600",
    )  # fmt: skip
    assert taken
    try:
        seen: list[Phase] = []
        assert labkit.up("t-kind", listener=seen.append).status().state == "running"
        after = {each.name: each.address for each in engine.containers("labkit-t-kind")}
        assert after != before
        assert any(phase.name == "certificates" for phase in seen)
        until(
            lambda: "worker-1" in cluster.kubectl("top", "nodes", check=False),
            120,
            "metrics of the node",
            every=2,
        )
        assert cluster.kubectl("logs", "-n", "kube-system", "etcd-control-plane", "--tail=20").strip()
    finally:
        engine.run("rm", "-f", "labkit-t-kind-squatter")


def test_a_deleted_workers_container_is_replaced(cluster: KindCluster, engine: Engine) -> None:
    engine.run("rm", "-f", "-v", "labkit-t-kind-worker")
    status = cluster.status()
    assert status.state == "degraded"
    assert (
        next(c for c in status.components if c.name == "node-worker-1").last_exit == "its container is gone"
    )
    seen: list[Phase] = []
    labkit.up("t-kind", listener=seen.append)
    assert any("container is gone" in phase.text for phase in seen if phase.note)
    until(lambda: {n.name: n.ready for n in cluster.nodes()}["worker-1"] == "True", 60, "worker-1 Ready")


def test_wrong_workers_are_refused_before_anything_starts(cluster: KindCluster) -> None:
    before = cluster.directory.read()
    with pytest.raises(ClusterError, match="already"):
        cluster.add_worker("worker-1")
    with pytest.raises(ClusterError, match="already"):
        cluster.add_worker("control-plane")
    with pytest.raises(ConfigError, match="taint"):
        cluster.add_worker("odd", taints=["nonsense"])
    with pytest.raises(ConfigError, match="cannot have 999 CPUs"):
        cluster.add_worker("big", cpus=999)
    with pytest.raises(ClusterError, match="no worker"):
        cluster.lose("nobody")
    assert cluster.directory.read() == before


def test_no_engine_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, state_home: Path) -> None:
    assert state_home.is_dir()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(MachineError, match="no engine answers"):
        KindCluster.up("t-none", silent)
    assert not KindDirectory("t-none").exists


def test_a_name_that_somebody_else_uses_is_refused_and_left_alone(engine: Engine, state_home: Path) -> None:
    assert state_home.is_dir()
    image = engine.run("images", "-q").split()[0]
    engine.run(
        "create",
        "--name",
        "labkit-t-taken-control-plane",
        "--label",
        f"{CLUSTER_LABEL}=labkit-t-taken",
        image,
        "true",
    )
    try:
        with pytest.raises(ClusterError, match="has a kind cluster labkit-t-taken already") as caught:
            KindCluster.up("t-taken", silent)
        assert "kind delete cluster --name labkit-t-taken" in caught.value.hint
        assert engine.attempt("inspect", "labkit-t-taken-control-plane").returncode == 0
        assert not KindDirectory("t-taken").exists
    finally:
        engine.run("rm", "-f", "labkit-t-taken-control-plane")


def test_a_creation_that_was_killed_is_done_again_and_down_leaves_nothing(
    engine: Engine, state_home: Path, stranger: str
) -> None:
    assert state_home.is_dir()
    argv = [sys.executable, "-m", "labkit", "up", "t-half", "--provider", "kind", "--workers", "0"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
    until(lambda: engine.containers("labkit-t-half"), 120, "a first container")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    assert open_cluster("t-half").status().state in ("incomplete", "degraded")
    notes: list[str] = []
    made = KindCluster.up("t-half", lambda p: notes.append(p.text) if p.note else None, workers=0)
    assert any("interrupted" in note for note in notes)
    assert [node.name for node in made.nodes()] == ["control-plane"]
    made.down()
    assert engine.containers("labkit-t-half") == [] and engine.network("labkit-t-half") is None
    assert not KindDirectory("t-half").exists
    assert engine.attempt("inspect", stranger).returncode == 0 and engine.network(stranger) is not None


def test_without_a_route_services_are_forwarded(
    cluster: KindCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows, where the nodes' addresses lead nowhere."""
    from labkit.cluster.kind import cluster as module

    cluster.build_image(ROOT / "services/hello", "t-kind/hello:v1")
    with namespace(cluster, "far") as space:
        space.apply(
            server_deployment("web", 1, container={"image": "t-kind/hello:v1"}), service("web", 80, 8080)
        )
        space.rolled("deployment/web")
        monkeypatch.setattr(module, "has_route", lambda _address: False)
        url = cluster.url("web", space.name)
        assert url.startswith("http://127.0.0.1:") and "web-" in ask(url)
        first = ask(url)
        space.kubectl("delete", "pod", first.split()[0])
        space.rolled("deployment/web")

        def again() -> bool:
            return ask(url) not in ("", first)

        until(again, 60, "the same port leads to the new pod")
        cluster._forwards.close()


def test_a_forward_ends_with_its_process(cluster: KindCluster) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom labkit.cluster.forward import Forward\n"
        "f = Forward(Path(sys.argv[1]), 'kube-system', 'service/metrics-server', 443)\n"
        "print(f.wait()[1], flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(cluster.kubeconfig)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    port = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    from labkit.cluster.waiting import accepts

    until(lambda: not accepts("127.0.0.1", port), 15, "nothing listens any more")


def test_a_service_counts_as_led_on_once_kube_proxy_has_its_rule(cluster: KindCluster) -> None:
    cluster.build_image(ROOT / "services/hello", "t-kind/hello:v2")
    with namespace(cluster) as space:
        space.apply(service("web", 80, 8080))
        [web] = space.items("services", "")
        assert not cluster._leads_on(web, 80)  # no pod is behind it
        space.apply(server_deployment("web", 1, container={"image": "t-kind/hello:v2"}))
        space.rolled("deployment/web")
        until(lambda: cluster._leads_on(web, 80), 30, "a rule for the Service")
        assert not cluster._leads_on(web, 81)


def test_the_existing_provider_uses_it_and_leaves_it(cluster: KindCluster, engine: Engine) -> None:
    server = yaml.safe_load(cluster.kubeconfig.read_text())["contexts"][0]["name"]
    with pytest.raises(ConfigError, match=f"Contexts there: {server}"):
        labkit.up(
            "t-theirs", "existing", listener=silent, kubeconfig=str(cluster.kubeconfig), context="nobody"
        )
    theirs = labkit.up(
        "t-theirs", "existing", listener=Plain(), kubeconfig=str(cluster.kubeconfig), workers=1
    )
    try:
        status = theirs.status()
        assert (status.provider, status.state) == ("existing", "running")
        theirs.build_image(ROOT / "services/hello", "t-kind/hello:v2")
        with namespace(theirs, "theirs") as space:
            container = {"image": "t-kind/hello:v2"}
            space.apply(
                server_deployment("web", 1, container=container), service("web", 80, 8080, type="NodePort")
            )
            space.rolled("deployment/web")
            assert "web-" in ask(theirs.url("web", space.name))
            space.kubectl("patch", "service", "web", "-p", '{"spec": {"type": "ClusterIP"}}')
            assert "web-" in ask(theirs.url("web", space.name))
        with pytest.raises(ClusterError, match="does not lose worker-1"):
            theirs.lose("worker-1")
        with pytest.raises(ClusterError, match="add a worker"):
            theirs.add_worker()
    finally:
        theirs.down()
    time.sleep(0.1)
    assert cluster.status().state == "running"
    assert len(engine.containers("labkit-t-kind")) == 2


def test_the_existing_provider_takes_a_kind_cluster_that_labkit_did_not_make(
    cluster: KindCluster, engine: Engine
) -> None:
    where = {"kubeconfig": str(cluster.kubeconfig), "workers": 1}
    with (
        own_state_home(),  # in which labkit has made no cluster
        labkit.up("t-theirs", "existing", listener=Plain(), **where) as theirs,
    ):
        assert isinstance(theirs, ExistingCluster)
        assert theirs.underlying() is theirs and theirs.image_gap() == ""
        assert theirs.their_kind and theirs.their_kind.name == "labkit-t-kind"
        assert set(theirs.their_kind.nodes) == {"control-plane", "worker-1"}
        theirs.build_image(ROOT / "services/hello", "t-kind/hello:v3")
        with namespace(theirs, "theirs") as space:
            container = {"image": "t-kind/hello:v3"}
            space.apply(server_deployment("web", 2, container=container), service("web", 80, 8080))
            space.rolled("deployment/web")
            url = theirs.url("web", space.name)
            until(lambda: "web-" in ask(url), 20, "an answer")
            space.kubectl("patch", "service", "web", "-p", '{"spec": {"type": "NodePort"}}')
            assert "web-" in ask(theirs.url("web", space.name))
            space.kubectl("delete", "service", "web")
            until(lambda: not space.items("services"), 60, "what was made beside the Service goes with it")
        assert not listening(theirs)["others_reach_it"].any()
    assert len(engine.containers("labkit-t-kind")) == 2
