"""The incidents of a game day strike a real cluster, and their repairs work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.gameday import build
from labkit.gameday.desk import OVERLAY, RELEASE
from labkit.gameday.faults.bad_deploy import RELEASES, BadDeploy
from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.faults.drift import EDITS, Drift
from labkit.gameday.faults.node_loss import NodeLoss
from labkit.gameday.faults.pool import PoolExhausted
from labkit.gameday.world import World

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.cluster


def until(fault: Fault, wanted: Callable[[Sign], bool], limit_s: float = 90.0) -> Sign:
    """Look until it is so."""
    end = time.monotonic() + limit_s
    while True:
        sign = fault.look()
        if wanted(sign):
            return sign
        assert time.monotonic() < end, sign
        time.sleep(0.3)


def good(sign: Sign) -> bool:
    return sign.good and not sign.symptom


def seen(sign: Sign) -> bool:
    return sign.symptom and not sign.good


@pytest.fixture(scope="module")
def world(state_home: Path) -> Any:
    """The system without a git server: its own repair is `kubectl apply`."""
    assert state_home.is_dir()
    cluster = EmbeddedCluster.up("gameday", workers=2)
    try:
        yield build(cluster, ROOT, gitops=False)
    finally:
        cluster.down()


def test_a_lost_node_is_seen_and_restored(world: World) -> None:
    fault = NodeLoss(world, 1)
    until(fault, good)
    fault.strike()
    assert fault.node in until(fault, seen, 20).text
    fault.repair()
    until(fault, good)
    fault.clean_up()


@pytest.mark.parametrize("choice", range(len(EDITS)))
def test_drift_is_seen_and_corrected(world: World, choice: int) -> None:
    fault = Drift(world, choice)
    until(fault, good)
    fault.strike()
    until(fault, seen, 10)
    fault.repair()
    until(fault, good)


@pytest.mark.parametrize("choice", range(len(RELEASES)))
def test_a_bad_release_is_live_until_it_is_taken_back(world: World, choice: int) -> None:
    fault = BadDeploy(world, choice)
    until(fault, good)
    fault.strike()
    until(fault, lambda sign: not sign.good, 20)
    assert fault.release.title in (world.desk.folder / RELEASE).read_text()
    fault.repair()
    until(fault, good)


def test_what_the_learner_does_instead_is_as_good(world: World) -> None:
    """A rollout undone by hand, a node removed, another team's Services deleted: each ends its incident."""
    deploy = BadDeploy(world, 0)
    deploy.strike()
    until(deploy, lambda sign: not sign.good, 20)
    world.cluster.kubectl("-n", "shop", "rollout", "undo", f"deployment/{deploy.release.deployment}")
    until(deploy, good)
    deploy.clean_up()
    world.cluster.kubectl("apply", "-k", str(world.desk.folder / OVERLAY))

    pool = PoolExhausted(world, 0)
    pool.set_up()
    pool.strike()
    assert "campaign/banner" in until(pool, seen, 20).text
    world.cluster.kubectl("delete", "namespace", "campaign")
    until(pool, good)


def test_an_exhausted_pool_is_enlarged(world: World) -> None:
    fault = PoolExhausted(world, 0)
    for _ in range(2):  # a second game begins with few addresses again
        fault.set_up()
        fault.strike()
        until(fault, seen, 20)
        fault.repair()
        until(fault, good)
    fault.clean_up()
