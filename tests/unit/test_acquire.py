"""How the cluster's programs get into the cache. Go compiles two tiny programs in place of the real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import acquire
from labkit.acquire.build import Meter, Plan, environment, roughly
from labkit.acquire.download import archive_name
from labkit.errors import AcquireError, MachineError
from labkit.tools import find_go, go
from labkit.versions import Program, versions

pytestmark = pytest.mark.usefixtures("source")
GO_MAIN = (
    'package main\n\nimport "example.test/tiny/words"\n\nfunc main() {{ println("{name}", words.Two) }}\n'
)
BUILD = "from labkit import acquire; print(acquire.binaries().origin)"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go module with cmd/kube and cmd/shim, and an empty cache. Go's own build cache is the usual one."""
    module = tmp_path / "embedded"
    for name in ("kube", "shim"):
        (module / "cmd" / name).mkdir(parents=True)
        (module / "cmd" / name / "main.go").write_text(GO_MAIN.format(name=name))
    (module / "words").mkdir()
    unlike_any_before = f"package words\n\nconst Two = 2 // {uuid.uuid4()}\n"
    (module / "words/words.go").write_text(unlike_any_before)
    (module / "go.mod").write_text("module example.test/tiny\n\ngo 1.24\n")
    found = environment(go())
    monkeypatch.setenv("GOCACHE", found["GOCACHE"])
    monkeypatch.setenv("GOMODCACHE", found["GOMODCACHE"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LABKIT_EMBEDDED", str(module))
    monkeypatch.delenv("LABKIT_RELEASE_URL", raising=False)
    return module


def said(program: Path) -> str:
    """What a program prints."""
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


def leftovers(tmp_path: Path) -> list[str]:
    """Names in the cache that are neither binaries nor the lock."""
    root = tmp_path / "cache/labkit/embedded"
    return [p.name for p in root.iterdir() if p.name != "lock" and not (p / "manifest.json").exists()]


def test_binaries_are_compiled_once_and_then_found(tmp_path: Path) -> None:
    told: list[str] = []
    made = acquire.binaries(lambda text, _: told.append(text))
    assert said(made.kube) == "kube 2"
    assert said(made.shim) == "shim 2"
    assert made.origin.startswith("compiled by Go")
    assert any("packages" in text or "linking" in text for text in told)
    told.clear()
    assert acquire.binaries(lambda text, _: told.append(text)) == made
    assert told == []
    assert leftovers(tmp_path) == []


def test_the_users_go_settings_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = acquire.binaries()
    digest = (first.kube).read_bytes()
    shutil.rmtree(first.directory)
    settings = tmp_path / "goenv"
    settings.write_text("GOFLAGS=-tags=nonsense\n")
    monkeypatch.setenv("GOENV", str(settings))
    monkeypatch.setenv("GOFLAGS", "-mod=vendor -ldflags=-X=main.x=y -race")
    monkeypatch.setenv("CGO_ENABLED", "1")
    monkeypatch.setenv("GOOS", "windows")
    monkeypatch.setenv("GOGC", "off")
    assert acquire.binaries().kube.read_bytes() == digest


def test_the_key_follows_the_sources_but_not_tests_or_notes(source: Path) -> None:
    key = acquire.source_key()
    (source / "words/words_test.go").write_text("package words\n")
    (source / "README.md").write_text("notes")
    (source / ".hidden").write_text("x")
    assert acquire.source_key() == key
    (source / "words/words.go").write_text("package words\n\nconst Two = 3\n")
    other = acquire.source_key()
    assert other != key
    (source / "words/words.go").rename(source / "words/moved.go")
    assert acquire.source_key() not in (key, other)


@pytest.mark.parametrize(
    "damage", ["changed", "cut", "removed", "no manifest", "bad manifest", "not executable"]
)
def test_a_damaged_cache_is_repaired_with_one_line(damage: str) -> None:
    made = acquire.binaries()
    if damage == "changed":
        with made.kube.open("r+b") as stream:
            stream.seek(5000)
            stream.write(b"\0" * 16)
    elif damage == "cut":
        os.truncate(made.kube, 100)
    elif damage == "removed":
        made.shim.unlink()
    elif damage == "no manifest":
        (made.directory / "manifest.json").unlink()
    elif damage == "bad manifest":
        (made.directory / "manifest.json").write_text('{"files": {"kube": 7}}')
    else:
        made.shim.chmod(0o644)
    assert acquire.cached() is None
    notes: list[str] = []
    again = acquire.binaries(note=notes.append)
    assert said(again.kube) == "kube 2"
    assert len(notes) == 1
    assert "damaged" in notes[0]


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "go.log"
    counting_go(tmp_path, log)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        )
        for _ in range(3)
    ]  # fmt: skip
    origins = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(origins) == 1
    assert log.read_text().count("build -v") == 1


