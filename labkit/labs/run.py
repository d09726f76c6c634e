"""A run: labs one after the other on one cluster, and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from labkit.errors import LabError, LabkitError
from labkit.labs.desk import new_desk
from labkit.labs.execute import CellDone, Failure, LabRun, execute, read_run
from labkit.labs.metadata import Lab
from labkit.labs.report import Run, machine_facts, prepare, write_report
from labkit.labs.turns import Turn, turn

_INTERRUPTED = Failure("", "", "It was interrupted.", "")


class Site(Protocol):
    """What a run needs of the cluster that the labs make: see labkit.labs.site."""

    def claim(self) -> None:
        """Reserve the cluster's name for this run, and remove what an earlier run left under it."""

    def gap(self, lab: Lab) -> str:
        """What the cluster lacks that a lab needs, in one sentence, or "".

        Raises:
            LabkitError: the cluster should be there, and is not.
        """

    def warnings(self) -> list[str]:
        """Recent warning events, oldest first, one line each; [] when there is no cluster."""

    def facts(self) -> dict[str, str]:
        """Versions and size of the cluster; {} when there is none."""

    def remove(self) -> None:
        """Take the cluster down, if it is there."""

    def release(self) -> None:
        """Give the name free."""


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        cluster_name: the cluster which the labs create, resume and share.
        keep_cluster: use what is there under that name, and leave it.
        proving: run each check before its step too, where it must fail.
        wrong_answers: numbers of the labs whose wrong answers are tried when proving; None for all.
        turns: a file that runs side by side share, so that labs which measure run alone.
        second_try: run a lab that failed once more, on a new cluster and alone; the report tells of both.
    """

    provider: str
    speed: str
    report: Path
    cluster_name: str
    keep_cluster: bool = False
    proving: bool = False
    turns: Path | None = None
    second_try: bool = False
    wrong_answers: frozenset[str] | None = None


@dataclass(frozen=True)
class Listener:
    """Called with what happens; for the terminal."""

    lab_waits: Callable[[Lab], None] = lambda _: None
    lab_begins: Callable[[Lab], None] = lambda _: None
    cell_done: Callable[[CellDone], None] = lambda _: None
    lab_ended: Callable[[LabRun], None] = lambda _: None


def run_labs(labs: list[Lab], options: Options, site: Site, listener: Listener | None = None) -> Run:
    """Run labs in their order and write the report, also when interrupted.

    A lab is skipped when it cannot run on the provider or on this cluster, or when a lab it needs failed.

    Raises:
        ConfigError: another run uses the cluster, or the report's folder holds files of somebody else.
        LabkitError: the cluster of an earlier run cannot be removed, or an existing one not be reached.
        OSError: the report's folder cannot be written.
    """
    listener = listener or Listener()
    started = time.monotonic()
    run = Run(options.provider, options.speed, datetime.now().astimezone())
    with _reserved(site, options):
        prepare(options.report, labs)
        new_desk(_desk(options), labs[0].path.parent)
        try:
            for lab in labs:
                _next(lab, run, options, site, listener)
            run.facts = _facts(site)
        except BaseException as error:
            run.trouble = _words(error)
            raise
        finally:
            _end(labs, run, options, site, started)
    return run


def _next(lab: Lab, run: Run, options: Options, site: Site, listener: Listener) -> None:
    """Run a lab, or note why not; what came of it is in the run even when this is interrupted."""
    reason = skip_reason(lab, options.provider, run.labs, site)
    if reason:
        run.labs.append(LabRun(lab, "skipped", reason=reason))
    else:
        run.labs.append(LabRun(lab, "failed", reason=_INTERRUPTED.error, failure=_INTERRUPTED))
        try:
            run.labs[-1] = _in_turn(lab, False, options, site, listener)
            if run.labs[-1].state == "failed" and options.second_try:
                run.labs[-1] = _again(run.labs[-1], options, site, listener)
        except BaseException:
            with suppress(LabError, OSError):
                run.labs[-1] = read_run(lab, _target(lab, options), _INTERRUPTED)
            raise
    listener.lab_ended(run.labs[-1])
    if run.labs[-1].state == "failed" and not options.keep_cluster:
        site.remove()


def _end(labs: list[Lab], run: Run, options: Options, site: Site, started: float) -> None:
    """Tidy up, and write the report whatever comes of that."""
    late = f"The run ended before its turn. {run.trouble}".strip()
    run.labs += [LabRun(lab, "skipped", reason=late) for lab in labs[len(run.labs) :]]
    try:
        if not options.keep_cluster:
            site.remove()
    except BaseException as error:
        run.trouble = run.trouble or f"The cluster could not be removed: {_words(error)}"
        raise
    finally:
        run.seconds = time.monotonic() - started
        run.facts = {**run.facts, **machine_facts()}
        write_report(run, options.report)


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "The run was interrupted."
    return error.message if isinstance(error, LabkitError) else f"{type(error).__name__}: {error}"


def skip_reason(lab: Lab, provider: str, before: list[LabRun], site: Site) -> str:
    """Why a lab is not run, or ""."""
    missing = [run.lab.number for run in before if run.lab.number in lab.needs and run.state != "passed"]
    if missing:
        return f"It needs lab {', '.join(missing)}, which did not pass."
    return lab.skip_reason(provider) or site.gap(lab)


def _in_turn(lab: Lab, alone: bool, options: Options, site: Site, listener: Listener) -> LabRun:
    """Run a lab: alone from its first cell on, or from where it measures."""
    with turn(options.turns, alone, partial(listener.lab_waits, lab)) as mine:
        listener.lab_begins(lab)
        return _run_one(lab, options, site, listener, Turn() if alone else mine)


def _again(first: LabRun, options: Options, site: Site, listener: Listener) -> LabRun:
    """The second try of a lab; what it met at the first one stays in its reason."""
    listener.lab_ended(first)
    if not options.keep_cluster:
        site.remove()
    second = _in_turn(first.lab, True, options, site, listener)
    second.reason = f"{second.reason} Second try; the first one failed: {first.reason}".strip()
    return second


def _run_one(lab: Lab, options: Options, site: Site, listener: Listener, mine: Turn) -> LabRun:
    parameters = {
        "provider": options.provider,
        "speed": options.speed,
        "cluster_name": options.cluster_name,
    }
    done = execute(
        lab,
        _target(lab, options),
        parameters,
        proving=options.proving,
        wrong_answers=options.wrong_answers is None or lab.number in options.wrong_answers,
        on_cell=listener.cell_done,
        alone=mine.take,
        desk=_desk(options) / lab.path.parent.name,
    )
    if done.failure:
        with suppress(LabkitError, OSError):
            done.failure = replace(done.failure, events=tuple(site.warnings()))
    return done


def _target(lab: Lab, options: Options) -> Path:
    return options.report / "labs" / f"{lab.name}.ipynb"


def _desk(options: Options) -> Path:
    return options.report / "desk"


def _facts(site: Site) -> dict[str, str]:
    with suppress(LabkitError, OSError):
        return site.facts()
    return {}


@contextmanager
def _reserved(site: Site, options: Options) -> Iterator[None]:
    site.claim()
    try:
        if not options.keep_cluster:
            site.remove()
        yield
    finally:
        site.release()
