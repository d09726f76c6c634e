"""Lab 04's checks on a played API: each mistake draws its hint, each right way passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from labkit.addons.metallb import NAMESPACE, MetalLB
from labkit.checks import lab04
from labkit.checks.core import Finding
from labkit.labs.visit import Answer

GIVEN = "127.240.0.1-127.240.0.6"
Object = dict[str, Any]


@dataclass
class Kube:
    """Answers from a list of objects."""

    objects: list[Object] = field(default_factory=list)

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        return next((each for each in self.list(kind, namespace) if each["metadata"]["name"] == name), None)

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        found = self.find(kind, name, namespace)
        assert found is not None
        return found

    def list(self, kind: str, namespace: str = "", *, everywhere: bool = False, **_: Any) -> Any:
        return [
            each
            for each in self.objects
            if each["kind"] == kind and (everywhere or each["metadata"].get("namespace", "") == namespace)
        ]

    def events(self, _: Object) -> Any:
        return []


@dataclass
class Cluster:
    kube: Kube


def metallb(*objects: Object) -> MetalLB:
    return MetalLB(Cluster(Kube(list(objects))))  # type: ignore[arg-type]


def obj(kind: str, name: str, namespace: str, spec: Object, **more: Any) -> Object:
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace, **more}, "spec": spec}


def service(name: str, address: str = "", port: int = 8080, namespace: str = "shop", **notes: str) -> Object:
    made = obj("Service", name, namespace, {"type": "LoadBalancer", "ports": [{"port": port}]})
    made["metadata"]["annotations"] = {
        f"metallb.io/{key.replace('_', '-')}": value for key, value in notes.items()
    }
    made["status"] = {"loadBalancer": {"ingress": [{"ip": address}]} if address else {}}
    return made


def pool(*entries: str, **spec: Any) -> Object:
    return obj("IPAddressPool", "lab", NAMESPACE, {"addresses": list(entries), **spec})


SPEAKS = obj("L2Advertisement", "lab", NAMESPACE, {})
FRONT = service("storefront", "127.240.0.1")
PARTNER = service("partners", "127.240.0.6", loadBalancerIPs="127.240.0.6")


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Status by path; 200 by default."""
    by_path: dict[str, int] = {}

    def get(url: str) -> Answer:
        path = "/" + url.split("/", 3)[3]
        return Answer(url, by_path.get(path, 200), {}, "")

    monkeypatch.setattr(lab04, "get", get)
    return by_path


def missing(findings: Iterator[Finding]) -> list[str]:
    return [finding.key for finding in findings if not finding.ok]


@pytest.mark.parametrize(
    ("objects", "keys"),
    [
        ((pool(GIVEN), SPEAKS, FRONT), []),
        ((pool("127.240.0.1-127.240.0.4", "127.240.0.5/32", "127.240.0.6/32"), SPEAKS, FRONT), []),
        ((FRONT,), ["missing"]),
        ((pool("127.240.0.1/28"), SPEAKS, FRONT), ["foreign"]),
        ((pool("127.240.0.1-127.240.0.5"), SPEAKS, FRONT), ["fewer"]),
        ((pool(GIVEN), FRONT), ["announced"]),
        ((pool(GIVEN, autoAssign=False), SPEAKS, service("storefront")), ["auto", "no-address", "no-answer"]),
    ],
)
def test_a_pool_draws_the_hint_of_its_mistake(objects: tuple[Object, ...], keys: list[str]) -> None:
    assert missing(lab04.pool(metallb(*objects), GIVEN)) == keys


@pytest.mark.parametrize(
    ("partner", "keys"),
    [
        (PARTNER, []),
        (None, ["missing"]),
        (service("partners", "127.240.0.2"), ["not-asked", "refused"]),
        (service("partners", "127.240.0.6"), ["not-asked"]),
        (service("partners", loadBalancerIPs="127.240.0.1"), ["asks-other", "refused"]),
        (service("partners", loadBalancerIPs="127.240.0.6"), ["refused"]),
        (service("partners", "127.240.0.6", 80, loadBalancerIPs="127.240.0.6"), ["port"]),
    ],
)
def test_a_partners_service_draws_the_hint_of_its_mistake(partner: Object | None, keys: list[str]) -> None:
    objects = [FRONT, *([partner] if partner else [])]
    assert missing(lab04.partner(metallb(*objects), "127.240.0.6")) == keys


def test_a_partner_that_reaches_other_pods_is_seen(answers: dict[str, int]) -> None:
    answers["/products"] = 404
    assert missing(lab04.partner(metallb(PARTNER), "127.240.0.6")) == ["wrong-pods"]


def team(*addresses: str, keys: tuple[str, ...] = ("x", "x", "x")) -> list[Object]:
    return [
        service(
            f"reviews-{part}", address, 8091 + number, "reviews", **({"allow_shared_ip": key} if key else {})
        )
        for number, (part, address, key) in enumerate(
            zip(("admin", "app", "metrics"), addresses, keys, strict=False)
        )
    ]


ONE = ("127.240.0.3",) * 3
LATE = service("latecomer", "127.240.0.4")


@pytest.mark.parametrize(
    ("objects", "keys"),
    [
        ((pool(GIVEN), FRONT, PARTNER, LATE, *team(*ONE)), []),
        ((pool(GIVEN), FRONT, PARTNER, LATE, *team(*ONE[:1])), ["gone"]),
        ((pool("127.240.0.1/28"), FRONT, PARTNER, LATE, *team(*ONE)), ["pool"]),
        ((pool(GIVEN), FRONT, LATE, *team(*ONE)), ["others"]),
        ((pool(GIVEN), FRONT, PARTNER, LATE, *team(*ONE, keys=("", "", ""))), ["key"]),
        ((pool(GIVEN), FRONT, PARTNER, LATE, *team(*ONE, keys=("x", "y", "x"))), ["key"]),
        (
            (
                pool(GIVEN),
                FRONT,
                PARTNER,
                service("latecomer"),
                *team("127.240.0.3", "127.240.0.4", "127.240.0.5"),
            ),
            ["stays", "late", "late"],
        ),
        ((pool(GIVEN), FRONT, PARTNER, LATE, *team("127.240.0.3", "127.240.0.3", "")), ["waits"]),
        ((pool(GIVEN), FRONT, PARTNER, service("latecomer"), *team(*ONE)), ["late", "late"]),
    ],
)
def test_sharing_draws_the_hint_of_its_mistake(objects: tuple[Object, ...], keys: list[str]) -> None:
    assert missing(lab04.shared(metallb(*objects), "reviews", GIVEN)) == keys


def test_the_wasteful_team_is_told_from_the_thrifty_one() -> None:
    waste = team("127.240.0.3", "127.240.0.4", "127.240.0.5")
    thrifty = [service(f"news-{n}", "127.240.0.2", 8091 + n, "newsletter") for n in range(4)]
    made = metallb(FRONT, PARTNER, *waste, *thrifty)
    assert missing(lab04.wasteful(made, "reviews")) == []
    assert missing(lab04.wasteful(made, "newsletter")) == ["shares"]
    assert missing(lab04.wasteful(made, "shop")) == ["ours"]
    assert missing(lab04.wasteful(made, ...)) == ["none"]
