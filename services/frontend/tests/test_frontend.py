"""The frontend with the real services behind it, and without them."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from frontend.page import colour, euros


def open_shop(start: Any) -> SimpleNamespace:
    """All four."""
    behind = {
        name: start(name, wait=False, VERSION="v2" if name == "pricing" else "v1")
        for name in ("catalog", "orders", "pricing")
    }
    urls = {f"{name.upper()}_URL": service.url for name, service in behind.items()}
    frontend = start("frontend", wait=False, VERSION="v1", PRICING_DEADLINE_SECONDS="1", **urls)
    for service in (*behind.values(), frontend):
        service.until_up()
    return SimpleNamespace(frontend=frontend, http=frontend.http, urls=urls, **behind)


@pytest.fixture(scope="module")
def shop(start_once: Any) -> SimpleNamespace:
    """A shop for tests that leave it whole."""
    return open_shop(start_once)


@pytest.fixture
def own_shop(start: Any) -> SimpleNamespace:
    """A shop to break."""
    return open_shop(start)


def test_an_order_through_all_services(shop: SimpleNamespace) -> None:
    placed = shop.http.post(
        "/api/orders",
        json={"customer": "Ada", "items": [{"sku": "mug", "quantity": 2}, {"sku": "tote"}]},
        headers={"X-Request-ID": "lab-42"},
    )
    assert placed.status_code == 201
    order = placed.json()
    assert [(line["sku"], line["quantity"]) for line in order["lines"]] == [("mug", 2), ("tote", 1)]
    assert order["total_cents"] == sum(line["quantity"] * line["unit_cents"] for line in order["lines"])
    assert shop.http.get(f"/api/orders/{order['id']}").json() == order
    assert placed.headers["x-served-by"] == (
        "frontend=frontend-pod@v1, catalog=catalog-pod@v1, pricing=pricing-pod@v2, orders=orders-pod@v1"
    )
    for service in (shop.frontend, shop.catalog, shop.pricing, shop.orders):
        assert service.logged(request_id="lab-42", message="request"), "one id through all logs"


def test_the_gateway(shop: SimpleNamespace) -> None:
    products = shop.http.get("/api/products").json()["products"]
    price = shop.http.get("/api/price", params={"sku": products[0]["sku"]}).json()
    assert price["live"] and price["unit_cents"] <= price["list_cents"] == products[0]["price_cents"]
    assert shop.http.get("/api/price", params={"sku": "none"}).status_code == 404
    assert shop.http.get("/api/orders/none").status_code == 404
    assert shop.http.post("/api/orders", json={"items": [{"sku": "none"}]}).status_code == 422
    assert shop.http.post("/api/orders", json={"items": []}).status_code == 422


def test_sending_an_order_again_makes_no_second_one(own_shop: SimpleNamespace) -> None:
    body, headers = {"items": [{"sku": "mug"}]}, {"Idempotency-Key": "key-of-this-test"}
    first = own_shop.http.post("/api/orders", json=body, headers=headers).json()
    own_shop.pricing.stop(signal.SIGKILL)  # prices change between the attempts
    second = own_shop.http.post("/api/orders", json=body, headers=headers)
    assert second.json() == first
    other = own_shop.http.post("/api/orders", json={"items": [{"sku": "cap"}]}, headers=headers)
    assert other.status_code == 409
    assert own_shop.orders.http.get("/stats").json()["orders"] == 1


def test_the_page_needs_nothing_else(shop: SimpleNamespace) -> None:
    page = shop.http.get("/")
    html = page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in html and "url(" not in html and "@import" not in html
    assert not re.findall(r'(?:src|href)="(?!/|data:)[^"]*"', html)
    for pod in ("frontend-pod", "catalog-pod", "pricing-pod", "orders-pod"):
        assert pod in html
    assert f'class="chip">{"v2"}' in html and colour("v2") in html
    assert html.count("<article") == 6


def test_ordering_with_the_form(shop: SimpleNamespace) -> None:
    before = shop.orders.http.get("/stats").json()["orders"]
    key = re.search(r'name="key" value="(\w+)"', shop.http.get("/").text)
    assert key
    form = {"key": key[1], "customer": "<b>Grace</b>", "qty-mug": "2", "qty-cap": "0", "qty-tee": "1"}
    sent = shop.http.post("/order", data=form)
    assert sent.status_code == 303
    assert shop.http.post("/order", data=form).headers["location"] == sent.headers["location"], "sent twice"
    receipt = shop.http.get(sent.headers["location"]).text
    assert "&lt;b&gt;Grace&lt;/b&gt;" in receipt and "<b>Grace" not in receipt
    assert "2 × Control-plane mug" in receipt and "cap at" not in receipt
    after = shop.orders.http.get("/stats").json()["orders"]
    assert after == before + 1 and re.search(rf"<strong>{after}</strong> orders? so far", receipt)


@pytest.mark.parametrize(
    ("form", "status", "text"),
    [
        ({"qty-mug": "0"}, 422, "Choose at least one thing"),
        ({"qty-mug": "many"}, 422, "whole numbers"),
        ({"qty-mug": "101"}, 422, "whole numbers"),
        ({"qty-none": "1"}, 422, "no product"),
        ({"qty-mug": "1", "customer": "x" * 11_000}, 413, "too long"),
    ],
)
def test_a_wrong_form_gets_a_page(
    shop: SimpleNamespace, form: dict[str, str], status: int, text: str
) -> None:
    answer = shop.http.post("/order", data=form)
    assert answer.status_code == status and text in answer.text and "Back to the shop" in answer.text


def test_without_pricing_the_shop_goes_on_visibly(own_shop: SimpleNamespace) -> None:
    own_shop.pricing.stop(signal.SIGKILL)
    page = own_shop.http.get("/")
    assert page.status_code == 200 and "list prices hold" in page.text and "list price</i>" in page.text
    price = own_shop.http.get("/api/price", params={"sku": "mug"})
    assert price.headers["x-degraded"] == "pricing"
    assert price.json()["unit_cents"] == price.json()["list_cents"] and not price.json()["live"]
    assert own_shop.http.post("/api/orders", json={"items": [{"sku": "mug"}]}).status_code == 201
    assert own_shop.http.get("/readyz").status_code == 200, "one service's outage is not another's"
    assert own_shop.frontend.metric('upstream_failures_total{upstream="pricing"}') == 3


def test_hanging_pricing_costs_a_deadline_and_no_more(own_shop: SimpleNamespace) -> None:
    own_shop.pricing.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    price = own_shop.http.get("/api/price", params={"sku": "mug"})
    assert price.headers["x-degraded"] == "pricing" and time.monotonic() - began < 2
    own_shop.pricing.process.send_signal(signal.SIGCONT)
    assert own_shop.http.get("/api/price", params={"sku": "mug"}).json()["live"]


def test_overload_is_not_retried(own_shop: SimpleNamespace, start: Any) -> None:
    full = start("pricing", PRICE_WORK_MS="500", PRICE_QUEUE="0")
    own_shop.urls["PRICING_URL"] = full.url
    frontend = start("frontend", **own_shop.urls)
    busy = threading.Thread(target=full.http.get, args=("/price",))
    busy.start()
    time.sleep(0.15)
    assert frontend.http.get("/api/price", params={"sku": "mug"}).headers["x-degraded"] == "pricing"
    assert frontend.metric('upstream_retries_total{upstream="pricing"}') == 0
    busy.join()


def test_without_catalog_or_orders_it_says_so(own_shop: SimpleNamespace) -> None:
    assert own_shop.http.get("/readyz").status_code == 200
    own_shop.orders.stop(signal.SIGKILL)
    page = own_shop.http.get("/")
    assert (
        page.status_code == 200 and "Orders cannot be taken" in page.text and "<button disabled>" in page.text
    )
    assert "orders: no connection" in own_shop.http.post("/order", data={"qty-mug": "1"}).text
    assert own_shop.http.post("/api/orders", json={"items": [{"sku": "mug"}]}).status_code == 503
    own_shop.catalog.stop(signal.SIGKILL)
    page = own_shop.http.get("/")
    assert page.status_code == 503 and "nothing to show" in page.text
    assert own_shop.http.get("/api/products").status_code == 503
    assert own_shop.http.get("/readyz").status_code == 200, "ready once, ready until it ends"


def test_not_ready_before_the_catalog_has_answered_once(start: Any) -> None:
    frontend = start("frontend", CATALOG_URL="http://127.0.0.1:9")
    ready = frontend.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["catalog"] == "waiting for http://127.0.0.1:9: no connection"


class Flaky(BaseHTTPRequestHandler):
    """Answers 502, drops the connection, then answers; over and over."""

    turn = 0

    def do_GET(self) -> None:
        """One request."""
        type(self).turn += 1
        if self.turn % 3 == 2:
            return
        status = 200 if self.turn % 3 == 0 else 502
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b'{"revision": "r", "products": []}' if status == 200 else b"")

    def log_message(self, *_: object) -> None:
        """No output."""


@pytest.fixture
def flaky() -> Iterator[str]:
    """The address of a catalog of which only every third answer is one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_passing_failures_are_tried_again(start: Any, flaky: str) -> None:
    frontend = start("frontend", CATALOG_URL=flaky)
    for number in (1, 2):
        answer = frontend.http.get("/api/products")
        assert answer.status_code == 200 and answer.json()["revision"] == "r"
        assert frontend.metric('upstream_retries_total{upstream="catalog"}') == 2 * number


def test_money_and_colours() -> None:
    assert [euros(cents) for cents in (0, 5, 1250, 123456)] == ["€0.00", "€0.05", "€12.50", "€1,234.56"]
    assert colour("v1") != colour("v2") != colour("v3")
    assert colour("dev") == colour("dev") and colour("v1.2") == colour("v1")
