"""Three decisions to make by hand: small cases, and what the controller makes of them.

>>> CASES["max"].decide().replicas
6
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from labkit.hpa.decision import Decision, Observation, decide
from labkit.hpa.pods import Pod, PodMetric
from labkit.hpa.spec import HpaSpec, cpu_utilization

_REQUEST: Final = 200
_OLD_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Case:
    """Pods that have been Ready for an hour, and an autoscaler without `behavior`.

    Args:
        percents: CPU of each pod in per cent of its request; None for a pod without a metric.
        target: average utilization that the autoscaler aims at, in per cent.
        most: its maxReplicas.
    """

    percents: tuple[int | None, ...]
    target: int = 60
    most: int = 10

    def decide(self) -> Decision:
        """What the controller decides, with its reasons."""
        requests = {"app": {"cpu": _REQUEST}}
        pods = [
            Pod(f"pod-{n}", age_s=_OLD_S, ready_age_s=_OLD_S - 5, requests=requests)
            for n, _ in enumerate(self.percents, 1)
        ]
        reading = {
            pod.name: PodMetric(_REQUEST * percent // 100)
            for pod, percent in zip(pods, self.percents, strict=True)
            if percent is not None
        }
        spec = HpaSpec(self.most, metrics=(cpu_utilization(self.target),))
        return decide(spec, Observation(0, len(pods), pods, [reading]))

    @property
    def formula(self) -> int:
        """⌈ current × utilization / target ⌉ and nothing else, which is what a first guess says."""
        known = [percent for percent in self.percents if percent is not None]
        return math.ceil(len(self.percents) * sum(known) / len(known) / self.target)


CASES: Final[dict[str, Case]] = {
    "tolerance": Case((61, 64, 66, 69)),
    "missing": Case((90, 90, 90, None)),
    "max": Case((150, 150, 150, 150), most=6),
}
"""The cases of lab 08, each under the rule that makes it differ from the formula alone."""