def counting_go(tmp_path: Path, log: Path, before: str = "") -> None:
    """A `go` on PATH that notes its arguments and then is the real one."""
    found = find_go()
    assert found
    script = tmp_path / "bin/go"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$*" >> {log}\n{before}\nexec {found[0]} "$@"\n')
    script.chmod(0o755)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build_leaves_nothing_half_usable(tmp_path: Path, how: signal.Signals) -> None:
    log = tmp_path / "go.log"
    counting_go(tmp_path, log, before='case "$1" in build) sleep 30;; esac')
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD], stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs us may ignore it
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while "build -v" not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(20)
    assert acquire.cached() is None
    made = acquire.binaries()
    assert said(made.kube) == "kube 2"
    assert leftovers(tmp_path) == []


def test_what_the_compiler_says_is_in_the_error(source: Path, tmp_path: Path) -> None:
    (source / "cmd/kube/main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(AcquireError, match="undefined: nonsense"):
        acquire.binaries()
    assert acquire.cached() is None
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    inside = 'mount -t tmpfs -o size=3m none "$XDG_CACHE_HOME" && exec "$@"'
    build = [sys.executable, "-c", "from labkit import acquire; acquire.binaries()"]
    env = {**os.environ, "XDG_CACHE_HOME": str(small)}
    argv = ["unshare", "-rm", "sh", "-c", inside, "sh", *build]
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    if "unshare" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this machine allows no user namespaces")
    assert "MachineError" in done.stderr
    assert "small" in done.stderr or "disk" in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr or "Free some space" in done.stderr


def test_a_folder_that_cannot_be_written_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(MachineError, match="cache cannot be written"):
        acquire.binaries()


def test_sources_that_are_nowhere_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_EMBEDDED", "/nonexistent")
    with pytest.raises(AcquireError, match="/nonexistent"):
        acquire.source_key()


def test_the_estimate_follows_the_weights() -> None:
    now = [0.0]
    meter = Meter(Plan({"a": 300.0, "b": 100.0, "c": 188.0}, 10), clock=lambda: now[0], processors=2)
    assert meter.left_s() == pytest.approx(300.0)
    meter.started("a")
    meter.started("something that is not planned")
    now[0] = 290.0
    assert meter.fraction() == 0.0
    meter.started("b")
    assert meter.fraction() == pytest.approx(0.5)
    assert meter.left_s() == pytest.approx(281.25)
    assert meter.text() == "2 of 3 packages, 4 min 50 s, about 5 min left"
    meter.started("c")
    now[0] = 570.0
    assert meter.text().startswith("linking, 9 min 30 s, about 5 min")
    assert [roughly(s) for s in (3, 44, 89, 91, 400)] == ["10 s", "40 s", "90 s", "2 min", "7 min"]


class Release(http.server.ThreadingHTTPServer):
    """A release server: files of a folder, ranges, and connections cut after `cut_at` bytes while `cuts` last."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.cuts, self.cut_at, self.ranges = folder, 0, 0, [""]
        self.ranges.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET."""

    server: Release

    def do_GET(self) -> None:
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        data, wanted = file.read_bytes(), self.headers.get("Range", "")
        begin = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        self.server.ranges.append(wanted)
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        rest = data[begin:]
        if self.server.cuts and len(rest) > self.server.cut_at:
            self.server.cuts -= 1
            self.wfile.write(rest[: self.server.cut_at])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    """A server with the archive of the tiny programs; the cache is empty again."""
    made = acquire.binaries()
    archive = acquire.pack(made, tmp_path / "release")
    assert archive.exists()
    shutil.rmtree(tmp_path / "cache")
    server = Release(tmp_path / "release")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("LABKIT_RELEASE_URL", server.url)
    monkeypatch.setenv("PATH", "/nonexistent")  # no Go: what comes is downloaded
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_a_release_is_downloaded_and_verified(release: Release) -> None:
    made = acquire.binaries()
    assert made.origin == f"downloaded from {release.url}"
    assert said(made.kube) == "kube 2"
    assert acquire.cached() == made


def test_a_cut_download_goes_on_where_it_was_cut(release: Release, tmp_path: Path) -> None:
    release.cuts, release.cut_at = 2, 100_000
    assert said(acquire.binaries().shim) == "shim 2"
    assert [r for r in release.ranges if r] == ["bytes=100000-", "bytes=200000-"]
    assert list((tmp_path / "cache/labkit/embedded/downloads").iterdir()) == []


def test_what_a_killed_process_had_downloaded_is_used(release: Release, tmp_path: Path) -> None:
    archive = next(release.folder.glob("*.gz"))
    downloads = tmp_path / "cache/labkit/embedded/downloads"
    downloads.mkdir(parents=True)
    (downloads / f"{archive.name}.part").write_bytes(archive.read_bytes()[:70_000])
    assert said(acquire.binaries().kube) == "kube 2"
    assert "bytes=70000-" in release.ranges


def test_a_part_of_something_else_is_thrown_away(release: Release, tmp_path: Path) -> None:
    archive = next(release.folder.glob("*.gz"))
    downloads = tmp_path / "cache/labkit/embedded/downloads"
    downloads.mkdir(parents=True)
    (downloads / f"{archive.name}.part").write_bytes(b"x" * 70_000)
    assert said(acquire.binaries().kube) == "kube 2"


def test_a_wrong_checksum_is_refused_loudly(release: Release, tmp_path: Path) -> None:
    archive = next(release.folder.glob("*.gz"))
    archive.write_bytes(archive.read_bytes()[:-20] + b"y" * 20)
    with pytest.raises(AcquireError, match="checksum"):
        acquire.binaries()
    assert acquire.cached() is None
    assert list((tmp_path / "cache/labkit/embedded/downloads").iterdir()) == []


@pytest.mark.parametrize("url", ["http://example.test/x", "ftp://127.0.0.1", "release"])
def test_programs_come_over_tls_or_from_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LABKIT_RELEASE_URL", url)
    with pytest.raises(AcquireError, match="https"):
        acquire.binaries()


@pytest.mark.parametrize("gone", ["no archive", "no server"])
def test_without_a_release_it_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    server = Release(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LABKIT_RELEASE_URL", server.url)
    if gone == "no server":
        server.shutdown()
        server.server_close()
    notes: list[str] = []
    made = acquire.binaries(note=notes.append)
    assert made.origin.startswith("compiled")
    assert len(notes) == 1
    assert "compiling instead" in notes[0]
    if gone == "no archive":
        server.shutdown()
        server.server_close()


def test_old_versions_go_but_for_those_that_run(source: Path) -> None:
    made = [acquire.binaries()]
    running = subprocess.Popen(
        ["sleep", "60"], executable=shutil.copy("/bin/sleep", made[0].directory / "sleep")
    )
    try:
        for number in range(4):
            (source / "words/more.go").write_text(f"package words\n\nconst More = {number}\n")
            made.append(acquire.binaries())
            os.utime(made[-1].directory, (number, number))
        kept = [binaries.directory.exists() for binaries in made]
        assert kept == [True, False, True, True, True]
    finally:
        running.kill()
        running.wait(5)


def test_the_manifest_tells_where_things_come_from() -> None:
    made = acquire.binaries()
    manifest = json.loads((made.directory / "manifest.json").read_text())
    assert manifest["key"] == made.key
    assert set(manifest["files"]) == {"kube", "shim"}


def pinned(monkeypatch: pytest.MonkeyPatch, **entries: Program) -> None:
    """Let versions.toml have these programs alone."""
    known = dataclasses.replace(versions(), programs=entries)
    for module in ("labkit.acquire.upstream", "labkit.acquire.modules"):
        monkeypatch.setattr(f"{module}.versions", lambda: known)


def test_programs_of_a_module_are_compiled_once_and_again_when_their_pin_changes(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "go.sum").write_text("")
    pinned(monkeypatch, one=Program("example.test/tiny/cmd/kube"), two=Program("./cmd/shim", ldflags=""))
    told: list[str] = []
    found = acquire.programs(["one", "two"], lambda text, _: told.append(text))
    assert [said(found[name]) for name in ("one", "two")] == ["kube 2", "shim 2"] and told
    told.clear()
    assert acquire.programs(["two", "one"], lambda text, _: told.append(text)) == found and not told
    (source / "go.sum").write_text("\n")
    assert acquire.programs(["one"])["one"] != found["one"]


def test_programs_that_cannot_be_had(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (source / "go.sum").write_text("")
    pinned(monkeypatch, bad=Program("./cmd/nowhere"))
    with pytest.raises(AcquireError, match="no program 'other'") as failed:
        acquire.programs(["other"])
    assert "bad" in failed.value.hint
    with pytest.raises(AcquireError, match="nowhere"):
        acquire.programs(["bad"])
    assert [p for p in (tmp_path / "cache/labkit/programs").iterdir() if p.is_dir()] == []


def test_a_module_that_is_not_pinned_has_no_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.is_dir()
    pinned(monkeypatch)
    with pytest.raises(AcquireError, match=r"Go module example\.test/other cannot be had"):
        acquire.module_folder("example.test/other")


def test_a_module_inside_does_not_count_for_the_key(source: Path) -> None:
    key = acquire.source_key()
    (source / "inner").mkdir()
    (source / "inner/go.mod").write_text("module example.test/inner\n")
    (source / "inner/main.go").write_text("package main\n")
    assert acquire.source_key() == key


def test_a_full_disk_during_a_download_is_told_once_and_nothing_is_compiled(
    source: Path, tmp_path: Path
) -> None:
    folder, small = tmp_path / "release", tmp_path / "small"
    folder.mkdir(), small.mkdir()
    archive = folder / archive_name(acquire.source_key())
    archive.write_bytes(os.urandom(6 << 20))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    server = Release(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    inside = 'mount -t tmpfs -o size=3m none "$XDG_CACHE_HOME" && exec "$@"'
    env = {**os.environ, "XDG_CACHE_HOME": str(small), "LABKIT_RELEASE_URL": server.url}
    argv = ["unshare", "-rm", "sh", "-c", inside, "sh", sys.executable, "-c", BUILD]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=120)
    server.shutdown()
    if "unshare" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this machine allows no user namespaces")
    assert "MachineError: The disk is full" in done.stderr, done.stderr
    assert len(server.ranges) == 2, "checksum and archive, each once"
    assert source.is_dir() and "go.mod" not in done.stderr
