"""The notebook client: this interpreter as kernel, a limit per cell, and proofs that checks can fail."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient  # type: ignore[import-untyped]
from papermill.engines import (  # type: ignore[import-untyped]
    NBClientEngine,
    NotebookExecutionManager,
    papermill_engines,
)

from labkit.labs.metadata import steps_and_checks, tags

ENGINE = "labkit"
GRACE_S = 15.0
"""A kernel that does not answer an interrupt is killed after that long."""

OnCell = Callable[[int, NotebookNode, float, bool], None]


class ThisInterpreter(KernelSpecManager):
    """Every kernel name means the Python that runs labkit; installed kernel specs are not looked at."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The one spec there is."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


@contextmanager
def kernel_manager() -> Iterator[tuple[AsyncKernelManager, dict[str, str]]]:
    """A kernel manager with sockets in a private directory, and the environment its kernel gets."""
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=ThisInterpreter(),
            transport="ipc",
            ip=str(Path(folder) / "k"),
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
    ) -> None:
        super().__init__(nb_man, km=km, iopub_timeout=30, startup_timeout=120, coalesce_streams=True)
        self.limit_of, self.on_begin, self.on_cell, self.proving = limit_of, on_begin, on_cell, proving

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
        for index, cell in enumerate(self.nb.cells):
            self.on_begin(cell)
            if index in pairs and self.proving(self.nb.cells[pairs[index]]):
                self._prove(self.nb.cells[pairs[index]])
            started, ok = time.monotonic(), False
            self.nb_man.cell_start(cell, index)
            try:
                with self._limited(cell):
                    self.execute_cell(cell, index)
                # IPython's `!command` fails without an error, and swallows the interrupt of the limit.
                self._judge_shell(cell)
                noted = cell.metadata.get("labkit", {})
                ok = not {"ended_after_s", "exit_code"} & set(noted)
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
                self.nb_man.cell_complete(cell, cell_index=index)
                if cell.cell_type == "code":
                    self.on_cell(index, cell, time.monotonic() - started, ok)

    @contextmanager
    def _limited(self, cell: NotebookNode) -> Iterator[None]:
        """Interrupt the cell when its time is over, and kill the kernel when that does not help."""
        manager, limit = self.km, self.limit_of(cell)

        def interrupt() -> None:
            _note(cell, ended_after_s=round(limit, 1))
            kill_kernel(manager, signal.SIGINT)

        timers = [
            threading.Timer(limit, interrupt),
            threading.Timer(limit + GRACE_S, kill_kernel, (manager, signal.SIGKILL)),
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def _judge_shell(self, cell: NotebookNode) -> None:
        """Note a cell whose last `!command` failed, unless its tag says that it may."""
        if cell.cell_type != "code" or not re.search(r"^\s*!", cell.source, re.MULTILINE):
            return
        code = self._value("get_ipython().user_ns.get('_exit_code', 0)")
        if code not in (None, "0") and "may-fail" not in tags(cell):
            _note(cell, exit_code=code)

    def _value(self, expression: str, code: str = "") -> str | None:
        """The repr of an expression in the kernel, after some code; None when either fails."""
        msg_id = self.kc.execute(code, store_history=False, user_expressions={"value": expression})
        reply = self.wait_for_reply(msg_id)
        content = reply["content"] if reply else {}
        shown = content.get("user_expressions", {}).get("value", {}).get("data", {}).get("text/plain")
        return None if shown is None else str(shown)

    def _prove(self, check_cell: NotebookNode) -> None:
        """Run the check before its step; what came of it is noted in the check's cell."""
        code = (
            "from labkit.checks import prove as _labkit_prove\n"
            f"_labkit_proof = _labkit_prove({check_cell.source!r}, globals())"
        )
        with self._limited(check_cell):
            shown = self._value("_labkit_proof", code)
        failed = {"fails": False, "said": "the proof could not be carried out"}
        proof = failed if shown is None else ast.literal_eval(shown)
        _note(check_cell, proof=proof)


def _note(cell: NotebookNode, **facts: Any) -> None:
    cell.metadata["labkit"] = {**cell.metadata.get("labkit", {}), **facts}


class LabEngine(NBClientEngine):  # type: ignore[misc]
    """Papermill's engine with LabClient in it."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *_: str, **kwargs: Any) -> None:
        """Execute; papermill hands over `limit_of`, `on_begin`, `on_cell`, `proving` and `folder`."""
        options = {key: kwargs[key] for key in ("limit_of", "on_begin", "on_cell", "proving")}
        with kernel_manager() as (manager, env):
            client = LabClient(nb_man, km=manager, **options)
            client.execute(env=env, cwd=str(kwargs["folder"]), cleanup_kc=True)


papermill_engines.register(ENGINE, LabEngine)
