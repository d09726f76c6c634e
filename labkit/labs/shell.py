"""The kernel's side of a headless run: a shell that remembers which of a cell's commands failed."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.utils.process import system  # type: ignore[attr-defined]
from IPython.utils.text import LSString, SList


class LabShell(ZMQInteractiveShell):
    """IPython's shell; `!command` and `x = !command` are carried out as ever, and their exit codes kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._failed: list[tuple[str, int]] = []

    def take_failed(self) -> list[tuple[str, int]]:
        """The commands that have failed since the last call, with their exit codes."""
        failed, self._failed = self._failed, []
        return failed

    def system_piped(self, cmd: str) -> None:
        """`!command`."""
        command = self._expanded(cmd, 2)
        self.user_ns["_exit_code"] = code = system(command)
        self._keep(command, code)

    system = system_piped

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """`x = !command` and `%sx command`."""
        command = self._expanded(cmd, depth + 2)
        done = subprocess.run(
            command,
            shell=True,
            executable=os.environ.get("SHELL"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self._keep(command, done.returncode)
        text = done.stdout.decode(errors="replace")
        return SList(text.splitlines()) if split else LSString(text)

    def _expanded(self, cmd: str, depth: int) -> str:
        """The command with {variables} of the frame `depth` above this one."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        return str(self.var_expand(cmd, depth=depth))  # type: ignore[no-untyped-call]

    def _keep(self, command: str, code: int | None) -> None:
        if code:
            self._failed.append((command, code))


class LabKernel(IPythonKernel):
    """IPython's kernel with that shell."""

    shell_class = LabShell
