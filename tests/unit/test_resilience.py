"""What a Deployment's manifest and its budget promise for the day on which a machine is lost."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from labkit.checks.judging.resilience import keeps_apart, may_go, selects, toleration_s, worst_cost

KEYS = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        ([], 300),
        ([{**KEYS, "tolerationSeconds": 2}], 2),
        ([{"operator": "Exists", "tolerationSeconds": 7}], 7),
        ([KEYS], inf),
        ([{**KEYS, "tolerationSeconds": 9}, {**KEYS, "tolerationSeconds": 3}], 3),
        ([{**KEYS, "key": "node.kubernetes.io/not-ready", "tolerationSeconds": 2}], 300),
        ([{**KEYS, "tolerationSeconds": -5}], 0),
    ],
)
def test_how_long_pods_hold_out(tolerations: list[dict[str, Any]], seconds: float):
    assert toleration_s({"spec": {"tolerations": tolerations}}) == seconds


def test_what_keeps_pods_apart():
    host, zone = {"topologyKey": "kubernetes.io/hostname"}, {"topologyKey": "topology.kubernetes.io/zone"}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    right = [
        {"topologySpreadConstraints": [host]},
        {"affinity": {"podAntiAffinity": {required: [host]}}},
        {"affinity": {"podAntiAffinity": {preferred: [{"weight": 1, "podAffinityTerm": host}]}}},
    ]
    wrong = [{}, {"topologySpreadConstraints": [zone]}, {"affinity": {"podAffinity": {required: [host]}}}]
    assert all(keeps_apart({"spec": spec}) for spec in right)
    assert not any(keeps_apart({"spec": spec}) for spec in wrong)


@pytest.mark.parametrize(
    ("spec", "number"),
    [
        ({"maxUnavailable": 1}, 1),
        ({"maxUnavailable": 0}, 0),
        ({"maxUnavailable": "25%"}, 1),
        ({"maxUnavailable": "30%"}, 2),
        ({"minAvailable": 3}, 1),
        ({"minAvailable": 4}, 0),
        ({"minAvailable": "75%"}, 1),
        ({"minAvailable": 9}, 0),
        ({}, 3),
    ],
)
def test_how_many_a_budget_lets_go(spec: dict[str, Any], number: int):
    assert may_go({"spec": spec}, 4) == number


def test_what_a_budget_covers():
    labels = {"app": "web", "tier": "front"}
    assert selects({"matchLabels": {"app": "web"}}, labels) and selects({}, labels)
    assert not selects(None, labels) and not selects({"matchLabels": {"app": "shop"}}, labels)
    for operator, values, fits in (("In", ["web"], True), ("NotIn", ["web"], False), ("Exists", None, True)):
        one = {"key": "app", "operator": operator, **({"values": values} if values else {})}
        assert selects({"matchExpressions": [one]}, labels) is fits


def test_the_worst_case_is_of_the_fullest_machine():
    assert worst_cost(4, 18, 15) == 148 and worst_cost(2, 18, 2) == 48
