"""A worker is gone at once, with everything that ran on it."""

from __future__ import annotations

from labkit.errors import ClusterError, KubeError
from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.world import World
from labkit.kube import Kube
from labkit.kube.objects import is_true

_ANSWER_S = 2.0


class NodeLoss(Fault):
    """A power cut on one of the workers; restoring it is switching it on again."""

    kind = "node-loss"
    title = "node lost"

    def __init__(self, world: World, choice: int) -> None:
        super().__init__(world, choice)
        workers = _workers(world)
        self.node = workers[choice % len(workers)] if workers else ""
        connection = world.cluster.kube.connection
        self._hasty = Kube(connection.kubeconfig, connection.context, patience_s=_ANSWER_S)
        self.commands = (f'cluster.restore("{self.node}")',)
        self.hints = (
            "About every second request fails: whose pods do not answer?",
            "A node renews its lease every 10 s. Which one does not? `kubectl -n kube-node-lease get leases "
            "-o custom-columns=NODE:.metadata.name,RENEWED:.spec.renewTime; date -u`",
            f"{self.node} is gone. Switch it on again: cluster.restore({self.node!r}).",
        )

    @classmethod
    def impossible(cls, world: World) -> str:
        """With a single worker nothing would be left."""
        return "" if len(_workers(world)) > 1 else "it takes two workers, so that one is left"

    def strike(self) -> str:
        """Kubelet and pods end without a word."""
        self.world.cluster.lose(self.node)
        return f"{self.node} lost its power"

    def look(self) -> Sign:
        """Whether its kubelet answers, the node is Ready, and all of the shop's pods are."""
        node = self.world.cluster.kube.find("Node", self.node)
        lacking = self.pods_lacking()
        waiting = f"not Ready: {', '.join(lacking[:3])}" if lacking else ""
        if node is None:
            return Sign(
                bool(lacking), not lacking, waiting or f"{self.node} was removed, its pods run elsewhere"
            )
        if not is_true(node, "Ready"):
            return Sign(True, False, f"node {self.node} is NotReady")
        if not self._answers():
            return Sign(True, False, f"the kubelet of {self.node} does not answer")
        return Sign(bool(lacking), not lacking, waiting or f"{self.node} is Ready")

    def repair(self) -> None:
        """Switch it on again."""
        self.world.cluster.restore(self.node)

    def clean_up(self) -> None:
        """A node that is still off, and was not removed, is switched on."""
        if self.world.cluster.kube.find("Node", self.node) is not None and not self._answers():
            self.world.cluster.restore(self.node)

    def _answers(self) -> bool:
        path = f"/api/v1/nodes/{self.node}/proxy/healthz"
        try:
            self._hasty.request("GET", path, timeout_s=_ANSWER_S)
        except KubeError:
            return False
        return True


def _workers(world: World) -> list[str]:
    try:
        nodes = world.cluster.nodes()
    except (ClusterError, KubeError):
        return []
    return [node.name for node in nodes if "node-role.kubernetes.io/control-plane" not in node.labels]
