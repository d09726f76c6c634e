"""`labkit conformance`: Kubernetes' own test suite against a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labkit.errors import ClusterError
from labkit.phases import end_on_sigterm

_FOLDER = Path("build/conformance")


def conformance(
    provider: Annotated[str, typer.Option(help="embedded, kind or existing.")] = "embedded",
    cluster: Annotated[
        str, typer.Option(help="A cluster that runs; by default one is made and removed again.")
    ] = "",
    focus: Annotated[str, typer.Option(help="Only specs whose name matches this regular expression.")] = "",
    skip: Annotated[str, typer.Option(help="Not those that match this one.")] = "",
    parallel: Annotated[int, typer.Option("--parallel", "-p", min=1, help="Specs at a time.")] = 2,
    hpa: Annotated[
        bool, typer.Option(help="Also the specs of the HorizontalPodAutoscaler, which take two hours.")
    ] = True,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    failed: Annotated[bool, typer.Option(help="Run those again that failed in the last run.")] = False,
    passing: Annotated[
        bool, typer.Option(help="Only specs that are recorded as passing; one that fails is a regression.")
    ] = False,
    slice_: Annotated[
        str, typer.Option("--slice", help="Only a part of them, chosen by this commit, of --slice-seconds.")
    ] = "",
    slice_seconds: Annotated[float, typer.Option(help="Length of a slice.")] = 180.0,
    runs: Annotated[
        int,
        typer.Option(
            min=1, help="Run them so many times on one cluster; the last counts, and its memory too."
        ),
    ] = 1,
    limit: Annotated[float, typer.Option(help="Seconds after which a spec is ended.")] = 1800.0,
    folder: Annotated[Path, typer.Option(help="Where results go.")] = _FOLDER,
    record: Annotated[bool, typer.Option(help="Record the results, and write docs/conformance.md.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Only list the specs.")] = False,
) -> None:
    """Judge a cluster by Kubernetes' own conformance tests."""
    from labkit.conformance.session import Choice, Session

    end_on_sigterm()
    session = Session(provider, cluster, folder / provider)
    choice = Choice(focus, skip, hpa, resume, failed, passing, slice_, slice_seconds, runs)
    if list_:
        for spec in session.chosen(choice):
            typer.echo(spec.text)
        return
    verdict = session.run(choice, parallel, limit, typer.echo)
    if record:
        session.record()
    if verdict:
        raise ClusterError(verdict, f"What the suite said of each is in {folder / provider / 'logs'}.")
