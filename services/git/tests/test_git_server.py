"""The git server, with real git as its client."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]
USERS = {
    "student": {"password": "right", "push": ["shop"]},
    "argocd": {"password": "reader", "push": []},
}


class Server:
    """The server's process and a git client of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        (folder / "users.json").write_text(json.dumps(USERS))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    def start(self) -> None:
        env = {
            **os.environ, "HOST": "127.0.0.1", "PORT": str(self.port), "DATA": str(self.folder / "data"),
            "USERS_FILE": str(self.folder / "users.json"), "REPOSITORIES": "shop shop-deploy",
        }  # fmt: skip
        log = (self.folder / "log").open("ab")
        argv = [sys.executable, "-m", "gitserver"]
        self.process = subprocess.Popen(argv, cwd=HERE, env=env, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self.ask("/healthz")
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def url(self, user: str = "student", password: str = "right", repository: str = "shop") -> str:
        return f"http://{user}:{password}@127.0.0.1:{self.port}/{repository}.git"

    def authorization(self, user: str) -> str:
        """The header's value for a user."""
        return "Basic " + base64.b64encode(f"{user}:{USERS[user]['password']}".encode()).decode()

    def ask(self, path: str, user: str = "") -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if user:
            request.add_header("Authorization", self.authorization(user))
        with opener.open(request, timeout=40) as answer:
            return answer.read().decode()

    def open_files(self) -> int:
        """How many files and sockets its process has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def git(self, *args: str, at: Path | None = None) -> str:
        """git's output; AssertionError with its words where it fails."""
        env = {
            **os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0",
        }  # fmt: skip
        who = ["-c", "user.name=a", "-c", "user.email=a@labkit.example", "-c", "http.proxy="]
        argv, folder = ["git", *who, *args], at or self.folder
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def clone(self, name: str, url: str = "") -> Path:
        self.git("clone", "-q", url or self.url(), name)
        copy = self.folder / name
        if not (copy / "file").exists():
            self.git("checkout", "-q", "-B", "main", at=copy)
        return copy

    def commit(self, copy: Path, content: str | bytes) -> str:
        (copy / "file").write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A", at=copy)
        self.git("commit", "-qm", "change", at=copy)
        return self.git("rev-parse", "HEAD", at=copy).strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def test_what_is_pushed_is_cloned_also_after_a_restart(server: Server) -> None:
    copy = server.clone("copy")
    commit = server.commit(copy, os.urandom(3_000_000))  # larger than git sends in one piece
    server.git("push", "-q", "origin", "main", at=copy)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    server.start()
    other = server.clone("other", server.url("argocd", "reader"))
    assert server.git("rev-parse", "HEAD", at=other).strip() == commit
    assert (other / "file").read_bytes() == (copy / "file").read_bytes()


def test_nobody_gets_in_without_a_password(server: Server) -> None:
    for path in ("/shop.git/info/refs?service=git-upload-pack", "/shop.git/HEAD", "/pushes"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.ask(path)
        assert refused.value.code == 401
    for user, password in (("student", "wrong"), ("student", ""), ("nobody", "right"), ("argocd", "right")):
        with pytest.raises(AssertionError, match="Authentication failed"):
            server.git("ls-remote", server.url(user, password))


def test_who_may_only_read_cannot_push(server: Server) -> None:
    copy = server.clone("copy", server.url("argocd", "reader"))
    server.commit(copy, "one")
    with pytest.raises(AssertionError, match="403"):
        server.git("push", "-q", "origin", "main", at=copy)
    with pytest.raises(AssertionError, match="403"):
        server.git("push", "-q", server.url(repository="shop-deploy"), "main", at=copy)
    assert json.loads(server.ask("/pushes", "argocd")) == []


def test_what_would_be_overwritten_is_refused(server: Server) -> None:
    one, two = server.clone("one"), server.clone("two")
    server.commit(one, "one")
    server.git("push", "-q", "origin", "main", at=one)
    server.commit(two, "two")
    with pytest.raises(AssertionError, match="rejected"):
        server.git("push", "-q", "origin", "main", at=two)


def test_no_other_path_is_served(server: Server) -> None:
    for path in ("/other.git/HEAD", "/../users.json", "/shop.git/../../users.json", "/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.ask(path, "student")
        assert refused.value.code == 404


def test_pushes_are_told_to_who_waits(server: Server) -> None:
    copy = server.clone("copy")
    heard: list[str] = []
    waiting = threading.Thread(target=lambda: heard.append(server.ask("/pushes?after=0&wait=20", "argocd")))
    waiting.start()
    commit = server.commit(copy, "one")
    server.git("push", "-q", "origin", "main", at=copy)
    waiting.join(30)
    [push] = json.loads(heard[0])
    assert (push["repository"], push["ref"], push["user"]) == ("shop", "refs/heads/main", "student")
    assert (push["number"], push["before"], push["after"]) == (1, "0" * 40, commit)
    assert json.loads(server.ask("/pushes?after=1&wait=0", "argocd")) == []
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.ask("/pushes?after=x", "argocd")
    assert refused.value.code == 400


counts_files = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="open files are counted in /proc, which is Linux's"
)


@counts_files
def test_many_pushes_and_looks_leave_no_file_open_and_few_packs(server: Server) -> None:
    """Each look opens every pack; what is not closed adds up until the server can open no more."""
    copy = server.clone("copy")
    commits = []
    for number in range(24):
        commits.append(server.commit(copy, os.urandom(100 + number)))
        server.git("push", "-q", "origin", "main", at=copy)
    before = server.open_files()
    for number in range(8):
        server.git("ls-remote", server.url("argocd", "reader"))
        server.clone(f"copy-{number}", server.url("argocd", "reader"))
    assert server.open_files() <= before + 2  # a connection may be about to end
    packs = list((server.folder / "data" / "shop.git" / "objects" / "pack").glob("*.pack"))
    assert len(packs) <= 20
    history = server.git("log", "--format=%H", "--reverse", at=server.folder / "copy-0").split()
    assert history == commits
    server.git("fsck", "--strict", "--no-dangling", at=server.folder / "data" / "shop.git")


@counts_files
def test_a_clone_that_is_broken_off_leaves_no_file_open(server: Server) -> None:
    copy = server.clone("copy")
    commit = server.commit(copy, os.urandom(8_000_000))
    server.git("push", "-q", "origin", "main", at=copy)
    before = server.open_files()
    want = f"want {commit} multi_ack_detailed thin-pack side-band-64k ofs-delta\n"
    body = f"{len(want) + 4:04x}{want}00000009done\n".encode()
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            head = (
                "POST /shop.git/git-upload-pack HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: {server.authorization('argocd')}\r\n"
                "Content-Type: application/x-git-upload-pack-request\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
    deadline = time.monotonic() + 20
    while server.open_files() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.open_files() <= before
