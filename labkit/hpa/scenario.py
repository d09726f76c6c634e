"""What a simulation is about: the service, the metrics pipeline, the machine, and the autoscaler."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from labkit.hpa.errors import ServiceError, SpecError, number, whole
from labkit.hpa.spec import Controller, HpaSpec


@dataclass(frozen=True, slots=True)
class Service:
    """One pod's work.

    Args:
        cpu_ms_per_request: CPU time of a request in milliseconds.
        wait_ms_per_request: time of a request in which it needs no CPU.
        request_millicores: CPU request of a pod, by which utilization counts.
        limit_millicores: most CPU a pod gets; infinity without a limit.
        idle_millicores: CPU use of a pod without requests.
        concurrency: requests that a pod works on at once.
        pending_s: from a pod's creation until its container runs.
        startup_s: from a pod's creation until it is Ready.
        startup_millicores: CPU use while starting.
        slo_ms: a request that takes longer is a miss.
        patience_s: requests that would wait longer are lost.
    """

    cpu_ms_per_request: float = 20.0
    wait_ms_per_request: float = 0.0
    request_millicores: int = 250
    limit_millicores: float = 1000.0
    idle_millicores: float = 2.0
    concurrency: int = 32
    pending_s: float = 2.0
    startup_s: float = 10.0
    startup_millicores: float = 0.0
    slo_ms: float = 250.0
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        whole("request_millicores", self.request_millicores, 1, kind=ServiceError)
        whole("concurrency", self.concurrency, 1, kind=ServiceError)
        for name in ("cpu_ms_per_request", "slo_ms"):
            number(name, getattr(self, name), above=True, kind=ServiceError)
        names = ("wait_ms_per_request", "idle_millicores", "pending_s", "startup_s", "startup_millicores")
        for name in (*names, "patience_s"):
            number(name, getattr(self, name), kind=ServiceError)
        if not self.limit_millicores > self.idle_millicores:
            problem = f"found {self.limit_millicores}, must be above idle_millicores {self.idle_millicores}"
            raise ServiceError("limit_millicores", problem)
        if self.pending_s > self.startup_s:
            problem = f"found {self.startup_s}, shorter than pending_s {self.pending_s}"
            raise ServiceError("startup_s", problem)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """From a pod's CPU to the number that the autoscaler reads; all in seconds.

    Args:
        scrape_interval_s: metrics-server's --metric-resolution.
        window_s: time over which a sample averages; one scrape interval where None.
        delay_s: from the end of a sample's window until it can be read.
        first_sample_s: how long a container runs before its first sample can be taken.
    """

    scrape_interval_s: float = 15.0
    window_s: float | None = None
    delay_s: float = 5.0
    first_sample_s: float = 10.0

    def __post_init__(self) -> None:
        number("scrape_interval_s", self.scrape_interval_s, above=True, kind=ServiceError)
        number("delay_s", self.delay_s, kind=ServiceError)
        number("first_sample_s", self.first_sample_s, kind=ServiceError)
        if self.window_s is not None:
            number("window_s", self.window_s, above=True, kind=ServiceError)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything but the load.

    Args:
        machine_millicores: CPU that all pods together can get.
        start_replicas: replicas before time zero, long Ready; minReplicas where None.
        noise: standard deviation of one pod's CPU sample, relative (0.05 is 5 %).
    """

    spec: HpaSpec
    service: Service = field(default_factory=Service)
    pipeline: Pipeline = field(default_factory=Pipeline)
    controller: Controller = field(default_factory=Controller)
    machine_millicores: float = math.inf
    start_replicas: int | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        metric = self.spec.metrics[0]
        if len(self.spec.metrics) > 1 or (metric.source, metric.name) != ("Resource", "cpu"):
            hint = "Simulate with one Resource metric for cpu."
            raise SpecError("metrics", "the simulator knows CPU alone", hint)
        if not self.machine_millicores > 0:
            raise ServiceError("machine_millicores", f"found {self.machine_millicores}, must be above 0")
        number("noise", self.noise, kind=ServiceError)
        low, high = self.spec.min_replicas, self.spec.max_replicas
        if self.start_replicas is not None:
            whole("start_replicas", self.start_replicas, low, high, ServiceError)

    @property
    def start(self) -> int:
        return self.spec.min_replicas if self.start_replicas is None else self.start_replicas
