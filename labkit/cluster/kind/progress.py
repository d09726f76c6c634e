"""What `kind create cluster` says, as phases."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from labkit.cluster.kind.engine import Engine
from labkit.cluster.kind.images import kind_env
from labkit.cluster.phases import Listener, Step, phase
from labkit.errors import ClusterError, LabkitError, MachineError

PHASES = {
    "Ensuring node image": "node-image",
    "Preparing nodes": "containers",
    "Writing configuration": "configuration",
    "Starting control-plane": "control-plane",
    "Installing CNI": "network-plugin",
    "Installing StorageClass": "storage",
    "Joining worker nodes": "join workers",
    "Joining more": "join workers",
}
_DONE = {
    "node-image": "the nodes' image is here",
    "containers": "node containers run, each with systemd and containerd",
    "configuration": "kubeadm's configuration is written",
    "control-plane": "kubeadm init: etcd, API server, controller manager, scheduler",
    "network-plugin": "the pod network's plugin is installed",
    "storage": "a default StorageClass",
    "join workers": "kubeadm join: the workers have their certificates",
}
_LIMIT_S = 600.0
_LINE = re.compile(r"^\s*([•✓✗])\s+(.*)$")


def run_create(
    engine: Engine, program: Path, argv: list[str], network: str, log: Path, listener: Listener
) -> None:
    """Run `kind create cluster`; each of its steps becomes a phase.

    Raises:
        MachineError, ClusterError: it failed; what it said is in `log`.
    """
    with log.open("w") as copy, ExitStack() as open_phase:
        process = subprocess.Popen(
            [str(program), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env=kind_env(engine, network),
        )  # fmt: skip
        open_phase.callback(_end, process)
        assert process.stdout
        current, deadline = ExitStack(), time.monotonic() + _LIMIT_S
        step: Step | None = None
        with current:
            for line in process.stdout:
                copy.write(line)
                copy.flush()
                found = _LINE.match(line)
                name = phase_of(found[2]) if found else ""
                if found and name and found[1] == "•":
                    current.close()
                    step = current.enter_context(phase(name, listener, words(found[2])))
                elif found and found[1] == "✓" and step:
                    step.tell(_DONE.get(name, words(found[2])))
                    current.close()
                    step = None
                if time.monotonic() > deadline:
                    break
            code = process.wait(30) if time.monotonic() <= deadline else None
            if code != 0:
                raise failure(log.read_text(errors="replace"), log, code)


def phase_of(text: str) -> str:
    """The phase of a step that kind names; "" for one that is not known."""
    return next((name for begin, name in PHASES.items() if text.startswith(begin)), "")


def words(text: str) -> str:
    """A step's text without the pictures."""
    return re.sub(r"\s+", " ", re.sub(r"[^\x20-\x7e]", "", text)).strip(" .").lower()


def failure(said: str, log: Path, code: int | None) -> LabkitError:
    """The error of a `kind create cluster` that failed."""
    known = Engine.fault(said)
    if isinstance(known, MachineError):
        return known
    if code is None:
        return ClusterError(
            f"kind has not created the cluster within {_LIMIT_S / 60:.0f} min.", f"What it said is in {log}."
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    error = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "no reason")
    why = next((line for line in lines if line.startswith("error:")), "")  # of kubeadm
    text = why.removeprefix("error:").strip() or error.removeprefix("ERROR:").strip()
    return ClusterError(f"kind could not create the cluster: {text[:600]}", f"All it said: {log}")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
