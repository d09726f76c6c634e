"""Orders to join in which one thing is wrong, carried out by a real worker."""

from __future__ import annotations

import random

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.labs import orders

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("fault", orders.FAULTS)
def test_an_order_fails_with_the_words_of_its_fault(cluster: EmbeddedCluster, fault: str) -> None:
    seed = next(n for n in range(99) if random.Random(n).choice(orders.FAULTS) == fault)
    order = orders.draw(cluster, seed)
    assert order.fault == fault and orders.SAYS[fault] in order.carry_out(cluster, "latecomer")
    assert order.retry(cluster, "latecomer", {}) == [], "it is still wrong"
    fresh = cluster.join_token()
    better = {"server": fresh.server, "token": fresh.token, "ca_cert_hash": fresh.ca_cert_hash}
    try:
        steps = order.retry(cluster, "latecomer", better)
        assert steps[-1].name == "node Ready" and order.retry(cluster, "latecomer", better) is steps
    finally:
        cluster.remove_worker("latecomer")
