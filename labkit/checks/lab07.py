"""Checks of lab 07: Cloudflare Tunnel."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from labkit.addons.tunnel import Tunnel, listening
from labkit.addons.tunnel.tunnel import NAMESPACE
from labkit.checks.core import Finding, expect
from labkit.checks.registry import define
from labkit.errors import LabkitError
from labkit.kube import dig
from labkit.labs.visit import VisitError, get
from labkit.load import Running

ROUTES = (
    ("https://shop.example.com/", 200),
    ("https://api.example.com/products", 200),
    ("https://any.example.com/status", 204),
    ("https://elsewhere.example.org/", 404),
)


@define("07-reached", "The shop is reached through the tunnel, and through nothing else", deadline_s=60)
def reached(tunnel: Tunnel) -> Iterator[Finding]:
    """Connectors are registered, hostnames lead where rules say, no port is open, no secret is shown."""
    status = tunnel.status()
    parts = "; ".join(f"{part}: {state}" for part, state in status.parts.items())
    yield expect(status.state == "ready", "the connectors are registered", f"it is {status.state}. {parts}")
    for url, wanted in ROUTES:
        yield _answers(tunnel, url, wanted)
    sockets = listening(tunnel.cluster)
    open_ones = sockets.loc[sockets["others_reach_it"], "port"].tolist()
    yield expect(
        not open_ones, "no port of the cluster can be reached by another machine", f"open: {open_ones}"
    )
    services = tunnel.cluster.kube.list("Service", namespace=NAMESPACE)
    names = ", ".join(dig(service, "metadata.name") for service in services)
    yield expect(not services, "no Service leads to the connectors", f"there is {names}")
    yield _secret_kept(tunnel)


@define("07-came-back", "The edge was away, and the tunnel came back by itself", deadline_s=5)
def came_back(traffic: Running) -> Iterator[Finding]:
    """The load has ended; requests failed in its middle; at its end none did."""
    yield expect(traffic.done, "the load has ended", "it is still being sent")
    if not traffic.done:
        return
    result = traffic.result()
    requests, span = result.requests, max(1.0, result.profile.duration_s)
    first = requests[requests["t_scheduled_s"] < 0.1 * span]
    last = requests[requests["t_scheduled_s"] > 0.85 * span]
    yield expect(_all_answered(first), "at first all requests were answered", _failed(first))
    yield expect(bool(requests["failed"].any()), "while the edge was away requests failed", "none failed")
    yield expect(_all_answered(last), "at the end all are answered again", _failed(last))


@define("07-refused", "A wrong secret is refused, and the tunnel works on", deadline_s=45)
def refused(tunnel: Tunnel) -> Iterator[Finding]:
    """A connector with a wrong secret was refused by the edge; the others still serve."""
    events = tunnel.events()
    no = int((events["event"] == "refused").sum())
    yield expect(no > 0, "a connector was refused", "no connector's log tells of a refusal")
    turned_away = tunnel.edge is not None and any("refused" in event for event in tunnel.edge.events)
    yield expect(turned_away, "the edge has turned it away", "the edge has refused nobody")
    yield _answers(tunnel, *ROUTES[0])


@define("07-right-again", "With the right secret all connectors are registered", deadline_s=60)
def right_again(tunnel: Tunnel) -> Iterator[Finding]:
    """The rollout is complete and the shop is reached."""
    lacks = tunnel.cluster.kube.rollout_status("Deployment", "connector", namespace=NAMESPACE)
    yield expect(not lacks, "the connectors are rolled out", lacks)
    yield _answers(tunnel, *ROUTES[0])


@define("07-cleaned-up", "The tunnel is gone", deadline_s=30)
def cleaned_up(tunnel: Tunnel) -> Iterator[Finding]:
    """Nothing of it is in the cluster, and the edge does not run."""
    state = tunnel.status().state
    yield expect(state == "absent", "nothing of the tunnel is in the cluster", f"it is {state}")
    running = tunnel.edge is not None and tunnel.edge.running
    yield expect(not running, "the edge does not run", "it runs")


def _answers(tunnel: Tunnel, public_url: str, wanted: int) -> Finding:
    try:
        url, headers = tunnel.route(public_url)
        answer = get(url, **headers)
        said, status = f"it answers {answer!r:.100}", answer.status
    except (VisitError, LabkitError) as error:
        said, status = f"{error.message} {error.hint}".strip(), 0
    return expect(status == wanted, f"{public_url} answers {wanted}", said)


def _secret_kept(tunnel: Tunnel) -> Finding:
    """The secret is in its Secret and nowhere else that people look at."""
    kube, secret = tunnel.cluster.kube, tunnel.credentials.secret
    seen = {"a connector's log": tunnel.logs(), "repr(tunnel.credentials)": repr(tunnel.credentials)}
    for kind in ("ConfigMap", "Deployment", "Pod"):
        seen[f"a {kind}"] = repr(kube.list(kind, namespace=NAMESPACE))
    where = [place for place, text in seen.items() if secret in text]
    return expect(
        not where, "the tunnel's secret is in no log, setting or output", f"it is in {', '.join(where)}"
    )


def _all_answered(requests: pd.DataFrame) -> bool:
    return len(requests) > 0 and not requests["failed"].any()


def _failed(requests: pd.DataFrame) -> str:
    frame = requests[requests["failed"]]
    kinds = frame["error"].where(frame["error"] != "", "HTTP " + frame["status"].astype(str)).value_counts()
    return "failed: " + (
        ", ".join(f"{count} × {kind}" for kind, count in kinds.items()) or "none, and none sent"
    )
