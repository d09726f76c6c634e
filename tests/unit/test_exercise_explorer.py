"""What the explorer's exercise judges: an autoscaler for a whole day."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labkit.checks import lab10
from labkit.checks.catching_up import solved_up_to
from labkit.course.helping import solved_cells
from labkit.hpa import HpaSpec, cpu_utilization, to_yaml
from labkit.hpa.days import shop_day
from labkit.hpa.explorer import Setting

from .wrong_answers import NOTEBOOKS, keys, wrong_answers


def test_the_day_is_a_day() -> None:
    day = shop_day()
    assert day.duration_s == 24 * 3600 and day.rates.max() > 3 * np.median(day.rates[: 4 * 240])


@pytest.mark.parametrize("wrong", wrong_answers("10-day"))
def test_wrong_settings_for_the_day_draw_their_hint(wrong) -> None:
    names: dict[str, Any] = {"Setting": Setting, "to_yaml": to_yaml}
    exec(wrong.cells["day-write"], names)
    assert keys(lab10.day_beaten(names["exported"]))[0] == wrong.hint


def test_the_day_is_won_in_more_than_one_way() -> None:
    assert set(solved_cells(NOTEBOOKS, "10-day")) == {"day-write"}
    for setting in (Setting(target_percent=80), Setting(target_percent=78, down_window_s=120)):
        assert keys(lab10.day_beaten(to_yaml(setting.spec("pricing", "shop")))) == []
    assert keys(lab10.day_beaten(...)) == ["unreadable"]
    by_value = HpaSpec(
        12, metrics=(cpu_utilization(80),), name="pricing", namespace="shop", target_name="web"
    )
    assert keys(lab10.day_beaten(to_yaml(by_value)))[0] == "target"


def test_catching_up_reaches_a_notebook_that_is_no_lab() -> None:
    cells = solved_up_to(NOTEBOOKS, "10-day", set(), set())
    assert cells[0].id == "imports" and cells[-1].id == "day-check"
    assert [cell.id for cell in cells if cell.exercise] == ["day-write"]
