"""Busybox, which the suite's images have as their shell: the machine's own, or Debian's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from labkit.tools import cache_dir

_PACKAGE = "busybox-static"
_LIMIT_S = 60


def busybox() -> Path | None:
    """The program; None where the machine has neither it nor Debian's package manager."""
    own = shutil.which("busybox")
    if own:
        return Path(own)
    kept = cache_dir() / "programs" / "busybox"
    if not kept.is_file() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        _fetch(kept)
    return kept if kept.is_file() else None


def applets(program: Path) -> list[str]:
    """Names under which busybox is a program of its own."""
    argv = [str(program), "--list"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    return [name for name in done.stdout.split() if name != "busybox"]


def _fetch(kept: Path) -> None:
    """Let apt-get download and verify the package, and take the program out. It may fail."""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".tmp-") as scratch:
        for argv in (["apt-get", "-q", "download", _PACKAGE], ["dpkg-deb", "-x"]):
            packages = [str(path) for path in Path(scratch).glob("*.deb")]
            files = [*packages, scratch] if argv[0] == "dpkg-deb" else []
            done = subprocess.run(
                [*argv, *files], cwd=scratch, capture_output=True, timeout=_LIMIT_S, check=False
            )
            if done.returncode:
                return
        (Path(scratch) / "bin/busybox").rename(kept)
