"""Get published binaries from a release URL: resumed where it was cut, verified before use."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from labkit.acquire.build import Progress
from labkit.acquire.sources import target
from labkit.errors import AcquireError, MachineError
from labkit.folders import cache_dir, private
from labkit.versions import versions

_CHUNK = 1 << 20
_TIMEOUT_S = 20
_LIMIT_S = 1800
_TRIES = 4


class Unpublished(Exception):
    """The release URL does not offer these binaries, or does not answer."""


def release_url() -> str:
    """Where binaries are published: $LABKIT_RELEASE_URL, else versions.toml's; "" for nowhere."""
    return os.environ.get("LABKIT_RELEASE_URL", versions().release_url).rstrip("/")


def archive_name(key: str) -> str:
    """File name of the archive of a key, for this platform."""
    return f"labkit-{key}-{target()}.tar.gz"


def fetch(
    url: str,
    name: str,
    folder: Path,
    progress: Progress,
    *,
    ending: str = ".sha256",
    sha256: str = "",
    limit_s: float = _LIMIT_S,
) -> Path:
    """Download URL/name into `folder` and verify it: against a pinned checksum, or that in URL/name.sha256.

    A part that an interrupted download left is continued. The file has its name only when it is verified.

    Args:
        ending: of the checksum file's name.
        sha256: the pinned checksum; the server is not asked for one then.
        limit_s: for the whole download.

    Raises:
        Unpublished: the server has no such file or cannot be reached.
        AcquireError: what it sends is not what its checksum says.
    """
    _check(url)
    expected = sha256 or _checksum(f"{url}/{name}{ending}")
    private(folder)
    part, deadline = folder / f"{name}.part", time.monotonic() + limit_s
    resumed = part.exists()
    for attempt in range(_TRIES):
        try:
            _continue(f"{url}/{name}", part, progress, deadline)
            break
        except (OSError, HTTPException) as err:
            if isinstance(err, urllib.error.HTTPError) and err.code == 404:
                raise Unpublished(f"{url} has no {name}") from err
            if attempt == _TRIES - 1 or time.monotonic() > deadline:
                raise Unpublished(f"{url} cannot be read: {err}") from err
            time.sleep(0.2 * 2**attempt)
    if _digest(part) != expected and resumed:
        part.unlink()  # what was left over may be of something else: once from the beginning
        _continue(f"{url}/{name}", part, progress, deadline)
    found = _digest(part)
    if found != expected:
        part.unlink()
        raise AcquireError(
            f"{url}/{name} has the checksum {found[:16]}…, {expected[:16]}… "
            f"{'is pinned' if sha256 else 'was announced'}. It was not used.",
            "Try again. If it stays so, tell who publishes there; without that URL labkit compiles.",
        )
    return part.rename(folder / name)


def _check(url: str) -> None:
    """Binaries come over TLS, or from this machine."""
    parts = urllib.parse.urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise AcquireError(
            f"The release URL {url!r} is not https://…", "Correct LABKIT_RELEASE_URL, or unset it to compile."
        )


def _checksum(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            text = answer.read(4096).decode("ascii", "replace")
    except urllib.error.HTTPError as err:
        raise Unpublished(f"no {url} ({err.code})") from err
    except (OSError, HTTPException) as err:
        raise Unpublished(f"{url} cannot be read: {err}") from err
    match = re.match(r"([0-9a-f]{64})\b", text)
    if not match:
        raise AcquireError(f"{url} is no checksum file.", "Unset LABKIT_RELEASE_URL to compile.")
    return match[1]


def _continue(url: str, part: Path, progress: Progress, deadline: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as err:
        if err.code == 416:  # nothing is left to send: the part is whole, or not of this file
            return
        raise
    with answer:
        begins = have if answer.status == 206 else 0
        total = begins + int(answer.headers.get("Content-Length") or 0)
        with full_disk_is_told(), part.open("r+b" if begins else "wb") as stream:
            stream.seek(begins)
            while chunk := answer.read(_CHUNK):
                stream.write(chunk)
                done = stream.tell()
                text = f"downloading, {done / 1e6:.0f} of {total / 1e6:.0f} MB"
                progress(text, done / total if total else None)
                if time.monotonic() > deadline:
                    raise TimeoutError("not complete in the time there is")
        if total and part.stat().st_size < total:
            raise ConnectionError("the connection was cut")


@contextmanager
def full_disk_is_told() -> Iterator[None]:
    """A full disk as what it is: no server's fault, and nothing to try again or to compile on.

    Raises:
        MachineError: the disk is full, or the user's share of it.
    """
    try:
        yield
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MachineError(
            f"The disk is full: a download does not fit into {cache_dir()}.",
            "Free some space, or let XDG_CACHE_HOME name another folder; then repeat.",
        ) from err


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch_pinned(url: str, expected: str, path: Path, progress: Progress, limit_s: float = 300.0) -> Path:
    """Download a file whose checksum is known beforehand; `path` exists only when it is that file.

    Args:
        expected: its SHA-256.
        limit_s: for the whole download.

    Raises:
        Unpublished: the server has no such file, does not answer, or is too slow.
        AcquireError: what it sends is something else, or `url` is not https.
    """
    if path.is_file():
        return path
    _check(url)
    private(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        _continue(url, part, progress, time.monotonic() + limit_s)
        found = _digest(part)
        if found != expected:
            raise AcquireError(
                f"{url} has the checksum {found[:16]}…, {expected[:16]}… is expected. It was not used.",
                "Try again. If it stays so, the release was replaced, or something on the way changes it.",
            )
        return part.rename(path)
    except (OSError, HTTPException) as err:
        raise Unpublished(f"{url} cannot be read: {err}") from err
    finally:
        part.unlink(missing_ok=True)
