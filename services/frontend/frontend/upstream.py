"""Calls to other services: a deadline, few retries with jitter, and an answer in every case."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, Counter, Histogram
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from chassis.logs import request_id

logger = logging.getLogger("upstream")
ATTEMPTS = 3
CONNECT_S = 0.5


class Passing(Exception):
    """A failure that another attempt may not meet: no connection, or a pod that is going away."""


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        data: the JSON body, or None.
        problem: why the answer cannot be used, in a few words; "" if it can.
        pod, version: who answered.
    """

    service: str
    status: int = 0
    data: Any = None
    problem: str = ""
    pod: str = ""
    version: str = ""
    ms: float = 0

    @property
    def ok(self) -> bool:
        """Whether `data` is what was asked for."""
        return not self.problem


def new_client() -> httpx.AsyncClient:
    """What all upstreams share."""
    return httpx.AsyncClient(
        # A Service spreads connections, not requests: a kept connection would stay with one pod for ever, and
        # a new replica would get nothing to do.
        limits=httpx.Limits(max_keepalive_connections=0),
        # Plain HTTP inside the cluster: without the bundle of certificate authorities it starts faster.
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=False,
    )


class Upstream:
    """One service behind the gateway.

    Args:
        deadline_s: for a call in all, its retries included.
    """

    def __init__(
        self, name: str, url: str, deadline_s: float, client: httpx.AsyncClient, metrics: UpstreamMetrics
    ) -> None:
        self.name, self.url, self.deadline_s = name, url.rstrip("/"), deadline_s
        self._client, self._metrics = client, metrics
        self._timeout = httpx.Timeout(deadline_s, connect=CONNECT_S)

    async def get(self, path: str, **params: Any) -> Answer:
        """GET; safe to repeat."""
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: Any, key: str = "") -> Answer:
        """POST of something that is safe to repeat, by its nature or by an idempotency key."""
        return await self._call("POST", path, json=body, headers={"Idempotency-Key": key} if key else {})

    async def _call(self, method: str, path: str, **options: Any) -> Answer:
        options.setdefault("headers", {})["X-Request-ID"] = request_id.get()
        started = time.perf_counter()
        problem = f"no answer in {self.deadline_s:g} s"
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(self.deadline_s):
                response = await self._attempts(method, path, options)
        except TimeoutError:
            pass
        except (Passing, httpx.HTTPError) as error:
            problem = _words(error)
        seconds = time.perf_counter() - started
        answer = self._answer(response, problem, seconds)
        self._metrics.latency.labels(self.name).observe(seconds)
        if not answer.ok and answer.status not in (404, 409, 422):
            self._metrics.failures.labels(self.name).inc()
            logger.warning("call failed", extra={"upstream": self.name, "reason": answer.problem})
        return answer

    async def _attempts(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            retry=retry_if_exception_type(Passing),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    self._metrics.retries.labels(self.name).inc()
                return await self._once(method, path, options)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        try:
            response = await self._client.request(method, self.url + path, timeout=self._timeout, **options)
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.RemoteProtocolError,
            httpx.ReadError,
        ) as error:
            raise Passing(_words(error)) from error
        # 503 with Retry-After means overload: to come back at once would make it worse.
        if response.status_code in (502, 504) or (
            response.status_code == 503 and "retry-after" not in response.headers
        ):
            raise Passing(f"answered {response.status_code}")
        return response

    def _answer(self, response: httpx.Response | None, problem: str, seconds: float) -> Answer:
        ms = round(seconds * 1000, 1)
        if response is None:
            return Answer(self.name, problem=problem, ms=ms)
        try:
            data = response.json()
        except ValueError:
            data = None
        problem = "" if response.is_success and data is not None else _detail(response, data)
        pod, version = response.headers.get("x-pod", "?"), response.headers.get("x-version", "?")
        return Answer(self.name, response.status_code, data, problem, pod, version, ms)


class UpstreamMetrics:
    """Metrics of all calls, by the service that was called."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("upstream",)
        self.latency = Histogram("upstream_seconds", "Calls, retries included", labels, registry=registry)
        self.retries = Counter("upstream_retries", "Attempts after the first", labels, registry=registry)
        self.failures = Counter(
            "upstream_failures", "Calls without a usable answer", labels, registry=registry
        )


def _detail(response: httpx.Response, data: Any) -> str:
    detail = data.get("detail") if isinstance(data, dict) else None
    return detail if isinstance(detail, str) else f"answered {response.status_code}"


def _words(error: Exception) -> str:
    names = {"ConnectError": "no connection", "ConnectTimeout": "no connection", "ReadTimeout": "no answer"}
    return names.get(type(error).__name__) or str(error) or type(error).__name__
