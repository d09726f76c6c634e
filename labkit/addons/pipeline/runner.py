"""The runner: waits for pushes, as GitHub's self-hosted runners do, and executes their workflow by act."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from labkit.acquire import programs
from labkit.addons.base import Addon, AddonStatus
from labkit.addons.files import workspace
from labkit.addons.git import GitServer, Push
from labkit.addons.pipeline.access import manifest, write_kubeconfig
from labkit.addons.pipeline.execute import Job, execute
from labkit.addons.pipeline.run import Run
from labkit.cluster import Cluster
from labkit.cluster.phases import Listener, phase
from labkit.errors import ConfigError, GitError, LabkitError, PipelineError, WaitTimeout

BRANCH, REPOSITORY = "refs/heads/main", "shop"
DEPLOYERS = ("pipeline", "argocd")
_WAIT_S, _PAUSE_S, _STOP_S = 5.0, 1.0, 20.0


class Pipeline(Addon):
    """Runs the workflows of `shop`, one push after the other, while this Python process lives.

    Args:
        deploy_by: "pipeline": the workflow's last step applies the manifests, with a kubeconfig of its own.
            "argocd": it ends with the commit in `shop-deploy`, and has no access to the cluster at all.
    """

    name = "pipeline"

    def __init__(self, cluster: Cluster, git: GitServer, *, deploy_by: str = "pipeline") -> None:
        super().__init__(cluster)
        if deploy_by not in DEPLOYERS:
            raise ConfigError(f"deploy_by is {deploy_by!r}.", f"It is one of: {', '.join(DEPLOYERS)}.")
        self._git, self._deploy_by = git, deploy_by
        self._runs: list[Run] = []
        self._changed, self._end = threading.Condition(), threading.Event()
        self._thread: threading.Thread | None = None
        self._problem = ""

    @property
    def runs(self) -> list[Run]:
        """The runs that have ended."""
        return list(self._runs)

    def _install(self, listener: Listener) -> None:
        with phase("act", listener, "the program that executes GitHub's workflows, and kustomize") as step:
            found = programs(["act", "kustomize"], step.tell)
            step.tell(f"act and kustomize, in {found['act'].parent.parent}")
        with phase("runner", listener, "waits for pushes to shop") as step:
            home = workspace(self.cluster, "pipeline")
            kubeconfig = home / "kubeconfig"
            kubeconfig.unlink(missing_ok=True)
            if self._deploy_by == "pipeline":
                write_kubeconfig(self.cluster, kubeconfig)
                step.tell("waits for pushes to shop; may change the namespace shop, and nothing else")
            else:
                self.cluster.kube.delete(manifest())
                step.tell("waits for pushes to shop; has no access to the cluster")
            self._start(found["act"], found["kustomize"])

    def _start(self, act: Path, kustomize: Path) -> None:
        if self._thread and self._thread.is_alive():
            return
        known = self._git.pushes()
        self._end.clear()
        work: Callable[[], None] = lambda: self._serve(act, kustomize, known[-1].number if known else 0)  # noqa: E731
        self._thread = threading.Thread(target=work, name="labkit-runner", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float = 300.0) -> None:
        """Wait until the runner hears from the git server."""
        self._await(lambda: not self._problem, timeout_s, "The runner does not reach the git server")

    def status(self) -> AddonStatus:
        """Whether the runner of this process works, and how many runs it has seen."""
        alive = self._thread is not None and self._thread.is_alive()
        state = "absent" if not alive else "starting" if self._problem else "ready"
        parts = {"runner": self._problem or ("waits for pushes" if alive else "not started in this process")}
        return AddonStatus(self.name, state, "", {**parts, "runs": str(len(self._runs))})

    def stop(self) -> None:
        """End the runner, and with it a run that is under way."""
        self._end.set()
        if self._thread:
            self._thread.join(_STOP_S)

    def uninstall(self) -> None:
        """End the runner, take its permissions back, and remove its files."""
        import shutil

        self.stop()
        self.cluster.kube.delete(manifest())
        shutil.rmtree(workspace(self.cluster, "pipeline"), ignore_errors=True)

    def wait_for(self, commit: str, *, timeout_s: float = 240.0) -> Run:
        """The run of a commit that was pushed, when it has ended, whatever its result.

        Raises:
            WaitTimeout: there is none, or it has not ended.
            PipelineError: the runner does not run.
        """
        if not self._thread or not self._thread.is_alive():
            raise PipelineError("The runner does not run.", "`pipeline.install()` starts it.")
        self._await(lambda: self._of(commit) is not None, timeout_s, f"No run of {commit[:7]} has ended")
        found = self._of(commit)
        assert found
        return found

    def _of(self, commit: str) -> Run | None:
        return next((run for run in reversed(self._runs) if run.commit == commit), None)

    def _await(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    said = (
                        self._problem
                        or "Only pushes to main of shop start one, and only while the runner runs."
                    )
                    raise WaitTimeout(f"{what} after {timeout_s:g} s.", said)
                self._changed.wait(min(left, 0.5))

    def _serve(self, act: Path, kustomize: Path, number: int) -> None:
        """Until it is told to end: wait for pushes and run their workflows."""
        while not self._end.is_set():
            try:
                pushes = self._git.pushes(number, _WAIT_S)
                self._tell("")
            except LabkitError as err:
                self._tell(err.message)
                self._end.wait(_PAUSE_S)
                continue
            for push in pushes:
                number = push.number
                if push.repository == REPOSITORY and push.ref == BRANCH and push.after.strip("0"):
                    self._run(act, kustomize, push)

    def _run(self, act: Path, kustomize: Path, push: Push) -> None:
        begin = time.monotonic() - max(0.0, min(60.0, time.time() - push.at))
        job = Job(
            number=len(self._runs) + 1, push=push, begin=begin, act=act, kustomize=kustomize,
            home=workspace(self.cluster, "pipeline"), deploy_by=self._deploy_by, end=self._end,
        )  # fmt: skip
        try:
            run = execute(self.cluster, self._git, job)
        except (LabkitError, OSError) as err:
            said = err.message if isinstance(err, LabkitError) else str(err)
            kind = "the git server" if isinstance(err, GitError) else "the runner"
            run = Run(job.number, push.after, "", "failure", f"{kind}: {said}", (), time.monotonic() - begin)
        with self._changed:
            self._runs.append(run)
            self._changed.notify_all()

    def _tell(self, problem: str) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()
