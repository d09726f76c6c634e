"""`labkit run`: execute labs headless and write the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.errors import ConfigError
from labkit.labs.metadata import PROVIDERS, SPEEDS, Lab, find_labs, notebooks_dir
from labkit.phases import end_on_sigterm


def run(
    labs: Annotated[
        list[str] | None, typer.Argument(help="Labs by number or name; all when none is named.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Cluster provider: embedded, kind or existing.")] = "embedded",
    speed: Annotated[
        str, typer.Option(help="class: as taught; ci: the same with shorter measurements.")
    ] = "class",
    report: Annotated[
        Path, typer.Option(help="Folder for index.html, executed labs, figures, JUnit.")
    ] = Path("reports"),
    cluster: Annotated[str, typer.Option(help="Name of the cluster the labs make and share.")] = "labs",
    keep_cluster: Annotated[
        bool, typer.Option("--keep-cluster", help="Use a cluster of that name, and leave it.")
    ] = False,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove", help="Also run each check before its step, where it must fail, and each wrong answer."
        ),
    ] = False,
    wrong_answers: Annotated[
        str,
        typer.Option(
            metavar="LABS", help="With --prove: only these labs' wrong answers are tried, such as 00,03."
        ),
    ] = "all",
    record_times: Annotated[
        bool, typer.Option("--record-times", help="Write measured times into the notebooks.")
    ] = False,
    turns: Annotated[
        Path | None,
        typer.Option(help="A file that runs side by side share: labs that measure then run alone."),
    ] = None,
    second_try: Annotated[
        bool,
        typer.Option(
            "--second-try", help="Run a lab that failed once more, alone; the report tells of both."
        ),
    ] = False,
    notebooks: Annotated[Path | None, typer.Option(help="Folder of labs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print summary.json; progress goes to stderr.")
    ] = False,
) -> None:
    """Execute labs headless on one cluster; write a report one can show.

    Exit code: 0 when no lab failed, 1 when one failed, 2 for wrong arguments.
    """
    _choice("--provider", provider, PROVIDERS)
    _choice("--speed", speed, SPEEDS)
    chosen = find_labs(notebooks_dir(notebooks), labs)
    # Execution needs papermill and nbconvert; `labkit --help` should not wait for them.
    from labkit.cluster.phases import shown
    from labkit.cluster.providers import provider_class
    from labkit.labs.report import Run, check_folder
    from labkit.labs.run import Options, run_labs
    from labkit.labs.site import ClusterSite
    from labkit.labs.times import record

    tried = _labs_named("--wrong-answers", wrong_answers, chosen)
    options = Options(
        provider, speed, report.resolve(), cluster, keep_cluster, prove, turns, second_try, tried
    )
    check_folder(options.report, chosen)
    _writable("--turns", turns)
    end_on_sigterm()
    site = ClusterSite(cluster, provider)
    if not all(lab.skip_reason(provider) for lab in chosen):
        # Minutes at the first time, which no lab's time limit is made for.
        with shown(sys.stderr if as_json else sys.stdout) as told:
            provider_class(provider).prepare(told)
            get_programs([lab for lab in chosen if not lab.skip_reason(provider)], site.maker(), told)
    done: Run = run_labs(chosen, options, site, listener(err=as_json))
    if record_times:
        for one in done.labs:
            if one.state == "passed":
                record(one, speed, provider)
    if as_json:
        typer.echo(json.dumps(done.as_dict(), indent=2))
    typer.echo(f"\n{done.headline()}\nReport: {_nice(report / 'index.html')}", err=as_json)
    raise typer.Exit(0 if done.ok else 1)


def _labs_named(option: str, value: str, chosen: Sequence[Lab]) -> frozenset[str] | None:
    """The labs in a list such as "00,03"; None for "all"."""
    if value == "all":
        return None
    named = frozenset(value.split(","))
    if unknown := sorted(named - {lab.number for lab in chosen}):
        raise ConfigError(
            f"{option} {value}: {', '.join(map(repr, unknown))} is no lab of this run.",
            f"Labs of this run: {', '.join(lab.number for lab in chosen)}; or all.",
        )
    return named


def get_programs(labs: Sequence[Lab], provider: str, told: Any) -> None:
    """What the labs run beside the cluster; on the embedded provider images are made of programs, too."""
    from labkit.acquire import programs
    from labkit.cluster.base import upstream_image
    from labkit.cluster.phases import phase

    wanted = {name for lab in labs for name in lab.programs}
    if provider == "embedded":
        made = [upstream_image(image) for lab in labs for image in lab.images]
        wanted |= {name for one in made for name in (one.program, *one.others.values())}
    if labs:
        wanted.add("dockerfile")  # it reads the Dockerfiles of the labs' own images
    if wanted:
        with phase("programs", told, ", ".join(sorted(wanted))) as step:
            programs(sorted(wanted), step.tell)
            step.tell(", ".join(sorted(wanted)))


def listener(*, err: bool) -> Any:
    """Progress as plain lines: one per cell, one per lab."""
    from labkit.labs.execute import CellDone, LabRun
    from labkit.labs.report import duration
    from labkit.labs.run import Listener

    def waits(lab: Lab) -> None:
        typer.echo(f"\n{lab.name}: waiting for its turn, another lab runs", err=err)

    def begins(lab: Lab) -> None:
        typer.echo(f"\n{lab.name}: {lab.summary}", err=err)

    def cell(done: CellDone) -> None:
        mark = " " if done.ok else "✘"
        line = done.first_line if len(done.first_line) <= 72 else done.first_line[:71] + "…"
        typer.echo(f" {mark} {done.n:>3}/{done.total}  {line:<72} {done.seconds:6.1f} s", err=err)

    def ended(one: LabRun) -> None:
        passed = sum(check.state == "passed" for check in one.checks)
        proven = sum(proof.fails for proof in one.proofs)
        checks = f", {passed} of {len(one.checks)} checks" if one.checks else ""
        proofs = f", {proven} of {len(one.proofs)} proven" if one.proofs else ""
        wrong = sum(trial.of_wrong_answer for trial in one.trials)
        tried = f", {len(one.exercises)} exercises, {wrong} wrong answers" if one.trials else ""
        took = "" if one.state == "skipped" else f" in {duration(one.seconds)}"
        typer.echo(f"{one.lab.name}: {one.state}{took}{checks}{proofs}{tried}", err=err)
        if one.reason:
            typer.echo(f"  {one.reason}", err=err)
        if one.failure:
            typer.echo(failure_text(one), err=err)

    return Listener(waits, begins, cell, ended)


def failure_text(run: Any) -> str:
    """The cell that stopped a lab: source, error, warnings of the cluster, where the notebook is."""
    failure = run.failure
    blocks = [("cell " + failure.cell_id, failure.source), ("error", failure.error)]
    if failure.traceback and failure.traceback not in failure.error:
        blocks.append(("traceback", "\n".join(failure.traceback.splitlines()[-25:])))
    if failure.events:
        blocks.append(("the cluster's warnings shortly before", "\n".join(failure.events)))
    if run.notebook:
        blocks.append(("executed notebook", _nice(run.notebook)))
    lines = []
    for name, text in blocks:
        lines.append(f"  ── {name}")
        lines += [f"     {line}" for line in text.splitlines()]
    return "\n".join(lines)


def _choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} {value}: no such choice.", f"Choose one of {', '.join(choices)}.")


def _writable(option: str, file: Path | None) -> None:
    try:
        if file is not None:
            file.open("a").close()
    except OSError as err:
        raise ConfigError(f"{option} {file} cannot be written: {err.strerror}.") from err


def _nice(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
