"""What the commands print: tables, logs, merged kubeconfigs."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import yaml
from rich.console import Console
from rich.table import Table

from labkit.cluster.components import log_file
from labkit.cluster.state import Directory, clusters_dir
from labkit.cluster.status import ClusterStatus, duration
from labkit.errors import ConfigError
from labkit.folders import home, write

_COLOURS = {"running": "green", "ok": "green", "True": "green", "warning": "yellow", "backoff": "yellow",
            "degraded": "yellow", "stopped": "yellow"}  # fmt: skip
_FOLLOW_S = 0.2


class _Finding(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def advice(self) -> str: ...


def status_table(status: ClusterStatus, console: Console | None = None) -> None:
    """Print a cluster's state: its components and nodes."""
    console = console or Console()
    if status.reason:
        console.print(
            f"\n[bold]{status.name}[/]: {_colour(status.state)}, {status.provider}", highlight=False
        )
        console.print(status.reason, markup=False, highlight=False, soft_wrap=True)
        return
    console.print(
        f"\n[bold]{status.name}[/]: {_colour(status.state)}, Kubernetes {status.version}, {status.provider}, "
        f"up {duration(status.uptime_s)}, memory {status.memory_bytes / 2**20:.0f} MiB",
        highlight=False,
    )
    if status.components:
        table = _table("component", "state", "pid", "restarts", "up", "MiB", "last exit")
        for each in status.components:
            table.add_row(
                each.name, _colour(each.state), str(each.pid or ""), str(each.restarts),
                duration(each.uptime_s), f"{each.memory_bytes / 2**20:.0f}", each.last_exit,
            )  # fmt: skip
        console.print(table)
    if status.nodes:
        table = _table("node", "Ready", "address", "CPUs", "memory", "kubelet", "")
        for node in status.nodes:
            notes = [] if node.schedulable else ["cordoned"]
            table.add_row(
                node.name, _colour(node.ready), node.address, f"{node.cpus:g}",
                f"{node.memory_bytes / 2**30:.1f} GiB",
                node.kubelet_version, ", ".join([*notes, *node.taints]),
            )  # fmt: skip
        console.print(table)
    for name, url in status.urls.items():
        console.print(f"{name:18} {url}", highlight=False, soft_wrap=True)
    if status.directory:
        console.print(f"{'in':18} {status.directory}", highlight=False, soft_wrap=True)


def findings_table(findings: Sequence[_Finding], console: Console | None = None) -> None:
    """Print what the doctor found."""
    console = console or Console()
    table = _table("", "", "found", "what to do")
    for each in findings:
        table.add_row(each.name, _colour(each.status), each.found, each.advice)
    console.print(table)


def show_logs(directory: Directory, component: str | None, *, follow: bool, tail: int) -> None:
    """Print the end of a component's log, or of all; with `follow` go on until interrupted.

    Raises:
        ConfigError: no such log; the message names those there are.
    """
    known = sorted(p.stem for p in (directory / "logs").glob("*.log"))
    if component is not None and component not in known:
        raise ConfigError(f"There is no log of {component!r}.", f"Logs: {', '.join(known) or 'none yet'}.")
    names = [component] if component else known
    width = max((len(name) for name in names), default=0)
    streams: dict[str, IO[str]] = {}
    for name in names:
        streams[name] = log_file(directory, name).open(errors="replace")
        for line in deque(streams[name], tail):
            _print_line(name, line, width if len(names) > 1 else 0)
    while follow:
        quiet = True
        for name, stream in streams.items():
            for line in stream:
                _print_line(name, line, width if len(names) > 1 else 0)
                quiet = False
        if quiet:
            time.sleep(_FOLLOW_S)


def _print_line(name: str, line: str, width: int) -> None:
    print(f"{name:{width}} | {line.rstrip()}" if width else line.rstrip(), flush=True)


def merge_kubeconfig(name: str, file: Path) -> str:
    """Add a cluster to the user's kubeconfig as context labkit-NAME; returns what was done, for people.

    Raises:
        ConfigError: the user's file is no kubeconfig.
    """
    entry = f"labkit-{name}"
    target = _users_kubeconfig(entry)
    try:
        mine: dict[str, Any] = yaml.safe_load(target.read_text()) or {} if target.exists() else {}
        added = yaml.safe_load(file.read_text())
        for section in ("clusters", "users", "contexts"):
            new = {**added[section][0], "name": entry}
            if section == "contexts":
                new["context"] = {"cluster": entry, "user": entry}
            mine[section] = [each for each in mine.get(section) or [] if each["name"] != entry] + [new]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as err:
        raise ConfigError(f"{target} is no kubeconfig that can be merged: {err}") from err
    mine = {"apiVersion": "v1", "kind": "Config", **mine}
    mine["current-context"] = mine.get("current-context") or entry
    try:
        write(target, yaml.safe_dump(mine, sort_keys=False))
    except OSError as err:
        raise ConfigError(f"{target} cannot be written: {err.strerror}.", "See KUBECONFIG.") from err
    return f"Context {entry} is in {target}. Use it: kubectl --context {entry} get nodes"


def _users_kubeconfig(entry: str) -> Path:
    """The file of KUBECONFIG's list in which kubectl would change an entry, but for those of clusters.

    That is the one that has the entry, else the first that exists, else the last one.
    """
    clusters = clusters_dir().resolve()
    listed = [Path(each).expanduser() for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    own = [each.resolve() for each in listed if clusters not in each.resolve().parents]
    files = own or [(home() / ".kube/config").resolve()]
    has = [each for each in files if each.is_file() and entry in each.read_text(errors="replace")]
    return next(iter([*has, *(each for each in files if each.exists()), files[-1]]))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _colour(word: str) -> str:
    return f"[{_COLOURS.get(word, 'red')}]{word}[/]"
