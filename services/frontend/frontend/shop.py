"""What the shop does with the services behind it: products with prices, and orders."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from chassis.settings import env_number, env_text
from frontend.upstream import Answer, Upstream, UpstreamMetrics, new_client


@dataclass(frozen=True)
class Priced:
    """A product and what it costs now; not `live` where pricing did not answer and the list price holds."""

    product: dict[str, Any]
    unit_cents: int
    live: bool

    @property
    def discount_percent(self) -> int:
        """Whole percent off the list price."""
        listed = int(self.product["price_cents"])
        return round(100 * (1 - self.unit_cents / listed))


@dataclass(frozen=True)
class Window:
    """The shop window: everything that the page shows; the answers say who it came from."""

    items: list[Priced]
    catalog: Answer
    pricing: Answer
    orders: Answer


class Refused(Exception):
    """A request that cannot be served: HTTP status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Shop:
    """The three services. Pricing may fail: list prices hold then. The others are needed for what they do."""

    def __init__(self, metrics: UpstreamMetrics) -> None:
        self._client = new_client()

        def upstream(name: str, deadline_s: float) -> Upstream:
            url = env_text(f"{name.upper()}_URL", f"http://{name}:8080")
            return Upstream(name, url, deadline_s, self._client, metrics)

        self.catalog, self.orders = upstream("catalog", 5), upstream("orders", 5)
        self.pricing = upstream("pricing", env_number("PRICING_DEADLINE_SECONDS", 1.5, 0.05, 30))
        self._seen = False

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def seen_catalog(self) -> str:
        """Readiness: the catalog must have answered once, which proves this pod's configuration.

        Only once: if it fails later, it fails for every frontend, and none should leave the Service for that.
        """
        if not self._seen:
            answer = await self.catalog.get("/products")
            self._seen = answer.ok
            return "" if answer.ok else f"waiting for {self.catalog.url}: {answer.problem}"
        return ""

    async def window(self) -> Window:
        """Products with their prices, and the number of orders; each part may be missing."""
        catalog, orders = await asyncio.gather(self.catalog.get("/products"), self.orders.get("/stats"))
        if not catalog.ok:
            return Window([], catalog, Answer("pricing", problem="not asked"), orders)
        products = catalog.data["products"]
        pricing, prices = await self._prices([(product, 1) for product in products])
        items = [
            Priced(product, prices.get(product["sku"], product["price_cents"]), pricing.ok)
            for product in products
        ]
        return Window(items, catalog, pricing, orders)

    async def price(self, sku: str, quantity: int, work: float) -> tuple[Priced, Answer, Answer]:
        """The price of one product.

        Raises:
            Refused: no such product, or the catalog does not answer.
        """
        catalog = await self.catalog.get(f"/products/{sku}")
        if not catalog.ok:
            raise Refused(404 if catalog.status == 404 else 503, f"catalog: {catalog.problem}")
        pricing, prices = await self._prices([(catalog.data, quantity)], work)
        cents = prices.get(sku, catalog.data["price_cents"])
        return Priced(catalog.data, cents, pricing.ok), catalog, pricing

    async def order(
        self, customer: str, wanted: dict[str, int], key: str
    ) -> tuple[dict[str, Any], list[Answer]]:
        """Place an order at today's prices; `key` makes it safe to send twice.

        Raises:
            Refused: an unknown product or quantity, or a service that is needed does not answer.
        """
        catalog = await self.catalog.get("/products")
        if not catalog.ok:
            raise Refused(503, f"catalog: {catalog.problem}")
        products = {product["sku"]: product for product in catalog.data["products"]}
        if unknown := sorted(set(wanted) - set(products)):
            raise Refused(422, f"no product {unknown[0]!r}")
        chosen = [(products[sku], quantity) for sku, quantity in wanted.items()]
        pricing, prices = await self._prices(chosen)
        lines = [
            {
                "sku": product["sku"],
                "name": product["name"],
                "quantity": quantity,
                "unit_cents": prices.get(product["sku"], product["price_cents"]),
            }
            for product, quantity in chosen
        ]
        orders = await self.orders.post("/orders", {"customer": customer, "lines": lines}, key)
        if not orders.ok:
            status = orders.status if orders.status in (409, 422) else 503
            raise Refused(status, f"orders: {orders.problem}")
        return orders.data, [catalog, pricing, orders]

    async def _prices(
        self, items: list[tuple[dict[str, Any], int]], work: float = 1
    ) -> tuple[Answer, dict[str, int]]:
        asked = [
            {"sku": product["sku"], "list_cents": product["price_cents"], "quantity": quantity}
            for product, quantity in items
        ]
        answer = await self.pricing.post("/prices", {"items": asked, "work": work})
        quotes = answer.data["quotes"] if answer.ok else []
        return answer, {quote["sku"]: quote["unit_cents"] for quote in quotes}
