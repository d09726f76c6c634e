"""What incidents strike at: the finished system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from labkit.cluster import Cluster
from labkit.errors import LabkitError
from labkit.gameday.desk import Desk

SHOP = "shop"
AUTOSCALED = "pricing"


class AddressPool(Protocol):
    """A load balancer's addresses, as far as a game day needs them."""

    @property
    def command(self) -> str:
        """What a person would type to enlarge it."""

    def reset(self) -> None:
        """Back to a few addresses."""

    def enlarge(self, count: int) -> None:
        """Give it `count` addresses more than at the beginning."""


@dataclass(frozen=True)
class World:
    """The finished system.

    Attributes:
        desk: where its manifests are changed.
        url: where customers reach the shop.
        pool: the load balancer's addresses; None where there is no load balancer.
        states: label → a function that tells a part's state in a few words, for the dashboard.
        missing: part of the system that is not there → the reason.
    """

    cluster: Cluster
    desk: Desk
    url: str
    pool: AddressPool | None = None
    states: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """Lines for a dashboard: the state of each part."""
        found = []
        for label, state in self.states.items():
            try:
                found.append((label, state()))
            except LabkitError as error:
                found.append((label, f"does not answer: {error.message}"))
        return found
