"""Lab 03's check of a load, on loads that were really sent: a release that hangs must not pass."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from labkit import load
from labkit.checks import check
from labkit.checks.lab03 import no_request_lost
from labkit.errors import LabkitError


class Shop(asyncio.Protocol):
    """Answers with the version of the moment; not at all when that is "hang"."""

    version = "v1"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _: bytes) -> None:
        if Shop.version != "hang":
            answer = f"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-version: {Shop.version}\r\n\r\n"
            self.transport.write(answer.encode())  # type: ignore[attr-defined]


@pytest.fixture
def url() -> Iterator[str]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Shop, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def until(traffic: load.Running, true: Callable[[load.LoadResult], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true(traffic.snapshot()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true(traffic.snapshot())


def released(url: str, versions: list[str], **options: float) -> load.Running:
    """A load during which each version serves for a while."""
    Shop.version = versions[0]
    traffic = load.start(url, load.constant(20, 60), spacing="uniform", **options)  # type: ignore[arg-type]
    for version in versions:
        before = len(traffic.snapshot().requests)
        Shop.version = version
        if version == "hang":
            time.sleep(0.6)
        else:
            until(traffic, lambda seen, at=before + 12: len(seen.requests) >= at)  # type: ignore[misc]
    return traffic


def test_two_releases_without_a_failure_pass(url: str) -> None:
    traffic = released(url, ["v1", "v2", "v1"])
    traffic.stop()
    result = check("03-no-request-lost", traffic)
    assert result.passed and len(result.findings) == 5


def test_a_release_that_hangs_until_the_load_is_stopped_fails(url: str) -> None:
    traffic = released(url, ["v1", "v2", "v1", "hang"], timeout_s=3.0)
    traffic.stop()
    findings = [finding for finding in no_request_lost(traffic) if not finding.ok]
    assert [finding.text.split(" of ")[0] for finding in findings] == ["none"]
    assert "× timeout" in findings[0].hint


def test_requests_that_were_not_sent_do_not_pass(url: str) -> None:
    traffic = released(url, ["v1", "v2", "v1", "hang", "v1"], max_in_flight=3)
    traffic.stop(0.0)
    assert any("not sent: " in finding.hint for finding in no_request_lost(traffic))


def test_a_generator_that_was_killed_does_not_pass(url: str) -> None:
    traffic = released(url, ["v1", "v2", "v1"])
    os.kill(traffic._process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not traffic.done and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(LabkitError, match="ended early"):
        list(no_request_lost(traffic))
