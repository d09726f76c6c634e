"""`labkit hpa …`: explain a live autoscaler, simulate one from its manifest."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The horizontal pod autoscaler, explained and simulated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="The HorizontalPodAutoscaler's name.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    kubeconfig: Annotated[Path | None, typer.Option(help="Another kubeconfig than the current one.")] = None,
    context: Annotated[str | None, typer.Option(help="A context of it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Say why an autoscaler has its replica count, and what it would take to change it."""
    from labkit.hpa.live import explain_live
    from labkit.kube import Kube

    found = explain_live(Kube(kubeconfig, context), name, namespace)
    if not as_json:
        typer.echo(found)
        return
    names = ("headline", "why", "grow", "shrink", "problems", "settings")
    typer.echo(json.dumps({each: getattr(found, each) for each in names}, indent=1))


@app.command()
def simulate(
    manifest: Annotated[Path, typer.Argument(help="YAML with a HorizontalPodAutoscaler.")],
    low: Annotated[float, typer.Option(help="Requests/s at the quietest moment.")] = 5.0,
    high: Annotated[float, typer.Option(help="Requests/s at the busiest.")] = 50.0,
    hours: Annotated[float, typer.Option(help="Length of the simulated day.")] = 24.0,
    cpu_ms: Annotated[float, typer.Option(help="CPU milliseconds per request.")] = 20.0,
    request: Annotated[int, typer.Option(help="CPU request of a pod, in millicores.")] = 250,
    startup_s: Annotated[float, typer.Option(help="Seconds until a new pod is Ready.")] = 10.0,
    trace: Annotated[Path | None, typer.Option(help="CSV with t_seconds and arrival_rps, instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random arrivals, repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Simulate a day under an autoscaler and print what it cost and missed."""
    import pandas as pd

    from labkit.hpa import Scenario, Service, from_manifest, workload
    from labkit.hpa import simulate as run
    from labkit.hpa.simulate import TOTALS

    middle, swing, length = (low + high) / 2, (high - low) / 2, hours * 3600
    load = workload.trace(pd.read_csv(trace)) if trace else workload.sine(middle, swing, length, length)
    service = Service(cpu_ms_per_request=cpu_ms, request_millicores=request, startup_s=startup_s, pending_s=0)
    scenario = Scenario(from_manifest(manifest), service)
    totals = run(scenario, load, seed).totals
    if as_json:
        typer.echo(json.dumps({"service": asdict(service), "totals": totals}))
        return
    for key, meaning in TOTALS.items():
        typer.echo(f"{totals[key]:>12,.5g}  {key:20} {meaning}")
