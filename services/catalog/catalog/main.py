"""The catalog service's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from prometheus_client import Counter, Gauge

from catalog.products import CatalogFile, Product
from chassis.service import Service
from chassis.settings import env_number, env_text

RELOAD_S = env_number("CATALOG_RELOAD_SECONDS", 1, 0.1, 3600)


@asynccontextmanager
async def follow() -> AsyncIterator[None]:
    """Look at the file again and again while the service runs."""
    task = asyncio.create_task(_follow())
    yield
    task.cancel()


async def _follow() -> None:
    while True:
        await asyncio.sleep(RELOAD_S)
        if file.refresh():
            reloads.labels("refused" if file.problem else "accepted").inc()


service = Service("catalog", follow)
file = CatalogFile(Path(env_text("CATALOG_FILE", "config/products.toml")))
registry = service.metrics.registry
reloads = Counter("catalog_reloads", "Changes of the catalogue's file", ("result",), registry=registry)
size = Gauge("catalog_products", "Products on sale", registry=registry)
size.set_function(lambda: len(file.current.products))


@service.api.get("/products")
async def products() -> dict[str, Any]:
    """All products, and the revision of the file they come from."""
    catalog = file.current
    return {
        "revision": catalog.revision,
        "problem": file.problem,
        "products": [product.model_dump() for product in catalog.products.values()],
    }


@service.api.get("/products/{sku}")
async def product(sku: str) -> Product:
    """One product; 404 where there is none."""
    try:
        return file.current.products[sku]
    except KeyError:
        raise HTTPException(404, f"no product {sku!r}") from None
