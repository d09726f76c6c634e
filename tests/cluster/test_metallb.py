"""MetalLB on a real cluster: installed twice, half-installed, an exhausted pool, bad ranges, uninstalled while used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.addons.metallb import NAMESPACE, MetalLB, pool_manifest, why_pending
from labkit.cluster import Cluster
from labkit.errors import ClusterError, KubeError
from labkit.kube import dig
from labkit.labs.visit import get

from .helpers import Namespace, namespace, until
from .test_core import serve


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace of its own for a test."""
    with namespace(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def metallb(cluster: Cluster) -> Iterator[MetalLB]:
    made = MetalLB(cluster)
    try:
        assert made.install().state == "ready"
        yield made
    finally:
        made.uninstall(force=True)


@pytest.fixture
def pool(metallb: MetalLB) -> Iterator[str]:
    """A pool of two addresses; the first of them."""
    addresses = metallb.addresses(2, skip=100)
    metallb.cluster.kube.apply(pool_manifest("two", addresses))
    yield addresses.split("-")[0]
    for kind in ("L2Advertisement", "IPAddressPool"):
        metallb.cluster.kube.delete(kind, "two", namespace=NAMESPACE)


def balanced(space: Namespace, name: str, **annotations: str) -> None:
    """A Service of type LoadBalancer to pods that are labelled app=web."""
    notes = {f"metallb.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    port = 8000 + sum(map(ord, name))
    space.apply(
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": notes},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": port, "targetPort": 8080}]},
        }
    )  # fmt: skip


def address(space: Namespace, name: str) -> str:
    return str(dig(space.get("service", name), "status.loadBalancer.ingress[0].ip", ""))


def test_addresses_are_given_taken_back_and_given_on(metallb: MetalLB, pool: str, space: Namespace) -> None:
    serve(metallb.cluster, space, 2)
    balanced(space, "first", loadBalancerIPs=pool)
    until(lambda: address(space, "first") == pool, 60, "the address that was asked for")
    url = metallb.url("first", space.name)
    assert {get(url).status for _ in range(4)} == {200}
    balanced(space, "second", allow_shared_ip="key")
    balanced(space, "third", allow_shared_ip="key")
    until(lambda: address(space, "third") not in ("", pool), 60, "an address")
    assert address(space, "third") == address(space, "second")

    balanced(space, "late")
    kube = metallb.cluster.kube
    late = kube.get("Service", "late", namespace=space.name)
    until(lambda: "no available IPs" in why_pending(kube, late), 60, "an event that says why")
    with pytest.raises(ClusterError) as caught:
        metallb.url("late", space.name)
    assert "no available IPs" in caught.value.hint
    with pytest.raises(ClusterError, match=f"{space.name}/first"):
        metallb.uninstall()

    space.kubectl("delete", "service", "first")
    until(lambda: address(space, "late") == pool, 60, "the address that has become free")
    space.kubectl("delete", "service", "second", "third", "late")
    until(lambda: metallb.pools().set_index("pool").loc["two", "assigned"] == 0, 60, "all free")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("127.0.0.2-127.0.0.1", "is after the end IP"),
        ("300.0.0.1/32", "invalid CIDR"),
        ("nonsense", "invalid CIDR"),
    ],
)
def test_bad_ranges_are_refused_in_words(metallb: MetalLB, wrong: str, said: str) -> None:
    with pytest.raises(KubeError) as caught:
        metallb.cluster.kube.apply(pool_manifest("wrong", wrong))
    assert said in caught.value.message and "may not do this" not in str(caught.value)


def test_installed_again_it_is_as_before_and_half_installed_it_is_completed(
    metallb: MetalLB, pool: str
) -> None:
    kube = metallb.cluster.kube
    before = dig(kube.get("Deployment", "controller", namespace=NAMESPACE), "metadata.uid")
    assert metallb.install().state == "ready"
    assert dig(kube.get("Deployment", "controller", namespace=NAMESPACE), "metadata.uid") == before
    kube.delete("ValidatingWebhookConfiguration", "metallb-webhook-configuration")
    kube.delete("Deployment", "controller", namespace=NAMESPACE)
    status = metallb.status()
    assert status.state == "incomplete" and status.parts["deployment/controller"] == "missing"
    done = metallb.install()
    assert done.state == "ready" and done.version == "v0.16.2" and "pool/two" in done.parts
    assert pool
