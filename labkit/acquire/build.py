"""Compile the binaries with Go, and tell honestly how far it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from labkit.acquire.sources import FLAGS, PROGRAMS, link_flags
from labkit.children import Lines, running
from labkit.errors import AcquireError, MachineError
from labkit.tools import cache_dir

Progress = Callable[[str, float | None], None]
"""Called with what happens and the fraction done (0 … 1), None where it cannot be told."""

LIMIT_S = 3600
_S_PER_BYTE, _S_PER_DEPENDENCY, _LINK_S = 1.92e-6, 5.9e-4, 12.0
"""CPU seconds that compiling and linking take, fitted to a cold build of 2,797 packages (703 s in all).

The share done is then known to 6 % at any moment; by bytes of source alone it would be off by 30 %.
"""
_PRIOR_S = 20.0
"""The number of processors counts as much as a speed measured over so many CPU seconds."""

_KEPT = (
    *("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE", "GOAUTH"),
    *("GOCACHE", "GOMODCACHE"),
)
"""Settings of the user that decide where things are, not what comes out."""
_OWN = tuple(f"./cmd/{name}" for name in PROGRAMS)


@dataclass(frozen=True)
class Plan:
    """What is left to compile.

    Attributes:
        weights: import path → expected CPU seconds, of each package that is not in Go's build cache.
        packages: number of all packages.
    """

    weights: dict[str, float]
    packages: int

    @property
    def total(self) -> float:
        """All the work in CPU seconds, linking included."""
        return sum(self.weights.values()) + _LINK_S


def environment(go: Path) -> dict[str, str]:
    """The environment for Go, in which the user's settings cannot change what is built."""
    user = {**os.environ, "GOTOOLCHAIN": "local"}
    argv = [str(go), "env", "-json", *_KEPT]
    asked = subprocess.run(argv, capture_output=True, text=True, env=user, timeout=30, check=False)
    kept = json.loads(asked.stdout) if asked.returncode == 0 else {}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_"))}
    own = {"GOCACHE": cache_dir() / "go-build", "GOMODCACHE": cache_dir() / "go-mod"}
    for name, fallback in own.items():
        kept[name] = kept.get(name) or str(fallback)
    fixed = {"GOENV": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
    return {**clean, **{name: value for name, value in kept.items() if value}, **fixed}


def build(
    go: Path,
    source: Path,
    out: Path,
    progress: Progress,
    mains: Sequence[str] = _OWN,
    ldflags: str | None = None,
    test: bool = False,
) -> None:
    """Compile main packages into a directory that exists; by default the embedded cluster's two.

    Args:
        source: the folder with go.mod.
        mains: import paths, or paths below `source`; a program has the last part of it as its name.
        ldflags: for the linker; by default those that say the version of Kubernetes.
        test: compile the packages' tests instead, each to a program NAME.test.

    Raises:
        AcquireError: Go refused; the message has its last words.
        MachineError: the disk is full or memory ran out.
    """
    env = environment(go)
    progress("looking what there is to compile", None)
    plan = _plan(go, source, env, progress, [*(["-test"] if test else []), *mains])
    _check_space(plan, Path(env["GOCACHE"]), out)
    flags = link_flags() if ldflags is None else ldflags
    verb = ["test", "-c"] if test else ["build"]
    argv = [str(go), *verb, "-v", *FLAGS, "-ldflags", flags, "-o", f"{out}/", *mains]
    meter = Meter(plan)
    tail: deque[str] = deque(maxlen=30)
    with _running(argv, source, env) as lines:
        for line in lines:
            if line is not None:
                meter.started(line)
                tail.append(line)
            progress(meter.text(), meter.fraction())
    failed = _failed(lines)
    if failed:
        raise _explain([t for t in tail if t not in plan.weights] or list(tail), failed, out)


class Meter:
    """How much of the plan is done, and how long the rest takes at the speed so far.

    Go names a package when it begins to compile it. At first the number of processors tells the speed.
    """

    def __init__(
        self, plan: Plan, clock: Callable[[], float] = time.monotonic, processors: int | None = None
    ) -> None:
        self._plan, self._clock = plan, clock
        self._processors = processors or len(os.sched_getaffinity(0))
        self._begin = clock()
        self._count, self._done, self._last = 0, 0.0, 0.0

    def started(self, package: str) -> None:
        """Go said that it begins with a package; what it began before is counted as done."""
        weight = self._plan.weights.get(package)
        if weight is not None:
            self._count += 1
            self._done += self._last
            self._last = weight

    def fraction(self) -> float:
        """0 … 1 of the work."""
        return self._done / self._plan.total

    def left_s(self) -> float:
        """Seconds left, by the speed so far."""
        took = self._clock() - self._begin
        speed = (self._done + _PRIOR_S) / (took + _PRIOR_S / self._processors)
        return (self._plan.total - self._done) / speed

    def text(self) -> str:
        """Such as "1204 of 2799 packages, 2 min 5 s, about 3 min left"."""
        planned = len(self._plan.weights)
        what = "linking" if self._count >= planned else f"{self._count} of {planned} packages"
        return f"{what}, {span(self._clock() - self._begin)}, about {roughly(self.left_s())} left"


def span(seconds: float) -> str:
    """ "40 s" or "6 min 30 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def roughly(seconds: float) -> str:
    """A duration as exactly as an estimate deserves: "20 s", "3 min"."""
    return f"{max(10, round(seconds, -1)):.0f} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _plan(go: Path, source: Path, env: dict[str, str], progress: Progress, mains: Sequence[str]) -> Plan:
    """Ask Go which packages it must compile. Downloads the modules, where they are not there yet."""
    form = "{{.Stale}}\t{{.ImportPath}}\t{{.Dir}}\t{{len .Deps}}\t{{range .GoFiles}}{{.}} {{end}}"
    argv = [str(go), "list", "-deps", *FLAGS, "-f", form, *mains]
    weights, packages, modules = {}, 0, 0
    errors: deque[str] = deque(maxlen=30)
    with _running(argv, source, env) as lines:
        for line in lines:
            if line is None:
                continue
            if line.startswith("go: downloading "):
                modules += 1
                progress(f"downloading Go modules, {modules} so far", None)
            elif line.count("\t") == 4:
                stale, package, folder, depends, files = line.split("\t")
                packages += 1
                if stale == "true":
                    size = _size(Path(folder), files.split())
                    weights[package] = size * _S_PER_BYTE + int(depends) * _S_PER_DEPENDENCY
            else:
                errors.append(line)
    failed = _failed(lines)
    if failed:
        raise _explain(list(errors), failed, Path(env["GOMODCACHE"]))
    return Plan(weights, packages)


def _size(folder: Path, files: list[str]) -> int:
    total = 0
    for name in files:
        with contextlib.suppress(OSError):
            total += (folder / name).stat().st_size
    return total


def _running(argv: list[str], cwd: Path, env: dict[str, str]) -> AbstractContextManager[Lines]:
    return running(
        argv, LIMIT_S, lambda: AcquireError(f"Go has not finished in {span(LIMIT_S)}; it was ended."),
        cwd=cwd, env=env,
    )  # fmt: skip


def _failed(lines: Lines) -> str:
    """How Go ended, "" when well."""
    code = lines.code()
    return "" if code == 0 else f"exit code {code}" if code > 0 else signal.Signals(-code).name


def _check_space(plan: Plan, gocache: Path, out: Path) -> None:
    """Refuse at once what cannot fit: a full build leaves 4 GB in Go's cache."""
    share = len(plan.weights) / max(1, plan.packages)
    needs: dict[int, tuple[Path, float]] = {}
    for path, amount in ((gocache, 3.0e9 * share), (out, 0.2e9)):
        existing = next(p for p in [path, *path.parents] if p.exists())
        device = existing.stat().st_dev
        needs[device] = (existing, amount + needs.get(device, (existing, 0.0))[1])
    for path, needed in needs.values():
        free = shutil.disk_usage(path).free
        if free < needed:
            raise MachineError(
                f"Building needs {needed / 1e9:.1f} GB on the disk of {path}; {free / 1e9:.1f} GB are free.",
                "Free some space, or let GOCACHE and XDG_CACHE_HOME name folders on a larger disk.",
            )


def _explain(said: list[str], failed: str, where: Path) -> AcquireError | MachineError:
    text = "\n".join(said).strip()
    if "no space left on device" in text or "disk quota exceeded" in text:
        return MachineError(
            f"The disk is full: {next(t for t in said if 'space left' in t or 'quota' in t)}",
            f"Free some space (for {where} and Go's cache), then repeat: compiled packages are kept.",
        )
    if "signal: killed" in text or "cannot allocate memory" in text or failed == "SIGKILL":
        return MachineError(
            f"Go was killed, most likely because memory ran out: {text[-500:]}",
            "Close other programs (linking needs about 2 GB), then repeat: what was compiled is kept.",
        )
    hint = "Go gets the modules through GOPROXY: is there a network?" if "dial tcp" in text else ""
    return AcquireError(f"Go ended with {failed}: {text[-2000:]}", hint)
