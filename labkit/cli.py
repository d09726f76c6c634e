"""The command `labkit`."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import stat
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from labkit import course_cli
from labkit.errors import ConfigError, LabkitError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"labkit {version('labkit')}")
        raise typer.Exit


@app.callback()
def about(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Kubernetes labs as notebooks, on a real cluster that needs neither Docker nor root."""


Name = Annotated[str, typer.Argument(help="The cluster's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def up(
    name: Name = "lab",
    provider: Annotated[str | None, typer.Option(help="embedded, kind or existing.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of workers.  [new clusters: 2]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs of each worker.  [2]")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each worker.  [4Gi]")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=NUMBER, e.g. node_monitor_grace_s=16.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="kind: registry (official), airgap (built here), or auto.  [auto]")
    ] = None,
    context: Annotated[str | None, typer.Option(help="existing: context of your kubeconfig.")] = None,
) -> None:
    """Create a cluster, or bring one back after a reboot."""
    from labkit.cluster import up as cluster_up

    named = {"workers": workers, "cpus": cpus, "memory": memory, "images": images, "context": context}
    given: dict[str, Any] = {**named, **_numbers(option or [])}
    options = {key: value for key, value in given.items() if value is not None}
    cluster = cluster_up(name, provider, **options)
    kubeconfig = shlex.quote(str(cluster.kubeconfig))
    typer.echo(f"\nCluster {name!r} is up. For a shell in which kubectl, curl and names work as in a pod:\n")
    typer.echo(f"  labkit shell {name}\n\nFor kubectl alone:\n\n  export KUBECONFIG={kubeconfig}")


@app.command()
def down(
    name: Annotated[str | None, typer.Argument(help="The cluster's name.  [lab]")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All clusters of yours.")] = False,
) -> None:
    """End a cluster and remove everything that belongs to it."""
    from labkit.cluster.providers import take_down
    from labkit.cluster.state import cluster_names

    if name and all_:
        raise ConfigError("Either a name or --all.")
    if not all_:
        take_down(name or "lab")
        typer.echo(f"Cluster {name or 'lab'!r} is gone.")
        return
    left = 0
    for each in cluster_names():
        try:
            take_down(each)
            typer.echo(f"Cluster {each!r} is gone.")
        except (LabkitError, OSError) as err:
            left += 1
            typer.echo(f"labkit: cluster {each!r} is not gone. {err}", err=True)
    _tell_strangers()
    if left:
        raise typer.Exit(1)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="One cluster only.")] = None, as_json: Json = False
) -> None:
    """Show clusters: components, nodes, restarts, memory, addresses."""
    from labkit.cluster.providers import status_of
    from labkit.cluster.show import status_table
    from labkit.cluster.state import cluster_names

    found = [status_of(each) for each in ([name] if name else cluster_names())]
    if not name:
        _tell_strangers()
    if as_json:
        typer.echo(
            json.dumps([{**asdict(each), "memory_bytes": each.memory_bytes} for each in found], default=str)
        )
        return
    if not found:
        typer.echo("There is no cluster. `labkit up` makes one.")
    for each in found:
        status_table(each)


@app.command()
def logs(
    component: Annotated[str | None, typer.Argument(help="Such as kube-apiserver or node-worker-1.")] = None,
    name: Annotated[str, typer.Option("--cluster", "-c", help="The cluster's name.")] = "lab",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    tail: Annotated[int, typer.Option(help="So many lines from the end.")] = 40,
) -> None:
    """Show a component's log, or the end of all."""
    from labkit.cluster.providers import open_cluster

    open_cluster(name).show_logs(component, follow=follow, tail=tail)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has, what is missing, and what to do about it."""
    from labkit.cluster.show import findings_table
    from labkit.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings]))
    else:
        findings_table(findings)
    raise typer.Exit(1 if any(each.status == "missing" for each in findings) else 0)


@app.command()
def kubeconfig(
    name: Name = "lab",
    path: Annotated[
        bool, typer.Option("--path", help="Print the file's path instead of its content.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add it to your kubeconfig, as context labkit-NAME.")
    ] = False,
) -> None:
    """Print the kubeconfig of a cluster, or merge it into your own."""
    from labkit.cluster.providers import open_cluster
    from labkit.cluster.show import merge_kubeconfig

    file = open_cluster(name).kubeconfig
    if merge:
        typer.echo(merge_kubeconfig(name, file))
    else:
        typer.echo(file if path else file.read_text(), nl=path)


@app.command(context_settings={"ignore_unknown_options": True})
def shell(
    name: Name = "lab",
    command: Annotated[str | None, typer.Option("-c", help="Run this command instead of a shell.")] = None,
) -> None:
    """Open a shell that sees the cluster as a pod does: its DNS, Services and pod addresses."""
    from labkit.cluster.providers import open_cluster

    argv, env = open_cluster(name).shell(command)
    os.execve(argv[0], argv, env)


@app.command()
def build(
    pack: Annotated[Path | None, typer.Option(help="Also write the archive for a release URL there.")] = None,
    labs: Annotated[bool, typer.Option("--labs", help="Also what the labs run beside the cluster.")] = False,
) -> None:
    """Get the embedded cluster's programs: from the cache, a release, or a build by Go."""
    from labkit import acquire
    from labkit.cluster.bring_up import get_binaries
    from labkit.cluster.phases import shown
    from labkit.labs.metadata import find_labs, notebooks_dir
    from labkit.labs_cli import get_programs

    with shown() as listener:
        found = get_binaries(listener)
        if labs:
            get_programs(find_labs(notebooks_dir()), "embedded", listener)
    if pack:
        typer.echo(acquire.pack(found, pack))


