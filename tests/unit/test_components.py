"""What the cluster's processes are started with."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from labkit.acquire import Binaries
from labkit.cluster import kubelet
from labkit.cluster.addresses import SLOTS, Slot
from labkit.cluster.components import CONTROL_PLANE, control_plane, corefile
from labkit.cluster.objects import cluster_objects, path_of
from labkit.cluster.preflight import endpoints, taken_port
from labkit.cluster.state import Directory, Node, Options
from labkit.errors import ConfigError

LOOPBACK = ip_network("127.0.0.0/8")


@pytest.mark.parametrize("number", range(SLOTS))
def test_everything_listens_on_loopback_only(directory: Directory, number: int) -> None:
    made = control_plane(directory, Slot(number), Options(), Path("/bin/kube"))
    assert tuple(component.name for component in made) == CONTROL_PLANE
    listening = 0
    for argument in (a for component in made for a in component.argv):
        if re.match(r"--(bind-address|listen-.*-urls)=", argument):
            address = re.search(r"\d+\.\d+\.\d+\.\d+", argument)
            assert address and ip_address(address[0]) in LOOPBACK, argument
            listening += 1
    assert listening == 6
    assert all(ip_address(address) in LOOPBACK for address, _, _ in endpoints(Slot(number)))


def test_no_server_goes_without_authentication(directory: Directory) -> None:
    argv = {c.name: c.argv for c in control_plane(directory, Slot(0), Options(), Path("/bin/kube"))}
    for name in ("kube-controller-manager", "kube-scheduler", "metrics-server"):
        flags = {a.partition("=")[0] for a in argv[name]}
        assert {"--authentication-kubeconfig", "--authorization-kubeconfig", "--client-ca-file"} <= flags
    assert {"--client-cert-auth", "--peer-client-cert-auth"} <= set(argv["etcd"])
    assert "--authorization-mode=Node,RBAC" in argv["kube-apiserver"]
    assert not [a for arguments in argv.values() for a in arguments if "insecure" in a]


def test_options_reach_the_components(directory: Directory) -> None:
    options = Options(
        node_monitor_grace_s=16, node_monitor_period_s=2, eviction_after_s=7, hpa_sync_s=3, metrics_s=20
    )
    argv = {c.name: c.argv for c in control_plane(directory, Slot(0), options, Path("/bin/kube"))}
    assert "--node-monitor-grace-period=16s" in argv["kube-controller-manager"]
    assert "--node-monitor-period=2s" in argv["kube-controller-manager"]
    assert "--horizontal-pod-autoscaler-sync-period=3s" in argv["kube-controller-manager"]
    assert "--default-unreachable-toleration-seconds=7" in argv["kube-apiserver"]
    assert {"--metric-resolution=20s", "--kubelet-request-timeout=10s"} <= set(argv["metrics-server"])


@pytest.mark.parametrize(
    ("resolv", "forwards"),
    [("nameserver 10.0.0.2\n", True), ("nameserver fe80::1%eth0\n", True), ("search lan\n", False), ("", False),
     ("nameserver nonsense\n", False)],
)  # fmt: skip
def test_dns_forwards_only_where_there_is_a_name_server(
    directory: Directory, tmp_path: Path, resolv: str, forwards: bool
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(resolv)
    text = corefile(directory, Slot(2), file)
    assert ("forward . " in text) is forwards
    assert "bind 127.98.0.10" in text
    assert text.count("{") == text.count("}")
    assert not re.search(r"\b(health|ready|prometheus)\b", text)


def test_a_path_is_one_word_of_the_corefile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/Ünï o'Neil \"home")
    text = corefile(Directory("lab"), Slot(2), tmp_path / "none")
    word = f"{tmp_path}/Ünï o'Neil \\\"home/labkit/clusters/lab/conf/coredns.kubeconfig"
    assert f'kubeconfig "{word}"\n' in text


def test_a_kubelet_asks_whoever_comes_for_credentials(directory: Directory) -> None:
    node = Node(5, 2, "4Gi", {"zone": "a"}, ["dedicated=gpu:NoSchedule", "slow:PreferNoSchedule"])
    config = kubelet.configuration(directory, Slot(1), "worker-5", node)
    assert config["address"] == "127.18.69.1"
    assert config["healthzPort"] == 0
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"]["mode"] == "Webhook"
    assert config["registerWithTaints"] == [
        {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"},
        {"key": "slow", "value": "", "effect": "PreferNoSchedule"},
    ]
    binaries = Binaries(tmp_dir := directory.path, "key", "")
    made = kubelet.component(directory, Slot(1), "worker-5", node, binaries, tmp_dir / "images")
    assert {"--node-ip=198.18.69.1", "--pod-cidr=198.18.69.0/24", "--node-labels=zone=a"} <= set(made.argv)
    assert kubelet.node_of(made.name) == "worker-5"
    assert kubelet.node_of("etcd") == ""


@pytest.mark.parametrize("taint", ["", "key", "key=value", ":NoSchedule", "key:Sometimes"])
def test_a_wrong_taint_is_named(directory: Directory, taint: str) -> None:
    node = replace(Node(1, 2, "4Gi"), taints=[taint])
    with pytest.raises(ConfigError, match="taint"):
        kubelet.configuration(directory, Slot(0), "worker-1", node)


def test_objects_have_their_addresses_and_paths(directory: Directory) -> None:
    (directory / "pki").mkdir()
    (directory / "pki/ca.crt").write_text("authority")
    objects = cluster_objects(directory, Slot(4))
    text = repr(objects)
    assert "$" not in text
    assert "127.100.0.10" in text
    assert "198.19.0.2" in text
    paths = [path_of(obj) for obj in objects]
    assert len(set(paths)) == len(paths)
    assert "/api/v1/namespaces/kube-system/services/kube-dns" in paths
    assert "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io" in paths
    assert "/apis/storage.k8s.io/v1/storageclasses/standard" in paths


def test_a_taken_port_is_named_with_its_program() -> None:
    import os
    import socket

    slot = next(s for s in map(Slot, reversed(range(SLOTS))) if not taken_port(s))
    with socket.create_server((str(slot.control_plane.served), 10259)):
        said = taken_port(slot)
    assert f"{slot.control_plane.served}:10259, which kube-scheduler needs" in said
    assert f"pid {os.getpid()}" in said
