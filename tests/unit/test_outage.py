"""A node's failure read out of a recording: when what happened, which gap has which reason, and what it cost."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pandas as pd
import pytest

from labkit.errors import ConfigError
from labkit.record import Recording
from labkit.record.outage import Outage, Settings, outage

from .synthetic import outage_run, table

SETTINGS = Settings(grace_s=12, period_s=1, toleration_s=11)


def read(recording: Recording) -> Outage:
    return outage(
        recording, "worker-2", SETTINGS, failed_s=20, restored_s=68, deployment="web", namespace="shop"
    )


def test_every_moment_is_found() -> None:
    found = read(outage_run())
    moments = (found.heartbeat_s, found.noticed_s, found.tainted_s, found.evicted_s, found.replaced_s)
    assert moments == pytest.approx((-2, 11, 11, 22, 24.4))
    assert (found.restored_s, found.ready_s, found.cleared_s) == pytest.approx((48, 50, 50.8))


def test_each_gap_is_held_against_its_time_out() -> None:
    gaps = read(outage_run()).gaps.set_index("explained_by")
    grace = gaps.loc["node-monitor-grace-period"]
    assert (grace["predicted_s"], grace["predicted_max_s"], grace["measured_s"]) == (12, 13, 13)
    assert gaps.loc["tolerationSeconds", "measured_s"] == 11
    assert isnan(gaps.loc["scheduling, start, readiness", "predicted_s"]), "no time-out explains that"


def test_the_table_for_people_has_no_nan() -> None:
    table = read(outage_run()).explained
    assert table.loc["taint → eviction"].tolist() == ["tolerationSeconds", "11 … 12 s", "11.0 s"]
    assert "nan" not in table.to_string().lower()


def test_pods_on_a_lost_machine_do_not_serve_whatever_the_api_says() -> None:
    found = read(outage_run())
    at_five = found.serving[found.serving["t_seconds"] <= 5].iloc[-1]
    assert (at_five["really"], at_five["said"]) == (1, 3)
    assert found.pod_seconds_lost == pytest.approx(2 * 23.9 + 0.5)
    assert found.nobody_serves_s == 0


def test_pods_of_a_neighbour_with_a_longer_name_are_not_counted() -> None:
    """web-canary runs beside web, on the other node: its pods do not stand in for those that were lost."""
    run = outage_run()
    rows: list[list[object]] = []
    for number in (1, 2, 3):
        facts = {"exists": True, "node": "worker-1", "ready": True, "terminating": False,
                 "owner": "ReplicaSet/web-canary-5d9"}  # fmt: skip
        rows += [
            [0, "Pod", "shop", f"web-canary-5d9-{number}", what, None, is_] for what, is_ in facts.items()
        ]
    rows.append([0, "ReplicaSet", "shop", "web-canary-5d9", "owner", None, "Deployment/web-canary"])
    rows.append([0, "Deployment", "shop", "web-canary", "ready_replicas", None, 3])
    rows.append([0, "Deployment", "other", "web", "ready_replicas", None, 0])
    changes = pd.concat([run.transitions, table("transitions", rows)]).sort_values("t_seconds", kind="stable")
    crowded = read(
        Recording(run.started_at, 1.0, nodes=run.nodes, transitions=changes.reset_index(drop=True))
    )
    alone = read(run)
    assert crowded.pod_seconds_lost == alone.pod_seconds_lost > 40
    assert crowded.pods.equals(alone.pods) and crowded.serving.equals(alone.serving)


def test_pods_of_every_revision_are_followed_and_no_orphans() -> None:
    run = outage_run()
    own = run.transitions
    renamed = own.assign(after=own["after"].replace("ReplicaSet/web-7f4", "ReplicaSet/web-old"))
    mixed = pd.concat([own[own["name"] != "web-5"], renamed[renamed["name"] == "web-5"]])
    with_old = pd.concat(
        [mixed, table("transitions", [[0, "ReplicaSet", "shop", "web-old", "owner", None, "Deployment/web"]])]
    ).sort_values("t_seconds", kind="stable")
    found = read(Recording(run.started_at, 1.0, nodes=run.nodes, transitions=with_old.reset_index(drop=True)))
    assert set(found.pods["name"]) == set(read(run).pods["name"])
    orphaned = mixed.sort_values("t_seconds", kind="stable").reset_index(drop=True)
    found = read(Recording(run.started_at, 1.0, nodes=run.nodes, transitions=orphaned))
    assert "web-5" not in set(found.pods["name"])


def test_a_saved_recording_says_the_same(tmp_path: Path) -> None:
    fresh = read(outage_run())
    loaded = read(Recording.load(outage_run().save(tmp_path / "run")))
    assert loaded.gaps.equals(fresh.gaps)
    assert loaded.pod_seconds_lost == fresh.pod_seconds_lost


def test_what_did_not_happen_is_no_number() -> None:
    run = outage_run()
    calm = Recording(run.started_at, 1.0, nodes=run.nodes[run.nodes["t_seconds"] < 15],
                     transitions=run.transitions[run.transitions["t_seconds"] < 15])  # fmt: skip
    found = outage(calm, "worker-2", SETTINGS, failed_s=10, deployment="web", namespace="shop")
    assert isnan(found.noticed_s) and isnan(found.evicted_s) and isnan(found.replaced_s)


def test_a_recording_without_node_or_deployment_is_refused() -> None:
    with pytest.raises(ConfigError, match="worker-9"):
        outage(outage_run(), "worker-9", SETTINGS, failed_s=20, deployment="web", namespace="shop")
    with pytest.raises(ConfigError, match="Deployment 'shop'"):
        outage(outage_run(), "worker-2", SETTINGS, failed_s=20, deployment="shop", namespace="shop")
