"""Somebody changes the cluster by hand, past the manifests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.gameday.faults.base import Fault, Sign, rollout_text
from labkit.gameday.world import SHOP, World
from labkit.kube import Kube, dig


@dataclass(frozen=True)
class Edit:
    """A change by hand.

    Attributes:
        apply: does it.
        done: whether it is (still) there.
        waits_for: the Deployment whose pods customers wait for afterwards.
    """

    story: str
    apply: Callable[[Kube], object]
    done: Callable[[Kube], bool]
    waits_for: str


def _scale_to_zero(kube: Kube) -> None:
    kube.scale("Deployment", "catalog", 0, namespace=SHOP)


def _is_zero(kube: Kube) -> bool:
    return bool(dig(kube.find("Deployment", "catalog", namespace=SHOP), "spec.replicas") == 0)


_WRONG = {"app.kubernetes.io/name": "front-end"}


def _misselect(kube: Kube) -> None:
    kube.patch("Service", "frontend", {"spec": {"selector": _WRONG}}, namespace=SHOP)


def _is_misselected(kube: Kube) -> bool:
    selector = dig(kube.find("Service", "frontend", namespace=SHOP), "spec.selector", {})
    return bool(selector.get("app.kubernetes.io/name") == _WRONG["app.kubernetes.io/name"])


EDITS = (
    Edit("catalog was scaled to 0 by hand, “to save resources”", _scale_to_zero, _is_zero, "catalog"),
    Edit("the Service frontend was told by hand to select pods that are not there", _misselect,
         _is_misselected, "frontend"),
)  # fmt: skip


class Drift(Fault):
    """The cluster differs from the manifests."""

    kind = "drift"
    title = "drift"
    at_once = True

    def __init__(self, world: World, choice: int) -> None:
        super().__init__(world, choice)
        self.edit = EDITS[choice % len(EDITS)]
        self.healer = "Argo CD" if world.desk.heals else "you"
        self.commands = (world.desk.heal_command,)
        self.hints = (
            "Nothing was released, and yet something changed: what is in the cluster that no manifest says?",
            "`kubectl -n shop get deployments,endpointslices`: who has no pods, who has no endpoints?",
            f"Bring the cluster back to what the manifests say: {self.commands[0]}",
        )

    def strike(self) -> str:
        """Like anybody with the rights."""
        self.edit.apply(self.world.cluster.kube)
        return self.edit.story

    def look(self) -> Sign:
        """Whether the change is still there, and whether everything runs again."""
        kube = self.world.cluster.kube
        if self.edit.done(kube):
            return Sign(True, False, f"{self.edit.waits_for}: live object and manifest differ")
        lacks = rollout_text(self.deployment(self.edit.waits_for))
        return Sign(bool(lacks), not lacks, f"{self.edit.waits_for}: {lacks or 'as the manifests say'}")

    def repair(self) -> None:
        """Everything is brought back to what the manifests say."""
        self.world.desk.heal()

    def clean_up(self) -> None:
        """What is still changed is corrected."""
        if self.edit.done(self.world.cluster.kube):
            self.world.desk.heal()
