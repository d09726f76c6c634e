"""Parts of the test run that take turns."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import stages
from tests.stages import EVERY, Part, extra_parts, in_turn


def parts(count: int) -> list[Part]:
    return [Part(str(number), ["true"], 1) for number in range(count)]


def test_each_extra_part_runs_once_within_three_commits() -> None:
    assert EVERY == 3
    for extra in [extra_parts(), *(parts(count) for count in range(9))]:
        for first in range(7):
            runs = [part.name for count in range(first, first + EVERY) for part in in_turn(extra, count)]
            assert sorted(runs) == sorted(part.name for part in extra)


def test_extra_parts_are_spread_evenly() -> None:
    assert [len(in_turn(parts(7), count)) for count in range(3)] == [3, 2, 2]


def test_commits_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert stages.commits() == 0
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    for expected in (1, 2):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "--message=x"], check=True)
        assert stages.commits() == expected
