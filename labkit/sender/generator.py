"""Sends each request at its time, whatever became of those before it, and tells what was measured.

Input: one JSON line (see `start` in labkit/load/run.py), then the arrival times as native float64. After that
a line {"wait_s": seconds or null} stops the load: what is open may still be answered for so long, each for
its own timeout at most. When stdin closes without it, the parent is gone, and this ends.
Output: JSON lines: {"start": unix time}, {"rows": [[…], …]} twice a second, {"end": {…}}.
"""

from __future__ import annotations

import asyncio
import json
import queue
import random
import sys
import threading
import time
from typing import Any

from labkit.sender.client import Answer, Client, OwnFault, Prepared, kind_of, prepare
from labkit.sender.faults import IN_FLIGHT_LIMIT

NOT_ANSWERED = "not answered"
FLUSH_EVERY_S = 0.5
LEAD_S = 0.2
_AT_ONCE = 20
"""How many requests that are late leave in one go, before answers get their turn."""


class Output:
    """Writes messages in a thread of its own: a reader that is slow holds up nothing."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(self, message: dict[str, Any]) -> None:
        self._waiting.put(message)

    def close(self) -> None:
        """Return when all has been written."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
                sys.stdout.flush()
            except OSError:  # the parent is gone; closed stdin says so too
                return


class Generator:
    """One load.

    Attributes:
        until_s: everything that was due before it has been sent.
    """

    def __init__(self, plan: dict[str, Any], client: Client, output: Output) -> None:
        self._plan, self._client, self._output = plan, client, output
        self._rows: list[list[Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random(plan["seed"])
        self._requests = [prepare(request) for request in plan["requests"]]
        self._begin = 0.0
        self.until_s = 0.0

    async def send_all(self, arrivals: list[float]) -> None:
        """Send everything; what is late leaves as soon as possible."""
        await self._client.warm(self._requests)
        loop = asyncio.get_running_loop()
        weights = [request["weight"] for request in self._plan["requests"]]
        choices = self._random.choices(self._requests, weights, k=len(arrivals))
        self._begin = loop.time() + LEAD_S
        self._output.put({"start": time.time() + LEAD_S})
        for number, (arrival, request) in enumerate(zip(arrivals, choices, strict=True)):
            self.until_s = arrival
            delay = self._begin + arrival - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            elif number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if len(self._tasks) >= self._plan["max_in_flight"]:
                self._record(arrival, loop.time(), IN_FLIGHT_LIMIT)
                continue
            task = loop.create_task(self._send(arrival, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.until_s = self._plan["duration_s"]
        await asyncio.sleep(self._begin + self._plan["duration_s"] - loop.time())

    def stopped(self) -> None:
        """No more is sent: what was due until now has been, except what waits behind this very moment."""
        if self._begin:
            self.until_s = min(self.until_s, max(0.0, asyncio.get_running_loop().time() - self._begin))

    async def finish(self, seconds: float | None) -> None:
        """Wait for the answers that are still to come; what has none then gets its row all the same."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _send(self, arrival: float, request: Prepared) -> None:
        sent = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._plan["timeout_s"]):
                self._record_answer(arrival, await self._client.exchange(request))
        except asyncio.CancelledError:
            self._record(arrival, sent, NOT_ANSWERED)
        except OwnFault as err:
            self._record(arrival, sent, str(err))
        except Exception as err:
            self._record(arrival, sent, kind_of(err))

    def _record_answer(self, arrival: float, answer: Answer) -> None:
        due = self._begin + arrival
        lag, latency = max(0.0, answer.sent_at - due), answer.received_at - due
        values = [answer.headers.get(name.lower(), "") for name in self._plan["headers"]]
        waited = None if answer.waited_s != answer.waited_s else _ms(answer.waited_s)
        own = _ms(lag + answer.held_s)
        self._rows.append(
            [round(arrival, 6), _ms(latency), _ms(lag), answer.status, "", *values, own, waited]
        )

    def _record(self, arrival: float, sent: float, error: str) -> None:
        due, now = self._begin + arrival, asyncio.get_running_loop().time()
        lag = _ms(max(0.0, sent - due))
        values = [""] * len(self._plan["headers"])
        self._rows.append([round(arrival, 6), _ms(now - due), lag, 0, error, *values, lag, None])

    async def flush(self) -> None:
        """Tell what has been measured, twice a second."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.emit_rows()

    def emit_rows(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._output.put({"rows": rows})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


async def _stop_asked() -> float | None:
    """Seconds to wait for open requests, once the load is to be stopped; None for their own timeout."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    line = await reader.readline()
    wait_s: float | None = json.loads(line)["wait_s"] if line else 0.0
    return wait_s


async def generate(plan: dict[str, Any], arrivals: list[float]) -> None:
    """A whole load."""
    output = Output()
    generator = Generator(plan, Client(plan["keep_alive"]), output)
    flush, stop = asyncio.create_task(generator.flush()), asyncio.create_task(_stop_asked())
    cpu, wall = time.process_time(), time.monotonic()
    sending = asyncio.create_task(generator.send_all(arrivals))
    await asyncio.wait([sending, stop], return_when=asyncio.FIRST_COMPLETED)
    if sending.done():
        sending.result()  # raises what went wrong
    else:
        sending.cancel()
        generator.stopped()
    finishing = asyncio.create_task(generator.finish(stop.result() if stop.done() else None))
    await asyncio.wait([finishing, stop], return_when=asyncio.FIRST_COMPLETED)
    if not finishing.done():  # stopped after the last request had been sent
        await generator.finish(stop.result())
    await finishing
    flush.cancel()
    stop.cancel()
    generator.emit_rows()
    took = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall}
    output.put({"end": {**took, "until_s": generator.until_s}})
    output.close()
