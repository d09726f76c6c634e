"""An Application of Argo CD: what it says about itself, and waiting for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labkit.addons.argocd.delivery import Delivery
from labkit.errors import KubeError, WaitTimeout
from labkit.kube import Kube, NotFound, Object, dig

NAMESPACE = "argocd"
REFRESH = "argocd.argoproj.io/refresh"
_POLL_S = 0.1


@dataclass(frozen=True, repr=False)
class AppStatus:
    """An Application at one moment.

    Attributes:
        sync: Synced, OutOfSync or Unknown: whether the cluster is as git says.
        health: Healthy, Progressing, Degraded, Missing or Suspended: whether what is there works.
        revision: the commit that was compared with the cluster.
        synced: the commit of the last sync, "" before the first one.
        phase: of the last sync: Running, Succeeded, Failed or Error.
        message: what Argo CD says is wrong; "" when nothing is.
    """

    name: str
    sync: str
    health: str
    revision: str = ""
    synced: str = ""
    phase: str = ""
    message: str = ""

    def __str__(self) -> str:
        said = f" · {self.message}" if self.message else ""
        return f"{self.name}: {self.sync} · {self.health} · {self.revision[:7] or 'no revision'}{said}"

    __repr__ = __str__


class Application:
    """An Application by its name."""

    def __init__(self, kube: Kube, name: str) -> None:
        self._kube, self.name = kube, name

    def get(self) -> Object:
        """The object.

        Raises:
            NotFound: there is none; the hint lists those there are.
        """
        try:
            return self._kube.get("Application", self.name, namespace=NAMESPACE)
        except NotFound as err:
            raise NotFound(
                f"There is no Application {self.name!r}.", "`kubectl -n argocd get applications` lists them."
            ) from err

    def status(self) -> AppStatus:
        """What it says now."""
        return app_status(self.get())

    def refresh(self) -> None:
        """Let Argo CD look at git and the cluster now, as a webhook does, and not at its next turn."""
        self._kube.patch(
            "Application", self.name, {"metadata": {"annotations": {REFRESH: "normal"}}}, namespace=NAMESPACE
        )

    def resources(self) -> list[Object]:
        """Each deployed object: kind, name, status (of the sync) and health."""
        return [
            {
                "kind": each.get("kind", ""),
                "name": each.get("name", ""),
                "wave": int(each.get("syncWave", 0)),
                "sync": each.get("status", ""),
                "health": dig(each, "health.status", ""),
                "message": dig(each, "health.message", ""),
            }
            for each in dig(self.get(), "status.resources", [])
        ]

    def wait(self, revision: str = "", *, timeout_s: float = 120.0) -> AppStatus:
        """Wait until it is Synced to a commit (any, if none is named), and Healthy.

        Raises:
            WaitTimeout: it is not; the hint has what Argo CD says about it.
        """
        begin = time.monotonic()
        while True:
            now = self.status()
            if settled(now, revision):
                return now
            if time.monotonic() - begin > timeout_s:
                wanted = f"Synced to {revision[:7]} and Healthy" if revision else "Synced and Healthy"
                raise WaitTimeout(f"{self.name} is not {wanted} after {timeout_s:g} s: {now}", self.explain())
            time.sleep(_POLL_S)

    def wait_for(
        self,
        *,
        health: str = "",
        sync: str = "",
        phase: str = "",
        revision: str = "",
        timeout_s: float = 120.0,
    ) -> AppStatus:
        """Wait until it says of itself what is asked for, such as health="Degraded".

        Args:
            phase: of the last sync; with a revision, of the sync of that commit.

        Raises:
            WaitTimeout: it does not.
        """
        begin = time.monotonic()
        while True:
            now = self.status()
            asked = ((health, now.health), (sync, now.sync), (phase, now.phase), (revision, now.revision))
            fresh = not (phase and revision) or now.synced == revision
            if fresh and all(want in ("", have) for want, have in asked):
                return now
            if time.monotonic() - begin > timeout_s:
                wanted = " and ".join(filter(None, (sync, health, phase, revision[:7])))
                raise WaitTimeout(f"{self.name} is not {wanted} after {timeout_s:g} s: {now}", self.explain())
            time.sleep(_POLL_S)

    def follow(
        self,
        revision: str,
        *,
        since: float,
        label: str = "",
        trigger: str = "polling",
        timeout_s: float = 120.0,
    ) -> Delivery:
        """Watch a commit until everything of it runs.

        Args:
            since: `time.monotonic()` when it was pushed.
            label: what it is, for figures.
            trigger: "refresh" to tell Argo CD of it now, "polling" to let it find out.

        Raises:
            WaitTimeout: it does not run in time; the hint has what Argo CD says.
        """
        namespace = str(self.get()["spec"]["destination"]["namespace"])
        if trigger == "refresh":
            self.refresh()
        seen = synced = None
        while True:
            now, t = self.status(), time.monotonic() - since
            if now.revision == revision:
                seen = t if seen is None else seen
                synced = t if synced is None and now.sync == "Synced" else synced
            if (
                seen is not None
                and synced is not None
                and settled(now, revision)
                and self._rolled_out(namespace)
            ):
                return Delivery(label or revision[:7], revision, trigger, seen, synced, t, since)
            if t > timeout_s:
                raise WaitTimeout(
                    f"{revision[:7]} does not run {timeout_s:g} s after its push: {now}", self.explain()
                )
            time.sleep(_POLL_S)

    def _rolled_out(self, namespace: str) -> bool:
        """Argo CD's health is of its last look; whether the newest ReplicaSets are complete is asked here."""
        names = [each["metadata"]["name"] for each in self._kube.list("Deployment", namespace=namespace)]
        return not any(self._kube.rollout_status("Deployment", name, namespace=namespace) for name in names)

    def explain(self) -> str:
        """What keeps it from Synced and Healthy, as Argo CD says; "" where nothing does."""
        try:
            obj = self.get()
        except KubeError as err:
            return err.message
        said = [app_status(obj).message]
        for each in self.resources():
            if each["health"] not in ("", "Healthy") or each["sync"] == "OutOfSync":
                state = ", ".join(filter(None, (each["sync"], each["health"], each["message"])))
                said.append(f"{each['kind']} {each['name']}: {state}")
        return "; ".join(filter(None, said))


