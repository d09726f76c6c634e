"""The provider existing on a cluster that is labkit's, but which it knows by a kubeconfig alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.addons.git import GitServer
from labkit.addons.tunnel import Tunnel, listening
from labkit.cluster import Cluster
from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.existing import ExistingCluster
from labkit.cluster.kind.theirs import node_port
from labkit.cluster.phases import Plain, silent
from labkit.cluster.providers import provider_of
from labkit.errors import ClusterError

from .helpers import deployment, namespace, service, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 400


@pytest.fixture(scope="module")
def theirs(state_home: Path) -> Iterator[EmbeddedCluster]:
    """A cluster with which a run of labs can do what it does."""
    assert state_home.is_dir()
    cluster = EmbeddedCluster.up("theirs", Plain(), workers=2)
    yield cluster
    cluster.down()


@pytest.fixture
def mine(theirs: EmbeddedCluster) -> Iterator[Cluster]:
    """The same cluster, by its kubeconfig."""
    with labkit.up("mine", "existing", listener=silent, kubeconfig=str(theirs.kubeconfig)) as cluster:
        yield cluster


def run_labs(theirs: EmbeddedCluster, folder: Path, *labs: str, **env: str) -> dict[str, Any]:
    """Lab → what `labkit run` tells of it, on whatever the kubeconfig leads to."""
    argv = [sys.executable, "-m", "labkit", "run", *labs, "--provider", "existing", "--speed", "ci", "--json"]
    argv += ["--cluster", "t-run", "--report", str(folder)]
    told = {**os.environ, "KUBECONFIG": str(theirs.kubeconfig), **env}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, env=told, check=False)
    assert done.returncode == 0, done.stderr
    return {lab["lab"]: lab for lab in json.loads(done.stdout)["labs"]}


def test_labs_without_node_surgery_pass_and_others_are_skipped(
    theirs: EmbeddedCluster, tmp_path: Path
) -> None:
    told = run_labs(theirs, tmp_path, "01", "03")
    assert {lab: each["state"] for lab, each in told.items()} == {"01": "skipped", "03": "passed"}
    assert "not ours to touch" in told["01"]["reason"]
    assert provider_of("t-run") == "", "the context is forgotten"
    assert theirs.status().state == "running"


def test_labs_whose_images_cannot_come_are_skipped_with_one_sentence(
    theirs: EmbeddedCluster, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="lk.") as elsewhere:
        told = run_labs(theirs, tmp_path, "00", "03", XDG_STATE_HOME=elsewhere)
    for lab in told.values():
        assert lab["state"] == "skipped"
        assert "leads to no cluster" in lab["reason"] and lab["reason"].count(". ") == 0


def test_it_stands_for_the_cluster_behind_it(theirs: EmbeddedCluster, mine: Cluster) -> None:
    assert mine.underlying().name == "theirs"
    assert mine.image_gap() == ""
    assert [node.name for node in mine.workers()] == ["worker-1", "worker-2"]
    with namespace(theirs, "url") as space:
        space.apply(deployment("web", 1, "python3", "-m", "http.server", "80"), service("web", 80, 80))
        space.rolled("deployment/web")
        assert mine.url("web", space.name) == theirs.url("web", space.name)


def test_what_somebody_else_installed_stays(theirs: EmbeddedCluster, mine: Cluster) -> None:
    theirs.kubectl("create", "namespace", "git")
    for act in (GitServer(mine).install, GitServer(mine).uninstall):
        with pytest.raises(ClusterError, match="Namespace 'git' of somebody else's"):
            act()
    assert mine.kube.find("Deployment", "git", namespace="git") is None
    theirs.kubectl("delete", "namespace", "git")
    assert GitServer(mine).install(silent).state == "ready"
    GitServer(mine).uninstall()
    assert mine.kube.find("Namespace", "git") is None


def test_what_labkit_installed_is_known_as_its_own(mine: Cluster) -> None:
    tunnel = Tunnel(mine, ROOT / "manifests/tunnel", mode="rehearsal")
    tunnel.install(silent)
    assert not listening(mine)["others_reach_it"].any()
    tunnel.uninstall()
    assert mine.kube.find("Namespace", "tunnel") is None


def test_a_node_port_beside_a_service_goes_with_it(theirs: EmbeddedCluster) -> None:
    with namespace(theirs, "beside") as space:
        space.apply(deployment("web", 1, "python3", "-m", "http.server", "80"), service("web", 80, 80))
        space.rolled("deployment/web")
        port = node_port(theirs.kube, theirs.kube.get("Service", "web", namespace=space.name), 80)
        assert port == node_port(theirs.kube, theirs.kube.get("Service", "web", namespace=space.name), 80)
        [beside] = space.items("services", "app.kubernetes.io/managed-by=labkit")
        assert [each["nodePort"] for each in beside["spec"]["ports"]] == [port]
        slices = f"kubernetes.io/service-name={beside['metadata']['name']}"
        until(lambda: any(each["endpoints"] for each in space.items("endpointslices", slices)), 20, "a pod")
        space.kubectl("delete", "service", "web")
        until(lambda: not space.items("services"), 60, "both Services are gone")


def test_one_that_has_gone_is_told(theirs: EmbeddedCluster, tmp_path: Path) -> None:
    copy = tmp_path / "kubeconfig"
    copy.write_text(theirs.kubeconfig.read_text().replace(":6443", ":1"))
    with pytest.raises(ClusterError, match="does not answer"):
        labkit.up("mine", "existing", listener=silent, kubeconfig=str(copy))
    with pytest.raises(ClusterError, match="no cluster 'mine'"):
        ExistingCluster.open("mine")
