"""From `python -m NAME` to a serving process."""

from __future__ import annotations

import gc
import importlib
import signal
import sys

from chassis.settings import SettingError


def start(module: str) -> None:
    """Import `module`, which makes a `service`, and run that; a bad setting ends it with 1 and one line."""
    # In a container this is process 1, for which the kernel has no default action: without a handler, a
    # SIGTERM during the imports would be ignored and the pod would linger for its whole grace period.
    signal.signal(signal.SIGTERM, lambda _sig, _frame: sys.exit(0))
    # Hardly anything that an import makes is garbage, and looking for it costs a tenth of the start.
    gc.disable()
    try:
        service = importlib.import_module(module).service
    except SettingError as error:
        sys.exit(f"{module.partition('.')[0]} cannot start: {error}")
    gc.freeze()
    gc.enable()
    service.run()
