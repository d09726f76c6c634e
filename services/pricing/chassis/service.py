"""A service: FastAPI application, probes, metrics, faults and the way it starts and ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from chassis import logs
from chassis.faults import Faults, misbehave
from chassis.metrics import CONTENT_TYPE, Metrics
from chassis.observe import Observed
from chassis.server import Server
from chassis.settings import SettingError, Settings

Check = Callable[[], Awaitable[str]]
"""A readiness check: "" when all is well, otherwise what is wrong."""

CHECK_TIMEOUT_S = 1.0
logger = logging.getLogger("service")


class Service:
    """What a service's module makes first, and then adds its routes to.

    Args:
        name: of the service, in logs and metrics.
        lifespan: opened before the first request is served and closed after the last.

    Attributes:
        api: the FastAPI application.
        metrics, settings, faults: see their classes.
        checks: name to readiness check. Check only what this pod cannot work without and another may have:
            when a service that all pods share fails, none should leave its Service because of that.
    """

    def __init__(
        self, name: str, lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
    ) -> None:
        self.name = name
        self.settings = Settings.from_env()
        logs.configure(name, self.settings.version, self.settings.pod, self.settings.log_level)
        self.metrics = Metrics(name, self.settings.version, self.settings.pod)
        self.faults = Faults.from_env()
        self.checks: dict[str, Check] = {}
        self.draining = False
        self._lifespan = lifespan
        self.api = FastAPI(
            title=name,
            version=self.settings.version,
            docs_url=None,
            redoc_url=None,
            lifespan=self._live,
            exception_handlers={SettingError: _refused},
        )
        self._add_routes()

    def run(self) -> None:
        """Serve until SIGTERM; ends the process with 0 after a graceful end."""
        headers = {"X-Pod": self.settings.pod, "X-Version": self.settings.version}
        app = Observed(self.api, self.metrics, self.faults, headers, lambda: self.draining)
        Server(app, self.settings, self._drain).run()
        logger.info("ended")

    def _drain(self) -> None:
        self.draining = True
        logger.info("draining", extra={"seconds": self.settings.drain_s})

    @asynccontextmanager
    async def _live(self, _api: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if self._lifespan:
                await stack.enter_async_context(self._lifespan())
            task = asyncio.create_task(misbehave(self.faults))
            stack.callback(task.cancel)
            logger.info("started", extra={"port": self.settings.port})
            yield

    async def readiness(self) -> tuple[bool, dict[str, str]]:
        """Whether this pod should get traffic, and what each check says."""
        results = dict(zip(self.checks, await asyncio.gather(*map(_run, self.checks.values())), strict=True))
        if self.faults.unready:
            results["fault"] = "unready on demand"
        if self.draining:
            results["shutdown"] = "draining"
        return not any(results.values()), {name: why or "ok" for name, why in results.items()}

    def _add_routes(self) -> None:
        @self.api.get("/healthz")
        async def healthz() -> Response:
            """Liveness: this process answers. A restart would repair nothing else."""
            ok = not self.faults.unhealthy
            return JSONResponse({"status": "ok" if ok else "unhealthy on demand"}, 200 if ok else 503)

        @self.api.get("/readyz")
        async def readyz() -> Response:
            ready, checks = await self.readiness()
            return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)

        @self.api.get("/metrics")
        async def metrics() -> Response:
            return Response(self.metrics.text(), media_type=CONTENT_TYPE)

        @self.api.get("/faults")
        async def show() -> dict[str, float | bool]:
            self._need_faults()
            return self.faults.as_dict()

        @self.api.patch("/faults")
        async def change(request: Request) -> dict[str, float | bool]:
            self._need_faults()
            self.faults.update(await _json_object(request))
            return self.faults.as_dict()

        @self.api.delete("/faults")
        async def reset() -> dict[str, float | bool]:
            self._need_faults()
            self.faults.reset()
            return self.faults.as_dict()

        @self.api.post("/faults/crash")
        async def crash() -> None:
            self._need_faults()
            logger.critical("crash on demand")
            sys.stdout.flush()
            os._exit(3)

    def _need_faults(self) -> None:
        if not self.settings.faults:
            raise HTTPException(403, "faults are switched off; start the service with FAULTS=on")


async def _run(check: Check) -> str:
    try:
        return await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
    except TimeoutError:
        return f"no answer in {CHECK_TIMEOUT_S:g} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return body


async def _refused(_request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)
