"""What every kind of incident offers: it strikes, it is looked at, and it can be repaired."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from labkit.gameday.world import SHOP, World
from labkit.kube import Object, dig
from labkit.kube.conditions import rollout_lacks
from labkit.kube.objects import is_true


@dataclass(frozen=True)
class Sign:
    """What a look at an incident's objects shows.

    Attributes:
        symptom: something is visibly wrong; what an alert or an attentive person would see.
        good: everything is as it should be. Both can be False: a wrong setting that shows only in answers.
        text: what is seen, in a few words.
    """

    symptom: bool
    good: bool
    text: str


class Fault(ABC):
    """One incident of a kind, on one system.

    Attributes:
        kind: its name in a script.
        title: what it was, for the report.
        customers: whether requests can suffer.
        at_once: whether it has its effect as soon as it has struck: what is good afterwards was repaired.
        healer: who repairs it: "you", or the part of the system that does so by itself.
        hints: from vague to plain, for whoever asks.
        commands: what repairs it (or shows how it is repaired), as one would type it.
    """

    kind: ClassVar[str]
    title: str
    customers: ClassVar[bool] = True
    at_once: ClassVar[bool] = False
    healer: str = "you"
    hints: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def __init__(self, world: World, choice: int) -> None:
        self.world, self.choice = world, choice

    @classmethod
    def impossible(cls, _world: World) -> str:
        """Why it cannot strike at this system; "" when it can."""
        return ""

    def set_up(self) -> None:  # noqa: B027
        """Before the game: what must be so that it can strike, whatever an earlier game left."""

    @abstractmethod
    def strike(self) -> str:
        """Do it; returns what was done, which nobody is told before the end."""

    @abstractmethod
    def look(self) -> Sign:
        """Look at the objects concerned."""

    @abstractmethod
    def repair(self) -> None:
        """What an experienced operator would do now."""

    def clean_up(self) -> None:  # noqa: B027
        """Remove what the incident brought; nothing where it is gone, or where it brings nothing."""

    def deployment(self, name: str) -> Object | None:
        """One of the shop's."""
        return self.world.cluster.kube.find("Deployment", name, namespace=SHOP)

    def pods_lacking(self) -> list[str]:
        """Names of the shop's pods that should be Ready and are not."""
        pods = self.world.cluster.kube.list("Pod", namespace=SHOP)
        kept = [pod for pod in pods if not dig(pod, "metadata.deletionTimestamp")]
        return [dig(pod, "metadata.name") for pod in kept if not is_true(pod, "Ready")]


def env_of(deployment: Object | None, name: str) -> str | None:
    """The value of a variable of a Deployment's first container."""
    for entry in dig(deployment, "spec.template.spec.containers[0].env", []):
        if entry.get("name") == name:
            return str(entry.get("value", ""))
    return None


def rollout_text(deployment: Object | None) -> str:
    """What a rollout lacks, in words; "" when it is complete."""
    return rollout_lacks(deployment) if deployment else "there is no such Deployment"
