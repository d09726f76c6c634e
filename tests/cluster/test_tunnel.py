"""The rehearsal of a tunnel on a real cluster: routes, secrets, a wrong one, an edge that is away, uninstalled twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from labkit.addons.tunnel import Credentials, Tunnel, listening
from labkit.addons.tunnel.rehearsal import build_connector
from labkit.addons.tunnel.tunnel import LABELS, NAMESPACE
from labkit.cluster import Cluster
from labkit.cluster.processes import cluster_pids
from labkit.errors import WaitTimeout
from labkit.labs.visit import get

from .helpers import Namespace, namespace, until
from .test_core import serve

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests" / "tunnel"


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace of its own for a test."""
    with namespace(cluster) as made:
        yield made


@pytest.fixture
def tunnel(cluster: Cluster, space: Namespace, tmp_path: Path) -> Iterator[Tunnel]:
    """A rehearsal whose one hostname leads to pods that name themselves; not installed yet."""
    serve(cluster, space, 1)
    shutil.copyfile(MANIFESTS / "connector.yaml", tmp_path / "connector.yaml")
    service = f"http://web.{space.name}.svc.cluster.local:8080"
    rules = [{"hostname": "web.example.com", "service": service}, {"service": "http_status:404"}]
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"ingress": rules}))
    made = Tunnel(cluster, tmp_path, mode="rehearsal")
    yield made
    made.uninstall()


def visit(tunnel: Tunnel, url: str) -> int:
    where, headers = tunnel.route(url)
    return get(where, **headers).status


def test_it_is_reached_through_the_edge_and_its_secret_is_nowhere(
    tunnel: Tunnel, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tunnel.status().state == "absent"
    tunnel.uninstall()  # nothing there is no error
    assert tunnel.install().state == "ready"
    assert tunnel.install().state == "ready", "installed twice"
    assert visit(tunnel, "https://web.example.com/") == 200
    assert visit(tunnel, "https://unknown.example.com/") == 404
    assert len(tunnel.edge.connectors()) == 2  # type: ignore[union-attr]
    assert not listening(cluster)["others_reach_it"].any()

    secret = tunnel.credentials.secret
    shown = [capfd.readouterr().out, tunnel.logs(), repr(tunnel), repr(tunnel.credentials)]
    for kind in ("configmaps", "deployments", "replicasets", "pods", "events"):
        shown.append(cluster.kubectl("get", kind, "-n", NAMESPACE, "-o", "yaml"))
    assert not [text for text in shown if secret in text]
    for pid in cluster_pids(cluster.directory):  # type: ignore[attr-defined]
        assert secret.encode() not in _read(f"/proc/{pid}/cmdline") + _read(f"/proc/{pid}/environ")

    cluster.kube.delete("ConfigMap", "tunnel-config", namespace=NAMESPACE)
    assert tunnel.status().parts["configmap/tunnel-config"] == "missing"
    assert tunnel.install().state == "ready", "half-installed, then completed"


def test_a_wrong_secret_is_told_and_the_old_connectors_serve_on(tunnel: Tunnel) -> None:
    tunnel.install()
    right = tunnel.credentials
    tunnel.use(Credentials(right.account, right.tunnel_id, Credentials.generate().secret))
    with pytest.raises(WaitTimeout) as caught:
        tunnel.wait(20)
    assert "Unauthorized: Invalid tunnel secret" in caught.value.hint
    assert visit(tunnel, "https://web.example.com/") == 200
    tunnel.use(right)
    tunnel.wait()
    until(lambda: "refused" not in set(tunnel.events()["event"]), 60, "the refused pod gone")


def test_an_edge_that_is_away_is_told_and_waited_for(tunnel: Tunnel, cluster: Cluster) -> None:
    edge = tunnel.edge
    assert edge is not None
    edge.start()  # it has its ports
    edge.stop()
    cluster.kube.apply(tunnel.objects(build_connector(cluster)))
    with pytest.raises(WaitTimeout) as caught:
        tunnel.wait(20)
    assert "Unable to establish connection with the edge" in caught.value.hint
    edge.start()
    tunnel.wait(120)
    assert visit(tunnel, "https://web.example.com/") == 200
    pods = cluster.kube.list("Pod", namespace=NAMESPACE, labels=LABELS)
    until(lambda: tunnel.status().parts["edge"] == "2 connectors registered", 60, "both registered")
    assert {status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"]} == {0}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
