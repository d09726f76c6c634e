"""The orders service: what it has answered, it keeps."""

from __future__ import annotations

import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orders.store import MIGRATIONS

ORDER = {
    "customer": "Ada",
    "lines": [
        {"sku": "mug", "name": "Mug", "quantity": 2, "unit_cents": 1100},
        {"sku": "cap", "name": "Cap", "quantity": 1, "unit_cents": 1900},
    ],
}


def test_an_order_is_kept_and_shown(start: Any) -> None:
    orders = start("orders")
    answer = orders.http.post("/orders", json=ORDER)
    assert answer.status_code == 201
    order = answer.json()
    assert (order["total_cents"], order["customer"], order["lines"]) == (4100, "Ada", ORDER["lines"])
    assert orders.http.get(f"/orders/{order['id']}").json() == order
    assert orders.http.get("/orders/none").status_code == 404
    assert orders.http.get("/stats").json() == {"orders": 1, "total_cents": 4100}
    assert orders.http.get("/readyz").json()["checks"] == {"database": "ok"}


@pytest.mark.parametrize(
    "change",
    [{"lines": []}, {"customer": ""}, {"lines": [{**ORDER["lines"][0], "quantity": 0}]}, {"lines": "x"}],
)
def test_a_wrong_order_is_refused(start: Any, change: dict[str, Any]) -> None:
    orders = start("orders")
    assert orders.http.post("/orders", json={**ORDER, **change}).status_code == 422
    assert orders.http.get("/stats").json()["orders"] == 0


def test_orders_survive_kill_9_in_the_middle_of_many(start: Any) -> None:
    orders = start("orders")
    kept: list[dict[str, Any]] = []

    def place(number: int) -> None:
        try:
            answer = orders.http.post("/orders", json={**ORDER, "customer": f"customer {number}"})
        except Exception:
            return
        if answer.status_code == 201:
            kept.append(answer.json())
        if number == 60:
            orders.process.send_signal(signal.SIGKILL)

    with ThreadPoolExecutor(8) as many:
        list(many.map(place, range(400)))
    assert orders.process.wait(5) == -signal.SIGKILL
    assert 30 < len(kept) < 400

    again = start("orders")
    for order in kept:
        assert again.http.get(f"/orders/{order['id']}").json() == order
    assert again.http.get("/stats").json()["orders"] >= len(kept)
    assert again.stop() == 0


def test_an_idempotency_key_makes_one_order_of_many_attempts(start: Any) -> None:
    orders = start("orders")
    headers = {"Idempotency-Key": "a-key-of-a-lab"}
    with ThreadPoolExecutor(8) as many:
        answers = list(
            many.map(lambda _: orders.http.post("/orders", json=ORDER, headers=headers), range(24))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 23 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1

    dearer = {**ORDER, "lines": [{**line, "unit_cents": 5000} for line in ORDER["lines"]]}
    again = orders.http.post("/orders", json=dearer, headers=headers)
    assert (again.status_code, again.json()["total_cents"]) == (200, 4100), "the first price holds"

    other = orders.http.post("/orders", json={**ORDER, "customer": "Eve"}, headers=headers)
    assert other.status_code == 409
    assert orders.http.get("/stats").json()["orders"] == 1


def test_only_the_token_lists_orders(start: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    orders = start("orders", ORDERS_ADMIN_TOKEN_FILE=str(token))
    made = [orders.http.post("/orders", json=ORDER).json()["id"] for _ in range(3)]
    assert orders.http.get("/orders").status_code == 403, "no token is set up"
    token.write_text("first\n")
    assert orders.http.get("/orders").status_code == 401
    assert orders.http.get("/orders", headers={"Authorization": "Bearer secónd".encode()}).status_code == 401
    allowed = orders.http.get("/orders", params={"limit": 2}, headers={"Authorization": "Bearer first"})
    assert [order["id"] for order in allowed.json()] == made[:0:-1]
    token.write_text("second")
    assert orders.http.get("/orders", headers={"Authorization": "Bearer first"}).status_code == 401


def test_an_older_database_is_migrated(start: Any, tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "orders.db")
    old.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1;")
    values = ("old", "2020-01-01T00:00:00.000+00:00", "Ada", 100, "[]", None, "-")
    old.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    old.commit()
    old.close()
    orders = start("orders")
    assert orders.http.get("/orders/old").json()["total_cents"] == 100
    assert orders.stop() == 0
    with sqlite3.connect(tmp_path / "orders.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_database_of_a_newer_version_is_left_alone(start: Any, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "orders.db") as db:
        db.execute("PRAGMA user_version = 99")
    orders = start("orders", wait=False)
    assert orders.process.wait(10) == 1
    assert "has schema 99" in orders.log.read_text()


def test_a_locked_database_means_not_ready_and_503_not_a_lie(start: Any, tmp_path: Path) -> None:
    orders = start("orders")
    lock = sqlite3.connect(tmp_path / "orders.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    ready = orders.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "no answer in 1 s")
    assert orders.http.get("/healthz").status_code == 200
    answer = orders.http.post("/orders", json=ORDER, timeout=20)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    lock.execute("ROLLBACK")
    assert orders.http.post("/orders", json=ORDER, timeout=20).status_code == 201
    assert orders.http.get("/stats").json()["orders"] == 1
