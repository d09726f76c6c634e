"""Addresses of MetalLB's pools: ranges and networks, IPv4 and IPv6, however many they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
Span = tuple[Address, Address]
"""First and last address of a run without gaps."""

ONE_BY_ONE = 64
"""Of a pool with no more addresses each free one is named; of a larger one the runs of them."""


def spans(entries: Iterable[str], *, avoid_buggy: bool = False) -> list[Span]:
    """What the entries of `spec.addresses` cover, in order, each address once.

    Args:
        entries: `192.0.2.10-192.0.2.19`, `192.0.2.16/28`, `2001:db8::/64`.
        avoid_buggy: without the addresses of IPv4 that end in .0 and .255, as `spec.avoidBuggyIPs` says.
    """
    found: list[Span] = []
    for first, last in sorted(map(_span, entries), key=lambda span: (span[0].version, int(span[0]))):
        before = found[-1][1] if found and found[-1][1].version == first.version else None
        if before is not None and int(first) <= int(before) + 1:
            if int(last) > int(before):
                found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return [part for span in found for part in _without_ends(*span)] if avoid_buggy else found


def size(parts: Iterable[Span]) -> int:
    """How many addresses they have."""
    return sum(int(last) - int(first) + 1 for first, last in parts)


def listed(parts: Collection[Span], held: Collection[Address]) -> Iterator[str]:
    """The held addresses among them and the free ones, in order; see ONE_BY_ONE."""
    single = size(parts) <= ONE_BY_ONE
    for first, last in parts:
        inside = sorted(int(each) for each in held if each.version == first.version and first <= each <= last)  # type: ignore[operator]
        number = int(first)
        for taken in [*inside, int(last) + 1]:
            yield from _free(type(first), number, taken - 1, single)
            if taken <= int(last):
                yield str(type(first)(taken))
            number = taken + 1


def _free(kind: type[Address], first: int, last: int, single: bool) -> Iterator[str]:
    if single or first == last:
        yield from (str(kind(number)) for number in range(first, last + 1))
    elif first < last:
        yield f"{kind(first)}-{kind(last)}"


def _span(entry: str) -> Span:
    first, dash, last = entry.partition("-")
    if dash:
        return ip_address(first.strip()), ip_address(last.strip())
    network = ip_network(entry.strip(), strict=False)
    return network[0], network[-1]


def _without_ends(first: Address, last: Address) -> Iterator[Span]:
    if first.version == 6:
        yield first, last
        return
    for block in range(int(first) >> 8, (int(last) >> 8) + 1):
        begin, end = max(int(first), (block << 8) + 1), min(int(last), (block << 8) + 254)
        if begin <= end:
            yield IPv4Address(begin), IPv4Address(end)
