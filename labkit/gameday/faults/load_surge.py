"""Many customers at once: the script's load does it, and the HorizontalPodAutoscaler answers."""

from __future__ import annotations

from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.script import CALM_RPS, SURGE_RPS
from labkit.gameday.world import AUTOSCALED, SHOP
from labkit.kube import dig

TOLERANCE = 1.1


class LoadSurge(Fault):
    """Several times the customers, for a while."""

    kind = "load-surge"
    title = "load surge"
    healer = "the HorizontalPodAutoscaler"
    hints = (
        "Look at the customers: how many are there?",
        "`kubectl -n shop get hpa` shows utilization, target and replicas. What is it doing about it?",
        "The autoscaler does it alone, at its own pace. Watch, and keep your hands off.",
    )
    commands = ("kubectl -n shop get hpa pricing --watch",)

    def strike(self) -> str:
        """The load profile has it."""
        return f"{SURGE_RPS:g} requests per second instead of {CALM_RPS:g}"

    def look(self) -> Sign:
        """Utilization against its target, and ready replicas against those desired."""
        kube = self.world.cluster.kube
        hpa = kube.get("HorizontalPodAutoscaler", AUTOSCALED, namespace=SHOP)
        used = dig(hpa, "status.currentMetrics[0].resource.current.averageUtilization", 0)
        target = dig(hpa, "spec.metrics[0].resource.target.averageUtilization", 100)
        desired = dig(hpa, "status.desiredReplicas", 0)
        ready = dig(self.deployment(AUTOSCALED), "status.readyReplicas", 0)
        above = used > TOLERANCE * target
        text = f"autoscaler: CPU {used} % of {target} %, {ready} of {desired} replicas ready"
        return Sign(above, not above and ready >= desired, text)

    def repair(self) -> None:
        """Nothing: this is what the autoscaler is for."""
