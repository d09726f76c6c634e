"""The what-if explorer and its figures."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml

from labkit.hpa import HpaError, HpaSpec, Scenario, from_manifest, simulate, sweep, workload
from labkit.hpa.explorer import Explorer, Setting, World, picture, play, table
from labkit.hpa.figures import frontier, pareto_figure, whatif
from labkit.hpa.sketch import Line, Panel, Sketch

SVG = "{http://www.w3.org/2000/svg}"


def test_a_slider_redraws_numbers_picture_and_yaml() -> None:
    explorer = Explorer()
    before = explorer.image.value, explorer.numbers.value
    explorer.controls["A"]["target_percent"].value = 35
    assert explorer.settings["A"].target_percent == 35
    assert explorer.image.value != before[0] and explorer.numbers.value != before[1]
    spec = from_manifest(explorer.yaml["A"].value)
    assert spec.metrics[0].target.average_utilization == 35
    assert spec == Setting(target_percent=35).spec()


def test_a_contradiction_is_a_message_and_goes_away() -> None:
    explorer = Explorer()
    explorer.controls["B"]["min_replicas"].value = 9
    explorer.controls["B"]["max_replicas"].value = 3
    assert "maxReplicas: found 3, below minReplicas 9" in explorer.message.value
    explorer.controls["B"]["max_replicas"].value = 20
    assert explorer.message.value == ""


@pytest.mark.parametrize("shape", workload.SHAPES)
def test_every_shape_of_load(shape: str) -> None:
    world = World(shape=shape, hours=1)
    runs = play({"A": Setting(), "B": Setting(min_replicas=4)}, world)
    assert runs["B"].frame["replicas"].min() >= 4
    assert len(runs["A"].frame) == 240
    assert list(table(runs).index) == ["A", "B"]


def test_an_unknown_shape_is_named() -> None:
    with pytest.raises(HpaError, match="shape"):
        World(shape="zigzag").load()


def test_what_the_knobs_do_is_what_is_said_of_them() -> None:
    """The notebook's sentences, as assertions."""
    targets = table(play({str(t): Setting(target_percent=t) for t in (40, 60, 100)}))
    assert targets["misses (%)"].is_monotonic_increasing
    assert targets["cost: replica-seconds"].is_monotonic_decreasing
    windows = table(play({str(s): Setting(down_window_s=s) for s in (0, 300, 1800)}))
    assert windows["misses (%)"].is_monotonic_decreasing
    assert windows["scalings"].is_monotonic_decreasing
    slow = Setting(up_policy="Pods", up_value=1, up_period_s=60)
    policies = table(play({"fast": Setting(), "slow": slow}))["misses (%)"]
    assert policies["slow"] > policies["fast"]
    starts = [play({"": Setting()}, World(startup_s=s))[""].totals["slo_miss_percent"] for s in (0, 30, 120)]
    assert starts == sorted(starts)


def test_the_picture_is_svg_with_every_series() -> None:
    settings = {"calm <1>": Setting(target_percent=40), "thrifty": Setting(target_percent=90)}
    root = ElementTree.fromstring(picture(play(settings), settings).svg())
    texts = [node.text for node in root.iter(f"{SVG}text")]
    assert texts.count("thrifty") == 2 and texts.count("calm <1>") == 2
    assert "Replicas" in texts and "hours" in texts
    assert len([p for p in root.iter(f"{SVG}path") if p.get("stroke-width") == "2.2"]) == 2


def test_long_series_keep_their_peaks() -> None:
    y = np.zeros(50_000)
    y[31_234] = 7.0
    sketch = Sketch("t", "s", np.arange(50_000.0), "x", [Panel("p", [Line("y", "#000000", y)])])
    text = sketch.svg()
    assert len(text) < 60_000
    root = ElementTree.fromstring(text)
    (path,) = [p for p in root.iter(f"{SVG}path") if p.get("stroke-width")]
    heights = [float(point.split()[1]) for point in (path.get("d") or "").lstrip("M").split("L")]
    assert max(heights) - min(heights) == pytest.approx(120 / 1.06, abs=0.2)


def test_too_many_runs_for_one_picture() -> None:
    run = simulate(Scenario(HpaSpec(3)), workload.constant(5, 600))
    with pytest.raises(HpaError, match="runs"):
        whatif(dict.fromkeys("abcd", run))


def test_the_frontier_is_what_nobody_beats() -> None:
    points = pd.DataFrame(
        {"mean_replicas": [1.0, 2, 2, 3, 4, 5], "slo_miss_percent": [9.0, 5, 6, 5, 1, 1]},
        index=list("abcdef"),
    )
    assert list(points.index[frontier(points)]) == ["a", "b", "e"]


def test_the_pareto_figure_names_the_ends() -> None:
    grid = [Setting(target_percent=t) for t in range(30, 110, 10)]
    world = World(hours=1)
    totals = sweep([world.scenario(s.spec()) for s in grid], world.load(), 1)
    totals["setting"] = [f"{s.target_percent} %" for s in grid]
    figure = pareto_figure(totals, marked={"mine": 3})
    names = [text.get_text() for text in figure.axes[0].texts]
    best = totals[frontier(totals)].sort_values("mean_replicas")["setting"].tolist()
    assert best[0] in names and best[-1] in names and "mine" in names


def test_exported_yaml_is_a_complete_object() -> None:
    setting = replace(Setting(), down_policy="Pods", down_value=2, tolerance_percent=5)
    document = yaml.safe_load(Explorer(a=setting).yaml["A"].value)
    assert document["apiVersion"] == "autoscaling/v2"
    assert document["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "pricing",
    }
    down = document["spec"]["behavior"]["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 2, "periodSeconds": 15}]
    assert down["tolerance"] == "50m"
