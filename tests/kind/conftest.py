"""A real engine, a real registry (github.com/distribution/distribution), and a cluster that is shared."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.acquire import programs
from labkit.cluster.kind.cluster import KindCluster
from labkit.cluster.kind.engine import Engine
from labkit.cluster.phases import Plain
from labkit.cluster.waiting import accepts
from labkit.errors import LabkitError
from tests.cluster.helpers import own_state_home


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The Docker engine."""
    found = Engine()
    try:
        found.info()
    except LabkitError as err:
        pytest.skip(f"no Docker engine: {err.message}")
    return found


@pytest.fixture(scope="session")
def state_home() -> Iterator[Path]:
    """A folder for clusters' state; what is left in it at the end is taken down."""
    with own_state_home() as folder:
        yield folder


@pytest.fixture(scope="session")
def cluster(engine: Engine, state_home: Path) -> KindCluster:
    """One worker; a test leaves it as it found it."""
    assert engine.program and state_home.is_dir()
    return KindCluster.up("t-kind", Plain(), workers=1)


def free_port() -> int:
    """A TCP port of this machine that nobody uses."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry of its own, on this machine."""
    home, program = tmp_path_factory.mktemp("registry"), programs(["registry"])["registry"]
    address = f"127.0.0.1:{free_port()}"
    config = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {home}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    (home / "config.yml").write_text(config)
    with (home / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(home / "config.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        host, _, port = address.partition(":")
        while not accepts(host, int(port)) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(10)