_FORWARD = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command(add_help_option=False, context_settings=_FORWARD)
def run(ctx: typer.Context) -> None:
    """Execute labs headless and write a report."""
    from labkit.labs_cli import run as command

    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(command)
    single(ctx.args, prog_name="labkit run")


@app.command(add_help_option=False, context_settings=_FORWARD)
def image(ctx: typer.Context) -> None:
    """Images of the embedded cluster, built from Dockerfiles without Docker."""
    from labkit.image_cli import app as commands

    commands(ctx.args, prog_name="labkit image")


@app.command(add_help_option=False, context_settings=_FORWARD)
def airgap(ctx: typer.Context) -> None:
    """Images for kind where no container registry can be reached."""
    from labkit.airgap_cli import app as commands

    commands(ctx.args, prog_name="labkit airgap")


@app.command(add_help_option=False, context_settings=_FORWARD)
def hpa(ctx: typer.Context) -> None:
    """The horizontal pod autoscaler: explain a live one, simulate one from its manifest."""
    from labkit.hpa.cli import app as commands

    commands(ctx.args, prog_name="labkit hpa")


@app.command(add_help_option=False, context_settings=_FORWARD)
def conformance(ctx: typer.Context) -> None:
    """Judge a cluster by Kubernetes' own conformance tests."""
    from labkit.conformance_cli import conformance as command

    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(command)
    single(ctx.args, prog_name="labkit conformance")


for each in (
    course_cli.course,
    course_cli.start,
    course_cli.progress,
    course_cli.check,
    course_cli.hint,
    course_cli.solution,
    course_cli.slides,
):
    app.command()(each)


def _numbers(pairs: list[str]) -> dict[str, int]:
    options = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not re.fullmatch("[0-9]{1,9}", value):
            raise ConfigError(f"--option {pair!r} is not NAME=NUMBER.")
        options[name] = int(value)
    return options


def _tell_strangers() -> None:
    from labkit.cluster.state import strangers

    for folder in strangers():
        typer.echo(f"{folder} is not a labkit cluster; it is left alone.", err=True)


_RECEIVED: dict[str, int] = {}


def _interrupt(number: int, _: FrameType | None) -> None:
    _RECEIVED["signal"] = number
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; a labkit error is a message and exit code 1 (2 for a wrong argument).

    So is a file that cannot be read or written: the system's words say which.

    Terminated or hung up, it cleans up as when it is interrupted from the keyboard.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    os.umask(os.umask(0o077) | stat.S_IWOTH)  # no file of ours is for all to change
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except LabkitError as err:
        typer.echo(f"labkit: {err}", err=True)
        sys.exit(2 if isinstance(err, ConfigError) else 1)
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGINT:  # typer says so of every interruption
            typer.echo("labkit: interrupted", err=True)
            sys.exit(128 + _RECEIVED.get("signal", signal.SIGINT))
        raise
    except BrokenPipeError:
        _drop_output()
        sys.exit(141)
    except OSError as err:
        _drop_output()
        what = f"{err.filename}: " if err.filename is not None else ""
        tip = "\n→ Free some space." if err.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        typer.echo(f"labkit: {what}{err.strerror or err or type(err).__name__}{tip}", err=True)
        sys.exit(1)


def _drop_output() -> None:
    """Let what is still unwritten go nowhere, or Python would complain about it when it ends."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
