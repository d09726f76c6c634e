"""The price that earns most, found by simulating customers; the more CPU time, the surer."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

DISCOUNTS = range(31)  # percent
CUSTOMERS = 100  # per round
DECIDING_ROUNDS = 4


@dataclass(frozen=True)
class Item:
    """What to price: some of a product, at its list price in cents."""

    sku: str
    list_cents: int
    quantity: int = 1


@dataclass(frozen=True)
class Quote:
    """The answer.

    Attributes:
        unit_cents: price of one, discounted.
        confidence: share of the rounds after the decision, 0 … 1, that would have decided within 3 % of it.
        rounds: rounds of simulated customers in all.
    """

    sku: str
    quantity: int
    list_cents: int
    unit_cents: int
    discount_percent: int
    confidence: float
    rounds: int


class Market:
    """Customers, each ready to pay up to some share of the list price, log-normally spread.

    Spread and middle differ from product to product. Who buys many expects to pay less for each.
    """

    def __init__(self, item: Item) -> None:
        self._random = random.Random(f"{item.sku}:{item.list_cents}")
        self._spread = self._random.uniform(0.05, 0.12)
        self._median = self._random.uniform(1.0, 1.25) - 0.01 * min(item.quantity - 1, 12)
        self._shares = sorted(1 - percent / 100 for percent in DISCOUNTS)

    def buyers(self) -> list[int]:
        """One round: how many of CUSTOMERS buy at each discount, by percent."""
        shares, gauss = self._shares, self._random.lognormvariate
        counts = [0] * (len(shares) + 1)
        for _ in range(CUSTOMERS):
            counts[bisect_right(shares, self._median * gauss(0, self._spread))] += 1
        buyers = []
        affordable = 0
        for count in reversed(counts[1:]):  # the highest price first: who pays that, pays less too
            affordable += count
            buyers.append(affordable)
        return buyers


def best_discount(buyers: list[int]) -> int:
    """The discount in percent with the highest revenue; the smallest of equals."""
    return max(DISCOUNTS, key=lambda percent: ((100 - percent) * buyers[percent], -percent))


def quote(item: Item, cpu_s: float, pause: Callable[[], None] = lambda: None) -> Quote:
    """Price one item, spending `cpu_s` seconds of this thread's CPU time on it, however long they take.

    The first rounds decide, so that the price is the same on every machine; the others say how sure it is.

    Args:
        pause: called between rounds.
    """
    end = time.thread_time() + cpu_s
    market = Market(item)
    total = [0] * len(DISCOUNTS)
    for _ in range(DECIDING_ROUNDS):
        total = [a + b for a, b in zip(total, market.buyers(), strict=True)]
    decided = best_discount(total)
    rounds = agreed = 0
    while time.thread_time() < end:
        agreed += abs(best_discount(market.buyers()) - decided) <= 3
        rounds += 1
        pause()
    return Quote(
        sku=item.sku,
        quantity=item.quantity,
        list_cents=item.list_cents,
        unit_cents=round(item.list_cents * (100 - decided) / 100),
        discount_percent=decided,
        confidence=round(agreed / rounds, 2) if rounds else 0.0,
        rounds=DECIDING_ROUNDS + rounds,
    )
