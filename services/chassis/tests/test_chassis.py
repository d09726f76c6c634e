"""What all services do alike, shown on a real one: the catalog as a process."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).resolve().parents[1]
SERVICES = ("frontend", "catalog", "orders", "pricing")


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_carries_the_same_chassis(service: str) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("*.py")}

    assert files(HERE.parent / service / "chassis") == files(HERE), "run `make -C services chassis`"


@pytest.mark.parametrize("file", ["requirements.txt", ".dockerignore"])
def test_services_share_what_makes_their_first_layer(file: str) -> None:
    assert len({(HERE.parent / service / file).read_bytes() for service in SERVICES}) == 1


def test_every_answer_says_who_gave_it(start: Any) -> None:
    catalog = start("catalog", VERSION="v7")
    for path, status in (("/products", 200), ("/nothing", 404), ("/healthz", 200), ("/metrics", 200)):
        answer = catalog.http.get(path)
        assert (answer.status_code, answer.headers["x-pod"], answer.headers["x-version"]) == (
            status,
            "catalog-pod",
            "v7",
        )


def test_request_id_is_kept_or_made_and_logged(start: Any) -> None:
    catalog = start("catalog")
    kept = catalog.http.get("/products", headers={"X-Request-ID": "lab-1:a.b"}).headers["x-request-id"]
    made = catalog.http.get("/products", headers={"X-Request-ID": "two words"}).headers["x-request-id"]
    assert kept == "lab-1:a.b"
    assert re.fullmatch("[0-9a-f]{16}", made)
    line = catalog.logged(request_id="lab-1:a.b", message="request")[0]
    assert (line["method"], line["path"], line["status"], line["service"]) == (
        "GET",
        "/products",
        200,
        "catalog",
    )
    assert line["duration_ms"] >= 0 and line["time"].startswith("20")
    assert not catalog.logged(path="/healthz"), "probes are not worth a line"


def test_metrics_count_by_route(start: Any) -> None:
    catalog = start("catalog")
    for sku in ("mug", "cap", "none"):
        catalog.http.get(f"/products/{sku}")
    catalog.http.get("/unheard/of")
    counted = 'http_requests_total{method="GET",path="%s",status="%d"}'
    assert catalog.metric(counted % ("/products/{sku}", 200)) == 2
    assert catalog.metric(counted % ("/products/{sku}", 404)) == 1
    assert catalog.metric(counted % ("(none)", 404)) == 1
    latency = 'http_request_duration_seconds_count{method="GET",path="/products/{sku}"}'
    assert catalog.metric(latency) == 3
    assert catalog.metric("http_requests_in_flight") == 0
    assert catalog.http.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_faults_need_to_be_switched_on(start: Any) -> None:
    catalog = start("catalog")
    for method, path in (
        ("GET", "/faults"),
        ("PATCH", "/faults"),
        ("DELETE", "/faults"),
        ("POST", "/faults/crash"),
    ):
        assert catalog.http.request(method, path, json={}).status_code == 403
    assert catalog.process.poll() is None


def test_faults_strike_and_stop(start: Any) -> None:
    catalog = start("catalog", FAULTS="on", FAULT_ERROR_RATE="1")
    failed = catalog.http.get("/products")
    assert (failed.status_code, failed.json()["detail"]) == (500, "an injected fault")
    assert failed.headers["x-pod"] == "catalog-pod"
    assert catalog.http.get("/healthz").status_code == 200, "probes are spared"

    assert catalog.http.patch("/faults", json={"error_rate": 0, "delay_ms": 300}).json()["delay_ms"] == 300
    began = time.monotonic()
    assert catalog.http.get("/products").status_code == 200
    assert time.monotonic() - began > 0.29

    catalog.http.patch("/faults", json={"delay_ms": 0, "error_rate": 0.5})
    codes = {catalog.http.get("/products").status_code for _ in range(40)}
    assert codes == {200, 500}, "half of them: forty heads or tails in a row do not happen"

    catalog.http.patch("/faults", json={"unready": True, "unhealthy": True})
    ready = catalog.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (503, {"fault": "unready on demand"})
    assert catalog.http.get("/healthz").status_code == 503

    assert not any(catalog.http.delete("/faults").json().values())
    assert catalog.http.get("/readyz").status_code == catalog.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "change", [{"unredy": True}, {"error_rate": 2}, {"delay_ms": "long"}, {"delay_ms": -1}]
)
def test_a_wrong_fault_changes_nothing(start: Any, change: dict[str, Any]) -> None:
    catalog = start("catalog", FAULTS="on")
    answer = catalog.http.patch("/faults", json={"burn_cores": 0.5, **change})
    assert answer.status_code == 422 and next(iter(change)) in answer.json()["detail"]
    assert not any(catalog.http.get("/faults").json().values())
    assert catalog.http.patch("/faults", content=b"[1]").status_code == 400


def test_leak_and_burn_are_real(start: Any) -> None:
    catalog = start("catalog", FAULTS="on")
    memory, cpu = "process_resident_memory_bytes", "process_cpu_seconds_total"
    before = catalog.metric(memory), catalog.metric(cpu)
    catalog.http.patch("/faults", json={"leak_mb_per_s": 20, "burn_cores": 0.5})
    time.sleep(3.2)
    assert catalog.metric(memory) - before[0] > 35e6
    assert catalog.metric(cpu) - before[1] > 0.4
    catalog.http.delete("/faults")
    time.sleep(1.5)
    assert catalog.metric(memory) - before[0] < 15e6, "and the memory is given back"


def test_crash_ends_the_process_at_once(start: Any) -> None:
    catalog = start("catalog", FAULTS="on", DRAIN_SECONDS="60")
    with pytest.raises(httpx.TransportError):
        catalog.http.post("/faults/crash")
    assert catalog.process.wait(5) == 3


def test_sigterm_drains_finishes_and_exits_0(start: Any) -> None:
    catalog = start("catalog", DRAIN_SECONDS="1.5", FAULT_DELAY_MS="2500", FAULTS="on")
    slow: list[httpx.Response] = []
    request = threading.Thread(target=lambda: slow.append(httpx.get(f"{catalog.url}/products", timeout=10)))
    request.start()
    time.sleep(0.3)
    catalog.http.delete("/faults")
    began = time.monotonic()
    catalog.process.terminate()
    time.sleep(0.5)

    ready = httpx.get(f"{catalog.url}/readyz")
    assert (ready.status_code, ready.json()["checks"]["shutdown"]) == (503, "draining")
    assert httpx.get(f"{catalog.url}/healthz").status_code == 200, "draining is no reason to restart"
    served = httpx.get(f"{catalog.url}/products")
    assert (served.status_code, served.headers["connection"]) == (200, "close")

    assert catalog.process.wait(10) == 0
    assert time.monotonic() - began > 1.9, "it waited for the slow request"
    request.join(5)
    assert slow[0].status_code == 200
    assert catalog.logged(message="ended")


def test_a_kept_connection_ends_with_an_answer_and_the_client_never_notices(start: Any) -> None:
    catalog = start("catalog", DRAIN_SECONDS="2")
    catalog.http.get("/products")
    catalog.process.terminate()
    until = time.monotonic() + 1.5
    answers = []
    while time.monotonic() < until:
        answers.append(catalog.http.get("/products"))
        time.sleep(0.01)
    assert len(answers) > 20 and {answer.status_code for answer in answers} == {200}
    assert answers[-1].headers["connection"] == "close"
    assert catalog.process.wait(5) == 0


def test_a_second_signal_skips_the_drain(start: Any) -> None:
    catalog = start("catalog", DRAIN_SECONDS="60")
    catalog.process.terminate()
    time.sleep(0.3)
    began = time.monotonic()
    assert catalog.stop() == 0
    assert time.monotonic() - began < 3


def test_sigterm_during_the_start_ends_it(start: Any) -> None:
    catalog = start("catalog", wait=False, DRAIN_SECONDS="60")
    time.sleep(0.15)
    assert catalog.stop() in (0, -15)  # -15 before Python runs any code at all


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("DRAIN_SECONDS", "-1"),
        ("FAULTS", "perhaps"),
        ("LOG_LEVEL", "loud"),
        ("FAULT_DELAY_MS", "x"),
    ],
)
def test_a_bad_setting_is_named(start: Any, variable: str, value: str) -> None:
    catalog = start("catalog", wait=False, **{variable: value})
    assert catalog.process.wait(10) == 1
    assert catalog.log.read_text().startswith(f"catalog cannot start: {variable}=")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_small(start: Any, service: str) -> None:
    running = start(service)
    assert running.metric("process_resident_memory_bytes") < 64e6
