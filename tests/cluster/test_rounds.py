"""Every fault of the rounds of lab 02, on a real worker: it can be told from what is seen, and repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.waiting import wait_for
from labkit.labs import rounds

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
NAME = "patient"


@pytest.fixture(scope="module")
def patient(cluster: EmbeddedCluster) -> Iterator[str]:
    cluster.build_image(ROOT / "services" / "hello", "hello:v1")
    cluster.add_worker(NAME).wait()
    cluster.kubectl("apply", "-f", str(ROOT / "manifests/nodes/echo.yaml"))
    cluster.kube.wait("DaemonSet", "echo", "rolled out", timeout_s=60)
    yield NAME
    cluster.kubectl("delete", "-f", str(ROOT / "manifests/nodes/echo.yaml"))
    cluster.remove_worker(NAME)


@pytest.mark.parametrize("cause", rounds.FAULTS)
def test_a_fault_is_seen_named_and_repaired(cluster: EmbeddedCluster, patient: str, cause: str) -> None:
    rounds.FAULTS[cause].strike(cluster, patient)
    wait_for(lambda: rounds.cause_of(rounds.look(cluster, [patient])[0]) == cause, 40, f"{cause} is seen")
    assert rounds.well(cluster, patient)
    cluster.repair(patient)
    rounds.tidy(cluster)
    wait_for(lambda: not rounds.well(cluster, patient), 40, "it is well")
    ready = lambda: rounds.look(cluster, [patient])[0].pod == "ok"  # noqa: E731
    wait_for(ready, 60, "its pod answers again")
