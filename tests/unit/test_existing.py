"""The provider existing without a cluster: what is found behind a context, and what it lacks then."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.cluster.context import gap_sentence
from labkit.cluster.existing import ExistingCluster
from labkit.cluster.kind.engine import Engine
from labkit.cluster.kind.theirs import find
from labkit.cluster.phases import silent
from labkit.errors import ConfigError, ImageError
from labkit.labs.metadata import find_labs
from labkit.labs.site import ClusterSite
from tests.unit.api_server import Server, kubeconfig

ROOT = Path(__file__).resolve().parents[2]
DOCKER = """#!{python}
import json, sys
clusters, argv = json.loads({clusters!r}), sys.argv[1:]
boxes = {{name: box for each in clusters.values() for name, box in each.items()}}
if argv[:2] == ["ps", "-aq"]:
    print("\\n".join(clusters.get(argv[-1].rpartition("=")[2], {{}})))
elif argv[0] == "ps":
    print("\\n".join(clusters))
elif argv[0] == "inspect":
    print(json.dumps([{{"Name": "/" + name, "State": {{"Status": boxes[name]["state"]}},
                       "Config": {{"Labels": {{"io.x-k8s.kind.role": boxes[name]["role"]}}, "Image": "kindest/node"}},
                       "NetworkSettings": {{"Networks": {{"kind": {{"IPAddress": boxes[name]["address"]}}}}}}}}
                      for name in argv[1:]]))
elif argv[0] == "exec" and argv[2:] == ["cat", "/etc/machine-id"]:
    print(boxes[argv[1]]["id"])
else:
    sys.exit(f"not expected: {{argv}}")
