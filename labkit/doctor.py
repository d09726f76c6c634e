"""What this machine has and what is missing for labkit, each with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import acquire
from labkit.cluster.kind.checkup import look_at_kind
from labkit.cluster.preflight import free_slots, probe
from labkit.cluster.state import Directory, cluster_names, clusters_dir
from labkit.errors import LabkitError
from labkit.images import default_root
from labkit.tools import cache_dir, find_go, kubectl
from labkit.versions import version_tuple, versions

GIB = 1 << 30
_MEMORY = 2 * GIB
_INOTIFY_INSTANCES, _INOTIFY_WATCHES = 64, 8192
_FILES = 4096


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at.

    Attributes:
        name: what it is about.
        status: ok, warning (something will be missing or slow), missing (the embedded cluster cannot run).
        found: what is there.
        advice: what to do, "" where nothing is to be done.
    """

    name: str
    status: str
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything; needs no cluster and changes nothing."""
    looks: list[Callable[[], Finding | list[Finding]]] = [
        _python, _system, _binaries, _sandbox, _kubectl, _go, _memory, _disk, _inotify, _files,
        _slots, _clusters, _kind,
    ]  # fmt: skip
    findings: list[Finding] = []
    for look in looks:
        try:
            seen = look()
        except (LabkitError, OSError, ValueError, KeyError) as err:
            hint = err.hint if isinstance(err, LabkitError) else ""
            said = err.message if isinstance(err, LabkitError) else str(err)
            seen = Finding(look.__name__.strip("_"), "missing", said, hint)
        findings += seen if isinstance(seen, list) else [seen]
    return findings


def _python() -> Finding:
    found = f"{platform.python_version()} in {sys.prefix}"
    return Finding("Python", "ok", found)


def _system() -> Finding:
    found = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        return Finding("System", "missing", found, "The embedded cluster needs Linux on x86-64 or arm64.")
    if version_tuple(platform.release()) < (5, 9):
        return Finding("System", "missing", found, "Pods' addresses need Linux 5.9 or newer.")
    if (os.cpu_count() or 1) < 2:
        return Finding("System", "warning", found, "With one CPU everything is slow; two are recommended.")
    return Finding("System", "ok", found)


def _binaries() -> Finding:
    found = acquire.cached()
    if found:
        return Finding("Cluster programs", "ok", f"{found.origin}, in {found.directory}")
    return Finding(
        "Cluster programs",
        "warning",
        "not in the cache",
        "`labkit build` gets them now, else the first `labkit up`.",
    )


def _sandbox() -> list[Finding]:
    """What `shim probe` finds by trying; without the programs, what the kernel's settings say."""
    found = acquire.cached()
    facts = probe(found) if found else _kernel_settings()
    reasons: dict[str, str] = facts.get("reasons") or {}
    sockets = Finding(
        "Pod addresses", "ok", "seccomp user notification and pidfd_getfd work" if found else "likely"
    )
    if not facts["sockets"]:
        advice = (
            "In Docker: --security-opt seccomp=unconfined. In other sandboxes: allow seccomp and pidfd_getfd."
        )
        sockets = Finding("Pod addresses", "missing", reasons.get("sockets", "refused"), advice)
    mounts = Finding(
        "Pod mounts", "ok", "user namespaces work: volumes are at their real paths" if found else "likely"
    )
    if not facts["user_namespaces"]:
        advice = "Volumes are linked instead. To allow user namespaces: sysctl user.max_user_namespaces, "
        advice += "kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns."
        mounts = Finding("Pod mounts", "warning", reasons.get("user_namespaces", "refused"), advice)
    return [sockets, mounts]


def _kernel_settings() -> dict[str, Any]:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    forbidden = os.getuid() != 0 and (
        _read("/proc/sys/kernel/unprivileged_userns_clone") == "0"
        or _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    )
    namespaces = _read("/proc/sys/user/max_user_namespaces") != "0" and not forbidden
    notify = "user_notif" in actions
    reasons = {} if notify else {"sockets": "the kernel has no seccomp user notification"}
    if not namespaces:
        reasons["user_namespaces"] = "the kernel's settings forbid user namespaces"
    return {"sockets": notify, "user_namespaces": namespaces, "reasons": reasons}


