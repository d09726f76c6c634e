"""What the provider kind would find on this machine, for `labkit doctor`; nothing is started or pulled."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from labkit.acquire import compiled
from labkit.cluster.kind.binary import version_of
from labkit.cluster.kind.create import wanted_images
from labkit.cluster.kind.engine import Engine
from labkit.cluster.kind.preflight import check_machine, is_here, look
from labkit.cluster.kind.state import KindOptions
from labkit.errors import LabkitError, MachineError
from labkit.tools import cache_dir
from labkit.versions import versions

Line = tuple[str, str, str, str]
"""What about, ok or warning, what was found, what to do."""
_ABSENT = "Only the provider kind needs it; the embedded cluster does not."


def look_at_kind() -> list[Line]:
    """Engine, machine, program and images; where there is no engine, that alone.

    Nothing here is "missing": the embedded cluster runs without any of it.
    """
    engine = Engine()
    if not shutil.which("docker"):
        return [("Docker", "ok", f"none. {_ABSENT}", "")]
    try:
        info = engine.info()
    except LabkitError as err:
        return [("Docker", "warning", f"{err.message} {_ABSENT}", err.hint)]
    where = "on this machine" if is_here(info) else "in a virtual machine or elsewhere"
    cgroup = info.get("CgroupVersion") or "1"
    lines: list[Line] = [
        ("Docker", "ok", f"engine {info.get('ServerVersion')}, {where}, control groups v{cgroup}", "")
    ]
    try:
        check_machine(look(info), KindOptions().workers)
        lines.append(("kind: machine", "ok", "memory, disk and inotify are enough for two workers", ""))
    except MachineError as err:
        lines.append(("kind: machine", "warning", err.message, err.hint))
    lines += [_program(), _images(engine)]
    if platform.system() != "Linux" or not is_here(info):
        lines.append(
            ("kind: network", "warning", "no route to the nodes' addresses",
             "Services are reached by port-forward, LoadBalancer addresses from inside of the cluster only.")
        )  # fmt: skip
    return lines


def _program() -> Line:
    wanted = versions().kind.version
    found = shutil.which("kind")
    there = version_of(Path(found)) if found else ""
    kept = cache_dir() / "tools" / f"kind-{wanted}" / "kind"
    if there == wanted:
        return ("kind", "ok", f"{wanted}, {found}", "")
    beside = f"; {found} is {there or 'of no version'}, it is left alone" if found else ""
    own = kept if kept.is_file() else compiled("kind")
    if own:
        return ("kind", "ok", f"{wanted}, {own}{beside}", "")
    return ("kind", "ok", f"{wanted} will be downloaded or compiled when it is needed{beside}", "")


def _images(engine: Engine) -> Line:
    pinned = versions().kind.node_image
    repository, digest = pinned.partition("@")[0].rpartition(":")[0], pinned.partition("@")[2]
    try:
        wanted = wanted_images(KindOptions())
        there = engine.image(f"{repository}@{digest}") is not None
    except LabkitError as err:
        return ("kind: images", "warning", err.message, err.hint)
    name = pinned.partition("@")[0]
    if there:
        return ("kind: images", "ok", f"{name} is here", "")
    how = {
        "auto": f"{name} will be pulled; where no registry answers, one is built from package registries",
        "registry": f"{name} will be pulled",
        "airgap": "the nodes' image is built here from package registries",
    }
    return ("kind: images", "ok", how[wanted], "")
