"""MetalLB's add-on on a played API: ranges, who has which address, what is said when there is none; lab 04's checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

from labkit import load, plots
from labkit.addons import AddonStatus
from labkit.addons.failover import FailOver, fail_over
from labkit.addons.metallb import MetalLB, pool_manifest, why_pending
from labkit.checks.lab04 import shared_out
from labkit.errors import ClusterError, ConfigError, KubeError
from labkit.load import LoadResult


def service(
    name: str, ip: str = "", port: int = 80, pool: str = "lab", kind: str = "LoadBalancer"
) -> dict[str, Any]:
    annotations = {"metallb.io/ip-allocated-from-pool": pool} if ip else {}
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "annotations": annotations},
        "spec": {"type": kind, "ports": [{"port": port}]},
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]} if ip else {}},
    }


POOL = {
    "kind": "IPAddressPool", "metadata": {"name": "lab"}, "spec": {"addresses": ["127.240.0.1-127.240.0.3"]},
    "status": {"assignedIPv4": 2, "availableIPv4": 1},
}  # fmt: skip


@dataclass
class Kube:
    """Answers from lists; no MetalLB kinds unless there is a pool."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    said: list[dict[str, Any]] = field(default_factory=list)

    def list(self, kind: str, **_: Any) -> Any:
        if kind not in self.objects and kind != "Service":
            raise KubeError(f"no kind {kind}")
        return self.objects.get(kind, [])

    def get(self, kind: str, name: str, **_: Any) -> dict[str, Any]:
        return next(obj for obj in self.objects[kind] if obj["metadata"]["name"] == name)

    def find(self, _kind: str, _name: str, **_: Any) -> None:
        return None

    def events(self, _obj: dict[str, Any]) -> Any:
        return self.said


@dataclass
class Cluster:
    kube: Kube = field(default_factory=Kube)
    provider: str = "embedded"

    def load_balancer_range(self) -> tuple[str, str]:
        return "127.240.0.1", "127.240.0.254"


def metallb(*services: dict[str, Any], **objects: Any) -> MetalLB:
    return MetalLB(Cluster(Kube({"Service": list(services), "IPAddressPool": [POOL], **objects})))  # type: ignore[arg-type]


def test_ranges_come_from_the_clusters_own() -> None:
    made = metallb()
    assert made.addresses(3) == "127.240.0.1-127.240.0.3"
    assert made.addresses(1, skip=253) == "127.240.0.254-127.240.0.254"
    for count, skip in ((0, 0), (255, 0), (2, 253), (1, -1)):
        with pytest.raises(ConfigError) as caught:
            made.addresses(count, skip)
        assert "254" in caught.value.hint


def test_a_pool_is_announced() -> None:
    pool, advertisement = pool_manifest("lab", "127.240.0.1-127.240.0.3", auto_assign=False)
    assert pool["spec"] == {"addresses": ["127.240.0.1-127.240.0.3"], "autoAssign": False}
    assert advertisement["spec"]["ipAddressPools"] == ["lab"]


def test_assignments_tell_of_shared_free_and_awaited_addresses() -> None:
    made = metallb(
        service("b", "127.240.0.2", 81), service("a", "127.240.0.2"), service("c", "127.240.0.1"),
        service("late"), service("inside", kind="ClusterIP"),
    )  # fmt: skip
    table = made.assignments()
    assert table[["address", "service", "ports"]].to_numpy().tolist() == [
        ["127.240.0.1", "shop/c", "80"],
        ["127.240.0.2", "shop/a", "80"],
        ["127.240.0.2", "shop/b", "81"],
        ["127.240.0.3", "", ""],
        ["", "shop/late", "80"],
    ]
    assert made.pools().to_numpy().tolist() == [["lab", "127.240.0.1-127.240.0.3", 2, 1]]


def pool(*addresses: str, **spec: Any) -> dict[str, Any]:
    status = {"assignedIPv4": 1, "availableIPv4": 3, "assignedIPv6": 2, "availableIPv6": 8}
    return {"metadata": {"name": "lab"}, "spec": {"addresses": list(addresses), **spec}, "status": status}


def rows(made: MetalLB) -> list[list[str]]:
    return made.assignments()[["address", "service"]].to_numpy().tolist()


def test_pools_are_listed_in_every_form_that_metallb_takes() -> None:
    made = metallb(
        service("a", "192.0.2.17"), IPAddressPool=[pool("192.0.2.16/30", " 192.0.2.18 - 192.0.2.20 ")]
    )
    assert rows(made) == [
        ["192.0.2.16", ""], ["192.0.2.17", "shop/a"], ["192.0.2.18", ""], ["192.0.2.19", ""], ["192.0.2.20", ""],
    ]  # fmt: skip
    both = metallb(
        service("a", "2001:DB8::0002"), service("b", "192.0.2.1"),
        IPAddressPool=[pool("2001:db8::1-2001:db8::3", "192.0.2.1/32")],
    )  # fmt: skip
    assert rows(both) == [
        ["192.0.2.1", "shop/b"], ["2001:db8::1", ""], ["2001:db8::2", "shop/a"], ["2001:db8::3", ""],
    ]  # fmt: skip
    assert both.pools()[["assigned", "available"]].to_numpy().tolist() == [[3, 11]]
    assert both.url("a") == "http://[2001:db8::2]:80"


