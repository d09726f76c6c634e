"""Lab 04's judgements: what a pool covers, who announces it, who wastes addresses."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.checks.addresses import (
    Holding,
    annotation,
    announces,
    asked_address,
    holdings,
    most_wasteful,
    pool_difference,
    wrong_team,
)
from labkit.labs.neighbours import TEAMS, Roles

GIVEN = "192.0.2.1-192.0.2.6"


@pytest.mark.parametrize(
    ("entries", "difference"),
    [
        ([GIVEN], (0, 0)),
        (["192.0.2.1-192.0.2.3", "192.0.2.4/31", "192.0.2.6/32"], (0, 0)),
        (["192.0.2.1 - 192.0.2.3", "192.0.2.2-192.0.2.6"], (0, 0)),
        (["192.0.2.1/28"], (10, 0)),
        (["192.0.2.1-192.0.2.7"], (1, 0)),
        (["192.0.2.2-192.0.2.7"], (1, 1)),
        (["192.0.2.1-192.0.2.5"], (0, 1)),
        (["2001:db8::1-2001:db8::6"], (6, 6)),
        ([], (0, 6)),
    ],
)
def test_a_pool_is_compared_with_what_was_given(entries: list[str], difference: tuple[int, int]) -> None:
    assert pool_difference(entries, GIVEN) == difference


@pytest.mark.parametrize(
    ("spec", "for_it"),
    [
        ({"ipAddressPools": ["lab"]}, True),
        ({}, True),
        ({"ipAddressPools": ["other"]}, False),
        ({"ipAddressPoolSelectors": [{"matchLabels": {"use": "shop"}}]}, True),
        ({"ipAddressPoolSelectors": [{"matchLabels": {"use": "game"}}]}, False),
        (
            {"ipAddressPoolSelectors": [{"matchExpressions": [{"key": "use", "operator": "Exists"}]}]},
            True,
        ),
        (
            {
                "ipAddressPoolSelectors": [
                    {"matchExpressions": [{"key": "use", "operator": "NotIn", "values": ["shop"]}]}
                ]
            },
            False,
        ),
    ],
)
def test_an_advertisement_is_for_a_pool_by_name_by_labels_or_for_all(spec: Any, for_it: bool) -> None:
    pool = {"metadata": {"name": "lab", "labels": {"use": "shop"}}}
    assert announces({"spec": spec}, pool) is for_it


@pytest.mark.parametrize(
    ("notes", "spec", "asked"),
    [
        ({"metallb.io/loadBalancerIPs": " 192.0.2.6"}, {}, "192.0.2.6"),
        ({"metallb.universe.tf/loadBalancerIPs": "192.0.2.6"}, {}, "192.0.2.6"),
        ({}, {"loadBalancerIP": "192.0.2.6"}, "192.0.2.6"),
        ({"metallb.io/loadBalancerIP": "192.0.2.6"}, {}, ""),
        ({"metallb.io/loadBalancerIPs": "LAST"}, {}, "LAST"),
    ],
)
def test_a_service_asks_in_several_ways(notes: dict[str, str], spec: Any, asked: str) -> None:
    assert asked_address({"metadata": {"annotations": notes}, "spec": spec}) == asked


def test_nothing_asks_for_nothing() -> None:
    assert asked_address(None) == "" and annotation({"metadata": {}}, "allow-shared-ip") == ""


def service(namespace: str, address: str) -> dict[str, Any]:
    status = {"loadBalancer": {"ingress": [{"ip": address}]} if address else {}}
    return {"metadata": {"namespace": namespace}, "status": status}


HELD = holdings(
    [
        service("shop", "192.0.2.1"), service("shop", "192.0.2.6"), service("shop", ""),
        *(service("reviews", "192.0.2.2") for _ in range(4)),
        *(service("warehouse", f"192.0.2.{n}") for n in (3, 4, 5)),
    ]
)  # fmt: skip


def test_addresses_are_counted_and_not_services() -> None:
    assert HELD["reviews"] == Holding(4, 1) and HELD["warehouse"] == Holding(3, 3)
    assert most_wasteful(HELD, ("shop",)) == "warehouse"
    assert most_wasteful({}, ("shop",)) == ""


@pytest.mark.parametrize(
    ("answer", "key"),
    [("reviews", "shares"), ("shop", "ours"), ("newsletter", "none"), (..., "none"), (["warehouse"], "none")],
)
def test_a_wrong_team_draws_its_hint(answer: object, key: str) -> None:
    assert wrong_team(answer, "warehouse", HELD, ("shop",))[0] == key


def test_roles_are_drawn_and_stay_the_same() -> None:
    assert {Roles.drawn(seed).wasteful for seed in range(40)} == set(TEAMS)
    assert Roles.drawn(7) == Roles.drawn(7)
    assert sorted(vars(Roles.drawn(3)).values()) == sorted(TEAMS)
