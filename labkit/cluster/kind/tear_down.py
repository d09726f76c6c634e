"""`labkit down` of a kind cluster: its containers, its network, its directory; nothing else of Docker's."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from labkit.cluster.kind.engine import OWN_LABEL, Engine
from labkit.cluster.kind.state import KindDirectory
from labkit.errors import ClusterError


def tear_down(engine: Engine, directory: KindDirectory) -> None:
    """Remove the cluster's containers with their volumes, its network and its directory; nothing else.

    Raises:
        ClusterError, MachineError: Docker does not remove them.
    """
    directory.check_is_labkits()
    remove_containers(engine, directory)
    directory.remove()


def remove_containers(engine: Engine, directory: KindDirectory) -> None:
    """Remove the node containers and the network."""
    there = engine.containers(directory.kind_name)
    for each in there:
        if each.state == "paused":
            engine.run("unpause", each.name)
    if there:
        engine.run("rm", "--force", "--volumes", *(each.name for each in there), limit_s=180)
    network = engine.network(directory.kind_name)
    if network and OWN_LABEL in (network.get("Labels") or {}):
        _insist(partial(engine.run, "network", "rm", directory.kind_name))


def _insist(act: Callable[[], object], limit_s: float = 15.0) -> None:
    """Repeat what Docker refuses while it is still busy with the containers that were removed."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            act()
            return
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
