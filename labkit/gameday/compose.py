"""Put a shift's measurements together into its report."""

from __future__ import annotations

import pandas as pd

from labkit.gameday.efficiency import Efficiency, efficiency
from labkit.gameday.engine import Engine
from labkit.gameday.journal import Entry
from labkit.gameday.report import Story
from labkit.gameday.world import AUTOSCALED
from labkit.kube import Object, dig, quantity
from labkit.load import LoadResult
from labkit.record import Recording

PRICED_SHARE = 0.7
"""Share of the customers' requests that needs pricing."""


def stories(engine: Engine) -> dict[int, Story]:
    """What each incident was."""
    found = {}
    for incident in engine.script.incidents:
        fault = engine.fault(incident.number)
        told = [entry.text for entry in engine.journal.entries() if _is_story(entry, incident.number)]
        what = told[0] if told else "it did not come to it"
        found[incident.number] = Story(fault.title, what, fault.healer, fault.commands)
    return found


def _is_story(entry: Entry, number: int) -> bool:
    return entry.number == number and entry.secret and entry.what in ("note", "trouble")


def node_counts(recording: Recording, zero_s: float) -> pd.DataFrame:
    """t_seconds, ready and all: how many nodes were Ready at each sample."""
    if recording.nodes.empty:
        return pd.DataFrame(columns=["t_seconds", "ready", "all"])
    ready = recording.nodes.assign(ready=recording.nodes["ready"] == "True").groupby("t_seconds")["ready"]
    counts = pd.DataFrame({"ready": ready.sum(), "all": ready.size()}).reset_index()
    return counts.assign(t_seconds=counts["t_seconds"] - zero_s)


def autoscaler(recording: Recording, result: LoadResult, hpa: Object, deployment: Object) -> Efficiency:
    """The autoscaler's work during a load; the deployment's first container tells what 100 % is."""
    zero = result.started_at - recording.started_at
    request = quantity(dig(deployment, "spec.template.spec.containers[0].resources.requests.cpu", "100m"))
    percent = dig(hpa, "spec.metrics[0].resource.target.averageUtilization", 100)
    ready = _of(recording.deployments, AUTOSCALED)
    usage = recording.usage
    if len(usage):
        usage = usage[usage["name"].str.startswith(f"{AUTOSCALED}-") & (usage["t_seconds"] > zero)]
    requests = result.requests
    by_pricing = requests["served_by"].astype(str).str.contains(f"{AUTOSCALED}=").to_numpy(dtype=bool)
    done = int((by_pricing & ~requests["failed"].to_numpy(dtype=bool)).sum())
    return efficiency(
        ready.assign(t_seconds=ready["t_seconds"] - zero),
        result.profile,
        PRICED_SHARE,
        done,
        usage,
        target_millicores=1000 * request * percent / 100,
        low=dig(hpa, "spec.minReplicas", 1),
        high=dig(hpa, "spec.maxReplicas", 1),
        end_s=float(requests["t_scheduled_s"].max()) if len(requests) else 1.0,
    )


def _of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["name"] == name] if "name" in table else table
