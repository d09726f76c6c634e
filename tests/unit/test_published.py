"""Programs from their projects' releases, by a server on this machine."""

from __future__ import annotations

import hashlib
import io
import platform
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from labkit.acquire.published import published
from labkit.errors import AcquireError
from labkit.versions import Release, versions

MACHINE = platform.machine()
PLATFORMS = ["linux-amd64", "linux-arm64"]
PROGRAM = b"#!/bin/sh\necho published\n"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and logs nothing."""

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "release"
    made.mkdir()
    return made


@pytest.fixture
def release(folder: Path) -> Iterator[Release]:
    """A release with a bare program and its checksum."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    put(folder, f"tool-linux-{MACHINE}", PROGRAM)
    yield Release(f"http://127.0.0.1:{server.server_port}", "tool-linux-{machine}", "sums.txt")
    server.shutdown()
    server.server_close()


def put(folder: Path, name: str, content: bytes) -> None:
    """A file of the release, and its line in the list of checksums."""
    (folder / name).write_bytes(content)
    with (folder / "sums.txt").open("a") as sums:
        sums.write(f"{hashlib.sha256(content).hexdigest()}  {name}\n")


def quiet(_text: str, _fraction: float | None) -> None:
    """No progress."""


def test_a_program_is_downloaded_and_may_be_executed(release: Release, tmp_path: Path) -> None:
    place = tmp_path / "tool"
    assert published("tool", release, place, quiet)
    assert place.read_bytes() == PROGRAM
    assert place.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "tool"]


def test_an_archive_is_unpacked(release: Release, folder: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("README.md", b"no"), ("tool", PROGRAM)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    put(folder, "tool.tar.gz", buffer.getvalue())
    place = tmp_path / "tool"
    assert published("tool", Release(release.url, "tool.tar.gz", "sums.txt"), place, quiet)
    assert place.read_bytes() == PROGRAM


def test_a_wrong_checksum_is_refused_and_nothing_stays(
    release: Release, folder: Path, tmp_path: Path
) -> None:
    (folder / f"tool-linux-{MACHINE}").write_bytes(b"something else")
    with pytest.raises(AcquireError, match="checksum"):
        published("tool", release, tmp_path / "tool", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_pinned_checksum_counts_and_the_host_is_not_asked_for_one(
    release: Release, folder: Path, tmp_path: Path
) -> None:
    """A host that has replaced the program has replaced its list of checksums, too."""
    pinned = replace(release, sha256=dict.fromkeys(PLATFORMS, "0" * 64))
    with pytest.raises(AcquireError, match=r"0{16}… is pinned\. It was not used"):
        published("tool", pinned, tmp_path / "tool", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    (folder / "sums.txt").unlink()
    pinned = replace(release, sha256=dict.fromkeys(PLATFORMS, hashlib.sha256(PROGRAM).hexdigest()))
    assert published("tool", pinned, tmp_path / "tool", quiet)


def test_pinned_checksums_are_whole_and_of_both_platforms() -> None:
    known = [program.release.sha256 for program in versions().programs.values() if program.release]
    for sha256 in [*filter(None, known), versions().kind.sha256, versions().cloudflared.sha256]:
        assert sorted(sha256) == PLATFORMS
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in sha256.values())
        assert len(set(sha256.values())) == 2


@pytest.mark.parametrize("lacking", ["program", "line", "list", "server"])
def test_what_is_not_published_is_no_error(
    release: Release, folder: Path, tmp_path: Path, lacking: str
) -> None:
    wanted = release
    if lacking == "program":
        (folder / f"tool-linux-{MACHINE}").unlink()
    elif lacking == "line":
        (folder / "sums.txt").write_text(f"{'0' * 64}  another-tool\n")
    elif lacking == "list":
        (folder / "sums.txt").unlink()
    else:
        wanted = Release("http://127.0.0.1:9", release.file, release.checksums)
    assert not published("tool", wanted, tmp_path / "tool", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_mirror_or_none(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Release("https://releases.example", release.file, release.checksums)
    monkeypatch.setenv("LABKIT_PUBLISHED_URL", release.url)
    assert published("tool", nowhere, tmp_path / "tool", quiet)
    monkeypatch.setenv("LABKIT_PUBLISHED_URL", "none")
    assert not published("tool", release, tmp_path / "another", quiet)


def test_the_releases_of_versions_toml_can_be_asked_for() -> None:
    releases = {name: program.release for name, program in versions().programs.items() if program.release}
    assert {"argocd", "act", "kustomize"} <= set(releases)
    for release in releases.values():
        assert release.url.startswith("https://github.com/") and not release.url.endswith("/")
        assert "{" not in release.file.format(machine="x86_64", arch="amd64")
