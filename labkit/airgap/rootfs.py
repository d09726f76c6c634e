"""The first stage of a Debian image: packages downloaded, verified and unpacked, with no privilege."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.children import running
from labkit.errors import AcquireError, MachineError
from labkit.folders import private

_TOOLS = ("debootstrap", "fakeroot", "gpgv")
_LIMIT_S = 1200
_NEEDED_BYTES = 1 << 30
# Both under one fakeroot, which remembers owners. debootstrap makes /proc a link where it cannot mount; an
# image needs a folder there.
_SCRIPT = """set -eu
root=$1 archive=$2
shift 2
"$@"
rm -rf "$root/proc"
mkdir "$root/proc"
tar -C "$root" -cf "$archive" .
"""
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@contextmanager
def unpacked(
    suite: str, mirror: str, cache: Path, progress: Callable[[str, float | None], None]
) -> Iterator[Path]:
    """A tar archive of Debian's smallest set of packages, unpacked and not configured; gone with the block.

    Packages that were downloaded stay in `cache`: an interrupted run goes on from them.

    Raises:
        AcquireError: the mirror does not give them, or not as they were signed.
        MachineError: a tool is missing, or space.
    """
    require_tools()
    packages = cache / "debs"
    private(packages)
    if shutil.disk_usage(cache).free < _NEEDED_BYTES:
        raise MachineError(
            f"Less than 1 GiB is free in {cache}.", "Free some, or let XDG_CACHE_HOME name another folder."
        )
    with tempfile.TemporaryDirectory(dir=cache, prefix="rootfs-") as scratch:
        root, archive = Path(scratch) / "root", Path(scratch) / "root.tar"
        bootstrap = [
            "debootstrap", "--foreign", "--variant=minbase", "--include=ca-certificates",
            f"--keyring={_KEYRING}", f"--cache-dir={packages}", suite, str(root), mirror,
        ]  # fmt: skip
        _run(["fakeroot", "sh", "-c", _SCRIPT, "sh", str(root), str(archive), *bootstrap], mirror, progress)
        yield archive


def require_tools() -> None:
    """Check that what unpacks Debian packages is here.

    Raises:
        MachineError: something is missing; the hint installs it.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [tool for tool in _TOOLS if not shutil.which(tool, path=path)]
    if not _KEYRING.is_file():
        missing.append("debian-archive-keyring")
    if missing:
        raise MachineError(
            f"Images are made of Debian packages, and this machine lacks {', '.join(missing)}.",
            f"On Debian and Ubuntu, as root: apt-get install {' '.join(missing)}. "
            "Or load a file that `labkit airgap save` made elsewhere: labkit airgap load FILE",
        )


def _run(argv: list[str], mirror: str, progress: Callable[[str, float | None], None]) -> None:
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
    tail: deque[str] = deque(maxlen=15)

    def late() -> AcquireError:
        return AcquireError(f"debootstrap has not ended within {_LIMIT_S} s.", _words(tail))

    with running(argv, _LIMIT_S, late, env=env) as lines:
        for line in lines:
            if line is None:
                continue
            tail.append(line.strip())
            if line.startswith("I: "):
                progress(line[3:].strip(), None)
        if lines.code():
            raise explain(tail, mirror)


def explain(tail: Iterable[str], mirror: str) -> AcquireError | MachineError:
    """The typed error of a debootstrap that failed, from its last lines."""
    said = "\n".join(tail)
    if re.search("no space left", said, re.I):
        return MachineError(
            "The disk is full while Debian packages are unpacked.", "Free some; run it again."
        )
    if re.search(r"Release signed by unknown key|Invalid Release signature|corrupt", said):
        return AcquireError(
            f"The mirror {mirror} does not give Debian's packages as Debian signed them.",
            "Install a newer debian-archive-keyring, or name another mirror in LABKIT_DEBIAN_MIRROR. "
            + _words(tail),
        )
    if re.search(r"Failed getting release file|Couldn't download|Failed getting", said):
        return AcquireError(
            f"The mirror {mirror} does not give Debian's packages.",
            f"Is there a network or a proxy? LABKIT_DEBIAN_MIRROR names another mirror. {_words(tail)}",
        )
    return AcquireError("debootstrap failed.", _words(tail))


def _words(tail: Iterable[str]) -> str:
    return "Its last words:\n" + "\n".join(tail)
