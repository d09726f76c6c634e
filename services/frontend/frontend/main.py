"""The frontend's routes: the page for people, /api for programs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Header, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from chassis.service import Service
from frontend.page import Page
from frontend.shop import Refused, Shop
from frontend.upstream import Answer, UpstreamMetrics

MAX_FORM_BYTES = 10_000


class Wanted(BaseModel):
    """Some of one product."""

    sku: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    quantity: int = Field(default=1, ge=1, le=100)


class OrderIn(BaseModel):
    """What a customer orders; prices are today's."""

    customer: str = Field(default="guest", min_length=1, max_length=80)
    items: list[Wanted] = Field(min_length=1, max_length=50)


@asynccontextmanager
async def closing() -> AsyncIterator[None]:
    """Close the connections after the last request."""
    yield
    await shop.close()


service = Service("frontend", closing)
shop = Shop(UpstreamMetrics(service.metrics.registry))
page = Page(service.settings)
service.checks["catalog"] = shop.seen_catalog


def from_services(content: Any, answers: Iterable[Answer], status: int = 200) -> Response:
    """JSON, with who helped in X-Served-By and what was missing in X-Degraded."""
    parts = [f"frontend={service.settings.pod}@{service.settings.version}"]
    parts += [f"{a.service}={a.pod}@{a.version}" for a in answers if a.pod]
    headers = {"X-Served-By": ", ".join(parts)}
    if missing := [answer.service for answer in answers if not answer.ok]:
        headers["X-Degraded"] = ", ".join(missing)
    return JSONResponse(content, status, headers)


@service.api.exception_handler(Refused)
async def refused(_request: Request, error: Refused) -> Response:
    """The status that the shop chose, and its reason."""
    return JSONResponse({"detail": str(error)}, error.status)


@service.api.get("/api/products")
async def products() -> Response:
    """The catalogue."""
    answer = await shop.catalog.get("/products")
    if not answer.ok:
        raise Refused(503, f"catalog: {answer.problem}")
    return from_services(answer.data, [answer])


@service.api.get("/api/price")
async def price(
    sku: Annotated[str, Query(pattern=r"^[a-z0-9-]{1,40}$")],
    quantity: Annotated[int, Query(ge=1, le=100)] = 1,
    work: Annotated[float, Query(ge=0, le=50)] = 1,
) -> Response:
    """What a product costs now; the list price, and X-Degraded, while pricing does not answer."""
    priced, catalog, pricing = await shop.price(sku, quantity, work)
    body = {
        "sku": sku,
        "quantity": quantity,
        "list_cents": priced.product["price_cents"],
        "unit_cents": priced.unit_cents,
        "live": priced.live,
    }
    return from_services(body, [catalog, pricing])


@service.api.post("/api/orders")
async def order(
    new: OrderIn, idempotency_key: Annotated[str | None, Header(min_length=8, max_length=80)] = None
) -> Response:
    """Place an order; with an Idempotency-Key it is safe to send it again."""
    wanted: dict[str, int] = {}
    for item in new.items:
        wanted[item.sku] = wanted.get(item.sku, 0) + item.quantity
    placed, answers = await shop.order(new.customer, wanted, idempotency_key or uuid.uuid4().hex)
    return from_services(placed, answers, 201)


@service.api.get("/api/orders/{order_id}")
async def show_order(order_id: str) -> Response:
    """An order, for whoever knows its number."""
    answer = await shop.orders.get(f"/orders/{order_id}")
    if not answer.ok:
        raise Refused(404 if answer.status == 404 else 503, f"orders: {answer.problem}")
    return from_services(answer.data, [answer])


@service.api.get("/")
async def window(order: Annotated[str, Query(max_length=40)] = "") -> Response:
    """The shop's page; `order` is the number of an order to show."""
    seen = await shop.window()
    receipt = await shop.orders.get(f"/orders/{order}") if order.isalnum() else None
    return page.window(seen, receipt)


@service.api.post("/order")
async def order_form(request: Request) -> Response:
    """The page's form: quantities as qty-SKU. Sends the browser on, so that a reload does not order again."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return page.message(413, "That order is too long.")
    form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    chosen = {name.removeprefix("qty-"): text for name, text in form.items() if name.startswith("qty-")}
    if not all(text.isdigit() and int(text) <= 100 for text in chosen.values()):
        return page.message(422, "Quantities are whole numbers, at most 100.")
    wanted = {sku: int(text) for sku, text in chosen.items() if int(text)}
    if not wanted:
        return page.message(422, "Choose at least one thing.")
    customer = form.get("customer", "").strip()[:80] or "guest"
    try:
        placed, _ = await shop.order(customer, wanted, form.get("key", "")[:80] or uuid.uuid4().hex)
    except Refused as error:
        return page.message(error.status, f"The order was not placed. {error}")
    return RedirectResponse(f"/?order={placed['id']}", 303)
