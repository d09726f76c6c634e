"""The git server as an add-on: a Deployment with a volume, and users whose passwords are in a Secret."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

from labkit.addons.base import Addon, AddonStatus
from labkit.addons.files import checkout, workspace
from labkit.addons.git.working_copy import WorkingCopy, git, password_store
from labkit.cluster.phases import Listener, phase
from labkit.errors import GitError
from labkit.kube import dig

NAMESPACE = "git"
IMAGE = "labkit/git:v1"
REPOSITORIES = ("shop", "shop-deploy")
STUDENT, PIPELINE, ARGOCD = "student", "pipeline", "argocd"
_RIGHTS = {STUDENT: list(REPOSITORIES), PIPELINE: ["shop-deploy"], ARGOCD: []}
_SECRET = "git-users"


@dataclass(frozen=True)
class Push:
    """A branch that was moved on the server.

    Attributes:
        number: counts up from 1.
        before, after: commits; forty zeros for a branch that was made or deleted.
        at: seconds since 1970, by the server's clock.
    """

    number: int
    repository: str
    ref: str
    before: str
    after: str
    user: str
    at: float


class GitServer(Addon):
    """The repositories `shop` and `shop-deploy`, over HTTP, for the users student, pipeline and argocd."""

    name = "git"
    marks = (("Namespace", NAMESPACE),)

    def _install(self, listener: Listener) -> None:
        with phase("git image", listener, "building the git server's image") as step:
            image = self.cluster.build_image(checkout("services", "git"), IMAGE)
            step.tell(f"{IMAGE} {image.short_digest}")
        with phase("git server", listener, "users, volume, Deployment and Service"):
            documents = checkout("manifests", "git", "git.yaml")
            if self.cluster.kube.find("Namespace", NAMESPACE) is None:
                meta = {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
                self.cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
            self._make_users()
            self.cluster.kube.apply(documents)

    def _make_users(self) -> None:
        """Passwords for users that have none yet; those that have one keep it."""
        known = self._users()
        users = {
            name: {"password": known.get(name) or secrets.token_urlsafe(24), "push": rights}
            for name, rights in _RIGHTS.items()
        }
        content = base64.b64encode(json.dumps(users).encode()).decode()
        self.cluster.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": _SECRET, "namespace": NAMESPACE},
                "data": {"users.json": content},
            }
        )

    def wait(self, timeout_s: float = 300.0) -> None:
        """Wait until it serves."""
        self.cluster.kube.wait("Deployment", "git", "rolled out", namespace=NAMESPACE, timeout_s=timeout_s)

    def status(self) -> AddonStatus:
        """Whether Deployment, Secret and volume are there, and the server Ready."""
        kube = self.cluster.kube
        deployment = kube.find("Deployment", "git", namespace=NAMESPACE)
        others = {
            "secret/git-users": kube.find("Secret", _SECRET, namespace=NAMESPACE),
            "persistentvolumeclaim/repositories": kube.find(
                "PersistentVolumeClaim", "repositories", namespace=NAMESPACE
            ),
        }
        parts = {name: "there" if found else "missing" for name, found in others.items()}
        ready = int(dig(deployment, "status.readyReplicas", 0))
        parts["deployment/git"] = f"{ready} of 1 ready" if deployment else "missing"
        if not deployment and not any(others.values()):
            return AddonStatus(self.name, "absent")
        complete = deployment is not None and all(others.values())
        state = "incomplete" if not complete else "ready" if ready else "starting"
        return AddonStatus(self.name, state, IMAGE.partition(":")[2], parts)

    def uninstall(self) -> None:
        """Remove the server, its repositories, and this machine's copies of them."""
        self.refuse_others()
        self.cluster.kube.delete("Namespace", NAMESPACE)
        self.cluster.kube.wait("Namespace", NAMESPACE, "deleted", timeout_s=90)
        shutil.rmtree(workspace(self.cluster, "git"), ignore_errors=True)

    def url(self, repository: str = "") -> str:
        """Where this machine reaches the server, or one of its repositories; no password in it."""
        base = self.cluster.url("git", NAMESPACE)
        return f"{base}/{repository}.git" if repository else base

    def internal_url(self, repository: str) -> str:
        """Where pods reach a repository."""
        return f"http://git.{NAMESPACE}.svc.cluster.local/{repository}.git"

    def password(self, user: str) -> str:
        """A user's password, from the Secret. Do not print it.

        Raises:
            GitError: there is no such user.
        """
        found = self._users().get(user)
        if not found:
            raise GitError(
                f"The git server has no user {user!r}.", "`GitServer(cluster).install()` makes them."
            )
        return found

    def clone(self, repository: str, *, user: str = STUDENT, folder: str | Path | None = None) -> WorkingCopy:
        """A working copy on this machine, ready to push; one that is there already is brought up to date.

        The password is in a file beside it that only you can read, never in the copy's configuration.

        Raises:
            GitError: the server does not answer, or has no such repository.
        """
        home = workspace(self.cluster, "git") / user
        path = Path(folder) if folder else home / repository
        options = self._options(user)
        copy = WorkingCopy(path)
        if not (path / ".git").exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flat = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
            git(*flat, "clone", "--quiet", self.url(repository), str(path))
        for name, value in {**options, "remote.origin.url": self.url(repository)}.items():
            copy.run("config", name, value)
        self._identify(copy, user)
        if copy.head():
            copy.pull()
        return copy

    def seed(self, repository: str, sources: Mapping[str, Path], message: str) -> str:
        """Fill a repository that has no commit yet.

        Args:
            sources: path in the repository → the folder or file whose content it gets; "." is its root.

        Returns:
            Its last commit, which is its first one where it was empty.
        """
        copy = self.clone(repository)
        if not copy.head():
            for target, source in sources.items():
                place = copy.path / target
                if source.is_dir():
                    shutil.copytree(source, place, dirs_exist_ok=True, ignore=_ignored)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, place)
            copy.run("checkout", "--quiet", "-B", "main")
            copy.commit(message)
            copy.run("push", "--quiet", "--set-upstream", "origin", "main")
        return copy.head()

    def seed_shop(self) -> None:
        """The shop's sources in `shop`, and its manifests at v1 in `shop-deploy`; what is there stays."""
        services = checkout("services")
        wanted = ("catalog", "frontend", "orders", "pricing", "chassis", "ci", ".github", "conftest.py")
        self.seed(
            "shop",
            {name: services / name for name in (*wanted, "requirements-test.txt")},
            "The shop as it is",
        )
        deploy = {
            ".": checkout("manifests", "gitops", "shop-deploy"),
            "base": checkout("manifests", "shop", "base"),
        }
        self.seed("shop-deploy", deploy, "The shop as it runs: all services at v1")

    def pushes(self, after: int = 0, wait_s: float = 0.0) -> list[Push]:
        """Pushes beyond a number, waiting up to `wait_s` (at most 25 s) for the first of them.

        Raises:
            GitError: the server does not answer.
        """
        request = urllib.request.Request(f"{self.url()}/pushes?after={after}&wait={wait_s:g}")
        pair = base64.b64encode(f"{PIPELINE}:{self.password(PIPELINE)}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=wait_s + 10) as answer:
                return [Push(**each) for each in json.load(answer)]
        except (urllib.error.URLError, OSError, HTTPException, ValueError) as err:
            raise GitError(
                f"The git server does not answer: {err}.", "`kubectl -n git get pods` shows it."
            ) from err

    def _users(self) -> dict[str, str]:
        secret = self.cluster.kube.find("Secret", _SECRET, namespace=NAMESPACE)
        content = base64.b64decode(dig(secret, "data", {}).get("users.json", "")) or b"{}"
        return {name: entry["password"] for name, entry in json.loads(content).items()}

    def _options(self, user: str) -> dict[str, str]:
        """Settings for git: where the password is, no proxy on the way to this machine."""
        file = workspace(self.cluster, "git") / user / "credentials"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        base = urlsplit(self.url())
        file.touch(mode=0o600)
        file.write_text(f"{base.scheme}://{user}:{quote(self.password(user), safe='')}@{base.netloc}\n")
        return {"credential.helper": password_store(file), "http.proxy": ""}

    def _identify(self, copy: WorkingCopy, user: str) -> None:
        who = {"user.name": user, "user.email": f"{user}@labkit.example", "commit.gpgsign": "false"}
        quiet = {"core.pager": "cat", "color.ui": "false", "advice.detachedHead": "false"}
        for name, value in {**who, **quiet, "pull.rebase": "true"}.items():
            copy.run("config", name, value)


def _ignored(_folder: str, names: list[str]) -> set[str]:
    caches = {"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".venv"}
    return {name for name in names if name in caches or name.endswith(".pyc")}
