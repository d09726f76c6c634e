"""Labs 00 to 04 while faults strike: whatever is not the cluster's is not touched, and nothing opens to other machines.

The run has a process namespace of its own, so that a number can be used again at once, and a tmpfs as its disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = 20
SEPARATE = [
    "unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
]  # fmt: skip
REAPER = 'python=$1; shift; "$python" -m tests.bystanders.inside "$@"; exit $?'
"""The shell is process 1 of the namespace: it takes what daemons leave, as a machine's first process does."""


@pytest.fixture(scope="module")
def labs(request: pytest.FixtureRequest) -> list[str]:
    """The labs that run, from the option --labs."""
    return str(request.config.getoption("labs")).split(",")


@pytest.fixture(scope="module")
def outcome(labs: list[str]) -> Iterator[dict[str, Any]]:
    """What the run saw."""
    probe = subprocess.run([*SEPARATE, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"this machine gives a plain user no namespaces: {probe.stderr.strip()}")
    folder = Path(tempfile.mkdtemp(prefix="lkf."))
    argv = [*SEPARATE, "bash", "-c", REAPER, "bash", sys.executable, str(folder), str(SEED), *labs]
    with (folder / "log").open("w+") as log:
        try:
            done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, timeout=1500)
        finally:
            log.seek(0)
            print(log.read()[-20000:])
            shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=1))
    yield result


def test_the_faults_were_thrown(outcome: dict[str, Any]) -> None:
    kinds = {kind for thrown in outcome["thrown"].values() for kind in thrown}
    assert kinds >= {"no_folder", "kill_shim", "no_processes", "no_files", "delete", "number_used_again"}
    assert outcome["numbers"] > 10


def test_no_bystander_is_touched(outcome: dict[str, Any]) -> None:
    assert outcome["harm"] == []


def test_nothing_listens_beyond_loopback(outcome: dict[str, Any]) -> None:
    assert outcome["samples"] > outcome["seconds"], "less than a look a second"
    assert outcome["open"] == []


def test_the_labs_pass_all_the_same(labs: list[str], outcome: dict[str, Any]) -> None:
    assert list(outcome["labs"]) == labs
    for lab, (code, said) in outcome["labs"].items():
        assert code == 0, f"lab {lab}:\n{said}"


def test_a_full_disk_loses_nothing(outcome: dict[str, Any]) -> None:
    assert outcome["full disk"]["kept"] == "b"
    assert outcome["full disk"]["status"][0] == 0


def test_down_leaves_nothing(outcome: dict[str, Any]) -> None:
    assert outcome["down"][0] == 0
    assert outcome["left"] == []
