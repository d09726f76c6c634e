"""One cluster per provider and session, and an image with Python that both run.

LABKIT_PARITY="kind" runs one provider only; --part=TEXT a part of the behaviours, another one for each text (a commit, in CI).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit
from labkit.cluster import Cluster
from labkit.cluster.kind.engine import Engine
from labkit.cluster.phases import Plain
from labkit.errors import LabkitError
from tests.cluster.helpers import Namespace, namespace, own_state_home
from tests.parity.behaviours import PROVIDERS, Answer

OPTIONS = {"workers": 2, "node_monitor_period_s": 2, "node_monitor_grace_s": 16, "eviction_after_s": 5}
IMAGE = "parity/hello:v1"
PARTS = 5
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", params=os.environ.get("LABKIT_PARITY", " ".join(PROVIDERS)).split())
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of two workers; a node that is gone is noticed soon, and its pods leave soon."""
    provider = request.param
    if provider == "kind":
        try:
            Engine().info()
        except LabkitError as err:
            pytest.skip(f"kind cannot run here: {err.message}")
    with own_state_home():
        made = labkit.up("parity", provider, listener=Plain(), **OPTIONS)
        made.build_image(ROOT / "services/hello", IMAGE)
        yield made


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    """A fresh namespace."""
    with namespace(cluster, "parity") as made:
        yield made


@pytest.fixture(autouse=True)
def answer(request: pytest.FixtureRequest, cluster: Cluster, record_property: object) -> Answer:
    """What the provider at hand is expected to answer; written into the JUnit file for the table."""
    marker = request.node.get_closest_marker("behaviour")
    assert marker is not None, "every test of this suite is a row of the table"
    title, answers = marker.args
    expected: Answer = answers[cluster.provider]
    record = record_property
    assert callable(record)
    for name, value in (("behaviour", title), ("provider", cluster.provider), ("answer", str(expected))):
        record(name, value)
    return expected


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option --part."""
    parser.addoption("--part", default="", help="run one of several parts of tests/parity, chosen by a text")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose a part, if one is asked for. The first test of a provider waits for its cluster too."""
    mine = [item for item in items if "tests/parity" in str(item.path)]
    for item in mine:
        item.add_marker(pytest.mark.timeout(1200))
    if text := config.getoption("part", ""):
        names = sorted({item.originalname for item in mine if isinstance(item, pytest.Function)})
        chosen = names[int(hashlib.sha256(text.encode()).hexdigest(), 16) % PARTS :: PARTS]
        others = [i for i in mine if isinstance(i, pytest.Function) and i.originalname not in chosen]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
