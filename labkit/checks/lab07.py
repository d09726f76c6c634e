"""Checks of lab 07: Cloudflare Tunnel."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from labkit.addons.tunnel import Credentials, Rotation, Tunnel, listening
from labkit.addons.tunnel.tunnel import NAMESPACE
from labkit.checks.core import Finding, expect
from labkit.checks.judging import ingress
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


@define("07-rules", "Your rules send five URLs where they belong")
def rules(file: str) -> Iterator[Finding]:
    """cloudflared accepts the file, and each URL is served by whom it should be. No cluster is asked."""
    try:
        config = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        yield expect(False, f"there is a file {file}", str(error), "unreadable")
        return
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        yield expect(False, f"{file} is YAML", said, "unreadable")
        return
    given = config.get("ingress") if isinstance(config, dict) else None
    found = ingress.valid(given)
    yield found
    if found.ok and isinstance(given, list):
        yield from ingress.routes([rule or {} for rule in given])


@define("07-private", "/admin and /metrics are kept from the world, and nothing else is", deadline_s=60)
def private(tunnel: Tunnel, wanted: object) -> Iterator[Finding]:
    """The rules in the cluster refuse what is private; the connectors do as they say; the shop is reached."""
    found = ingress.valid(wanted)
    yield found
    live = tunnel.live_rules()
    yield expect(bool(live), "the cluster has rules", "there is no ConfigMap tunnel-config", "not-there")
    if not found.ok or not live:
        return
    yield expect(
        live == wanted, "the cluster has the rules that you wrote", "it still has others", "not-there"
    )
    yield from ingress.private(live)
    lacks = tunnel.cluster.kube.rollout_status("Deployment", "connector", namespace=NAMESPACE)
    yield expect(not lacks, "the connectors have them", lacks, "rollout")
    for url in ("https://shop.example.com/admin", "https://shop.example.com/metrics"):
        yield _kept_out(tunnel, url)
    for url, status in ROUTES:
        yield _answers(tunnel, url, status)


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


@define("07-rotated", "The tunnel has a new secret, and no visitor noticed", deadline_s=30)
def rotated(tunnel: Tunnel, rotation: Rotation) -> Iterator[Finding]:
    """The Secret holds the new one, all connectors are registered with it, and no request failed."""
    yield _new_secret(tunnel)
    edge = tunnel.edge
    outdated = edge.outdated() if edge else 0
    yield expect(
        outdated == 0,
        "every connector is registered with the new secret",
        f"{outdated} are registered with the former one, which they read when they started",
        "restart",
    )
    sent, failed = len(rotation.requests.requests), rotation.failed
    yield expect(sent >= 10, "visitors came meanwhile", f"{sent} requests were sent")
    yield expect(
        failed == 0,
        "no request failed meanwhile",
        _failed(rotation.requests.requests) + f", of {sent}",
        "cut",
    )
    lacks = tunnel.cluster.kube.rollout_status("Deployment", "connector", namespace=NAMESPACE)
    yield expect(not lacks, "the connectors are rolled out", lacks, "restart")
    registered = len(edge.connectors()) if edge else 0
    yield expect(registered >= 2, "two connectors are registered", f"there are {registered}", "cut")
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


def _kept_out(tunnel: Tunnel, public_url: str) -> Finding:
    """Whether a URL is refused on the way, and not by the shop, whose every answer names its pod."""
    try:
        url, headers = tunnel.route(public_url)
        answer = get(url, **headers)
    except (VisitError, LabkitError) as error:
        return expect(False, f"{public_url} is refused on the way", f"{error.message}", "rollout")
    pod = answer.headers.get("x-pod", "")
    said = f"pod {pod} answers it" if pod else f"it answers {answer.status}"
    refused = not pod and answer.status in (401, 403, 404, 410)
    return expect(refused, f"{public_url} is refused on the way", said, "rollout")


def _new_secret(tunnel: Tunnel) -> Finding:
    found = tunnel.cluster.kube.find("Secret", "tunnel-credentials", namespace=NAMESPACE)
    text = "the Secret tunnel-credentials holds the new secret"
    if found is None:
        return expect(False, text, "there is no such Secret", "secret")
    names = sorted(dig(found, "data", {}))
    content = dig(found, "data", {}).get("credentials.json", "")
    try:
        held = Credentials.from_file(base64.b64decode(content).decode()).secret
    except (ValueError, KeyError, TypeError):
        return expect(False, text, f"it has no credentials.json to read, but: {', '.join(names)}", "secret")
    return expect(held == tunnel.credentials.secret, text, "it holds another one", "secret")


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
