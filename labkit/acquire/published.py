"""Programs as their own projects publish them: downloaded, and held against pinned or published checksums."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from labkit.acquire.build import Progress
from labkit.acquire.download import Unpublished, _check, _continue, _digest, full_disk_is_told
from labkit.errors import AcquireError
from labkit.versions import Release

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_TIMEOUT_S, _LIMIT_S = 15, 900.0


def published(name: str, release: Release, place: Path, progress: Progress) -> bool:
    """Download a program to `place`, which appears only when it is whole and verified.

    Args:
        name: of the program, for people; in an archive, of the file too.

    Returns:
        False where it is not published for this machine, or the server cannot be reached.

    Raises:
        AcquireError: what was sent is not what its pinned checksum says, or else that of the release's list.
    """
    machine = platform.machine()
    pinned = release.sha256.get(f"linux-{_MACHINES.get(machine)}")
    url = os.environ.get("LABKIT_PUBLISHED_URL", release.url).rstrip("/")
    if not url or url == "none" or machine not in _MACHINES:
        return False
    _check(url)
    file = release.file.format(machine=machine.replace("aarch64", "arm64"), arch=_MACHINES[machine])
    part = place.with_name(f"{place.name}.part")
    try:
        expected = pinned or _checksum(f"{url}/{release.checksums}", file)
        progress(f"downloading {name} from {url}", None)
        _continue(f"{url}/{file}", part, progress, time.monotonic() + _LIMIT_S)
    except (Unpublished, OSError, HTTPException):
        part.unlink(missing_ok=True)
        return False
    found = _digest(part)
    if found != expected:
        part.unlink()
        raise AcquireError(
            f"{url}/{file} has the checksum {found[:16]}…, {expected[:16]}… "
            f"{'is pinned' if pinned else 'was announced'}. It was not used.",
            "Try again. If it stays so, LABKIT_PUBLISHED_URL=none lets labkit compile the program.",
        )
    whole = _unpacked(part, name, place) if file.endswith(".tar.gz") else part
    whole.chmod(0o755)
    whole.rename(place)
    part.unlink(missing_ok=True)
    return True


def _checksum(url: str, file: str) -> str:
    """The SHA-256 of a file in a list as sha256sum writes it."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        text = answer.read(1 << 20).decode("ascii", "replace")
    match = re.search(rf"^([0-9a-f]{{64}})[ *]+{re.escape(file)}$", text, re.M)
    if not match:
        raise Unpublished(f"{url} does not name {file}")
    return match[1]


def _unpacked(archive: Path, name: str, place: Path) -> Path:
    target = place.with_name(f"{place.name}.new")
    try:
        with tarfile.open(archive) as tar:
            content = next(
                (tar.extractfile(m) for m in tar if Path(m.name).name == name and m.isfile()), None
            )
            if content is None:
                raise AcquireError(f"The archive that is published of {name} has no file of that name.")
            with full_disk_is_told(), target.open("wb") as stream:
                shutil.copyfileobj(content, stream)
    except tarfile.TarError as err:
        raise AcquireError(f"The archive that is published of {name} cannot be read: {err}.") from err
    return target
