"""Checks of lab 04: MetalLB."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.addons.metallb import MetalLB, why_pending
from labkit.checks.core import Finding, expect
from labkit.checks.objects import seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.errors import LabkitError
from labkit.kube import Object, dig
from labkit.labs.visit import VisitError, get
from labkit.load import Running

SHOP = "shop"
LABELS = "app.kubernetes.io/part-of=addresses-lab"
SHARED = ("back-office-catalog", "back-office-page")


@define("04-nobody-answers", "There is a Service of type LoadBalancer, and nobody gives it an address")
def nobody_answers(cluster: Cluster) -> Iterator[Finding]:
    """The Service exists, is of that type, and waits."""
    service = cluster.kube.find("Service", "storefront", namespace=SHOP)
    if service is None:
        yield expect(False, "there is a Service storefront", seen(cluster, "Service", SHOP))
        return
    kind = dig(service, "spec.type")
    yield expect(kind == "LoadBalancer", "storefront is of type LoadBalancer", f"its type is {kind}")
    have = _address(service)
    yield expect(not have, "it waits for an address", f"it has {have}")


@define("04-installed", "MetalLB is installed", deadline_s=60)
def installed(metallb: MetalLB) -> Iterator[Finding]:
    """The add-on says that it is ready."""
    status = metallb.status()
    lacking = ", ".join(f"{part}: {state}" for part, state in status.parts.items() if state != "ready")
    yield expect(status.state == "ready", "MetalLB is ready", f"it is {status.state}. {lacking}".strip())


@define("04-address", "The storefront has an address, and answers there", deadline_s=60)
def address(metallb: MetalLB) -> Iterator[Finding]:
    """An address of pool lab; the page is reached at it."""
    yield from _in_pool(metallb, "storefront")
    yield from _answers(metallb, "storefront", None)


@define("04-shared-out", "A pod died, and others took its share", deadline_s=5)
def shared_out(traffic: Running) -> Iterator[Finding]:
    """The load has ended; a pod stopped answering midway and another one began; later answers are good."""
    yield expect(traffic.done, "the load has ended", "it is still being sent")
    if not traffic.done:
        return
    result = traffic.result()
    requests, span = result.requests, max(1.0, result.profile.duration_s)
    good = requests[~requests["failed"]]
    if not len(good):
        yield expect(False, "requests were answered", f"none of {len(requests)} was")
        return
    early = set(good.loc[good["t_scheduled_s"] < 0.2 * span, "pod"])
    late = set(good.loc[good["t_scheduled_s"] > 0.8 * span, "pod"])
    there = f"first: {', '.join(sorted(early))}; at the end: {', '.join(sorted(late))}"
    yield expect(bool(early - late), "a pod answered at first and not any more at the end", there)
    yield expect(bool(late - early), "a new pod answers at the end", there)
    last = requests[requests["t_scheduled_s"] > 0.8 * span]
    bad = last[last["failed"]]
    kinds = bad["error"].where(bad["error"] != "", "HTTP " + bad["status"].astype(str)).value_counts()
    said = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    yield expect(bad.empty, "no request fails at the end", f"of the last {len(last)}: {said}")


@define("04-chosen", "One Service has the address it asked for, two others share one", deadline_s=90)
def chosen(metallb: MetalLB, wanted: str) -> Iterator[Finding]:
    """partners has the address of its annotation; the back office's two have the same one; all answer."""
    partners = metallb.cluster.kube.find("Service", "partners", namespace=SHOP)
    yield expect(_address(partners) == wanted, f"partners has {wanted}", _has(metallb, partners, "partners"))
    pair = [metallb.cluster.kube.find("Service", name, namespace=SHOP) for name in SHARED]
    both = {_address(service) for service in pair}
    same = len(both) == 1 and "" not in both
    said = "; ".join(_has(metallb, one, name) for one, name in zip(pair, SHARED, strict=True))
    yield expect(same, "the two of the back office have the same address", said)
    if same:
        yield from _answers(metallb, SHARED[0], "/products")
        yield from _answers(metallb, SHARED[1], None)


@define("04-exhausted", "The pool is exhausted: a Service waits, and its event says why", deadline_s=30)
def exhausted(metallb: MetalLB) -> Iterator[Finding]:
    """latecomer has no address, no address of the pool is free, and an event tells of it."""
    kube = metallb.cluster.kube
    service = kube.find("Service", "latecomer", namespace=SHOP)
    if service is None:
        yield expect(False, "there is a Service latecomer", seen(metallb.cluster, "Service", SHOP))
        return
    yield expect(not _address(service), "latecomer has no address", f"it has {_address(service)}")
    table = metallb.assignments()
    free = table.loc[(table["pool"] == "lab") & (table["service"] == ""), "address"].tolist()
    yield expect(not free, "no address of pool lab is free", f"free: {', '.join(free)}")
    reason = why_pending(kube, service)
    yield expect("available" in reason, "its event says that no address is available", f"it says: {reason}")


@define("04-freed", "The Service that waited has an address now, and answers", deadline_s=60)
def freed(metallb: MetalLB) -> Iterator[Finding]:
    """latecomer has an address of pool lab."""
    yield from _in_pool(metallb, "latecomer")
    yield from _answers(metallb, "latecomer", None)


@define("04-cleaned-up", "The lab's Services are gone, and every address is free", deadline_s=30)
def cleaned_up(metallb: MetalLB) -> Iterator[Finding]:
    """No Service of this lab is left, and pool lab has assigned nothing."""
    services = metallb.cluster.kube.list("Service", namespace=SHOP, labels=LABELS)
    names = ", ".join(dig(service, "metadata.name") for service in services)
    yield expect(not services, "the lab's Services are gone", f"there are still: {names}")
    pools = metallb.pools()
    used = int(pools.loc[pools["pool"] == "lab", "assigned"].sum())
    yield expect(not used, "every address of pool lab is free", f"{used} assigned")


def _address(service: Object | None) -> str:
    return str(dig(service, "status.loadBalancer.ingress[0].ip", ""))


def _has(metallb: MetalLB, service: Object | None, name: str) -> str:
    if service is None:
        return f"there is no Service {name}"
    return f"{name} has {_address(service) or 'none: ' + why_pending(metallb.cluster.kube, service)}"


def _in_pool(metallb: MetalLB, name: str) -> Iterator[Finding]:
    service = metallb.cluster.kube.find("Service", name, namespace=SHOP)
    table = metallb.assignments()
    mine = set(table.loc[table["pool"] == "lab", "address"])
    good = service is not None and _address(service) in mine
    pool = ", ".join(metallb.pools()["pool"]) or "none"
    said = f"{_has(metallb, service, name)}. Pools: {pool}."
    yield expect(good, f"{name} has an address of pool lab", said)


def _answers(metallb: MetalLB, name: str, path: str | None) -> Iterator[Finding]:
    try:
        answer = get(metallb.url(name, SHOP) + (path or "/"))
        yield expect(answer.status == 200, f"{name} answers at its address", f"it says: {answer!r:.120}")
    except (VisitError, LabkitError) as error:
        yield expect(False, f"{name} answers at its address", f"{error.message} {error.hint}".strip())
