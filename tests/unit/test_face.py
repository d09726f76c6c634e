"""What students reach from `import labkit`, and how what they look at is shown in a notebook."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import labkit
from labkit import boxes
from labkit.addons.base import AddonStatus
from labkit.checks import core, registry
from labkit.cluster import Cluster, ClusterStatus, ComponentStatus, NodeInfo
from labkit.cluster.join import Join, JoinStep
from labkit.cluster.kind.state import KindOptions
from labkit.errors import CheckFailed, ClusterError, ConfigError
from labkit.hpa.decision import Decision, State
from labkit.hpa.explain import Explanation
from labkit.load.profiles import constant
from labkit.load.result import LoadResult, frame_of
from labkit.record import Recording

FACE = ["up", "Cluster", "check", "predict", "hint", "load", "hpa", "plots", "Recorder", "Dashboard", "get"]
EVIL = "<script>alert('x')</script>"


def test_tab_shows_the_public_names_and_they_can_be_imported() -> None:
    assert set(FACE) <= set(dir(labkit))
    script = f"from labkit import {', '.join(FACE)}; print(load.constant, hpa.decide, up.__module__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_labkit_loads_nothing_heavy() -> None:
    script = (
        "import sys, labkit; dir(labkit); print({'pandas', 'kubernetes', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        labkit.nonsense  # noqa: B018


def test_up_spells_its_options_out() -> None:
    known = {each.name for each in fields(KindOptions)} | {"context", "kubeconfig", "registry"}
    assert known <= set(inspect.signature(labkit.up).parameters)


def test_a_misspelt_option_of_up_is_still_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="worker"):
        labkit.up("lab", "embedded", worker=3)


class Cells(HTMLParser):
    """The text of a page, its tags, and whether each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", set(), []  # type: ignore[var-annotated]
        self.feed(page)

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def shown(thing: Any) -> str:
    """The text of a notebook's view, which must be tidy HTML without a colour of its own for text or ground."""
    page = thing._repr_html_()
    cells = Cells(page)
    assert not cells.open and "script" not in cells.tags
    assert "background:#" not in page and "color:#000" not in page and "color:#fff" not in page
    assert len(page) < 20_000
    return cells.text


NODE = NodeInfo(
    name="worker-1",
    ready="False",
    address="198.18.1.1",
    kubelet_version="v1",
    cpus=2,
    memory_bytes=2**32,
    schedulable=False,
)
STATUS = ClusterStatus(
    name=EVIL,
    provider="embedded",
    state="degraded",
    version="1.37.2",
    uptime_s=125,
    components=(ComponentStatus("etcd", "running", 7, 1, 60, 2**27, "signal 9"),),
    nodes=(NODE,),
    urls={"api": "https://127.0.0.1:6443"},
)


def test_a_status_shows_nodes_and_components() -> None:
    text = shown(STATUS)
    for part in (EVIL, "degraded", "worker-1", "cordoned", "4.0 GiB", "etcd", "signal 9", "6443", "2 min"):
        assert part in text


def test_a_cluster_shows_its_status_or_why_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.cluster.embedded import EmbeddedCluster

    cluster: Cluster = EmbeddedCluster("lab")
    monkeypatch.setattr(EmbeddedCluster, "status", lambda _self: STATUS)
    assert "worker-1" in shown(cluster)

    def broken(_self: object) -> ClusterStatus:
        raise ClusterError("Its files cannot be read.", "Take it down.")

    monkeypatch.setattr(EmbeddedCluster, "status", broken)
    assert "Its files cannot be read. Take it down." in shown(cluster)


def test_a_join_shows_the_steps_seen_and_those_to_come() -> None:
    join = object.__new__(Join)
    join.node, join._steps = "worker-3", ("kubelet started", "node Ready")
    join._seen = [JoinStep("kubelet started", EVIL, 0.5)]
    text = shown(join)
    assert "worker-3 joins: 1 of 2 steps" in text and EVIL in text and "node Ready" in text


def load_result(rows: list[list[object]]) -> LoadResult:
    return LoadResult(frame_of(rows, []), constant(1, seconds=1), 0.0)


def test_a_load_shows_its_rates_latencies_and_failures() -> None:
    rows: list[list[object]] = [[0.1 * n, 5.0, 0.1, 200, "", 0.1, 0.1] for n in range(9)]
    text = shown(load_result([*rows, [0.95, 5.0, 0.1, 0, EVIL, 0.1, 0.1]]))
    assert "5.0 ms" in text and f"1 × {EVIL}" in text
    assert "–" in shown(load_result([]))


def test_a_recording_shows_its_tables_and_what_is_missing() -> None:
    pods = pd.DataFrame({"t_seconds": [0.0, 12.0], EVIL: [1, 2]})
    text = shown(Recording(0.0, 1.0, pods=pods, gaps=pods))
    assert "Recording of 12 s" in text and EVIL in text and "2 samples could not be taken" in text
    assert "Recording of 0 s" in shown(Recording(0.0, 1.0))


def test_add_ons_decisions_and_explanations() -> None:
    assert "1 of 1 ready" in shown(
        AddonStatus("metallb", "ready", "v1", {"deployment/controller": "1 of 1 ready"})
    )
    decision = Decision(4, 2, 4, (), {"AbleToScale": "ReadyForNewScale"}, (f"CPU {EVIL}",), State())
    assert "2 → 4" in shown(decision) and EVIL in shown(decision)
    explanation = Explanation("2 replicas", ("because",), "more CPU", "less CPU", (EVIL,), decision)
    for part in ("2 replicas", "because", "more CPU", "less CPU", EVIL):
        assert part in shown(explanation)


def test_hint_repeats_the_last_failure_until_it_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_FAILED", [])
    well = [False]
    spec = registry.CheckSpec(
        "00-x", "It is there", 0, 0.05, lambda: [core.expect(well[0], "it is there", "look into the box")]
    )
    monkeypatch.setattr(registry, "find", lambda _id: spec)
    labkit.hint()
    assert "No check has failed" in capsys.readouterr().out
    with pytest.raises(CheckFailed):
        labkit.check("00-x")
    capsys.readouterr()
    labkit.hint()
    assert "look into the box" in capsys.readouterr().out
    well[0] = True
    labkit.check("00-x")
    labkit.hint()
    assert "No check has failed" in capsys.readouterr().out


def test_boxes_escape_everything() -> None:
    page = boxes.box(EVIL, boxes.line(EVIL), boxes.bullets([EVIL]), boxes.table([EVIL], [[EVIL]]))
    assert "<script" not in page and page.count("&lt;script") == 5