"""


def box(number: int, machine: str, role: str = "worker", state: str = "running") -> dict[str, str]:
    return {"address": f"172.18.0.{number}", "id": machine, "role": role, "state": state}


DEV = {
    "dev-control-plane": box(2, "aaa0", "control-plane"),
    "dev-worker": box(3, "aaa1"),
    "dev-worker2": box(4, "aaa2"),
    "dev-external-load-balancer": box(5, "aaa1", "external-load-balancer"),
}
LOOKALIKE = {name: {**each, "id": f"f{each['id']}"} for name, each in DEV.items()}


def docker(folder: Path, clusters: dict[str, dict[str, dict[str, str]]]) -> Path:
    """A command that answers as Docker does on a machine with these kind clusters."""
    program = folder / "docker"
    program.write_text(DOCKER.format(python=sys.executable, clusters=json.dumps(clusters)))
    program.chmod(0o755)
    return program


def node(name: str, address: str, machine: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {}},
        "spec": spec,
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"machineID": machine, "kubeletVersion": "v1.37.2"},
        },
    }


NODES = [
    node("dev-control-plane", "172.18.0.2", "aaa0", taints=[{"key": "cp", "effect": "NoSchedule"}]),
    node("dev-worker", "172.18.0.3", "aaa1"),
    node("dev-worker2", "172.18.0.4", "aaa2"),
]


def test_a_kind_cluster_is_known_by_the_machine_ids_of_its_containers(tmp_path: Path) -> None:
    others = {f"a-{name}": each for name, each in LOOKALIKE.items()}
    engine = Engine(str(docker(tmp_path, {"a": others, "dev": DEV})))
    found = find(engine, NODES)
    assert found and found.name == "dev"
    assert {name: each.name for name, each in found.nodes.items()} == {n: n for n in list(DEV)[:3]}
    assert found.lacks(["dev-worker", "dev-worker3"]) == ["dev-worker3"]


def test_nodes_may_have_names_of_their_own(tmp_path: Path) -> None:
    engine = Engine(str(docker(tmp_path, {"dev": DEV})))
    found = find(engine, [node("worker-1", "172.18.0.3", "aaa1")])
    assert found and found.nodes["worker-1"].name == "dev-worker"


@pytest.mark.parametrize(
    "clusters",
    [{}, {"dev": LOOKALIKE}, {"dev": {name: {**each, "state": "exited"} for name, each in DEV.items()}}],
    ids=["none", "of another machine", "stopped"],
)
def test_others_are_not_taken_for_it(tmp_path: Path, clusters: Any) -> None:
    assert find(Engine(str(docker(tmp_path, clusters))), NODES) is None


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ExistingCluster]]:
    """Brings up an existing cluster with NODES, on a machine with these kind clusters."""
    server = Server()
    kinds = [
        {
            "name": "nodes",
            "kind": "Node",
            "namespaced": False,
            "singularName": "node",
            "verbs": ["get", "list"],
        }
    ]
    server.answers["/api/v1"] = [(200, {"kind": "APIResourceList", "resources": kinds})]
    server.answers["/api/v1/nodes"] = [(200, {"kind": "NodeList", "apiVersion": "v1", "items": NODES})]
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(clusters: Any, **options: Any) -> ExistingCluster:
        docker(tmp_path, clusters)
        given = {"kubeconfig": str(kubeconfig(tmp_path, server.port)), **options}
        cluster = labkit.up("mine", "existing", listener=silent, **given)
        assert isinstance(cluster, ExistingCluster)
        return cluster

    with tempfile.TemporaryDirectory(prefix="lk.") as short:
        monkeypatch.setenv("XDG_STATE_HOME", short)
        yield make
    server.http.shutdown()
    server.http.server_close()


def test_kind_here_has_no_gap(context: Callable[..., ExistingCluster]) -> None:
    cluster = context({"dev": DEV}, workers=2)
    assert cluster.image_gap() == ""
    assert [each.name for each in cluster.workers()] == ["dev-worker", "dev-worker2"]
    assert cluster.underlying() is cluster


def test_a_cluster_elsewhere_has_one(
    context: Callable[..., ExistingCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = context({"dev": LOOKALIKE})
    assert "context 'x' (http://127.0.0.1:" in cluster.image_gap()
    assert "leads to no cluster" in cluster.image_gap()
    with pytest.raises(ImageError, match="leads to no cluster"):
        cluster.build_image("services/hello", "hello:v1")
    cluster = context({"dev": LOOKALIKE}, registry="registry.example/lab")
    assert "registry.example/lab" in cluster.image_gap()
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no program `docker`" in ExistingCluster.open("mine").image_gap()


def test_half_a_cluster_has_one(context: Callable[..., ExistingCluster]) -> None:
    half = {name: each for name, each in DEV.items() if name != "dev-worker2"}
    gap = context({"dev": half}).image_gap()
    assert "'dev'" in gap and "dev-worker2 has no container" in gap


def test_what_docker_said_counts_only_where_the_cluster_is_here() -> None:
    told = {"kind": "", "lacks": [], "registry": "", "trouble": "This user may not use Docker."}
    assert "may not use" in gap_sentence("x", "https://127.0.0.1:4711", **told)  # type: ignore[arg-type]
    assert "may not use" not in gap_sentence("x", "https://api.example.com", **told)  # type: ignore[arg-type]


def test_a_run_tells_what_a_cluster_lacks(context: Callable[..., ExistingCluster]) -> None:
    labs = {lab.number: lab for lab in find_labs(ROOT / "notebooks")}
    context({"dev": DEV})
    site = ClusterSite("mine", "existing")
    assert site.gap(labs["03"]) == "" and site.maker() == "existing"
    context({})
    assert "leads to no cluster" in site.gap(labs["03"])
    assert site.gap(replace(labs["03"], builds_images=False)) == ""
    NODES[2]["spec"]["unschedulable"] = True
    try:
        assert "take pods are 1" in site.gap(labs["03"])
    finally:
        del NODES[2]["spec"]["unschedulable"]


def test_a_kubeconfig_named_from_here_is_found_from_elsewhere(
    context: Callable[..., ExistingCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    context({}, kubeconfig="kubeconfig")
    monkeypatch.chdir("/")
    assert labkit.up("mine", "existing", listener=silent).name == "mine"
    with pytest.raises(ConfigError, match="no kubeconfig"):
        labkit.up("other", "existing", listener=silent, kubeconfig="kubeconfig")
