"""The closed loop: load → service → metrics → autoscaler → pods → service …, one step at a time.

Pods are alike and share the load evenly. The newest go first when the count falls (as a ReplicaSet prefers),
so the pods at least x seconds old are as many as the lowest count of the last x seconds. The autoscaler's
part is that of `calculator` and `behavior` for such pods, and agrees with them exactly (see the tests).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from labkit.hpa.arithmetic import Numbers, Value
from labkit.hpa.scenario import Scenario
from labkit.hpa.spec import DEFAULT_SCALE_DOWN, DEFAULT_SCALE_UP, ScalingRules

TINY: Final = 1e-9
BUSIEST: Final = 0.99


class Row(NamedTuple):
    """One step; counts and rates as in `Run.frame`."""

    replicas: Value
    ready: Value
    arrived: Value
    served: Value
    lost: Value
    missed: Value
    millicores: Value
    metric: Value
    wanted: Value
    latency_ms: Value
    queue: Value


@dataclass(frozen=True, slots=True)
class Knobs:
    """A scenario's numbers in the engine's units (steps, rounds, millicores); scalars or arrays alike.

    `up` and `down` hold (share, pods, rounds back) per policy.
    """

    values: dict[str, Value]
    up: list[tuple[Value, Value, Value]]
    down: list[tuple[Value, Value, Value]]


def knobs(scenario: Scenario, dt_s: float, policies: tuple[int, int]) -> Knobs:
    """The numbers of one scenario; each direction's policies are filled up to the given counts."""
    service, pipe, controller = scenario.service, scenario.pipeline, scenario.controller
    target = scenario.spec.metrics[0].target
    percent = target.average_utilization
    down, up = scenario.spec.tolerances(controller)
    behavior = scenario.spec.behavior
    rules_up = behavior.scale_up if behavior else DEFAULT_SCALE_UP
    rules_down = behavior.scale_down if behavior else DEFAULT_SCALE_DOWN
    stay = controller.downscale_stabilization_s
    down_window = int(stay) if behavior and rules_down.window_seconds is None else rules_down.window_seconds
    sync = controller.sync_period_s
    request = service.request_millicores if percent else 100
    values: dict[str, Value] = {
        "start": scenario.start,
        "low": scenario.spec.min_replicas,
        "high": scenario.spec.max_replicas,
        "request": request,
        "target": percent or target.average_value or 1,
        "full": request * max(100, percent) // 100 if percent else target.average_value,
        "below": 1.0 - down,
        "above": 1.0 + up,
        "up_back": _back(rules_up.window_seconds or 0, sync),
        "up_window": rules_up.window_seconds or 0,
        "down_back": _back(stay if behavior is None else down_window or 0, sync),
        "down_window": stay if behavior is None else down_window or 0,
        "up_least": rules_up.select == "Min",
        "down_least": rules_down.select == "Min",
        "up_off": rules_up.select == "Disabled",
        "down_off": rules_down.select == "Disabled",
        "cpu": service.cpu_ms_per_request,
        "wait": service.wait_ms_per_request,
        "idle": service.idle_millicores,
        "limit": service.limit_millicores,
        "machine": scenario.machine_millicores,
        "concurrency": service.concurrency,
        "startup_cpu": service.startup_millicores,
        "slo": service.slo_ms,
        "patience": service.patience_s,
        "pending": math.ceil(service.pending_s / dt_s),
        "startup": math.ceil(service.startup_s / dt_s),
        "first": math.ceil((service.pending_s + pipe.first_sample_s) / dt_s),
        "fresh": math.ceil(controller.cpu_initialization_period_s / dt_s),
        "scrape_s": pipe.scrape_interval_s,
        "delay_s": pipe.delay_s,
        "window": max(1, round((pipe.window_s or pipe.scrape_interval_s) / dt_s)),
        "noise": scenario.noise,
    }
    return Knobs(values, _policies(rules_up, sync, policies[0]), _policies(rules_down, sync, policies[1]))


def _back(window_s: float, sync_s: float) -> int:
    """How many earlier rounds are strictly younger than the window."""
    return max(math.ceil(window_s / sync_s) - 1, 0)


def _policies(rules: ScalingRules, sync_s: float, count: int) -> list[tuple[Value, Value, Value]]:
    found = []
    for i in range(count):
        policy = rules.policies[min(i, len(rules.policies) - 1)]
        share, pods = (policy.value / 100, 0) if policy.type == "Percent" else (0.0, policy.value)
        found.append((share, pods, _back(policy.period_seconds, sync_s)))
    return found


