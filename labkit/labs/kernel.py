"""The notebook client: this interpreter as kernel, a limit per cell, and proofs that checks can fail."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import run_sync
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient  # type: ignore[import-untyped]
from papermill.engines import (  # type: ignore[import-untyped]
    NBClientEngine,
    NotebookExecutionManager,
    papermill_engines,
)

from labkit.labs.metadata import steps_and_checks, tags
from labkit.labs.trials import Trial

ENGINE = "labkit"
KERNEL = "labkit.labs.shell.LabKernel"
GRACE_S = 15.0
"""A kernel that does not answer an interrupt is killed after that long."""
_LONGEST_SOCKET = 100
"""Bytes of a socket's path that every system takes, with the port that jupyter_client appends."""

OnCell = Callable[[int, NotebookNode, float, bool], None]


class ThisInterpreter(KernelSpecManager):
    """Every kernel name means the Python that runs labkit; installed kernel specs are not looked at."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The one spec there is."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        argv.append(f"--IPKernelApp.kernel_class={KERNEL}")
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


@contextmanager
def kernel_manager() -> Iterator[tuple[AsyncKernelManager, dict[str, str]]]:
    """A kernel manager with sockets in a private directory, and the environment its kernel gets.

    Where the directory's path is too long for sockets, they are loopback ports: what they take is signed
    with a key that only the private directory holds.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-", ignore_cleanup_errors=True) as folder:
        path = str(Path(folder) / "k")
        fits = len(os.fsencode(path)) <= _LONGEST_SOCKET
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=ThisInterpreter(),
            transport="ipc" if fits else "tcp",
            ip=path if fits else "127.0.0.1",
            connection_file=str(Path(folder) / "kernel.json"),
        )
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {
            "IPYTHONDIR": str(Path(folder) / "ipython"),
            "LABKIT_HEADLESS": "1",
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }
        env = {**os.environ, **own, "PATH": beside}
        try:
            yield manager, env
        finally:
            if manager.has_kernel:
                kill_kernel(manager, signal.SIGKILL)


def kill_kernel(manager: AsyncKernelManager, signum: int) -> None:
    """Send a signal to the kernel's own process group (the kernel and the commands its cells started)."""
    pid = getattr(manager.provisioner, "pid", None)
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signum)


