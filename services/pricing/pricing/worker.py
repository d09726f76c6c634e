"""One request is worked on at a time, some wait, and the rest is turned away: a queue with an end."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pricing.model import Item, Quote, quote


class Overloaded(Exception):
    """The queue is full; `retry_after_s` is when it might have moved on."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Done:
    """Quotes, the CPU time they took and the time they waited for their turn, in milliseconds."""

    quotes: list[Quote]
    cpu_ms: float
    queue_ms: float


class Pacer:
    """Keeps this process to a share of a CPU by sleeping, in periods of 100 ms as the kernel's quota does.

    Where containers have cgroups, the kernel enforces the limit too; where they have none, this alone does.

    Args:
        limit_cores: 0 for no limit.
    """

    PERIOD_S = 0.1

    def __init__(self, limit_cores: float) -> None:
        self._quota_s = limit_cores * self.PERIOD_S
        self._period_ends = self._used_before = 0.0

    def __call__(self) -> None:
        """Sleep until the next period if the process has used up its share of this one."""
        if not self._quota_s:
            return
        now, used = time.monotonic(), time.process_time()
        if now >= self._period_ends:
            self._period_ends, self._used_before = now + self.PERIOD_S, used
        elif used - self._used_before >= self._quota_s:
            time.sleep(self._period_ends - now)


class Worker:
    """A thread that prices, beside the event loop, which goes on answering probes meanwhile.

    One thread, since Python runs one at a time anyway: more would only make all of them slower.

    Args:
        work_s: CPU seconds per request.
        limit_cores: see Pacer.
        queue: requests that may wait.
    """

    def __init__(self, work_s: float, limit_cores: float, queue: int, registry: CollectorRegistry) -> None:
        self._work_s, self._queue, self._pacer = work_s, queue, Pacer(limit_cores)
        self._speed = min(limit_cores, 1) or 1
        self._thread = ThreadPoolExecutor(1, "pricing")
        self._inside = 0
        sys.setswitchinterval(0.001)  # the event loop waits at most that long for the interpreter
        self._waiting = Gauge("pricing_queue_length", "Requests that wait for their turn", registry=registry)
        self._wait = Histogram(
            "pricing_queue_seconds", "Time a request waited for its turn", registry=registry
        )
        self._cpu = Counter("pricing_work_cpu_seconds", "CPU time spent on finding prices", registry=registry)
        self._rejected = Counter("pricing_rejected", "Requests turned away: queue full", registry=registry)
        self._waiting.set_function(lambda: max(self._inside - 1, 0))

    async def price(self, items: list[Item], work: float) -> Done:
        """Price items, `work` times the usual CPU time in all.

        Raises:
            Overloaded: as many requests wait already as may.
        """
        if self._inside > self._queue:
            self._rejected.inc()
            raise Overloaded(max(1, math.ceil(self._inside * self._work_s / self._speed)))
        self._inside += 1
        try:
            job = self._job(items, work * self._work_s, time.monotonic())
            done = await asyncio.get_running_loop().run_in_executor(self._thread, job)
        finally:
            self._inside -= 1
        self._wait.observe(done.queue_ms / 1000)
        self._cpu.inc(done.cpu_ms / 1000)
        return done

    def _job(self, items: list[Item], cpu_s: float, asked: float) -> Callable[[], Done]:
        def job() -> Done:
            waited, before = time.monotonic() - asked, time.thread_time()
            self._pacer()
            quotes = [quote(item, cpu_s / len(items), self._pacer) for item in items]
            used = time.thread_time() - before
            return Done(quotes, round(used * 1000, 2), round(waited * 1000, 2))

        return job
