"""Runs labs with faults thrown in, beside bystanders: `python -m tests.bystanders.inside FOLDER SEED LAB…`.

To be started in user, mount and process namespaces of its own, where process numbers can be chosen and a disk is a
tmpfs. It prints one JSON object at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from labkit.cluster.processes import cluster_processes
from labkit.cluster.providers import open_cluster
from labkit.cluster.state import Directory
from tests.bystanders.faults import Faults, fill
from tests.bystanders.watch import Bystanders, Listeners

CLUSTER = "faulty"
LABKIT = [sys.executable, "-m", "labkit"]
PLAIN = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all"]
"""Whatever is not this program has no capability: labkit is to be a plain user's."""


def main(folder: Path, seed: int, labs: list[str]) -> dict[str, Any]:
    """Run the labs one after the other; what was thrown, what was seen, what happened to the bystanders."""
    state = folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=0700", "tmpfs", state], check=True)
    os.environ["XDG_STATE_HOME"] = str(state)
    bystanders = Bystanders([state, state / "labkit", folder])
    result: dict[str, Any] = {"labs": {}, "thrown": {}, "errors": {}}
    listeners, begin = Listeners(), time.monotonic()
    try:
        with listeners.watching():
            for number, lab in enumerate(labs):
                with Faults(CLUSTER, bystanders, seed + number) as faults:
                    result["labs"][lab] = run_lab(lab, folder)
                    faults.until_all(60)
                result["thrown"][lab], result["errors"][lab] = dict(faults.thrown), dict(faults.errors)
                if number == 0:
                    result["full disk"] = full_disk(state)
            down = labkit("down", CLUSTER)
            result["seconds"] = time.monotonic() - begin
            result["down"] = [down.returncode, down.stdout[-2000:]]
        result["left"] = sorted(process.pid for process in cluster_processes(Directory(CLUSTER)))
        result["harm"], result["numbers"] = bystanders.harm(), bystanders.count("took")
    finally:
        labkit("down", CLUSTER)
        bystanders.end()
    result["open"], result["samples"] = sorted(map(str, listeners.open)), listeners.samples
    return result


def labkit(*args: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """The command, as a plain user starts it."""
    return subprocess.run(
        [*PLAIN, *LABKIT, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=seconds,
    )  # fmt: skip


def run_lab(lab: str, folder: Path) -> list[Any]:
    """Exit code of a lab's run and the end of what it printed. Its cluster stays.

    One that fails beside everything else that CI runs gets a second try on a new cluster, as the labs' own runs do.
    """
    outcome = _run_lab(lab, folder)
    if outcome[0]:
        labkit("down", CLUSTER)
        outcome = _run_lab(lab, folder)
    return outcome


def _run_lab(lab: str, folder: Path) -> list[Any]:
    report = str(folder / f"report-{lab}")
    done = labkit(
        "run", lab, "--speed", "ci", "--cluster", CLUSTER, "--keep-cluster", "--report", report, seconds=900
    )
    print(done.stdout, file=sys.stderr, flush=True)
    return [done.returncode, done.stdout[-4000:]]


def full_disk(state: Path) -> dict[str, Any]:
    """Use up the disk under a running cluster, give it back, and see whether the cluster still has what it had."""
    cluster = open_cluster(CLUSTER)
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    fill(state, 5)
    status = labkit("status", CLUSTER)
    begin = time.monotonic()
    up = labkit("up", CLUSTER, seconds=300)
    kept = cluster.kubectl("get", "configmap", "kept", "--output=jsonpath={.data.a}", check=False)
    return {
        "kept": kept,
        "status": [status.returncode, status.stdout[-2000:]],
        "up": [up.returncode, up.stdout[-2000:]],
        "seconds": time.monotonic() - begin,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