class LabClient(PapermillNotebookClient):  # type: ignore[misc]
    """Executes the cells one by one: proves checks, keeps limits, tells progress."""

    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        *,
        km: AsyncKernelManager,
        limit_of: Callable[[NotebookNode], float],
        on_begin: Callable[[NotebookNode], None],
        on_cell: OnCell,
        proving: Callable[[NotebookNode], bool],
        trials: Sequence[Trial] = (),
    ) -> None:
        super().__init__(nb_man, km=km, iopub_timeout=30, startup_timeout=120, coalesce_streams=True)
        self.limit_of, self.on_begin, self.on_cell, self.proving = limit_of, on_begin, on_cell, proving
        self.trials = trials

    def execute(self, **kwargs: Any) -> NotebookNode:
        """Start the kernel, execute, end the kernel; also when the kernel dies on the way."""
        self.reset_execution_trackers()
        with self.setup_kernel(**kwargs):
            self.papermill_execute_cells()
            self.set_widgets_metadata()
        notebook: NotebookNode = self.nb
        return notebook

    def papermill_execute_cells(self) -> None:
        """Execute until the end or the first cell that fails."""
        pairs = steps_and_checks(self.nb)
        trials = {trial.first: trial for trial in self.trials}
        solved = {trial.check: trial for trial in self.trials}
        for index, cell in enumerate(self.nb.cells):
            self.on_begin(cell)
            check = pairs.get(index)
            untried = check is not None and check not in solved and self.proving(self.nb.cells[check])
            if check is not None and untried and not self._prove(check):
                return
            if index in trials and not (
                self._prove_untouched(trials[index]) and self._prove_wrong(trials[index])
            ):
                return
            started, ok, late = time.monotonic(), False, list[float]()
            self.nb_man.cell_start(cell, index)
            try:
                with self._limited(cell) as late:
                    self.execute_cell(cell, index)
                # IPython's `!command` fails without an error, and swallows the interrupt of the limit.
                failed = self._failed_commands() if cell.cell_type == "code" else []
                if failed and not {"may-fail", "raises-exception"} & tags(cell):
                    _note(cell, command=failed[0][0], exit_code=failed[0][1])
                ok = not late and "exit_code" not in cell.metadata.get("labkit", {})
                if not ok:
                    self.nb_man.cell_exception(cell, cell_index=index)
                    return
            except CellExecutionError as error:
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
                return
            except DeadKernelError:
                self.nb_man.cell_exception(cell, cell_index=index)
                _note(cell, died=True)
                return
            finally:
                if late:
                    _note(cell, ended_after_s=late[0])
                self.nb_man.cell_complete(cell, cell_index=index)
                if cell.cell_type == "code":
                    self.on_cell(index, cell, time.monotonic() - started, ok)
            if index in solved and not self._prove_twice(solved[index]):
                return

    @contextmanager
    def _limited(self, cell: NotebookNode) -> Iterator[list[float]]:
        """Interrupt the cell when its time is over, and kill the kernel when that does not help.

        Gives a list that then holds the limit in seconds.
        """
        manager, limit, late = self.km, self.limit_of(cell), list[float]()

        def interrupt() -> None:
            late.append(round(limit, 1))
            kill_kernel(manager, signal.SIGINT)

        timers = [
            threading.Timer(limit, interrupt),
            threading.Timer(limit + GRACE_S, kill_kernel, (manager, signal.SIGKILL)),
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            yield late
        finally:
            for timer in timers:
                timer.cancel()

    def _failed_commands(self) -> list[tuple[str, int]]:
        """The commands of the cell that failed, `!command` and `x = !command`, with their exit codes."""
        shown = self._value("get_ipython().take_failed()")
        return list(ast.literal_eval(shown)) if shown else []

    def _value(self, expression: str, code: str = "") -> str | None:
        """The repr of an expression in the kernel, after some code; None when either fails."""
        msg_id = self.kc.execute(code, store_history=False, user_expressions={"value": expression})
        reply = self.wait_for_reply(msg_id)
        content = reply["content"] if reply else {}
        shown = content.get("user_expressions", {}).get("value", {}).get("data", {}).get("text/plain")
        return None if shown is None else str(shown)

    def _prove(self, index: int) -> bool:
        """Run the check of a cell before its step, and note what came of it; False when the kernel died."""
        cell = self.nb.cells[index]
        proof = self._judged(cell, f"prove({cell.source!r}, globals())")
        _note(cell, proof={"fails": proof.get("fails", False), "said": proof["said"]})
        return self._alive() or self._ended(index)

    def _prove_untouched(self, trial: Trial) -> bool:
        """Run an exercise as the learner gets it, then its check, which must fail; False: the kernel died."""
        self._write(trial, trial.skeletons)
        return self._prove(trial.check)

    def _prove_wrong(self, trial: Trial) -> bool:
        """Try each wrong answer of an exercise, and note which hint it drew; False if the kernel died."""
        check, outcomes = self.nb.cells[trial.check], list[dict[str, Any]]()
        for wrong in trial.exercise.wrong:
            self._write(trial, wrong.cells)
            call = f"prove_wrong({check.source!r}, globals(), {wrong.hint!r}, {trial.deadline_s!r})"
            outcome = self._judged(check, call)
            outcomes.append({"name": wrong.name, "ok": outcome.get("fails", False), "said": outcome["said"]})
            if wrong.undo:
                self._quietly(check, wrong.undo)
        _note(check, wrong=outcomes)
        return self._alive() or self._ended(trial.check)

    def _prove_twice(self, trial: Trial) -> bool:
        """Carry the solution out once more; does its check still pass? False when the kernel died."""
        check = self.nb.cells[trial.check]
        self._write(trial, {})
        outcome = self._judged(check, f"prove_right({check.source!r}, globals())")
        _note(check, twice={"ok": outcome.get("passes", False), "said": outcome["said"]})
        return self._alive() or self._ended(trial.check)

    def _write(self, trial: Trial, instead: dict[str, str]) -> None:
        """Execute an exercise's cells up to its check unseen, some of them with other sources."""
        for cell in self.nb.cells[trial.first : trial.check]:
            if cell.cell_type == "code":
                self._quietly(cell, instead.get(cell.id, cell.source))

    def _quietly(self, cell: NotebookNode, source: str) -> None:
        """Execute a source within the limit of a cell, whatever it prints, and whether it fails or not."""
        with contextlib.suppress(DeadKernelError), self._limited(cell):
            self._value("get_ipython().take_failed()", source)

    def _judged(self, cell: NotebookNode, call: str) -> dict[str, Any]:
        """What a function of labkit.checks.core answers in the kernel; {"said": …} for no answer."""
        code = f"from labkit.checks import core as _labkit_core\n_labkit_proof = _labkit_core.{call}"
        shown, said, late = None, "the proof could not be carried out", list[float]()
        try:
            with self._limited(cell) as late:
                shown = self._value("_labkit_proof", code)
        except DeadKernelError:
            said = "the kernel died while the check ran before its step"
        if late:
            said = f"the check was still running after {late[0]:.0f} s, its limit"
        return {"said": said} if late or shown is None else dict(ast.literal_eval(shown))

    def _ended(self, index: int) -> bool:
        """Note at a cell that the kernel died; False."""
        cell = self.nb.cells[index]
        _note(cell, died=True)
        self.nb_man.cell_start(cell, index)
        self.nb_man.cell_exception(cell, cell_index=index)
        self.nb_man.cell_complete(cell, cell_index=index)
        return False

    def _alive(self) -> bool:
        return bool(run_sync(self.km.is_alive)())


def _note(cell: NotebookNode, **facts: Any) -> None:
    cell.metadata["labkit"] = {**cell.metadata.get("labkit", {}), **facts}


class LabEngine(NBClientEngine):  # type: ignore[misc]
    """Papermill's engine with LabClient in it."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *_: str, **kwargs: Any) -> None:
        """Execute; papermill hands over `limit_of`, `on_begin`, `on_cell`, `proving`, `trials`, `folder`."""
        options = {key: kwargs[key] for key in ("limit_of", "on_begin", "on_cell", "proving", "trials")}
        with kernel_manager() as (manager, env):
            client = LabClient(nb_man, km=manager, **options)
            client.execute(env=env, cwd=str(kwargs["folder"]), cleanup_kc=True)


papermill_engines.register(ENGINE, LabEngine)
