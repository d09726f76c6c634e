"""The Go sources of the embedded cluster, and the key under which what they give is cached."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from labkit.errors import AcquireError, MachineError
from labkit.versions import versions

FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
"""Flags that decide which compiled packages of Go's build cache can be used again."""

PROGRAMS = ("kube", "shim")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def sources() -> Path:
    """The folder with go.mod: $LABKIT_EMBEDDED, else the checkout's, else the installed package's.

    Raises:
        AcquireError: it is nowhere.
    """
    package = Path(__file__).resolve().parents[1]
    given = os.environ.get("LABKIT_EMBEDDED")
    places = [Path(given)] if given else [package.parent / "embedded", package / "_embedded"]
    for place in places:
        if (place / "go.mod").is_file():
            return place
    raise AcquireError(
        f"The sources of the embedded cluster are not in {' or '.join(map(str, places))}.",
        "Install labkit from its repository or from a wheel that has them.",
    )


def target() -> str:
    """What the binaries are for, such as "linux-amd64".

    Raises:
        MachineError: the embedded cluster does not run on such a machine.
    """
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in _ARCHITECTURES:
        raise MachineError(
            f"The embedded cluster runs on Linux on x86-64 or arm64; this is {system} on {machine}.",
            "Use a Linux machine, a JupyterHub or Binder, or the provider kind.",
        )
    return f"linux-{_ARCHITECTURES[machine]}"


def link_flags() -> str:
    """Linker flags: stripped, with the version that `kubectl version` shows."""
    version = versions().kubernetes
    major, minor, *_ = version.split(".")
    values = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "labkit",
        "gitTreeState": "clean",
    }
    settings = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items()]
    return " ".join(["-s", "-w", *settings])


def source_key(folder: Path | None = None) -> str:
    """Digest of everything the binaries are made of: sources, flags and platform; 16 hexadecimal digits.

    Tests, notes and the modules inside it, which are of other programs, do not count.
    """
    root = folder or sources()
    digest = hashlib.sha256(repr((FLAGS, link_flags(), PROGRAMS, target())).encode())
    inner = {path.parent for path in root.glob("*/go.mod")}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        skipped = path.name.endswith(("_test.go", ".md")) or any(
            part.startswith(".") or part == "testdata" for part in name.parts
        )
        if skipped or not path.is_file() or inner & set(path.parents):
            continue
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]
