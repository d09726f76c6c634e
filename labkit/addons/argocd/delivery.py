"""From a push to running pods, as Argo CD delivers it: when it noticed, when it had applied, when all was Ready."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pandas as pd

from labkit.addons.argocd.application import Application, settled
from labkit.errors import WaitTimeout
from labkit.kube import Kube

_POLL_S = 0.1


@dataclass(frozen=True)
class Delivery:
    """One commit's way into the cluster, in seconds since its push.

    Attributes:
        label: what the commit is, for people.
        trigger: how Argo CD came to look: "polling" or "refresh".
        seen_s: Argo CD compares the cluster with this commit.
        synced_s: every object of it is applied.
        healthy_s: every Deployment is rolled out, and Argo CD says Healthy.
    """

    label: str
    revision: str
    trigger: str
    seen_s: float
    synced_s: float
    healthy_s: float


def follow(
    kube: Kube,
    app: Application,
    revision: str,
    *,
    pushed_at: float,
    label: str = "",
    trigger: str = "polling",
    timeout_s: float = 120.0,
) -> Delivery:
    """Watch a commit until everything of it runs.

    Args:
        pushed_at: `time.monotonic()` when it was pushed.

    Raises:
        WaitTimeout: it is not running in time; the hint has what Argo CD says.
    """
    namespace = str(app.get()["spec"]["destination"]["namespace"])
    if trigger == "refresh":
        app.refresh()
    seen = synced = None
    while True:
        now, t = app.status(), time.monotonic() - pushed_at
        if now.revision == revision:
            seen = t if seen is None else seen
            synced = t if synced is None and now.sync == "Synced" else synced
        if synced is not None and settled(now, revision) and _rolled_out(kube, namespace):
            return Delivery(label or revision[:7], revision, trigger, float(seen or 0), synced, t)
        if t > timeout_s:
            raise WaitTimeout(f"{revision[:7]} does not run {timeout_s:g} s after its push: {now}", app.explain())
        time.sleep(_POLL_S)


def deliveries_frame(deliveries: Iterable[Delivery]) -> pd.DataFrame:
    """One row per delivery; columns as the attributes of `Delivery`."""
    return pd.DataFrame([asdict(each) for each in deliveries])


def _rolled_out(kube: Kube, namespace: str) -> bool:
    """Argo CD's health is of its last look; whether the newest ReplicaSets are complete is asked here."""
    names = [each["metadata"]["name"] for each in kube.list("Deployment", namespace=namespace)]
    return not any(kube.rollout_status("Deployment", name, namespace=namespace) for name in names)
