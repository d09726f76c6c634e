"""Real clusters for the tests: one that is shared, and a factory for those that a test breaks.

The tests' clusters keep their state in a folder of their own. LABKIT_TEST_CLUSTER names a cluster that runs already
(of the usual state folder) to be used as the shared one and to be left running.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.cluster import Cluster
from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.phases import Plain
from labkit.cluster.providers import open_cluster
from tests.cluster.helpers import own_state_home

OPTIONS: dict[str, Any] = {"workers": 2, "node_monitor_period_s": 2, "node_monitor_grace_s": 20}
"""Of the shared cluster: as usual, but a node that is gone is noticed sooner."""


@pytest.fixture(scope="session")
def state_home() -> Iterator[Path]:
    """A folder for clusters' state; what is left in it at the end is taken down."""
    with own_state_home() as folder:
        yield folder


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The shared cluster: two workers of 2 CPUs and 4 GiB. A test leaves it as it found it."""
    running = os.environ.get("LABKIT_TEST_CLUSTER")
    if running:
        return open_cluster(running)
    request.getfixturevalue("state_home")
    return labkit.up("shared", listener=Plain(), **OPTIONS)


@pytest.fixture
def make_cluster(state_home: Path) -> Iterator[Callable[..., EmbeddedCluster]]:
    """Makes clusters that go with the test: make_cluster("name", workers=1)."""
    assert state_home.is_dir()
    made: list[str] = []

    def make(name: str, **options: Any) -> EmbeddedCluster:
        made.append(name)
        return EmbeddedCluster.up(name, Plain(), **options)

    yield make
    for name in made:
        EmbeddedCluster(name).down()
