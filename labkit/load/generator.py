"""The load generator's own process: reads a plan from stdin, sends requests, writes records to stdout.

Input: one JSON line (`url` and so on, see `Plan` in run.py), then the arrival times as native float64.
Output: JSON lines: {"start": unix time}, {"rows": [[…], …]} twice a second, {"end": {"cpu_s", "wall_s"}}.
It stops when stdin closes: at the latest when its parent is gone.
"""

from __future__ import annotations

import array
import asyncio
import gc
import json
import random
import sys
import time
from typing import Any

import aiohttp

FLUSH_EVERY_S = 0.5
LEAD_S = 0.2
STOP_S = 2.0


class Generator:
    """Sends each request at its time, whatever became of those before it."""

    def __init__(self, plan: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.plan = plan
        self.session = session
        self.rows: list[list[Any]] = []
        self.in_flight = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.random = random.Random(plan["seed"])
        self.begin = 0.0

    async def send_all(self, arrivals: list[float]) -> None:
        loop = asyncio.get_running_loop()
        self.begin = loop.time() + LEAD_S
        emit({"start": time.time() + LEAD_S})
        requests, weights = self.plan["requests"], [request["weight"] for request in self.plan["requests"]]
        choices = self.random.choices(requests, weights, k=len(arrivals))
        for number, (arrival, request) in enumerate(zip(arrivals, choices, strict=True)):
            delay = self.begin + arrival - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            elif number % 50 == 0:
                await asyncio.sleep(0)  # late: let answers in
            if self.in_flight >= self.plan["max_in_flight"]:
                self.record(arrival, arrival, 0, "in-flight limit", None)
                continue
            self.in_flight += 1
            task = loop.create_task(self.send_one(arrival, request))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        await asyncio.sleep(self.begin + self.plan["duration_s"] - loop.time())

    async def finish(self, seconds: float) -> None:
        """Wait for the answers that are still to come."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=seconds)

    async def send_one(self, arrival: float, request: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time() - self.begin
        status, error, headers = 0, "", None
        try:
            call = self.session.request(
                request["method"],
                request["url"],
                data=request["body"],
                headers=request["headers"],
                allow_redirects=False,
            )
            async with call as response:
                await response.read()
                status, headers = response.status, response.headers
        except Exception as err:
            error = kind_of(err)
        self.in_flight -= 1
        self.record(arrival, sent, status, error, headers)

    def record(self, arrival: float, sent: float, status: int, error: str, headers: Any) -> None:
        now = asyncio.get_running_loop().time() - self.begin
        values = [headers.get(name, "") if headers else "" for name in self.plan["headers"]]
        row = [arrival, (now - arrival) * 1000, max(0.0, sent - arrival) * 1000, status, error, *values]
        self.rows.append([round(value, 6) if isinstance(value, float) else value for value in row])

    async def flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.emit_rows()

    def emit_rows(self) -> None:
        if self.rows:
            rows, self.rows = self.rows, []
            emit({"rows": rows})


def kind_of(err: BaseException) -> str:
    """A short, stable name for what went wrong with a request."""
    if isinstance(err, asyncio.TimeoutError):
        return "timeout"
    if isinstance(err, aiohttp.ClientConnectorDNSError):
        return "no such name"
    if isinstance(err, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(err, aiohttp.ClientConnectorError | ConnectionRefusedError):
        refused = isinstance(getattr(err, "os_error", err), ConnectionRefusedError)
        return "refused" if refused else "no connection"
    if isinstance(err, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "closed without answer"
    if isinstance(err, ConnectionResetError | BrokenPipeError | aiohttp.ClientOSError):
        return "reset"
    return type(err).__name__


def emit(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


async def stdin_closed() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def main(plan: dict[str, Any], arrivals: list[float]) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=not plan["keep_alive"], ttl_dns_cache=10)
    timeout = aiohttp.ClientTimeout(total=plan["timeout_s"])
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
        generator = Generator(plan, session)
        flush, stop = asyncio.create_task(generator.flush()), asyncio.create_task(stdin_closed())
        cpu, wall = time.process_time(), time.monotonic()
        sending = asyncio.create_task(generator.send_all(arrivals))
        await asyncio.wait([sending, stop], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()  # raises what went wrong
        sending.cancel()
        await generator.finish(STOP_S if stop.done() else plan["timeout_s"] + 1)
        flush.cancel()
        stop.cancel()
        generator.emit_rows()
        emit({"end": {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall}})


if __name__ == "__main__":
    plan = json.loads(sys.stdin.buffer.readline())
    raw = sys.stdin.buffer.read(8 * plan["count"])
    gc.freeze()
    asyncio.run(main(plan, array.array("d", raw).tolist()))
