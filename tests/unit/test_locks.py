"""A lock between processes: one at a time, free again when its holder is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from labkit.errors import AcquireError
from labkit.locks import alone

HOLD = """\
import sys, time; from pathlib import Path; from labkit.locks import alone
with alone(Path(sys.argv[1]), 5, RuntimeError):
    print("held", flush=True); time.sleep(60)
"""


def test_another_process_has_to_wait_and_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    file, told = tmp_path / "lock", []
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(AcquireError, match="busy"),
            alone(file, 0.3, lambda: AcquireError("busy"), lambda: told.append("waiting")),
        ):
            pass
        assert told == ["waiting"]
    finally:
        holder.kill()
        holder.wait(10)
    with alone(file, 30, lambda: AcquireError("busy"), lambda: told.append("again")):
        assert told == ["waiting"]


def test_it_is_free_after_a_block_that_failed(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            pytest.raises(ValueError, match="inside"),
            alone(tmp_path / "lock", 1, lambda: AcquireError("busy")),
        ):
            raise ValueError("inside")
