"""The desk of a cluster that Argo CD looks after: a change is a commit, its repair another one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from labkit.addons.argocd import ArgoCD
from labkit.addons.git import GitServer
from labkit.cluster import Cluster
from labkit.errors import GitError
from labkit.gameday.desk import OVERLAY, RELEASE, Desk
from labkit.kube import Object, dig

REPOSITORY = "shop-deploy"
APPLICATION = "game-day"
_FOLDER = "game-day"
_COLLEAGUE = "Kim, a colleague <kim@labkit.example>"


class GitDesk(Desk):
    """Manifests in the folder `game-day` of the repository shop-deploy, synchronized by Argo CD.

    Making it brings the repository to the state of `source`, and the cluster to that of the repository.

    Args:
        source: the folder `manifests`.

    Attributes:
        copy: the learner's working copy.
    """

    heals = True

    def __init__(self, cluster: Cluster, source: Path) -> None:
        self._git, self._argocd = GitServer(cluster), ArgoCD(cluster)
        self.copy = self._git.clone(REPOSITORY)
        super().__init__(self.copy.path / _FOLDER)
        self._bad = ""
        self._fill(source)
        self._colleagues = self._git.clone(REPOSITORY, folder=self.copy.path.with_name("colleague"))
        self._let_go(cluster)
        url = self._git.internal_url(REPOSITORY)
        self._argocd.add_repository(REPOSITORY, url, "argocd", self._git.password("argocd"))
        cluster.kube.apply(application(url))
        self.app = self._argocd.application(APPLICATION)
        self.app.refresh()
        self.heal_command = (
            f"kubectl -n argocd annotate application {APPLICATION} argocd.argoproj.io/refresh=normal"
        )
        self.undo_command = f"cd {self.copy.path} && git pull && git revert --no-edit HEAD && git push"

    def publish(self, title: str, edits: Mapping[Path, str]) -> None:
        """A commit of a colleague's, from a working copy of their own."""
        self._colleagues.pull()
        for path, text in edits.items():
            (self._colleagues.path / _FOLDER / path).write_text(text)
        self._colleagues.commit(title)
        self._colleagues.run("commit", "--quiet", "--amend", "--no-edit", f"--author={_COLLEAGUE}")
        self._bad = self._colleagues.push()
        self.app.refresh()

    def undo(self) -> None:
        """`git revert` of the colleague's commit, and a push; nothing where that has been done."""
        self.copy.pull()
        if (self.folder / RELEASE).read_text() == self._before:
            return
        try:
            self.copy.revert(self._bad)
        except GitError:  # somebody has changed the same lines since
            self.copy.run("revert", "--abort")
            (self.folder / RELEASE).write_text(self._before)
            self.copy.commit("Back to the release before")
        self.copy.push()
        self.app.refresh()

    def heal(self) -> None:
        """Argo CD looks now, and not only at its next turn."""
        self.app.refresh()

    def _fill(self, source: Path) -> None:
        """The manifests as they are in `source`, committed where that changes anything."""
        for part in ("shop", "hpa"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
            shutil.copytree(source / part, self.folder / part)
        self._before = (self.folder / RELEASE).read_text()
        if self.copy.run("status", "--porcelain"):
            if not self.copy.head():
                self.copy.run("checkout", "--quiet", "-b", "main")
            self.copy.commit("The finished system")
        self.copy.run("push", "--quiet", "--set-upstream", "origin", "HEAD")

    def _let_go(self, cluster: Cluster) -> None:
        """Applications of other labs let go of the shop, which has one owner at a time."""
        for app in cluster.kube.list("Application", namespace="argocd"):
            name = dig(app, "metadata.name")
            if name != APPLICATION and dig(app, "spec.destination.namespace") == "shop":
                cluster.kube.patch(
                    "Application", name, {"metadata": {"finalizers": None}}, namespace="argocd"
                )
                cluster.kube.delete("Application", name, namespace="argocd")

    @property
    def revision(self) -> str:
        """The commit that the cluster should have."""
        return self.copy.head()


def application(url: str) -> Object:
    """The Application: whatever the repository says is true, also against changes by hand."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": APPLICATION, "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "targetRevision": "main", "path": f"{_FOLDER}/{OVERLAY}"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
        },
    }


def remove(cluster: Cluster) -> None:
    """The Application goes, what it deployed stays."""
    cluster.kube.delete("Application", APPLICATION, namespace="argocd")
