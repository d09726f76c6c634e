"""What `kind create cluster` says, as phases."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from labkit.children import running
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

    def late() -> LabkitError:
        return failure(log.read_text(errors="replace"), log, None)

    with (
        log.open("w") as copy,
        running([str(program), *argv], _LIMIT_S, late, env=kind_env(engine, network)) as lines,
        ExitStack() as current,
    ):
        step: Step | None = None
        for line in lines:
            if line is None:
                continue
            print(line, file=copy, flush=True)
            found = _LINE.match(line)
            name = phase_of(found[2]) if found else ""
            if found and name and found[1] == "•":
                current.close()
                step = current.enter_context(phase(name, listener, words(found[2])))
            elif found and found[1] == "✓" and step:
                step.tell(_DONE.get(name, words(found[2])))
                current.close()
                step = None
        if code := lines.code():
            raise failure(log.read_text(errors="replace"), log, code)


def phase_of(text: str) -> str:
    """The phase of a step that kind names; "" for one that is not known."""
    return next((name for begin, name in PHASES.items() if text.startswith(begin)), "")


def words(text: str) -> str:
    """A step's text without the pictures."""
    return re.sub(r"\s+", " ", re.sub(r"[^\x20-\x7e]", "", text)).strip(" .").lower()


def failure(said: str, log: Path, code: int | None) -> LabkitError:
    """The error of a `kind create cluster` that failed; without an exit code it took too long."""
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
