"""Pricing: the same price everywhere, a known amount of CPU per request, and a queue with an end."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pricing.model import DISCOUNTS, Item, best_discount, quote

CPU = "process_cpu_seconds_total"


def test_the_price_depends_on_the_item_alone() -> None:
    item = Item("mug", 1250, 3)
    short, long = quote(item, 0.001), quote(item, 0.05)
    assert (short.unit_cents, short.discount_percent) == (long.unit_cents, long.discount_percent)
    assert long.rounds > short.rounds
    assert 0 <= long.confidence <= 1


@pytest.mark.parametrize("sku", ["mug", "tee", "cap", "tote", "notebook", "stickers"])
def test_prices_are_sensible(sku: str) -> None:
    one, many = (quote(Item(sku, 1000, quantity), 0) for quantity in (1, 13))
    assert one.discount_percent in DISCOUNTS and 690 <= one.unit_cents <= 1000
    assert one.unit_cents == round(1000 * (100 - one.discount_percent) / 100)
    assert many.unit_cents <= one.unit_cents, "who buys many pays no more for each"


def test_the_best_discount_earns_most() -> None:
    buyers = [50, *[60] * 9, 90, *[91] * 20]  # ten percent off bring many more
    assert best_discount(buyers) == 10
    assert best_discount([100] * len(DISCOUNTS)) == 0


def test_a_request_costs_the_cpu_it_should(start: Any) -> None:
    pricing = start("pricing", PRICE_WORK_MS="30")
    pricing.http.get("/price")
    before = pricing.metric(CPU), pricing.metric("pricing_work_cpu_seconds_total")
    answers = [pricing.http.get("/price", params={"sku": "cap"}).json() for _ in range(40)]
    work = pricing.metric("pricing_work_cpu_seconds_total") - before[1]
    assert 40 * 0.030 <= work < 40 * 0.033
    assert work <= pricing.metric(CPU) - before[0] < work + 40 * 0.012
    assert all(30 <= answer["cpu_ms"] < 40 for answer in answers)
    assert len({answer["unit_cents"] for answer in answers}) == 1


def test_work_multiplies_and_several_items_cost_one_request(start: Any) -> None:
    pricing = start("pricing", PRICE_WORK_MS="10")
    assert 50 <= pricing.http.get("/price", params={"work": 5}).json()["cpu_ms"] < 60
    items = [{"sku": sku, "list_cents": 1000} for sku in ("a", "b", "c", "d")]
    answer = pricing.http.post("/prices", json={"items": items}).json()
    assert [price["sku"] for price in answer["quotes"]] == ["a", "b", "c", "d"]
    assert 10 <= answer["cpu_ms"] < 20
    assert pricing.http.post("/prices", json={"items": items, "work": 51}).status_code == 422
    assert pricing.http.get("/price", params={"sku": "../x"}).status_code == 422


def test_probes_are_answered_while_it_burns(start: Any) -> None:
    pricing = start("pricing", PRICE_WORK_MS="100")
    with ThreadPoolExecutor(10) as many:
        burning = [many.submit(pricing.http.get, "/price") for _ in range(20)]
        took = []
        while not all(job.done() for job in burning):
            began = time.monotonic()
            assert pricing.http.get("/healthz").status_code == 200
            assert pricing.http.get("/readyz").status_code == 200
            took.append((time.monotonic() - began) / 2)
    assert len(took) > 10
    assert sorted(took)[len(took) // 2] < 0.1 and max(took) < 1


def test_overload_is_turned_away_at_once(start: Any) -> None:
    pricing = start("pricing", PRICE_WORK_MS="200", PRICE_QUEUE="3")
    with ThreadPoolExecutor(12) as many:
        jobs = [many.submit(pricing.http.get, "/price") for _ in range(12)]
        time.sleep(0.5)
        assert pricing.metric("pricing_queue_length") >= 1
        answers = [job.result() for job in jobs]
    assert Counter(answer.status_code for answer in answers) == {200: 4, 503: 8}
    turned_away = [answer for answer in answers if answer.status_code == 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in turned_away)
    assert max(answer.elapsed.total_seconds() for answer in turned_away) < 0.5
    assert pricing.metric("pricing_rejected_total") == 8
    assert pricing.metric("pricing_queue_length") == 0
    waited = [answer.json()["queue_ms"] for answer in answers if answer.status_code == 200]
    assert max(waited) > 500


def test_it_keeps_to_its_cpu_limit_by_itself(start: Any) -> None:
    pricing = start("pricing", PRICE_WORK_MS="20", PRICE_QUEUE="100", CPU_LIMIT_MILLICORES="250")
    pricing.http.get("/price")
    before, began = pricing.metric(CPU), time.monotonic()
    with ThreadPoolExecutor(8) as many:
        list(many.map(lambda _: pricing.http.get("/price"), range(40)))
    cores = (pricing.metric(CPU) - before) / (time.monotonic() - began)
    assert 0.1 < cores < 0.32
