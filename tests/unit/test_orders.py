"""Orders to join in which one thing is wrong: what is drawn, and how the named cause is judged."""

from __future__ import annotations

import random

import pytest

from labkit.checks.lab01 import join
from labkit.labs import orders


def test_seeds_draw_every_fault_of_an_order():
    drawn = {random.Random(seed).choice(orders.FAULTS) for seed in range(30)}
    assert drawn == set(orders.FAULTS) == set(orders.SAYS)


@pytest.mark.parametrize(("cause", "key"), [("token", "hash"), ("hash", "not-joined"), (..., "hash")])
def test_the_cause_of_a_failing_join_is_judged(cause: object, key: str):
    class Empty:
        def nodes(self):
            return []

    order = orders.Order("10.0.0.1:6443", "abcdef.0123456789abcdef", "sha256:00", "hash")
    assert "0123456789" not in f"{order}{order!r}" and "hash" not in repr(order).replace("ca_cert_hash", "")
    keys = [f.key for f in join(Empty(), "worker-4", order, cause) if f.key]  # type: ignore[arg-type]
    assert keys[0] == key
