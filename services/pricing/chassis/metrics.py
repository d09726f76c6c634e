"""Metrics in Prometheus' text format, in a registry of the service's own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """What is counted for every request; services add their own metrics to `registry`."""

    def __init__(self, service: str, version: str, pod: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info("shop_build", "What runs here", registry=self.registry)
        build.info({"service": service, "version": version, "pod": pod})
        labels = ("method", "path", "status")
        self.requests = Counter("http_requests", "Requests answered", labels, registry=self.registry)
        self.latency = Histogram(
            "http_request_duration_seconds",
            "From the request's arrival to the last byte of its answer",
            ("method", "path"),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being served", registry=self.registry)

    def text(self) -> bytes:
        """All metrics in the text format, whose content type is CONTENT_TYPE."""
        return generate_latest(self.registry)
