"""Checks of lab 04: MetalLB."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.addons.metallb import NAMESPACE, MetalLB, why_pending
from labkit.checks.addresses import (
    address_of,
    annotation,
    announces,
    asked_address,
    holdings,
    most_wasteful,
    pool_difference,
    wrong_team,
)
from labkit.checks.core import Finding, expect
from labkit.checks.objects import seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.errors import LabkitError
from labkit.kube import Object, dig
from labkit.labs.neighbours import PARTS, TEAMS
from labkit.labs.visit import VisitError, get
from labkit.load import Running

SHOP = "shop"
LABELS = "app.kubernetes.io/part-of=addresses-lab"
POOL = "lab"
OURS = ("storefront", "partners")


@define("04-nobody-answers", "There is a Service of type LoadBalancer, and nobody gives it an address")
def nobody_answers(cluster: Cluster) -> Iterator[Finding]:
    """The Service exists, is of that type, and waits."""
    service = cluster.kube.find("Service", "storefront", namespace=SHOP)
    if service is None:
        yield expect(False, "there is a Service storefront", seen(cluster, "Service", SHOP))
        return
    kind = dig(service, "spec.type")
    yield expect(kind == "LoadBalancer", "storefront is of type LoadBalancer", f"its type is {kind}")
    have = address_of(service)
    yield expect(not have, "it waits for an address", f"it has {have}")


@define("04-installed", "MetalLB is installed", deadline_s=60)
def installed(metallb: MetalLB) -> Iterator[Finding]:
    """The add-on says that it is ready."""
    status = metallb.status()
    lacking = ", ".join(f"{part}: {state}" for part, state in status.parts.items() if state != "ready")
    yield expect(status.state == "ready", "MetalLB is ready", f"it is {status.state}. {lacking}".strip())


@define("04-pool", "The pool has the given addresses, and the storefront answers at one", deadline_s=60)
def pool(metallb: MetalLB, given: str) -> Iterator[Finding]:
    """Pool lab covers the given range and no more, is announced, and the page is reached at one of it."""
    kube = metallb.cluster.kube
    found = kube.find("IPAddressPool", POOL, namespace=NAMESPACE)
    there = seen(metallb.cluster, "IPAddressPool", NAMESPACE)
    yield expect(found is not None, f"there is a pool {POOL} in {NAMESPACE}", there, "missing")
    if found is None:
        return
    yield from _as_given(found, given)
    automatic = bool(dig(found, "spec.autoAssign", True))
    yield expect(automatic, "Services get addresses of it unasked", "autoAssign: false", "auto")
    advertisements = kube.list("L2Advertisement", namespace=NAMESPACE)
    names = ", ".join(dig(each, "metadata.name") for each in advertisements) or "none"
    told = f"L2Advertisements in {NAMESPACE}: {names}; none of them is for pool {POOL}"
    announced = any(announces(each, found) for each in advertisements)
    yield expect(announced, "its addresses are announced", told, "announced")
    yield _in_pool(metallb, "storefront", "no-address")
    yield _answers(metallb, "storefront", "/", "no-answer")


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


@define("04-partner", "The partner's address is the promised one, and stays", deadline_s=60)
def partner(metallb: MetalLB, wanted: str) -> Iterator[Finding]:
    """partners asks for the address, has it, and leads to the catalogue at port 8080."""
    service = metallb.cluster.kube.find("Service", "partners", namespace=SHOP)
    kind = dig(service, "spec.type", "")
    there = f"its type is {kind}" if service else seen(metallb.cluster, "Service", SHOP)
    text = "there is a Service partners of type LoadBalancer"
    yield expect(kind == "LoadBalancer", text, there, "missing")
    if kind != "LoadBalancer":
        return
    asked, has = asked_address(service), address_of(service)
    told = f"it asks for {asked or 'no address'}" + (f", and has {has}" if has else "")
    yield expect(asked == wanted, f"it asks for {wanted}", told, "asks-other" if asked else "not-asked")
    yield expect(has == wanted, f"it has {wanted}", _has(metallb, service, "partners"), "refused")
    listens = [port["port"] for port in dig(service, "spec.ports", [])]
    there = f"it listens on {', '.join(map(str, listens))}"
    yield expect(8080 in listens, "it listens on port 8080", there, "port")
    if has == wanted and 8080 in listens:
        yield _answers(metallb, "partners", "/products", "wrong-pods", port=8080)


@define("04-exhausted", "The pool is exhausted: a Service waits, and its event says why", deadline_s=30)
def exhausted(metallb: MetalLB) -> Iterator[Finding]:
    """latecomer has no address, no address of the pool is free, and an event tells of it."""
    kube = metallb.cluster.kube
    service = kube.find("Service", "latecomer", namespace=SHOP)
    if service is None:
        yield expect(False, "there is a Service latecomer", seen(metallb.cluster, "Service", SHOP))
        return
    yield expect(not address_of(service), "latecomer has no address", f"it has {address_of(service)}")
    table = metallb.assignments()
    free = table.loc[(table["pool"] == POOL) & (table["service"] == ""), "address"].tolist()
    yield expect(not free, "no address of pool lab is free", f"free: {', '.join(free)}")
    reason = why_pending(kube, service)
    yield expect("available" in reason, "its event says that no address is available", f"it says: {reason}")


@define("04-wasteful", "You know who uses up the pool", deadline_s=5)
def wasteful(metallb: MetalLB, answer: object) -> Iterator[Finding]:
    """The namespace, apart from the shop, whose Services hold the most addresses."""
    held = holdings(metallb.cluster.kube.list("Service", everywhere=True))
    right = most_wasteful(held, (SHOP,))
    others = ", ".join(sorted(held)) or "none"
    yield expect(bool(right), "somebody else has addresses", f"namespaces with addresses: {others}")
    if right:
        key, told = ("", "") if answer == right else wrong_team(answer, right, held, (SHOP,))
        yield expect(answer == right, f"it is {answer}", told, key)


@define("04-shared", "The neighbour's Services share one address, and the latecomer has one", deadline_s=60)
def shared(metallb: MetalLB, team: str, given: str) -> Iterator[Finding]:
    """All three are there, on one address, and answer; the pool and the others' addresses are as before."""
    kube = metallb.cluster.kube
    services = {
        name: kube.find("Service", name, namespace=team) for name in (f"{team}-{part}" for part in PARTS)
    }
    gone = ", ".join(name for name, each in services.items() if dig(each, "spec.type") != "LoadBalancer")
    yield expect(not gone, "the three Services are there for the outside", f"not any more: {gone}", "gone")
    found = kube.find("IPAddressPool", POOL, namespace=NAMESPACE) or {}
    yield from _as_given(found, given, "pool")
    ours = [kube.find("Service", name, namespace=SHOP) for name in OURS]
    told = "; ".join(_has(metallb, each, name) for each, name in zip(ours, OURS, strict=True))
    yield expect(all(map(address_of, ours)), "the shop has its addresses", told, "others")
    if gone:
        return
    keys = {annotation(each, "allow-shared-ip") for each in services.values()}
    told = "; ".join(
        f"{name}: {annotation(each, 'allow-shared-ip') or 'none'}" for name, each in services.items()
    )
    yield expect(len(keys) == 1 and "" not in keys, "they have the same sharing key", told, "key")
    held = {address_of(each) for each in services.values()}
    told = "; ".join(_has(metallb, each, name) for name, each in services.items())
    together = len(held) == 1 and "" not in held
    yield expect(together, "they have the same address", told, "stays" if "" not in held else "waits")
    for name in services if together else ():
        yield _answers(metallb, name, "/healthz", "no-answer", namespace=team)
    yield _in_pool(metallb, "latecomer", "late")
    yield _answers(metallb, "latecomer", "/", "late")


