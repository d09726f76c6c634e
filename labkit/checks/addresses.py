"""What a pool covers, who announces it, what Services ask for: judged without a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from labkit.addons import pools
from labkit.kube import Object, dig

_PREFIXES = ("metallb.io", "metallb.universe.tf")


def pool_difference(entries: Iterable[str], given: str) -> tuple[int, int]:
    """How many addresses a pool has that were not given, and how many that were given it lacks.

    Args:
        entries: `spec.addresses` of the pool.
        given: a range: 192.0.2.10-192.0.2.19.
    """
    [(first, last)] = pools.spans([given])
    parts = pools.spans(entries)
    inside = sum(
        max(0, min(int(end), int(last)) - max(int(begin), int(first)) + 1)
        for begin, end in parts
        if begin.version == first.version
    )
    return pools.size(parts) - inside, int(last) - int(first) + 1 - inside


def announces(advertisement: Object, pool: Object) -> bool:
    """Whether an L2Advertisement is for a pool: by its name, by its labels, or for all pools."""
    names = dig(advertisement, "spec.ipAddressPools", [])
    selectors = dig(advertisement, "spec.ipAddressPoolSelectors", [])
    labels = dig(pool, "metadata.labels", {})
    chosen = dig(pool, "metadata.name") in names or any(_selects(each, labels) for each in selectors)
    return chosen or not (names or selectors)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for each in selector.get("matchExpressions") or ():
        name, values = each["key"], each.get("values") or ()
        holds = {
            "In": labels.get(name) in values,
            "NotIn": labels.get(name) not in values,
            "Exists": name in labels,
            "DoesNotExist": name not in labels,
        }
        if not holds.get(each["operator"], False):
            return False
    return True


def annotation(service: Object | None, name: str) -> str:
    """MetalLB's annotation of a Service, also under the prefix of earlier versions; "" for none."""
    notes = dig(service, "metadata.annotations", {})
    return next((str(notes[f"{prefix}/{name}"]) for prefix in _PREFIXES if f"{prefix}/{name}" in notes), "")


def asked_address(service: Object | None) -> str:
    """The address that a Service asks for, in the one form ipaddress gives it; "" for none."""
    asked = annotation(service, "loadBalancerIPs") or str(dig(service, "spec.loadBalancerIP", ""))
    try:
        return str(ip_address(asked.strip())) if asked else ""
    except ValueError:
        return asked


def address_of(service: Object | None) -> str:
    """The address that a Service has, "" while it waits."""
    return str(dig(service, "status.loadBalancer.ingress[0].ip", ""))


@dataclass(frozen=True)
class Holding:
    """What the Services of a namespace hold.

    Attributes:
        services: those of type LoadBalancer that have an address.
        addresses: different ones.
    """

    services: int = 0
    addresses: int = 0


def holdings(services: Iterable[Object]) -> dict[str, Holding]:
    """Namespace → what it holds; {} of one that holds nothing."""
    found: dict[str, list[str]] = {}
    for service in services:
        if address := address_of(service):
            found.setdefault(dig(service, "metadata.namespace"), []).append(address)
    return {namespace: Holding(len(held), len(set(held))) for namespace, held in found.items()}


def most_wasteful(held: dict[str, Holding], ours: Sequence[str]) -> str:
    """The namespace with the most addresses, `ours` left out; "" where nobody else has one."""
    others = [name for name in held if name not in ours]
    return max(others, key=lambda name: (held[name].addresses, name), default="")


def wrong_team(answer: object, right: str, held: dict[str, Holding], ours: Sequence[str]) -> tuple[str, str]:
    """Key of the hint for an answer that is not the right one, and what the answer holds in words."""
    if answer in ours:
        return "ours", f"{answer} has {held.get(str(answer), Holding()).addresses} addresses and needs them"
    mine = held.get(str(answer))
    if mine is None:
        return "none", f"no Service of {answer!r} has an address"
    told = f"{answer} has {mine.services} Services on {mine.addresses} address{'es' * (mine.addresses != 1)}"
    return "shares" if mine.addresses < held[right].addresses else "none", told
