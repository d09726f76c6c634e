"""A node's failure read out of a recording: when what happened, which gap has which reason, and what it cost."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest

from labkit.errors import ConfigError
from labkit.record import Recording
from labkit.record.outage import Outage, Settings, outage

from .synthetic import outage_run

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
