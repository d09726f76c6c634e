"""What unit tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from labkit.cluster.state import Directory

settings.register_profile("labkit", deadline=None)  # a busy machine is no failure
settings.load_profile("labkit")


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Directory]:
    """The empty directory of a cluster `lab`, with a short path, as sockets demand."""
    with tempfile.TemporaryDirectory(prefix="lk.") as short:
        monkeypatch.setenv("XDG_STATE_HOME", short)
        made = Directory("lab")
        made.create()
        yield made
