"""Another team takes the last addresses of the load balancer."""

from __future__ import annotations

from labkit.gameday.addresses import WANTS_POOL
from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.world import World
from labkit.kube import Object, dig

CAMPAIGN = "campaign"
_WANTED = 6
_GONE_S = 60.0


class PoolExhausted(Fault):
    """One Service more than there are addresses."""

    kind = "pool-exhausted"
    title = "addresses exhausted"
    customers = False

    def __init__(self, world: World, choice: int) -> None:
        super().__init__(world, choice)
        self.commands = (world.pool.command,) if world.pool else ()
        self.hints = (
            "The customers do not notice; another team does. Who waits for something?",
            "`kubectl get services -A` and `kubectl -n campaign get events`: what is <pending>, and why?",
            f"MetalLB has no address left. Enlarge the pool: {' '.join(self.commands)}",
        )

    @classmethod
    def impossible(cls, world: World) -> str:
        """It takes a load balancer."""
        return "" if world.pool else "MetalLB is not installed"

    def set_up(self) -> None:
        """Few addresses, and no campaign of an earlier game."""
        assert self.world.pool is not None
        self.clean_up()
        self.world.cluster.kube.wait("Namespace", CAMPAIGN, "deleted", timeout_s=_GONE_S)
        self.world.pool.reset()

    def strike(self) -> str:
        """A namespace with more Services of type LoadBalancer than there are addresses."""
        services = [_service(f"banner-{number}") for number in range(1, _WANTED + 1)]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CAMPAIGN}}
        self.world.cluster.kube.apply([namespace, *services])
        return f"another team's namespace {CAMPAIGN} wants {_WANTED} addresses, more than there are"

    def look(self) -> Sign:
        """Services of type LoadBalancer without an address."""
        waiting = [
            service for service in self._load_balanced() if not dig(service, "status.loadBalancer.ingress")
        ]
        names = [f"{dig(one, 'metadata.namespace')}/{dig(one, 'metadata.name')}" for one in waiting]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"without an address: {names[0]}{more}" if names else "every Service has its address"
        return Sign(bool(names), not names, text)

    def repair(self) -> None:
        """More addresses."""
        assert self.world.pool is not None
        self.world.pool.enlarge(_WANTED)

    def clean_up(self) -> None:
        """The other team's namespace goes."""
        self.world.cluster.kube.delete("Namespace", CAMPAIGN)

    def _load_balanced(self) -> list[Object]:
        services = self.world.cluster.kube.list("Service", everywhere=True)
        return [service for service in services if dig(service, "spec.type") == "LoadBalancer"]


def _service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": CAMPAIGN, "annotations": WANTS_POOL},
        "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]},
    }