def test_all_addresses_of_a_large_pool_are_looked_at() -> None:
    made = metallb(
        service("far", "10.0.3.200"), service("near", "10.0.0.1"), service("six", "2001:db8::ffff"),
        IPAddressPool=[pool("10.0.0.0/22", "2001:db8::/64")],
    )  # fmt: skip
    assert rows(made) == [
        ["10.0.0.0", ""],
        ["10.0.0.1", "shop/near"],
        ["10.0.0.2-10.0.3.199", ""],
        ["10.0.3.200", "shop/far"],
        ["10.0.3.201-10.0.3.255", ""],
        ["2001:db8::-2001:db8::fffe", ""],
        ["2001:db8::ffff", "shop/six"],
        ["2001:db8::1:0-2001:db8::ffff:ffff:ffff:ffff", ""],
    ]
    assert "18446744073709552640 addresses" in str(plots.address_pool_figure(made.assignments()).texts)


def test_addresses_that_a_pool_avoids_are_not_free() -> None:
    made = metallb(IPAddressPool=[pool("10.0.0.254-10.0.1.1", avoidBuggyIPs=True)])
    assert rows(made) == [["10.0.0.254", ""], ["10.0.1.1", ""]]


def test_without_metallb_there_are_no_pools() -> None:
    made = MetalLB(Cluster())  # type: ignore[arg-type]
    assert made.pools().empty and list(made.assignments().columns) == ["pool", "address", "service", "ports"]
    assert made.announcer("web") == "" and made.status() == AddonStatus("metallb", "absent")
    assert fail_over(made, "web", "shop") is None


def test_the_url_is_where_the_address_is_served() -> None:
    made = metallb(
        service("web", "127.240.0.1", 80), service("app", "127.240.0.2", 8080), service("far", "172.18.0.9")
    )
    assert made.url("web") == "http://127.240.0.1:10080"
    assert made.url("app") == "http://127.240.0.2:8080" and made.url("app", port=9000).endswith(":9000")
    assert made.url("far") == "http://172.18.0.9:80"


def test_no_address_is_an_error_with_the_events_words() -> None:
    made = metallb(service("late"))
    with pytest.raises(ClusterError, match="no external address") as caught:
        made.url("late", namespace="shop")
    assert "No event" in caught.value.hint
    made.cluster.kube.said = [
        {"type": "Normal", "message": "x"},
        {"type": "Warning", "message": "no available IPs"},
    ]  # type: ignore[attr-defined]
    assert why_pending(made.cluster.kube, service("late")) == "no available IPs"


def test_the_announcing_node_is_read_from_its_status() -> None:
    made = metallb(ServiceL2Status=[{"status": {"node": "worker-2"}}])
    assert made.announcer("web") == "worker-2"


def test_it_is_not_removed_while_services_use_it() -> None:
    made = metallb(service("web", "127.240.0.1"), service("late"))
    with pytest.raises(ClusterError) as caught:
        made.uninstall()
    assert "shop/web" in caught.value.message and "shop/late" not in caught.value.message
    assert "force=True" in caught.value.hint


def test_a_status_is_read_by_people() -> None:
    status = AddonStatus("metallb", "ready", "v0.16.2", {"deployment/controller": "ready"})
    assert str(status) == "metallb v0.16.2: ready\n  deployment/controller: ready"
    assert str(AddonStatus("metallb", "absent")) == "metallb: absent"


# --- lab 04's check on a load


@dataclass
class Played:
    """Stands where a Running would."""

    measured: LoadResult
    done: bool = True

    def result(self) -> LoadResult:
        return self.measured


def run(*spans: tuple[str, float, float], failed_from: float = 99.0) -> Played:
    """Requests once a second per pod of each span."""
    rows = [(t, pod) for pod, begin, end in spans for t in range(int(begin), int(end))]
    frame = pd.DataFrame(rows, columns=["t_scheduled_s", "pod"]).sort_values("t_scheduled_s")
    frame["failed"] = frame["t_scheduled_s"] >= failed_from
    frame["error"] = ["refused" if bad else "" for bad in frame["failed"]]
    frame["status"] = [0 if bad else 200 for bad in frame["failed"]]
    return Played(LoadResult(frame, load.constant(3, 30), 0.0))


def wrong(played: Played) -> list[str]:
    return [finding.text for finding in shared_out(played) if not finding.ok]  # type: ignore[arg-type]


GOOD = (("a", 0, 30), ("b", 0, 30), ("c", 0, 10), ("d", 14, 30))


def test_a_pod_that_dies_and_is_replaced_passes() -> None:
    assert wrong(run(*GOOD)) == []


def test_a_pod_that_lives_on_or_is_not_replaced_does_not() -> None:
    assert wrong(run(("a", 0, 30), ("b", 0, 30))) == [
        "a pod answered at first and not any more at the end",
        "a new pod answers at the end",
    ]
    assert wrong(run(("a", 0, 30), ("c", 0, 10))) == ["a new pod answers at the end"]
    assert wrong(run(*GOOD, failed_from=28)) == ["no request fails at the end"]
    assert wrong(Played(run(*GOOD).result, done=False)) == ["the load has ended"]


def test_a_fail_over_is_told_in_words() -> None:
    told = str(FailOver("worker-1", "worker-2", 5.0, 7.5, run(*GOOD, failed_from=28).measured))
    assert "worker-1 was lost; worker-2 announced 2.5 s later. 6 of 86" in told
