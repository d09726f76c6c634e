"""Figures: they say what the data say, every word is inside the picture, nothing global changes."""

from __future__ import annotations

import copy
import html
import struct
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from labkit import plots
from labkit.errors import ConfigError
from labkit.hpa.measure import fit_scalability
from labkit.load import LoadResult
from labkit.plots.style import spread
from labkit.plots.why import policy_text, tolerances
from labkit.record import Recording
from labkit.record.memory import NodeMemory
from labkit.record.outage import Settings, outage

from .synthetic import HPA, hpa_run, node_run, outage_run, pods_run, rollout_run


@dataclass(frozen=True)
class Step:
    name: str
    text: str
    t_seconds: float


STEPS = [
    Step("token created", "valid for 15 minutes", 0.1),
    Step(
        "CSR approved",
        "by the controller-manager, and this text is far too long to be shown in full " * 2,
        0.4,
    ),
    Step("node Ready", "kubelet is posting ready status", 2.5),
]
RECORDING, LOAD = hpa_run()
TIMES = Settings(grace_s=12, period_s=1, toleration_s=11)
OUTAGE = outage(
    outage_run(), "worker-2", TIMES, failed_s=20, restored_s=68, deployment="web", namespace="shop"
)
MEMORY = NodeMemory(
    "worker-3", capacity_mib=1024, allocatable_mib=340, threshold_mib=684, reserved_mib=0, requested_mib=0,
    used_mib=110, system_mib=110,
)  # fmt: skip
POOL = pd.DataFrame(
    [
        ("lab", "127.240.0.1", "shop/storefront", "8080"),
        ("lab", "127.240.0.2", "shop/back-office-catalog", "8081"),
        ("lab", "127.240.0.2", "shop/back-office-page", "8082"),
        ("lab", "127.240.0.3", "", ""),
        ("", "", "shop/latecomer", "8080"),
    ],
    columns=["pool", "address", "service", "ports"],
)
THROUGHPUT = {1: 22.0, 2: 42.5, 3: 59.0, 4: 66.0, 6: 61.0}
LAW = fit_scalability(list(THROUGHPUT), list(THROUGHPUT.values()))
IDEAL = fit_scalability([1, 2, 3], [10, 20, 30])


def attempts() -> pd.DataFrame:
    """Two connectors that lose their edge and come back."""
    began = rollout_run(14).started_at
    rows = [
        ("a", 8.0, "lost"),
        ("a", 9.0, "failed"),
        ("a", 13.0, "registered"),
        ("b", 8.1, "lost"),
        ("b", 99.0, "lost"),
    ]
    return pd.DataFrame([(pod, began + t, event) for pod, t, event in rows], columns=["pod", "at", "event"])


def figures() -> dict[str, Figure]:
    predicted = pd.DataFrame({"t_seconds": [0.0, 45.0], "replicas": [1, 5]})
    return {
        "hpa": plots.hpa_figure(RECORDING, LOAD, HPA, predicted=predicted),
        "hpa without load": plots.hpa_figure(RECORDING, None, HPA),
        "rollout": plots.rollout_figure(rollout_run(), marks={"set image": 10.0}),
        "failed rollout": plots.rollout_figure(rollout_run(14)),
        "exhausted pool": plots.address_pool_figure(POOL),
        "free pool": plots.address_pool_figure(POOL[POOL["service"] == ""]),
        "fail-over": plots.fail_over_figure(
            rollout_run(14), lost_s=8.0, moved_s=10.5, before="worker-1", after="worker-2"
        ),
        "tunnel": plots.reconnect_figure(rollout_run(14), attempts(), stopped_s=8.0, started_s=12.0),
        "pods": plots.requests_per_pod(pods_run(), marks={"a pod dies": 12.0}),
        "node": plots.node_timeline(node_run(), "worker-2", marks={"off": 20.0, "on": 68.0}),
        "outage": plots.outage_figure({"as delivered": OUTAGE, "tuned": OUTAGE}),
        "memory": plots.memory_figure(
            {"nothing reserved": MEMORY, "reserved": replace(MEMORY, reserved_mib=110, allocatable_mib=230)}
        ),
        "join": plots.join_figure(STEPS),
        "scalability": plots.scalability_figure(THROUGHPUT, LAW, machine_rps=88.0),
        "ideal scalability": plots.scalability_figure({1: 10.0, 2: 20.0, 3: 30.0}, IDEAL),
    }


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]  # type: ignore[misc]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


