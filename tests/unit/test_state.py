"""State on disk: whole or as before, private, one writer at a time, also when processes are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from labkit.cluster.kind.state import KindOptions
from labkit.cluster.state import Directory, Node, Options, State, check_options, cluster_names, settled
from labkit.errors import ClusterError, ConfigError
from labkit.folders import write

FORK = multiprocessing.get_context("fork")


def some_state() -> State:
    node = Node(1, 2, "4Gi", {"zone": "a"}, ["dedicated=x:NoSchedule"])
    return State("lab", 3, Options(workers=1), time.time(), ready=True, nodes={"worker-1": node})


def test_state_is_read_as_it_was_written(directory: Directory) -> None:
    assert directory.load() is None
    state = some_state()
    directory.save(state)
    assert directory.load() == state
    assert cluster_names() == ["lab"]
    assert stat.S_IMODE((directory / "state.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "nodes": {}}'])
def test_a_damaged_state_is_an_error_that_says_what_to_do(directory: Directory, text: str) -> None:
    (directory / "state.json").write_text(text)
    with pytest.raises(ClusterError) as caught:
        directory.load()
    assert "labkit down lab" in caught.value.hint


@pytest.mark.parametrize("name", ["", "Lab", "-lab", "lab-", "a/b", "..", "a" * 33, "lab\n", "1lab"])
def test_names_that_cannot_be_paths_or_objects_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Directory(name)


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("x" * 60)))
    with pytest.raises(ConfigError, match="bytes"):
        Directory("lab").create()


@pytest.mark.parametrize("part", ['a"b', "a$HOME", "a`b", "a:b", "a\\b", "a\nb", "a{b", "a,b"])
def test_a_path_that_programs_misread_is_refused_in_a_line(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", f"/tmp/{part}")
    with pytest.raises(ConfigError, match="misread"):
        Directory("lab").check_path()
    monkeypatch.setenv("XDG_STATE_HOME", "/tmp/Ünï o'Neil home")
    Directory("lab").check_path()
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    "options",
    [
        Options(workers=63),
        Options(workers=-1),
        Options(cpus=0),
        Options(hpa_sync_s=0),
        Options(memory="9Mi"),
        Options(memory="much"),
    ],
)
def test_options_that_cannot_be_are_named(options: Options) -> None:
    with pytest.raises(ConfigError, match=r"workers|cpus|hpa_sync_s|9Mi|much"):
        check_options(options)


def test_options_after_a_failed_up_are_those_that_are_asked_for() -> None:
    failed = Options(workers=1, cpus=4)
    assert settled("lab", failed, {"workers": 5}, ready=False) == Options(workers=5, cpus=4)
    assert settled("lab", failed, {}, ready=False) == failed
    assert settled("lab", KindOptions(), {"images": "airgap"}, ready=False) == KindOptions(images="airgap")
    assert settled("lab", failed, {"workers": 1}, ready=True) == failed
    with pytest.raises(ConfigError, match="workers=1, not 5"):
        settled("lab", failed, {"workers": 5}, ready=True)


def test_changes_of_several_processes_are_all_kept(directory: Directory) -> None:
    directory.save(some_state())

    def add(number: int) -> None:
        for step in range(5):
            with directory.change() as state:
                state.nodes[f"n-{number}-{step}"] = Node(number, 1, "1Gi")

    workers = [FORK.Process(target=add, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    state = directory.load()
    assert state and len(state.nodes) == 21


def test_a_failed_change_leaves_the_state_as_it_was(directory: Directory) -> None:
    before = some_state()
    directory.save(before)
    with pytest.raises(RuntimeError), directory.change() as state:
        state.nodes.clear()
        raise RuntimeError
    assert directory.load() == before


def test_the_lock_waits_tells_so_and_ends_with_its_holder(directory: Directory) -> None:
    held, go_on = FORK.Event(), FORK.Event()

    def hold() -> None:
        with directory.locked(lambda _: None):
            held.set()
            go_on.wait(20)

    holder = FORK.Process(target=hold)
    holder.start()
    assert held.wait(10)
    told: list[str] = []
    with (
        pytest.raises(ClusterError, match="Another labkit process"),
        directory.locked(told.append, limit_s=0.3),
    ):
        pass
    assert len(told) == 1
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join(10)
    with directory.locked(told.append, limit_s=5):
        assert len(told) == 1


def test_removal_takes_the_lock_along_and_the_next_one_gets_a_new_lock(directory: Directory) -> None:
    with directory.locked(lambda _: None):
        locked_folder = directory / "volumes/kept"
        locked_folder.mkdir(parents=True)
        (locked_folder / "file").write_text("x")
        locked_folder.chmod(0)
        directory.remove()
    assert list(directory.path.parent.iterdir()) == []
    with directory.locked(lambda _: None, limit_s=1):
        assert not directory.exists


def test_the_lock_holds_while_a_half_made_cluster_is_replaced(directory: Directory) -> None:
    held, go_on = FORK.Event(), FORK.Event()

    def replace() -> None:
        with directory.locked(lambda _: None):
            directory.remove()
            directory.create()
            held.set()
            go_on.wait(20)

    holder = FORK.Process(target=replace)
    holder.start()
    assert held.wait(10)
    with pytest.raises(ClusterError), directory.locked(lambda _: None, limit_s=0.3):
        pass
    go_on.set()
    holder.join(10)
    with directory.locked(lambda _: None, limit_s=5):
        assert directory.exists


def test_a_file_is_never_seen_half_written(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write(file, "a" * 200_000)

    def rewrite() -> None:
        for letter in "bcdefghij" * 20:
            write(file, letter * 200_000)

    writer = FORK.Process(target=rewrite)
    writer.start()
    try:
        for _ in range(200):
            text = file.read_text()
            assert len(text) == 200_000
            assert len(set(text)) == 1
    finally:
        writer.kill()
        writer.join(10)
