"""Working copies: real git, with repositories on this disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from labkit.addons.git import WorkingCopy
from labkit.addons.git.working_copy import git, password_store, without_passwords
from labkit.errors import GitError, MachineError


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """git without the settings of whoever runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "student")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "student@labkit.example")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    folder = tmp_path / "server.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(folder))
    return folder


def clone(server: Path, name: str) -> WorkingCopy:
    """A working copy with one commit or more."""
    path = server.parent / name
    git("clone", "--quiet", str(server), str(path))
    copy = WorkingCopy(path)
    if not copy.head():
        copy.run("checkout", "--quiet", "-B", "main")
        (path / "file").write_text("one\n")
        copy.commit("First")
        copy.push()
    return copy


def test_a_change_is_committed_pushed_and_taken_back(server: Path) -> None:
    copy = clone(server, "copy")
    first = copy.head()
    copy.edit("file", "one", "two")
    changed = copy.commit("Two")
    assert copy.push() == changed != first
    assert git("-C", str(server), "rev-parse", "main").strip() == changed
    back = copy.revert()
    assert back not in (first, changed)
    assert (copy.path / "file").read_text() == "one\n"
    assert f"{copy}" == str(copy.path)


def test_a_rejected_push_says_what_to_do_and_loses_nothing(server: Path) -> None:
    mine, theirs = clone(server, "mine"), clone(server, "theirs")
    (theirs.path / "other").write_text("theirs\n")
    theirs.commit("Theirs")
    theirs.push()
    (mine.path / "file").write_text("mine\n")
    commit = mine.commit("Mine")
    with pytest.raises(GitError, match="has commits that this copy has not") as refused:
        mine.push()
    assert "pull --rebase" in refused.value.hint
    assert mine.head() == commit
    mine.pull()
    assert mine.push() == mine.head()
    subjects = git("-C", str(server), "log", "--format=%s", "main").split()
    assert subjects == ["Mine", "Theirs", "First"]


def test_conflicts_and_nothing_to_commit_are_told(server: Path) -> None:
    mine, theirs = clone(server, "mine"), clone(server, "theirs")
    with pytest.raises(GitError, match="nothing to commit"):
        mine.commit("Nothing")
    for copy in (theirs, mine):
        (copy.path / "file").write_text(f"{copy.path.name}\n")
        copy.commit(copy.path.name)
    theirs.push()
    with pytest.raises(GitError, match="does not fit") as refused:
        mine.pull()
    assert "rebase --abort" in refused.value.hint


def test_edit_wants_one_place(server: Path) -> None:
    copy = clone(server, "copy")
    (copy.path / "file").write_text("a\na\n")
    with pytest.raises(GitError, match="2 times"):
        copy.edit("file", "a", "b")
    copy.edit("file", "a", "b", first=True)
    assert (copy.path / "file").read_text() == "b\na\n"
    with pytest.raises(GitError, match="0 times") as refused:
        copy.edit("file", "c", "d")
    assert "made before" in refused.value.hint
    with pytest.raises(GitError, match="cannot be read"):
        copy.edit("nothing", "a", "b")


def test_a_server_that_is_not_there(server: Path) -> None:
    copy = clone(server, "copy")
    copy.run("config", "remote.origin.url", "http://student:secret@127.0.0.1:9/shop.git")
    with pytest.raises(GitError, match="does not answer") as refused:
        copy.push()
    assert "secret" not in str(refused.value)


def test_passwords_are_taken_out_of_urls() -> None:
    said = without_passwords("fatal: unable to access 'http://student:pw@127.0.0.1/shop.git/': no")
    assert said == "fatal: unable to access 'http://127.0.0.1/shop.git/': no"


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MachineError, match="no program `git`"):
        git("version")


@pytest.mark.parametrize("home", ["home", "Ünï o'Neil home", 'a "$HOME" `b`'])
def test_git_finds_passwords_in_any_folder(home: str, tmp_path: Path) -> None:
    file = tmp_path / home / "credentials"
    file.parent.mkdir()
    file.write_text("http://student:secret@localhost:10080\n")
    argv = ["git", "-c", f"credential.helper={password_store(file)}", "credential", "fill"]
    asked = "protocol=http\nhost=localhost:10080\n\n"
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(argv, input=asked, capture_output=True, text=True, env=env, timeout=20)
    assert "password=secret" in done.stdout.splitlines(), done.stderr
