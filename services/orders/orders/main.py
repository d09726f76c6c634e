"""The orders service's routes."""

from __future__ import annotations

import hmac
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Header, HTTPException, Query, Response
from prometheus_client import Counter
from pydantic import BaseModel, Field

from chassis.service import Service
from chassis.settings import env_text
from orders.store import KeyReused, Store

logger = logging.getLogger("orders")
TOKEN_FILE = Path(env_text("ORDERS_ADMIN_TOKEN_FILE", "/run/secrets/orders-admin/token"))


class Line(BaseModel):
    """Some of one product, at the price that the customer was shown; cents."""

    sku: str = Field(min_length=1, max_length=40)
    name: str = Field(min_length=1, max_length=80)
    quantity: int = Field(ge=1, le=100)
    unit_cents: int = Field(ge=0, le=100_000_00)


class NewOrder(BaseModel):
    """What a customer orders."""

    customer: str = Field(default="guest", min_length=1, max_length=80)
    lines: list[Line] = Field(min_length=1, max_length=50)


@asynccontextmanager
async def closing() -> AsyncIterator[None]:
    """Close the database after the last request."""
    yield
    store.close()


service = Service("orders", closing)
store = Store(Path(env_text("ORDERS_DB", "orders.db")))
service.checks["database"] = store.check
placed = Counter("orders_placed", "Orders kept", ("replayed",), registry=service.metrics.registry)


@service.api.post("/orders", status_code=201)
async def place(
    new: NewOrder,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=8, max_length=80)] = None,
) -> dict[str, Any]:
    """Keep an order. With an Idempotency-Key a client may safely send it again when it saw no answer."""
    lines = [line.model_dump() for line in new.lines]
    try:
        result = await store.place(new.customer, lines, idempotency_key)
    except KeyReused:
        raise HTTPException(409, "this Idempotency-Key belongs to another order") from None
    except sqlite3.Error as error:
        logger.error("order not kept", extra={"reason": str(error)})
        raise HTTPException(503, f"the order could not be kept: {error}", {"Retry-After": "1"}) from None
    placed.labels(str(result.replayed).lower()).inc()
    if result.replayed:
        response.status_code = 200
    return result.order


@service.api.get("/orders/{order_id}")
async def show(order_id: str) -> dict[str, Any]:
    """One order, for whoever knows its number."""
    order = await store.get(order_id)
    if order is None:
        raise HTTPException(404, f"no order {order_id!r}")
    return order


@service.api.get("/orders")
async def latest(
    limit: Annotated[int, Query(ge=1, le=1000)] = 100, authorization: Annotated[str, Header()] = ""
) -> list[dict[str, Any]]:
    """All orders, for the shop's owner: needs the token of the Secret."""
    try:  # read every time, so that a token that is changed in the Secret counts without a restart
        token = TOKEN_FILE.read_text().strip()
    except OSError:
        raise HTTPException(403, "no admin token is set up") from None
    if not token or not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "needs the admin token", {"WWW-Authenticate": "Bearer"})
    return await store.latest(limit)


@service.api.get("/stats")
async def stats() -> dict[str, int]:
    """How many orders there are, and their total in cents."""
    return await store.stats()