def app_status(obj: Object) -> AppStatus:
    """The status of an Application object."""
    operation = dig(obj, "status.operationState", {})
    conditions = [
        each["message"] for each in dig(obj, "status.conditions", []) if "Error" in each.get("type", "")
    ]
    of_now = dig(operation, "syncResult.revision", "") == dig(obj, "status.sync.revision", "")
    synced = dig(obj, "status.sync.status") == "Synced"
    failed = operation.get("phase") in ("Failed", "Error") and (of_now or not synced)
    said = [*conditions, *([operation.get("message", "")] if failed else [])]
    return AppStatus(
        name=dig(obj, "metadata.name", ""),
        sync=dig(obj, "status.sync.status", "Unknown"),
        health=dig(obj, "status.health.status", "Missing"),
        revision=dig(obj, "status.sync.revision", ""),
        synced=dig(operation, "syncResult.revision", ""),
        phase=operation.get("phase", ""),
        message="; ".join(dict.fromkeys(filter(None, said))),
    )


def settled(now: AppStatus, revision: str = "") -> bool:
    """Whether everything of a commit is there and works: compared, nothing is under way, and Healthy.

    How the last sync ended does not count. It may be of an earlier commit, since one that changes nothing
    in the cluster needs none; and one that failed at first is tried again with what git has by then.
    """
    same = not revision or now.revision == revision
    over = now.phase not in ("Running", "Terminating")
    return same and over and now.sync == "Synced" and now.health == "Healthy"
