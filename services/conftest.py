"""Starts services as plain processes, as a container does, for the tests of all of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
SERVICES = ("frontend", "catalog", "orders", "pricing")
sys.path[:0] = [str(HERE / name) for name in SERVICES]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A service's process, listening on `url`; `http` is a client for it."""

    def __init__(self, name: str, log: Path, port: int = 0, **env: str) -> None:
        self.name, self.log, self.port = name, log, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=10, trust_env=False)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FAULT", "PRICE_", "CPU_LIMIT"))}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", name],
                cwd=HERE / name,
                env={**clean, "HOST": "127.0.0.1", "PORT": str(self.port), "POD_NAME": f"{name}-pod", **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def until_up(self, seconds: float = 60) -> Running:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.http.get("/healthz")
                return self
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(f"{self.name} is not up: {self.log.read_text()[-2000:]}")

    def logged(self, **fields: Any) -> list[dict[str, Any]]:
        """The log lines that have all these fields; every line must be JSON."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    def metric(self, name: str) -> float:
        """A metric's value, 0 where it is not there; `name` includes the labels as they are printed."""
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(30)

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait()
        self.http.close()


Start = Callable[..., Running]


@contextmanager
def starter(folder: Path) -> Iterator[Start]:
    """start("catalog", VERSION="v2") → Running; all of them end with the context."""
    running: list[Running] = []

    def start(name: str, *, wait: bool = True, port: int = 0, **env: str) -> Running:
        if name == "orders":
            env.setdefault("ORDERS_DB", str(folder / "orders.db"))
        running.append(Running(name, folder / f"{name}-{len(running)}.log", port, **env))
        return running[-1].until_up() if wait else running[-1]

    try:
        yield start
    finally:
        for service in running:
            service.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A starter whose processes end with the test."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """A starter whose processes serve all tests of a module."""
    with starter(tmp_path_factory.mktemp("services")) as start:
        yield start