@define("04-cleaned-up", "The lab's Services are gone, and every address is free", deadline_s=60)
def cleaned_up(metallb: MetalLB) -> Iterator[Finding]:
    """No Service of this lab is left, the neighbours are gone, and pool lab has assigned nothing."""
    services = metallb.cluster.kube.list("Service", namespace=SHOP, labels=LABELS)
    names = ", ".join(dig(service, "metadata.name") for service in services)
    yield expect(not services, "the lab's Services are gone", f"there are still: {names}")
    left = [team for team in TEAMS if metallb.cluster.kube.find("Namespace", team) is not None]
    yield expect(not left, "the neighbours have moved out", f"still there: {', '.join(left)}")
    pools = metallb.pools()
    used = int(pools.loc[pools["pool"] == POOL, "assigned"].sum())
    yield expect(not used, "every address of pool lab is free", f"{used} assigned")


def _as_given(pool: Object, given: str, key: str = "") -> Iterator[Finding]:
    """Whether a pool has the addresses of a range, all of them and no others; `key` for both hints."""
    entries = dig(pool, "spec.addresses", [])
    foreign, lacking = pool_difference(entries, given)
    told = f"pool {POOL} has {', '.join(entries) or 'no addresses'}; given were {given}"
    yield expect(not foreign, "it has no address that was not given", told, key or "foreign")
    yield expect(not lacking, "it has all that were given", told, key or "fewer")


def _has(metallb: MetalLB, service: Object | None, name: str) -> str:
    if service is None:
        return f"there is no Service {name}"
    return f"{name} has {address_of(service) or 'none: ' + why_pending(metallb.cluster.kube, service)}"


def _in_pool(metallb: MetalLB, name: str, key: str) -> Finding:
    service = metallb.cluster.kube.find("Service", name, namespace=SHOP)
    table = metallb.assignments()
    mine = set(table.loc[table["pool"] == POOL, "address"])
    good = service is not None and address_of(service) in mine
    pools = ", ".join(metallb.pools()["pool"]) or "none"
    said = f"{_has(metallb, service, name)}. Pools: {pools}."
    return expect(good, f"{name} has an address of pool {POOL}", said, key)


def _answers(
    metallb: MetalLB, name: str, path: str, key: str, *, namespace: str = SHOP, port: int | None = None
) -> Finding:
    text = f"{name} answers at its address"
    try:
        answer = get(metallb.url(name, namespace, port) + path)
    except (VisitError, LabkitError) as error:
        return expect(False, text, f"{error.message} {error.hint}".strip(), key)
    return expect(answer.status == 200, text, f"{path} says: {answer!r:.120}", key)
