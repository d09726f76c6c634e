"""The desk: where the shop's manifests lie, and the one way in which they reach the cluster.

A colleague's bad deploy and its repair go the same way as every change of the shop: an edit, published. What
publishing means differs: `kubectl apply`, or a commit that Argo CD synchronizes.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from labkit.cluster import Cluster

OVERLAY = Path("shop/overlays/game-day")
RELEASE = OVERLAY / "release.yaml"
"""What the last release changed; the file that bad deploys change."""


class Desk(ABC):
    """A folder with the manifests, and the way to publish them.

    Attributes:
        folder: holds `shop/` and `hpa/`, as `manifests/` does.
        undo_command, heal_command: what a person would type.
        heals: whether a difference between manifests and cluster is corrected without anybody's doing.
    """

    heals = False
    undo_command = ""
    heal_command = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def publish(self, title: str, edits: Mapping[Path, str]) -> None:
        """Change files (paths below `folder`) and publish them, as a colleague does.

        Raises:
            LabkitError: publishing failed.
        """

    @abstractmethod
    def undo(self) -> None:
        """Take the last publication back, whether or not that has been done before."""

    @abstractmethod
    def heal(self) -> None:
        """Correct what differs in the cluster from the manifests."""


class KubectlDesk(Desk):
    """Publishes by `kubectl apply -k`.

    Args:
        source: the folder `manifests`, which is copied.
        folder: where the copy lies.
    """

    def __init__(self, cluster: Cluster, source: Path, folder: Path) -> None:
        super().__init__(folder)
        self._cluster = cluster
        for part in ("shop", "hpa"):
            shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
        self._before = (folder / RELEASE).read_text()
        self.heal_command = f"kubectl apply -k {folder / OVERLAY}"
        self.undo_command = "kubectl -n shop rollout undo deployment/NAME"

    def publish(self, title: str, edits: Mapping[Path, str]) -> None:  # noqa: ARG002
        """Write and apply; the title is in no history."""
        for path, text in edits.items():
            (self.folder / path).write_text(text)
        self.heal()

    def undo(self) -> None:
        """The release before, applied."""
        (self.folder / RELEASE).write_text(self._before)
        self.heal()

    def heal(self) -> None:
        """Apply everything."""
        self._cluster.kubectl("apply", "-k", str(self.folder / OVERLAY))
