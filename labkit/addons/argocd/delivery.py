"""From a push to running pods: when Argo CD noticed, had applied, and when all was Ready."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pandas as pd

from labkit.addons.pipeline.run import Run

_STAGES = {
    "test": "the commit's tests",
    "image": "an image of it, published",
    "deploy": "its tag into shop-deploy",
}


@dataclass(frozen=True)
class Delivery:
    """One commit's way into the cluster, in seconds since its push.

    Attributes:
        label: what the commit is, for people.
        trigger: how Argo CD came to look: "polling" or "refresh".
        seen_s: Argo CD compares the cluster with this commit.
        synced_s: every object of it is applied.
        healthy_s: every Deployment is rolled out, and Argo CD says Healthy.
        since: `time.monotonic()` of the push.
    """

    label: str
    revision: str
    trigger: str
    seen_s: float
    synced_s: float
    healthy_s: float
    since: float = 0.0


@dataclass(frozen=True)
class Stage:
    """A part of the whole chain, in seconds since the push that began it."""

    name: str
    text: str
    begin_s: float
    seconds: float


def deliveries_frame(deliveries: Iterable[Delivery]) -> pd.DataFrame:
    """One row per delivery; columns as the attributes of `Delivery`."""
    return pd.DataFrame([asdict(each) for each in deliveries])


def chain(run: Run, delivery: Delivery) -> list[Stage]:
    """A run of the pipeline and the delivery of its release, as stages that `plots.phases_figure` draws.

    The begin of the first is the push of the code, the end of the last is when its pods are Ready.
    """
    stages = []
    first = run.steps[0].begin_s if run.steps else run.seconds
    stages.append(Stage("runner", "hears of the push", 0.0, first))
    for job in run.jobs:
        steps = [step for step in run.steps if step.job == job]
        end = steps[-1].begin_s + steps[-1].seconds
        stages.append(Stage(job, _STAGES.get(job, ""), steps[0].begin_s, end - steps[0].begin_s))
    released = delivery.since - run.began
    ends = (
        ("Argo CD", "looks at shop-deploy", delivery.seen_s),
        ("sync", "everything is applied", delivery.synced_s),
        ("rollout", "new pods Ready, old ones gone", delivery.healthy_s),
    )
    begin = 0.0
    for name, text, end in ends:
        stages.append(Stage(name, text, released + begin, max(0.0, end - begin)))
        begin = max(begin, end)
    return stages
