"""What can strike on a game day: one module per kind of incident."""

from __future__ import annotations

from labkit.gameday.faults.bad_deploy import BadDeploy
from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.faults.drift import Drift
from labkit.gameday.faults.load_surge import LoadSurge
from labkit.gameday.faults.node_loss import NodeLoss
from labkit.gameday.faults.pool import PoolExhausted
from labkit.gameday.world import World

FAULTS: dict[str, type[Fault]] = {
    fault.kind: fault for fault in (LoadSurge, NodeLoss, BadDeploy, Drift, PoolExhausted)
}


def left_out(world: World) -> dict[str, str]:
    """Kinds that cannot strike here → the reason."""
    reasons = {kind: fault.impossible(world) for kind, fault in FAULTS.items()}
    return {kind: reason for kind, reason in reasons.items() if reason}


__all__ = ["FAULTS", "Fault", "Sign", "left_out"]
