"""The program kind: the pinned version from PATH, its release (verified), or compiled."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from labkit.acquire import download
from labkit.cluster.kind import binary
from labkit.cluster.phases import Phase, Step
from labkit.errors import AcquireError
from labkit.versions import versions

VERSION = versions().kind.version
PROGRAM = f"#!/bin/sh\necho {VERSION}\n".encode()


class Release:
    """What the server does: by default it publishes PROGRAM with its checksum."""

    def __init__(self) -> None:
        self.status, self.sum, self.wait_s = 200, hashlib.sha256(PROGRAM).hexdigest(), 0.0
        self.asked: list[str] = []


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Release]:
    """A server like that of kind's releases, and an empty cache."""
    wanted = Release()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted.asked.append(self.path)
            time.sleep(wanted.wait_s)
            body = f"{wanted.sum}  kind\n".encode() if self.path.endswith(".sha256sum") else PROGRAM
            self.send_response(wanted.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who did not want to wait has gone
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LABKIT_KIND_URL", f"http://127.0.0.1:{server.server_port}/releases")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(binary, "programs", lambda names, _tell: dict.fromkeys(names, tmp_path / "compiled"))
    monkeypatch.setattr(binary, "compiled", lambda _name: None)
    monkeypatch.setattr(download, "_TRIES", 2)
    pin(monkeypatch, {})
    yield wanted
    server.shutdown()
    server.server_close()


def pin(monkeypatch: pytest.MonkeyPatch, sha256: dict[str, str]) -> None:
    """Let these checksums be the pinned ones."""
    changed = replace(versions(), kind=replace(versions().kind, sha256=sha256))
    monkeypatch.setattr(binary, "versions", lambda: changed)


def get() -> tuple[Path, list[str]]:
    """The program, and what a person was told."""
    seen: list[Phase] = []
    return binary.kind(Step("kind", seen.append, "")), [phase.text for phase in seen if phase.note]


def test_the_release_is_downloaded_once_and_verified(release: Release) -> None:
    program, notes = get()
    assert binary.version_of(program) == VERSION and notes == []
    assert any(path.startswith(f"/releases/v{VERSION}/kind-") for path in release.asked)
    release.asked.clear()
    assert get()[0] == program
    assert release.asked == []


def test_a_download_with_another_checksum_is_not_used(release: Release, tmp_path: Path) -> None:
    release.sum = "0" * 64
    with pytest.raises(AcquireError, match="It was not used"):
        get()
    assert not list((tmp_path / "cache").rglob("kind"))


def test_a_pinned_checksum_counts_and_the_host_is_not_asked_for_one(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A host that has replaced the program has replaced its checksum, too."""
    with pytest.MonkeyPatch.context() as other:
        pin(other, dict.fromkeys(versions().kind.sha256, "0" * 64))
        with pytest.raises(AcquireError, match=r"is pinned\. It was not used"):
            get()
    assert not list((tmp_path / "cache").rglob("kind"))
    pin(monkeypatch, dict.fromkeys(versions().kind.sha256, hashlib.sha256(PROGRAM).hexdigest()))
    release.sum = "0" * 64
    assert binary.version_of(get()[0]) == VERSION
    assert not [path for path in release.asked if path.endswith("sum")]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_does_not_hand_it_out_means_compiling(
    release: Release, tmp_path: Path, status: int
) -> None:
    release.status = status
    program, notes = get()
    assert program == tmp_path / "compiled"
    assert len(notes) == 1 and str(status) in notes[0] and "compiling" in notes[0]


def test_where_kind_was_compiled_nobody_is_asked_again(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "compiled", lambda name: tmp_path / name)
    assert get() == (tmp_path / "kind", [])
    assert release.asked == []


def test_a_server_that_does_not_answer_means_compiling(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release.wait_s = 3
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.3)
    program, notes = get()
    assert program == tmp_path / "compiled" and len(notes) == 1


def test_kind_of_the_pinned_version_on_path_is_taken(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "kind").write_bytes(PROGRAM)
    (tmp_path / "kind").chmod(0o755)
    assert get() == (tmp_path / "kind", [])
    assert release.asked == []


@pytest.mark.usefixtures("release")
def test_kind_of_another_version_on_path_is_left_alone_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "kind").write_text("#!/bin/sh\necho 0.20.0\n")
    (tmp_path / "kind").chmod(0o755)
    program, notes = get()
    assert program != tmp_path / "kind" and binary.version_of(program) == VERSION
    assert "0.20.0" in notes[0] and str(tmp_path / "kind") in notes[0]