class Engine:
    """Runs one scenario on `Scalars`, or many with the same sync period on `Arrays`.

    Args:
        k: the scenarios' numbers.
        builtin: whether they have no `spec.behavior` (all or none of them).
        sync: steps per round of the autoscaler.
        depths: how far back (steps, rounds) any of them looks.
    """

    def __init__(
        self, n: Numbers, k: Knobs, dt_s: float, builtin: bool, sync: int, depths: tuple[int, int]
    ) -> None:
        self.n, self.dt, self.builtin, self.sync = n, dt_s, builtin, sync
        self.v: Any = SimpleNamespace(**k.values)
        self.up, self.down = k.up, k.down
        steps, rounds = depths
        start = self.v.start + 0.0
        self.counts = n.trail(False, start, steps + 1)
        self.round = 0
        self.ups, self.downs = (n.events(_longest(n, policies)) for policies in (k.up, k.down))
        self.lowest = n.trail(False, start * 0 + math.inf, rounds)
        self.highest = n.trail(True, start * 0 - math.inf, rounds)
        self.used = n.past(start * 0, steps)
        self.metric: Value = start * 0
        self.wanted: Value = start

    def run(self, arrivals: Sequence[float], shocks: Sequence[float]) -> Iterator[Row]:
        """One row per step; `shocks` are standard normal numbers, one per step, for the noise."""
        v = self.v
        replicas, queue = v.start + 0.0, v.start * 0.0
        self._settle(replicas, arrivals[0])
        total = v.start * 0.0
        for i, arrived in enumerate(arrivals):
            if i % self.sync == 0:
                replicas = self._round(i, replicas, shocks[i])
            self.counts.push(replicas)
            ready = self.counts.over(v.startup + 1)
            row, queue, usage = self._serve(replicas, ready, arrived, queue)
            total = total + usage * self.dt
            self.used.push(total)
            yield row

    def _settle(self, replicas: Value, arrived: float) -> None:
        """The past before time zero: the first load, long served by the first pods."""
        _, _, usage = self._serve(replicas, replicas, arrived, replicas * 0.0)
        for i in range(self.used.depth, -1, -1):
            self.used.push(usage * (-i * self.dt))

    def _serve(self, replicas: Value, ready: Value, arrived: float, queue: Value) -> tuple[Row, Value, Value]:
        """One step's requests; the row, the queue after it, and the CPU use of a Ready pod."""
        n, v, dt, least, most = self.n, self.v, self.dt, self.n.least, self.n.most
        pods = most(ready, 1)
        starting = least(v.machine, (replicas - ready) * v.startup_cpu)
        share = least(v.limit, (v.machine - starting) / pods)
        speed = most(least(share, 1000.0), TINY)
        cpu_ms = v.cpu * 1000.0 / speed
        rate = least((share - v.idle) / v.cpu, 1000.0 * v.concurrency / (v.wait + cpu_ms))
        capacity = most(rate, 0.0) * ready
        room = capacity * dt
        offered = queue + arrived
        served = least(offered, room)
        left = least(offered - served, capacity * v.patience)
        lost = offered - served - left
        usage = v.idle + v.cpu * served / (dt * pods)
        guard = most(room, TINY)
        busy = least(served / guard, BUSIEST)
        delay = least(500.0 * dt * (queue + left) / guard, 1000.0 * v.patience)
        congested = cpu_ms / (1.0 - busy ** most(share / 1000.0, 1.0))
        spare = most(v.slo - v.wait - delay, 0.0)
        missed = served * n.exp(-spare / congested) + lost
        latency = v.wait + delay + congested
        row = Row(
            replicas,
            ready,
            arrived,
            served,
            lost,
            missed,
            usage * ready + starting,
            self.metric,
            self.wanted,
            latency,
            left,
        )
        return row, left, usage

    def _round(self, i: int, replicas: Value, shock: float) -> Value:
        """The replica count after a round of the autoscaler at step `i`."""
        n, v = self.n, self.v
        now = i * self.dt
        scraped = n.floor((now - v.delay_s) / v.scrape_s) * v.scrape_s
        age = _steps(n, (now - scraped) / self.dt)
        ripe = n.most(age + v.first, n.least(age + v.startup + v.window, n.most(v.fresh, v.startup)))
        counted = self.counts.over(n.most(ripe, 1))
        running = self.counts.over(n.most(v.pending, 1))
        missing = running - self.counts.over(n.most(age + v.first, 1))
        usage = (self.used.ago(age) - self.used.ago(age + v.window)) / (v.window * self.dt)
        noisy = usage * (1.0 + v.noise * shock / n.most(counted, 1) ** 0.5)
        sample = n.ceil(n.most(noisy, 0.0) - TINY)
        known = counted > 0
        wanted = self._recommend(sample, replicas, counted, replicas - missing - counted, missing)
        self.wanted = n.where(known, wanted, math.nan)
        after = n.where(known, self._normalize(i == 0, replicas, wanted, known), replicas)
        if not self.builtin:
            self.ups.add(self.round, after - replicas)
            self.downs.add(self.round, replicas - after)
        self.round += 1
        return after

    def _recommend(
        self, sample: Value, replicas: Value, counted: Value, unready: Value, missing: Value
    ) -> Value:
        """`calculator` for pods in groups: `counted` of them use `sample` millicores each."""
        n, v = self.n, self.v
        self.metric = n.floor(100.0 * sample / v.request)
        ratio = self.metric / v.target
        rising = ratio > 1.0
        assumed = n.where(rising, unready, 0)
        plain = n.where((v.below <= ratio) & (ratio <= v.above), replicas, n.ceil(ratio * counted))
        again_needed = (missing > 0) | (assumed > 0)
        if not n.some(again_needed):
            return plain
        added = n.where(ratio == 1.0, 0, missing)
        pods = n.most(counted + added + assumed, 1)
        used = sample * counted + n.where(ratio < 1.0, added * v.full, 0)
        again = n.floor(100.0 * used / (v.request * pods)) / v.target
        count = n.ceil(again * pods)
        stays = (
            ((v.below <= again) & (again <= v.above))
            | ((ratio < 1.0) & (again > 1.0))
            | (rising & (again < 1.0))
            | ((again < 1.0) & (count > replicas))
            | ((again > 1.0) & (count < replicas))
        )
        return n.where(again_needed, n.where(stays, replicas, count), plain)

    def _normalize(self, first: bool, replicas: Value, wanted: Value, known: Value) -> Value:
        """`behavior`: windows, rates, minimum and maximum."""
        n, v = self.n, self.v
        highest = n.most(wanted, self.highest.over(v.down_back))
        lowest = n.least(wanted, self.lowest.over(v.up_back))
        if first:
            highest = n.where(v.down_window > 0, n.most(highest, replicas), highest)
            lowest = n.where(v.up_window > 0, n.least(lowest, replicas), lowest)
        self._remember(first, replicas, wanted, known)
        if self.builtin:
            fastest = n.least(v.high, n.most(2.0 * replicas, 4.0))
            return n.most(n.least(highest, fastest), v.low)
        stable = n.least(n.most(replicas, lowest), highest)
        result = stable
        if n.some(stable > replicas):
            limit = self._fastest(replicas, self.up, v.up_least, v.up_off, +1)
            limit = n.least(v.high, n.most(limit, replicas))
            result = n.where(stable > replicas, n.least(stable, limit), result)
        if n.some(stable < replicas):
            limit = self._fastest(replicas, self.down, v.down_least, v.down_off, -1)
            limit = n.most(v.low, n.least(limit, replicas))
            result = n.where(stable < replicas, n.most(stable, limit), result)
        return result

    def _remember(self, first: bool, replicas: Value, wanted: Value, known: Value) -> None:
        """Keep this round's recommendation; the first round also counts the count it began with."""
        n = self.n
        high = n.most(wanted, replicas) if first else wanted
        low = n.least(wanted, replicas) if first else wanted
        blank_high, blank_low = (replicas, replicas) if first else (-math.inf, math.inf)
        self.highest.push(n.where(known, high, blank_high))
        self.lowest.push(n.where(known, low, blank_low))

    def _fastest(
        self,
        replicas: Value,
        policies: list[tuple[Value, Value, Value]],
        least_change: Value,
        off: Value,
        sign: int,
    ) -> Value:
        n = self.n
        small: Value = None
        large: Value = None
        for share, pods, back in policies:
            since = self.round - back
            began = replicas - self.ups.since(since) + self.downs.since(since)
            moved = began * (1 + sign * share)
            proposed = (n.ceil(moved) if sign > 0 else n.floor(moved)) + sign * pods
            small = proposed if small is None else n.least(small, proposed)
            large = proposed if large is None else n.most(large, proposed)
        gentle, strong = (small, large) if sign > 0 else (large, small)
        return n.where(off, replicas, n.where(least_change, gentle, strong))


def _longest(n: Numbers, policies: list[tuple[Value, Value, Value]]) -> Value:
    """Rounds for which a direction's scalings are of use to it: its longest policy period."""
    longest = policies[0][2]
    for _, _, back in policies:
        longest = n.most(longest, back)
    return longest


def _steps(n: Numbers, count: Value) -> Value:
    """A whole number of steps, usable as an index."""
    rounded = n.floor(count + 0.5)
    return rounded if isinstance(rounded, int) else rounded.astype(int)
