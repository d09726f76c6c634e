"""Whether a password has got where it must not be: into commits, logs, or files that others can read."""

from __future__ import annotations

import stat

from labkit.addons.files import workspace
from labkit.addons.git import GitServer
from labkit.addons.pipeline.runner import Pipeline
from labkit.cluster import Cluster

_USERS = ("student", "pipeline", "argocd")


def leaks(cluster: Cluster, git: GitServer, pipeline: Pipeline) -> dict[str, list[str]]:
    """Where each kind of place has a password that it must not have.

    Returns:
        Kind of place → what was found there, [] for nothing.
    """
    passwords = [git.password(user) for user in _USERS]
    found: dict[str, list[str]] = {"a commit": [], "a run's log": [], "a file that others can read": []}
    for name in ("shop", "shop-deploy"):
        history = git.clone(name, user="pipeline").run("log", "--all", "-p", "--format=%H %an %s %b")
        if any(password in history for password in passwords):
            found["a commit"].append(name)
    for run in pipeline.runs:
        if any(password in f"{run}{run.log()}" for password in passwords):
            found["a run's log"].append(f"run {run.number}")
    for root in (workspace(cluster, "git"), workspace(cluster, "pipeline")):
        for file in root.rglob("*"):
            if file.is_symlink() or not file.is_file():
                continue
            content = file.read_bytes()
            secret = any(password.encode() in content for password in passwords)
            if secret and (file.suffix == ".jsonl" or stat.S_IMODE(file.stat().st_mode) & 0o077):
                found["a file that others can read"].append(str(file.relative_to(root)))
    return found
