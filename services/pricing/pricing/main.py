"""The pricing service's routes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import HTTPException, Query
from pydantic import BaseModel, Field

from chassis.service import Service
from chassis.settings import env_number
from pricing.model import Item
from pricing.worker import Done, Overloaded, Worker

Sku = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
Cents = Annotated[int, Field(gt=0, le=100_000_00)]
Quantity = Annotated[int, Field(ge=1, le=100)]
Work = Annotated[float, Field(ge=0, le=50)]


class ItemIn(BaseModel):
    """One item to price."""

    sku: Sku
    list_cents: Cents
    quantity: Quantity = 1


class PricesIn(BaseModel):
    """Items to price in one request; `work` multiplies the CPU time that the request takes."""

    items: list[ItemIn] = Field(min_length=1, max_length=50)
    work: Work = 1


service = Service("pricing")
worker = Worker(
    work_s=env_number("PRICE_WORK_MS", 20, 0, 5000) / 1000,
    limit_cores=env_number("CPU_LIMIT_MILLICORES", 0, 0, 64_000) / 1000,
    queue=int(env_number("PRICE_QUEUE", 20, 0, 10_000)),
    registry=service.metrics.registry,
)


@service.api.get("/price")
async def price(
    sku: Annotated[str, Query(pattern=r"^[a-z0-9-]{1,40}$")] = "mug",
    list_cents: Annotated[int, Query(gt=0, le=100_000_00)] = 1250,
    quantity: Annotated[int, Query(ge=1, le=100)] = 1,
    work: Annotated[float, Query(ge=0, le=50)] = 1,
) -> dict[str, Any]:
    """Price one item; 503 with Retry-After when too many wait."""
    done = await _priced([Item(sku, list_cents, quantity)], work)
    return {**asdict(done.quotes[0]), "cpu_ms": done.cpu_ms, "queue_ms": done.queue_ms}


@service.api.post("/prices")
async def prices(asked: PricesIn) -> dict[str, Any]:
    """Price several items at the CPU cost of one request."""
    done = await _priced([Item(item.sku, item.list_cents, item.quantity) for item in asked.items], asked.work)
    return asdict(done)


async def _priced(items: list[Item], work: float) -> Done:
    try:
        return await worker.price(items, work)
    except Overloaded as full:
        raise HTTPException(503, str(full), {"Retry-After": str(full.retry_after_s)}) from None
