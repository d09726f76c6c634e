"""Folders that nobody else can change, and a user whom the machine does not know."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labkit.errors import MachineError
from labkit.folders import base, private, replacing, write

LABKIT = [sys.executable, "-m", "labkit"]


def test_no_umask_opens_a_folder_of_labkits(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private(tmp_path / "state/labkit/clusters/lab")
        (tmp_path / "older/labkit").mkdir(parents=True)
        (tmp_path / "older").chmod(0o755)
        private(tmp_path / "older/labkit/clusters")
    finally:
        os.umask(before)
    for path in (*tmp_path.rglob("*"), tmp_path / "state"):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path


def test_a_parent_that_all_may_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(MachineError, match="may replace"):
        private(tmp_path / "open/labkit/clusters")
    (tmp_path / "open").chmod(0o1777)
    assert private(tmp_path / "open/labkit/clusters").is_dir()


def test_a_file_is_as_it_was_when_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "made" / "f"
    write(file, "before")
    with pytest.raises(ZeroDivisionError), replacing(file) as stream:
        stream.write(b"half")
        _ = 1 / 0
    assert file.read_text() == "before"
    assert list(file.parent.iterdir()) == [file], "nothing unfinished is left"


@pytest.mark.parametrize("umask", [0, 0o77])
def test_a_file_is_private_unless_others_may_read_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "own/f", "")
        write(tmp_path / "course/f", "", 0o644)
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")
    }
    assert modes == {
        "own": "0o700",
        "own/f": "0o600",
        "course": oct(0o755 & ~umask),
        "course/f": "0o644",
    }


def test_threads_may_write_one_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda letter: write(tmp_path / "f", letter * 50_000), "abcdefgh" * 10))
    text = (tmp_path / "f").read_text()
    assert len(text) == 50_000 and len(set(text)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_relative_folder_of_xdg_is_ignored(tmp_path: Path) -> None:
    assert base("XDG_STATE_HOME", {"XDG_STATE_HOME": str(tmp_path)}) == tmp_path
    usual = base("XDG_STATE_HOME", {})
    assert usual.is_absolute() and base("XDG_STATE_HOME", {"XDG_STATE_HOME": "state"}) == usual


def test_a_command_leaves_no_file_that_all_may_change(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env["KUBECONFIG"] = str(tmp_path / "config")
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\n")
    argv = [*LABKIT, "up", "x", "--provider", "existing"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, umask=0, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    argv = [*LABKIT, "down", "x"]
    subprocess.run(argv, capture_output=True, text=True, env=env, umask=0, timeout=120, check=False)
    for path in tmp_path.rglob("*"):
        assert not path.lstat().st_mode & stat.S_IWOTH or path.is_symlink(), path


def test_a_user_whom_nobody_knows_gets_one_line(tmp_path: Path) -> None:
    """A container with an arbitrary user: no HOME, and no entry in /etc/passwd."""
    kept = {
        name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("XDG_")
    }
    argv = ["unshare", "-U", "--map-user=987654", *LABKIT]
    done = subprocess.run(
        [*argv, "status"], capture_output=True, text=True, env=kept, timeout=60, check=False
    )
    if "unshare" in done.stderr:
        pytest.skip("this machine allows no user namespaces")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "User 987654 has no home here" in done.stderr and "export HOME=" in done.stderr
    told = {**kept, "HOME": str(tmp_path)}
    done = subprocess.run(
        [*argv, "status"], capture_output=True, text=True, env=told, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "There is no cluster. `labkit up` makes one.\n"), done.stderr


def test_a_full_device_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        argv = [*LABKIT, "doctor", "--json"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "No space left on device" in done.stderr
