"""One run: the commit checked out, act started on it, its output read while it comes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.addons.git import GitServer, Push, WorkingCopy
from labkit.addons.git.server import PIPELINE
from labkit.addons.pipeline.environment import environment
from labkit.addons.pipeline.run import Reader, Run
from labkit.cluster import Cluster
from labkit.tools import cache_dir, kubectl

LIMIT_S = 600.0


@dataclass(frozen=True)
class Job:
    """What a run needs.

    Attributes:
        begin: `time.monotonic()` of the push.
        act, kustomize: programs.
        home: private folder of the runner.
        deploy_by: "pipeline" or "argocd".
        end: set when the run shall end at once.
    """

    number: int
    push: Push
    begin: float
    act: Path
    kustomize: Path
    home: Path
    deploy_by: str
    end: threading.Event


def execute(cluster: Cluster, git: GitServer, job: Job) -> Run:
    """Run the workflow of a push.

    Raises:
        GitError: the commit cannot be fetched.
        OSError: act cannot be started.
    """
    source = git.clone("shop", user=PIPELINE, folder=job.home / "source")
    source.run("checkout", "--quiet", "--force", "--detach", job.push.after)
    message = source.run("log", "-1", "--format=%s").strip()
    token = git.password(PIPELINE)
    server = git.url()
    reader = Reader(job.begin, [token])
    log = job.home / f"run-{job.number}.jsonl"
    with _inputs(job, token, server) as argv, log.open("w") as stream:
        code = _follow(
            [*argv, "-C", str(source)],
            environment(cluster, server, job.home, [job.kustomize.parent, kubectl().parent]),
            job.end,
            reader,
            stream,
        )
    _reattach(source)
    result = "success" if code == 0 else "invalid" if reader.invalid else "failure"
    problem = "" if code == 0 else reader.problem()
    if code is None:
        result, problem = (
            "cancelled",
            f"the runner was told to end, or the run took more than {LIMIT_S:.0f} s",
        )
    took = time.monotonic() - job.begin
    return Run(job.number, job.push.after, message, result, problem, reader.steps, took, job.begin)


def _reattach(source: WorkingCopy) -> None:
    source.run("checkout", "--quiet", "main")


@contextmanager
def _inputs(job: Job, token: str, server: str) -> Iterator[list[str]]:
    """act's command line; its files, of which one is secret, are there only meanwhile."""
    folder = job.home / "inputs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    push = job.push
    event = {
        "ref": push.ref, "before": push.before, "after": push.after, "deleted": False,
        "repository": {"name": push.repository, "full_name": push.repository}, "pusher": {"name": push.user},
    }  # fmt: skip
    variables = {
        "GIT_SERVER": server,
        "REPOSITORY": push.repository,
        "DEPLOY_REPOSITORY": "shop-deploy",
        "DEPLOY_BY": job.deploy_by,
    }
    contents = {
        "event.json": json.dumps(event),
        "secrets": f"GIT_TOKEN={token}\n",
        "variables": "".join(f"{name}={value}\n" for name, value in variables.items()),
        "nothing": "",
    }
    for name, text in contents.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    work = job.home / "act"
    tools = cache_dir() / "act-tools"
    tools.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    (work / "tool_cache").symlink_to(tools)
    try:
        yield [
            str(job.act), "push", "--json", "--actor", push.user, "--platform", "ubuntu-latest=-self-hosted",
            "--eventpath", str(folder / "event.json"), "--secret-file", str(folder / "secrets"),
            "--var-file", str(folder / "variables"), "--env-file", str(folder / "nothing"),
            "--input-file", str(folder / "nothing"), "--action-cache-path", str(work),
            "--no-cache-server", "--artifact-server-addr", "127.0.0.1",
        ]  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)


def _follow(
    argv: list[str], env: dict[str, str], end: threading.Event, reader: Reader, log: object
) -> int | None:
    """Run act in a process group of its own; its exit code, None when it had to be ended."""
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, end, ended), daemon=True)
    watch.start()
    try:
        for line in process.stdout:
            reader.line(line)
            print(line, end="", file=log)  # type: ignore[call-overload]
        code = process.wait(30)
    finally:
        ended.set()
        watch.join()
    return None if code < 0 else code


def _watch(process: subprocess.Popen[str], end: threading.Event, ended: threading.Event) -> None:
    """End act with all its steps when the runner ends or the time is over."""
    deadline = time.monotonic() + LIMIT_S
    while not ended.wait(0.1):
        if not end.is_set() and time.monotonic() < deadline:
            continue
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, sign)
                ended.wait(5)
        return
