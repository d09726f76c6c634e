"""What every add-on of a cluster offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from labkit import boxes
from labkit.cluster import Cluster
from labkit.cluster.phases import Listener, shown
from labkit.errors import ClusterError, LabkitError
from labkit.kube import FIELD_MANAGER, dig


@dataclass(frozen=True)
class AddonStatus:
    """An add-on at one moment.

    Attributes:
        state: absent, ready, starting (complete but not Ready yet) or incomplete (some of it is missing,
            as after an installation that was cut off; `install` completes it).
        version: of what is installed, "" when absent.
        parts: name → state in words, such as "deployment/controller": "1 of 1 ready".
    """

    name: str
    state: str
    version: str = ""
    parts: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.name} {self.version}".strip() + f": {self.state}"]
        return "\n".join(lines + [f"  {part}: {state}" for part, state in self.parts.items()])

    def _repr_html_(self) -> str:
        title = f"{self.name} {self.version}".strip() + f": {self.state}"
        return boxes.box(title, boxes.table(("part", "state"), self.parts.items()), state=self.state)


class Addon(ABC):
    """Something installed in a cluster beside what a lab's own manifests bring.

    Attributes:
        name: short name, as commands and messages give it.
        marks: kind and name of objects by which an installation of somebody else's is known.
    """

    name: str = ""
    marks: tuple[tuple[str, str], ...] = ()

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def install(self, listener: Listener | None = None, *, timeout_s: float = 300.0) -> AddonStatus:
        """Install it and wait until it is ready. Installing again completes or repairs it, and loses nothing.

        Args:
            listener: told of each phase; by default they are printed.

        Raises:
            LabkitError: what could not be had or did not become ready, and what to do.
        """
        if listener is None:
            with shown() as printed:
                return self.install(printed, timeout_s=timeout_s)
        self.refuse_others()
        self._install(listener)
        self.wait(timeout_s)
        return self.status()

    def refuse_others(self) -> None:
        """Leave alone what somebody else has installed in an existing cluster.

        The API knows who wrote an object's fields; in labkit's manifests each of `marks` has one.

        Raises:
            ClusterError: one of `marks` is there, and labkit never applied it.
        """
        if self.cluster.provider != "existing":
            return
        for kind, name in self.marks:
            found = self.cluster.kube.find(kind, name)
            writers = {entry.get("manager") for entry in dig(found, "metadata.managedFields", [])}
            if found is not None and FIELD_MANAGER not in writers:
                raise ClusterError(
                    f"{self.cluster.name!r} has a {kind} {name!r} of somebody else's, which stays as it is.",
                    "Use another cluster, or remove what is there if it is yours and not needed.",
                )

    @abstractmethod
    def _install(self, listener: Listener) -> None:
        """Bring everything into the cluster; must be able to go on where it was cut off."""

    @abstractmethod
    def wait(self, timeout_s: float = 300.0) -> None:
        """Wait until it is ready.

        Raises:
            WaitTimeout: it is not; the hint says which part, and why.
        """

    @abstractmethod
    def status(self) -> AddonStatus:
        """Its parts at this moment."""

    @abstractmethod
    def uninstall(self) -> None:
        """Remove it and what belongs to it; nothing happens where it is absent."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.cluster.name!r}>"

    def _repr_html_(self) -> str:
        """Its status now; what keeps it from being told where nothing answers."""
        try:
            return self.status()._repr_html_()
        except LabkitError as err:
            return boxes.box(self.name, boxes.line(f"{err.message} {err.hint}"), state="failed")
