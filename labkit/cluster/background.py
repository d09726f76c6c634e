"""Work in threads that never keep an interrupted program from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class Background:
    """Functions that run at the same time, each in a daemon thread."""

    def __init__(self, functions: Sequence[Callable[[], object]]) -> None:
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(function,), daemon=True) for function in functions
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Wait until all have ended; raises the first error, as soon as there is one."""
        for thread in self._threads:
            while thread.is_alive() and not self._errors:
                thread.join(0.1)
        if self._errors:
            raise self._errors[0]

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as err:
            self._errors.append(err)
