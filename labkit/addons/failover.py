"""How long an address is away when the node that announces it is lost: measured under load."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labkit import load
from labkit.addons.metallb import MetalLB

_LEAD_S = 5.0
_POLL_S = 0.2


@dataclass(frozen=True)
class FailOver:
    """A move of an address from one node to another.

    Attributes:
        before, after: the nodes that announced it; after is "" when none has taken over.
        lost_s, moved_s: when the node was lost and when another one announced, in seconds of the load.
        load: what clients saw meanwhile.
    """

    before: str
    after: str
    lost_s: float
    moved_s: float
    load: load.LoadResult

    def __str__(self) -> str:
        failed = int(self.load.requests["failed"].sum())
        took = f"{self.moved_s - self.lost_s:.1f} s later"
        return (
            f"{self.before} was lost; {self.after or 'nobody'} announced {took}. "
            f"{failed} of {len(self.load.requests)} requests failed."
        )


def fail_over(
    metallb: MetalLB, service: str, namespace: str, *, rate: float = 20.0, seconds: float = 40.0
) -> FailOver | None:
    """Lose the node that announces a Service's address while clients come. The node stays lost.

    Returns:
        None where no node announces it, so that there is nothing to move (the embedded cluster).
    """
    cluster, before = metallb.cluster, metallb.announcer(service, namespace)
    if not before:
        return None
    with load.start(
        metallb.url(service, namespace), load.constant(rate, seconds), spacing="uniform", timeout_s=2.0
    ) as running:
        time.sleep(_LEAD_S)
        lost_s = running.t_seconds
        cluster.lose(before)
        moved_s, after = seconds, ""
        while running.t_seconds < seconds:
            now = metallb.announcer(service, namespace)
            if now not in ("", before):
                moved_s, after = running.t_seconds, now
                break
            time.sleep(_POLL_S)
        return FailOver(before, after, lost_s, moved_s, running.result())
