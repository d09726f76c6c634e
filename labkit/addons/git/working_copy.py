"""A working copy: git itself, with its refusals as typed errors."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from labkit.errors import GitError, MachineError

_LIMIT_S = 60.0
_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        r"non-fast-forward|fetch first|\[rejected\]",
        "The push was rejected: the server has commits that this copy has not.",
        "Fetch them and put yours on top: `git pull --rebase`, then push again.",
    ),
    (
        r"Authentication failed|could not read (Username|Password)|error: 401",
        "The git server does not accept user and password.",
        "`GitServer.clone` sets the right ones; copies made otherwise need `git config credential.helper`.",
    ),
    (
        r"error: 403|may not push",
        "This user may read the repository, but not push to it.",
        "Push as a user who may; the Secret git-users says who that is.",
    ),
    (
        r"Connection re(fused|set)|Could not resolve host|Failed to connect|Empty reply|error: 50\d",
        "The git server does not answer.",
        "Is its pod Ready? `kubectl -n git get pods`. Commits stay in your copy: push again later.",
    ),
    (r"nothing to commit|no changes added", "There is nothing to commit: no file has changed.", ""),
    (
        r"CONFLICT|could not (apply|revert)",
        "The change does not fit onto what is there now.",
        "`git status` names the files. Resolve them, or `git rebase --abort` or `git revert --abort`.",
    ),
)


class WorkingCopy:
    """A clone on this machine; in a notebook's `!git -C {copy} …` it stands for its path.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<WorkingCopy {self.path.name} at {self.head()[:7]}>"

    def run(self, *args: str) -> str:
        """Run git in the folder and return what it prints.

        Raises:
            GitError: it failed; the hint says what to do.
        """
        return git("-C", str(self.path), *args)

    def head(self) -> str:
        """The commit that is checked out, 40 digits; "" where there is none yet."""
        try:
            return self.run("rev-parse", "--verify", "-q", "HEAD").strip()
        except GitError:
            return ""

    def edit(self, file: str, old: str, new: str, *, first: bool = False) -> None:
        """Replace a text that occurs exactly once in a file.

        Args:
            first: replace the first of several.

        Raises:
            GitError: there is no such file, or the text is not in it once.
        """
        path = self.path / file
        try:
            text = path.read_text()
        except OSError as err:
            raise GitError(
                f"{file} cannot be read: {err.strerror}.", "Paths are relative to the copy."
            ) from err
        found = text.count(old)
        if found != 1 and not (first and found):
            raise GitError(
                f"{old!r} occurs {found} times in {file}, not once.",
                "Was the change made before? `git log -1 -p` shows it."
                if not found
                else "Name more of the line.",
            )
        path.write_text(text.replace(old, new, 1))

    def commit(self, message: str) -> str:
        """Commit everything that has changed, new files included; returns the commit.

        Raises:
            GitError: nothing has changed.
        """
        self.run("add", "--all")
        self.run("commit", "--quiet", "-m", message)
        return self.head()

    def revert(self, commit: str = "HEAD") -> str:
        """A new commit that takes back another one; returns the new one."""
        self.run("revert", "--no-edit", commit)
        return self.head()

    def pull(self) -> str:
        """Fetch, and put own commits on top; returns the commit that is checked out then."""
        self.run("pull", "--quiet", "--rebase")
        return self.head()

    def push(self) -> str:
        """Push the current branch to the server; returns the commit that is there now.

        Raises:
            GitError: the server has other commits, refuses the user, or does not answer.
        """
        self.run("push", "--quiet", "origin", "HEAD")
        return self.head()


def git(*args: str, env: Mapping[str, str] | None = None, limit_s: float = _LIMIT_S) -> str:
    """Run git and return what it prints. It never asks anything.

    Raises:
        MachineError: git is not installed.
        GitError: it failed, or took longer than `limit_s`.
    """
    program = shutil.which("git")
    if not program:
        raise MachineError(
            "There is no program `git` on PATH.", "Install git, for instance: apt-get install git."
        )
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "LC_ALL": "C", **(env or {})}
    try:
        done = subprocess.run(
            [program, *args], env={**os.environ, **own}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise GitError(f"git {_verb(args)} did not end within {limit_s:.0f} s; it was ended.") from None
    if done.returncode:
        raise _explain(args, without_passwords(f"{done.stdout}\n{done.stderr}".strip()))
    return done.stdout


def password_store(file: Path) -> str:
    """git's setting `credential.helper` for passwords in a file; git gives it to a shell."""
    return f"store --file {shlex.quote(str(file))}"


def without_passwords(text: str) -> str:
    """A text in which URLs have lost user and password."""
    return re.sub(r"(https?://)[^/@\s]+@", r"\1", text)


def _verb(args: tuple[str, ...]) -> str:
    rest = iter(args)
    for arg in rest:
        if arg in ("-C", "-c"):
            next(rest, None)
        elif not arg.startswith("-"):
            return arg
    return ""


def _explain(args: tuple[str, ...], said: str) -> GitError:
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("hint:")]
    words = next((line for line in lines if re.match(r"(fatal|error|remote| !)", line)), "".join(lines[-1:]))
    for pattern, what, todo in _REASONS:
        if re.search(pattern, said):
            return GitError(f"git {_verb(args)}: {what} ({words.strip()})", todo)
    return GitError(f"git {_verb(args)} failed: {' / '.join(lines[-4:])[-500:]}")
