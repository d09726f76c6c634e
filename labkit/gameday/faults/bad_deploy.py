"""A colleague's release that should not have been."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.gameday.desk import RELEASE
from labkit.gameday.faults.base import Fault, Sign, env_of, rollout_text
from labkit.gameday.world import World
from labkit.kube import dig

_PATCH = """\
# {title}
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {deployment}}}
spec:
  template:
    spec:
      containers:
        - name: {deployment}
{change}
"""


@dataclass(frozen=True)
class Release:
    """A bad release.

    Attributes:
        title: its commit message.
        change: lines of the container that it changes.
        env, value: a variable that it sets; or image, a tag.
        story: what is wrong, told after the game.
    """

    title: str
    deployment: str
    change: str
    story: str
    env: str = ""
    value: str = ""

    def text(self) -> str:
        """The new content of the release's file."""
        return _PATCH.format(title=self.title, deployment=self.deployment, change=self.change)

    def is_live(self, deployment: object) -> bool:
        """Whether the cluster has it."""
        if self.env:
            return env_of(deployment, self.env) == self.value  # type: ignore[arg-type]
        return str(dig(deployment, "spec.template.spec.containers[0].image", "")).endswith(self.value)


def _variable(title: str, deployment: str, env: str, value: str, story: str) -> Release:
    change = f'          env:\n            - {{name: {env}, value: "{value}"}}'
    return Release(title, deployment, change, story, env, value)


RELEASES = (
    _variable(
        "Prices from the new address", "frontend", "PRICING_URL", "http://princing",
        "a typo in the address of pricing: pods are Ready, the page comes, but without live prices",
    ),
    _variable(
        "Catalogue with seasonal offers", "catalog", "FAULT_ERROR_RATE", "0.4",
        "a bug that no probe sees: two of five requests to the catalogue fail",
    ),
    Release(
        "Frontend v9", "frontend", "          image: shop/frontend:v9",
        "an image that does not exist: the rollout stops, and the old pods go on serving", value=":v9",
    ),
)  # fmt: skip


class BadDeploy(Fault):
    """A release that passes all probes, or gets stuck in the midst of its rollout."""

    kind = "bad-deploy"
    title = "bad deploy"

    def __init__(self, world: World, choice: int) -> None:
        super().__init__(world, choice)
        self.release = RELEASES[choice % len(RELEASES)]
        self.commands = (world.desk.undo_command.replace("NAME", self.release.deployment),)
        self.hints = (
            "What changed last? Most incidents begin with a change.",
            f"`kubectl -n shop get deployment {self.release.deployment} -o yaml`: what is new there?",
            f"The release “{self.release.title}”. Take it back: {self.commands[0]}",
        )

    def strike(self) -> str:
        """Published like every other change."""
        self.world.desk.publish(self.release.title, {RELEASE: self.release.text()})
        return f"“{self.release.title}”: {self.release.story}"

    def look(self) -> Sign:
        """Whether the release is live, and whether its rollout is stuck or under way."""
        name = self.release.deployment
        deployment = self.deployment(name)
        lacks = rollout_text(deployment)
        live = self.release.is_live(deployment)
        stuck = self._stuck()
        text = stuck or (f"{name}: {lacks}" if lacks else f"{name}: rollout complete")
        return Sign(bool(stuck), not live and not lacks, text)

    def repair(self) -> None:
        """Take it back, the way it came."""
        self.world.desk.undo()

    def clean_up(self) -> None:
        """A release that is still live is taken back."""
        if self.release.is_live(self.deployment(self.release.deployment)):
            self.world.desk.undo()

    def _stuck(self) -> str:
        labels = f"app.kubernetes.io/name={self.release.deployment}"
        for pod in self.world.cluster.kube.list("Pod", namespace="shop", labels=labels):
            reason = dig(pod, "status.containerStatuses[0].state.waiting.reason", "")
            if "BackOff" in reason or reason.startswith("Err"):
                return f"pod {dig(pod, 'metadata.name')}: {reason}"
        return ""
