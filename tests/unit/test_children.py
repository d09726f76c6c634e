"""Programs that fall silent: each wait for one ends when its time is over, not when its next line comes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from labkit.airgap import docker as airgap_docker
from labkit.airgap import rootfs
from labkit.airgap.docker import Docker
from labkit.children import running
from labkit.cluster.kind import load, progress, registry
from labkit.cluster.kind.engine import Engine
from labkit.cluster.kind.registry import Unavailable, pull
from labkit.errors import AcquireError, ClusterError, MachineError
from tests.unit.test_kind_load import saved

pytestmark = pytest.mark.timeout(60)
SILENT = "echo begun; sleep 300"
DIGEST = f"sha256:{'a' * 64}"


def program(folder: Path, script: str, name: str = "docker") -> Path:
    """A program that does what a shell script does."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def gone(pid: int) -> bool:
    """Whether a process ends soon."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_lines_come_at_once_and_a_silent_program_ends_with_its_group(tmp_path: Path) -> None:
    silent = program(tmp_path, f"sleep 300 & echo $! > {tmp_path}/child; {SILENT}")
    lines = []
    with pytest.raises(TimeoutError), running([str(silent)], 3, TimeoutError) as told:
        lines += [line for line in told if line is not None]
    assert lines == []  # the error came before the list was whole
    assert gone(int((tmp_path / "child").read_text()))
    seen = []
    with pytest.raises(TimeoutError), running([str(silent)], 3, TimeoutError) as told:
        for line in told:
            seen.append(line)
    assert seen[0] == "begun" and None in seen


def test_lines_without_end_end_too() -> None:
    with pytest.raises(TimeoutError), running(["yes"], 1, TimeoutError) as lines:
        for _line in lines:
            pass


def test_a_program_that_closes_its_output_and_stays_is_late() -> None:
    stays = [
        sys.executable,
        "-c",
        "import os, time; print('x', flush=True); os.close(1); os.close(2); time.sleep(300)",
    ]
    with pytest.raises(TimeoutError), running(stays, 3, TimeoutError) as lines:
        assert [line for line in lines if line] == ["x"]
        lines.code()


def test_kind_that_falls_silent_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LIMIT_S", 2.0)
    kind = program(tmp_path, f"echo ' • Preparing nodes 📦   ...'; {SILENT}", "kind")
    engine, log = Engine(str(program(tmp_path, ""))), tmp_path / "log"
    with pytest.raises(ClusterError, match="has not created the cluster within") as caught:
        progress.run_create(engine, kind, ["create"], "net", log, lambda _: None)
    assert str(log) in caught.value.hint and "Preparing nodes" in log.read_text()


def test_debootstrap_that_falls_silent_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "_LIMIT_S", 2)
    silent = program(tmp_path, f"echo 'I: Retrieving x'; {SILENT}", "debootstrap")
    told: list[str] = []
    with pytest.raises(AcquireError, match="has not ended within 2 s") as caught:
        rootfs._run([str(silent)], "http://x", lambda text, _: told.append(text))
    assert told == ["Retrieving x"] and "begun" in caught.value.hint


def test_a_node_that_takes_nothing_is_not_fed_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds is written to a node that never reads."""
    monkeypatch.setattr(load, "_IMPORT_S", 2)
    monkeypatch.setattr("tests.unit.test_kind_load.LAYERS", [b"base" * 1_000_000, b"program"])
    file = saved(tmp_path / "x.tar", ["a/layer.tar", "b/layer.tar"])
    engine = Engine(str(program(tmp_path, SILENT)))
    images = load.read(file, ["shop/catalog:v1"])
    with pytest.raises(ClusterError, match="node-1 has not taken the image within 2 s"):
        load._send(engine, file, images, "node-1", set())


@pytest.mark.parametrize("command", ["save", "load"])
def test_an_engine_that_falls_silent_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(airgap_docker, "_LONG_S", 2.0)
    docker = Docker(str(program(tmp_path, 'case "$*" in *buildx*) exit 1;; esac\n' + SILENT)))
    with pytest.raises(MachineError, match=f"`docker {command}` has not ended"):
        if command == "save":
            docker.save(["x:1"], lambda _piece: None)
        else:
            docker.load(lambda stream: stream.write(b"x" * 4_000_000) and None)


def pulled(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> tuple[registry.Pulled, list[str]]:
    """Pull with a docker that does this, and what was told of it."""
    monkeypatch.setattr(registry, "SILENCE_S", 4.0)
    monkeypatch.delenv("LABKIT_REGISTRY", raising=False)
    engine = Engine(str(program(folder, f'[ "$1" = pull ] || exit 0\n{script}')))
    told: list[str] = []
    digests = registry.Digests(folder / "digests.json")
    return pull(engine, "registry.example/x:1", told.append, digests=digests), told


SLOW = f"""echo '1: Pulling from x'; echo 'abc: Pulling fs layer'
for tenth in $(seq 80); do
  sleep 0.1
  [ ! -t 1 ] || printf '\\033[1A\\033[2K\\rabc: Downloading %s MB\\r\\033[1B' $tenth
done
echo 'abc: Pull complete'; echo 'Digest: {DIGEST}'"""


def test_a_layer_that_takes_longer_than_the_patience_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docker does, this one shows how far a layer is on a terminal only."""
    got, told = pulled(tmp_path, SLOW, monkeypatch)
    assert got.digest == DIGEST
    assert told[-1].endswith("1 of 1 layers")


def test_a_registry_that_stops_sending_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"registry\.example has sent nothing for 4 s"):
        pulled(tmp_path, SILENT, monkeypatch)


def test_why_a_pull_failed_is_told_without_what_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "printf '\\033[2K\\rabc: Waiting\\r\\n'; echo 'Error response from daemon: no route' >&2; exit 1"
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(Unavailable, match=r"cannot be reached: Error response from daemon: no route$"):
        pulled(tmp_path, script, monkeypatch)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