def _kubectl() -> Finding:
    return Finding("kubectl", "ok", str(kubectl()))


def _go() -> Finding:
    found = find_go()
    if found:
        return Finding("Go", "ok", f"{found[1]}, {found[0]}")
    if acquire.cached():
        return Finding("Go", "ok", "none, and none is needed: the cluster's programs are there")
    wanted = f"{versions().go_package} {versions().go_package_version}"
    return Finding("Go", "ok", f"none; {wanted} will be taken from PyPI when it is needed")


def _memory() -> Finding:
    facts = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines())
    available = int(facts["MemAvailable"].split()[0]) * 1024
    limit = _cgroup_limit()
    usable = min(available, limit) if limit else available
    found = f"{usable / GIB:.1f} GiB available" + (
        " (limit of this container)" if usable != available else ""
    )
    if usable >= _MEMORY:
        return Finding("Memory", "ok", found)
    return Finding("Memory", "warning", found, "A cluster with two workers needs 1 GiB, compiling it 2 GiB.")


def _cgroup_limit() -> int:
    """Bytes this container may use, 0 for no limit."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(file)
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return 0


def _disk() -> list[Finding]:
    compiled = acquire.cached() is not None
    needs = [(cache_dir(), 0.0 if compiled else 5.0), (clusters_dir(), 0.5), (default_root(), 0.5)]
    findings = []
    for path, needed in needs:
        existing = next(p for p in [path, *path.parents] if p.exists())
        free = shutil.disk_usage(existing).free / 1e9
        name = f"Disk of {path.name if path.name != 'labkit' else 'cache'}"
        if not os.access(existing, os.W_OK):
            advice = "Let XDG_CACHE_HOME, XDG_STATE_HOME and XDG_DATA_HOME name folders of yours."
            findings.append(Finding(name, "missing", f"{existing} is not writable", advice))
        elif free < needed:
            findings.append(Finding(name, "warning", f"{free:.1f} GB free", f"{needed:.1f} GB are needed."))
        else:
            findings.append(Finding(name, "ok", f"{free:.1f} GB free"))
    return findings


def _inotify() -> Finding:
    instances = int(_read("/proc/sys/fs/inotify/max_user_instances") or 0)
    watches = int(_read("/proc/sys/fs/inotify/max_user_watches") or 0)
    found = f"{instances} instances, {watches} watches"
    if instances >= _INOTIFY_INSTANCES and watches >= _INOTIFY_WATCHES:
        return Finding("inotify", "ok", found)
    return Finding(
        "inotify", "warning", found, "With many workers: sysctl fs.inotify.max_user_instances=512 (as root)."
    )


def _files() -> Finding:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _FILES:
        return Finding("Open files", "ok", f"{hard} per process")
    return Finding(
        "Open files", "warning", f"{hard} per process", f"Raise the limit to {_FILES}: ulimit -Hn."
    )


def _slots() -> Finding:
    free = free_slots()
    if free:
        return Finding("Slots", "ok", f"{len(free)} clusters more can run on this machine")
    return Finding(
        "Slots", "missing", "all are held by running clusters", "`labkit status`, `labkit down NAME`."
    )


def _clusters() -> list[Finding]:
    """How the pods of each embedded cluster run, as `labkit up` found out and wrote down."""
    findings = []
    for name in cluster_names():
        try:
            state = Directory(name).load()
        except LabkitError:
            continue  # `labkit status` tells
        if state and state.sandbox:
            mounts = "mounts of their own" if state.sandbox.get("user_namespaces") else "linked volumes"
            findings.append(Finding(f"Pods of {name}", "ok", f"socket filter, {mounts}"))
    return findings


def _kind() -> list[Finding]:
    return [Finding(*line) for line in look_at_kind()]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