@pytest.mark.parametrize("name", figures())
def test_every_word_is_inside_the_picture(name: str) -> None:
    figure = figures()[name]
    figure.savefig("/dev/null", format="png")
    width, height = figure.get_size_inches() * figure.dpi
    for text in texts(figure):
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        ticks = text.axes and text in [*text.axes.get_xticklabels(), *text.axes.get_yticklabels()]
        assert inside or ticks or text.get_clip_on(), f"{text.get_text()!r} at {box}"


@pytest.mark.parametrize("name", ["hpa", "rollout", "node", "join", "outage", "memory"])
def test_labels_do_not_cover_each_other(name: str) -> None:
    figure = figures()[name]
    figure.savefig("/dev/null", format="png")
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure) if not text.get_clip_on()]
    for place, (first, box) in enumerate(boxes):
        for second, other in boxes[place + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 2 or height <= 3, f"{first!r} covers {second!r}"


def test_pictures_are_900_pixels_wide_and_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    for figure in figures().values():
        png, size = figure._repr_png_()  # type: ignore[attr-defined]
        assert size["width"] == 900 and struct.unpack(">I", png[16:20])[0] == 1800
    assert dict(matplotlib.rcParams) == before


def test_pictures_are_told_in_words_too() -> None:
    for name, figure in figures().items():
        bundle, _ = figure._repr_mimebundle_()  # type: ignore[attr-defined]
        headline = figure.texts[0].get_text()
        assert headline and bundle["text/plain"].startswith(headline.split("\n")[0][:40]), name
        assert f'alt="{html.escape(bundle["text/plain"])}"' in bundle["text/html"]
        assert bundle["image/png"] in bundle["text/html"] and len(bundle["text/plain"]) <= 600


def test_hpa_figure_says_what_happened_and_why() -> None:
    said = words(plots.hpa_figure(RECORDING, LOAD, HPA))
    desired = RECORDING.hpas["desired_replicas"]
    assert f"1 → {desired.max()} replicas" in said and "s after the load rose" in said
    assert "target 60 %" in said and "max 8" in said and "at most +2 pods per 15 s" in said
    assert "window 60 s" in said and "within tolerance: no change" in said
    assert f"{int(LOAD.requests['failed'].sum())} failed" in said
    changes = desired.diff().dropna()
    assert said.count("\n+") == (changes > 0).sum() and said.count("\n−") == (changes < 0).sum()


def test_latencies_within_one_decade_have_ticks() -> None:
    near = LOAD.requests.assign(latency_ms=np.linspace(35, 85, len(LOAD.requests)), failed=False)
    axis = plots.hpa_figure(RECORDING, replace(LOAD, requests=near), HPA).axes[-1]
    low, high = axis.get_ylim()
    assert any(low <= tick <= high for tick in axis.get_yticks())


def test_holds_are_the_recorded_conditions() -> None:
    rows = RECORDING.hpas
    found = plots.holds(rows, HPA)
    for lane, column, reasons in [
        ("stabilization", "able_to_scale", {"ScaleDownStabilized", "ScaleUpStabilized"}),
        ("policy", "scaling_limited", {"ScaleUpLimit", "ScaleDownLimit"}),
        ("limit", "scaling_limited", {"TooManyReplicas", "TooFewReplicas"}),
    ]:
        recorded = rows[column].isin(reasons).sum()
        assert sum(bar.seconds for bar in found if bar.lane == lane) == pytest.approx(recorded)
    tolerated = [bar for bar in found if bar.lane == "tolerance"]
    assert tolerated
    for bar in tolerated:
        inside = rows[(rows["t_seconds"] >= bar.begin_s) & (rows["t_seconds"] < bar.end_s)]
        ratio = inside["cpu_utilization_percent"] / 60
        assert ratio.between(0.9, 1.1).all() and inside["desired_replicas"].nunique() == 1


def test_rules_in_words() -> None:
    hpa = copy.deepcopy(HPA)
    assert policy_text(hpa, "scaleUp") == "at most +2 pods per 15 s"
    assert policy_text(hpa, "scaleDown") == "at most −50 % per 15 s"
    assert policy_text({}, "scaleUp") == "at most +4 pods per 15 s or +100 % per 15 s"
    hpa["spec"]["behavior"]["scaleUp"]["selectPolicy"] = "Disabled"
    assert policy_text(hpa, "scaleUp") == "scale-up is disabled"
    hpa["spec"]["behavior"]["scaleDown"]["tolerance"] = "50m"
    assert tolerances(hpa) == (0.05, 0.1)


def test_maximum_is_named_when_it_limits() -> None:
    rows = RECORDING.hpas.assign(scaling_limited="TooManyReplicas")
    assert {bar.text for bar in plots.holds(rows, HPA) if bar.lane == "limit"} == {
        "more wanted, but maxReplicas is 8"
    }
    assert plots.holds(rows.iloc[:0], HPA) == []


def test_hpa_figure_survives_missing_metrics_and_refuses_another_name() -> None:
    rows = RECORDING.hpas.assign(cpu_utilization_percent=float("nan"))
    plots.hpa_figure(replace(RECORDING, hpas=rows), LOAD, HPA).savefig("/dev/null", format="png")
    other = {**HPA, "metadata": {"name": "web"}}
    with pytest.raises(ConfigError, match="no HPA 'web'"):
        plots.hpa_figure(RECORDING, LOAD, other)


def test_rollout_figure_counts_failures() -> None:
    assert "v1 → v2 → v1 under load: no request failed" in words(plots.rollout_figure(rollout_run()))
    said = words(plots.rollout_figure(rollout_run(14)))
    assert "14 requests failed" in said and "14 × refused" in said
    quiet = rollout_run()
    same = replace(quiet, requests=quiet.requests.assign(version="v9"))
    assert "v9 answered everything" in words(plots.rollout_figure(same))
    mute = replace(quiet, requests=quiet.requests.assign(version=""))
    with pytest.raises(ConfigError, match="tells its version"):
        plots.rollout_figure(mute)


def test_requests_per_pod_counts() -> None:
    run = pods_run()
    said = words(plots.requests_per_pod(run))
    for pod, count in run.requests["pod"].value_counts().items():
        assert pod in said and str(count) in said
    one = replace(run, requests=run.requests.assign(pod="web-0"))
    assert "1 pod answers" in words(plots.requests_per_pod(one))


def test_node_timeline_measures_from_the_first_mark() -> None:
    said = words(plots.node_timeline(node_run(), "worker-2", marks={"power off": 20.0}))
    assert "noticed after 11 s, pods evicted after 22 s, Ready again after 50 s" in said
    assert "web-1 · worker-2" in said and "web-4 · worker-1" in said and "web-3" not in said
    assert "worker-1 stayed Ready" in words(plots.node_timeline(node_run(), "worker-1"))
    with pytest.raises(ConfigError, match="no node 'x'"):
        plots.node_timeline(node_run(), "x")


def test_join_figure_names_the_longest_step() -> None:
    said = words(plots.join_figure(STEPS))
    assert "joined in 2.5 s" in said and "“node Ready”" in said and "0.30 s" in said and "…" in said
    with pytest.raises(ConfigError):
        plots.join_figure([])


def test_scalability_says_how_much_of_the_ideal_was_reached() -> None:
    said = words(plots.scalability_figure(THROUGHPUT, LAW, machine_rps=88.0))
    assert "6 replicas did 2.8 times the work of one: 46 % of ideal" in said
    assert f"most work with {LAW.peak_replicas:.0f} replicas" in said and "all CPUs" in said
    ideal = words(plots.scalability_figure({1: 10.0, 2: 20.0, 3: 30.0}, IDEAL, machine_rps=900.0))
    assert "100 % of ideal" in ideal and "most work" not in ideal
    assert "all CPUs" not in ideal  # a ceiling far above the picture is left out


def test_a_short_and_empty_run_can_be_drawn() -> None:
    few = LOAD.requests.iloc[:3]
    plots.hpa_figure(RECORDING, LoadResult(few, LOAD.profile, LOAD.started_at), HPA).savefig(
        "/dev/null", format="png"
    )
    short = replace(RECORDING, hpas=RECORDING.hpas.iloc[:1], deployments=pd.DataFrame())
    plots.hpa_figure(short, None, HPA).savefig("/dev/null", format="png")
    assert isinstance(short, Recording)


def test_spread_keeps_order_and_room() -> None:
    placed = spread([10, 11, 12, 50], [13, 13, 13, 13])
    assert (np.diff(placed) >= 12.9).all() and placed[0] >= 0
