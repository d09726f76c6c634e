"""Pages for instructors agree with the notebooks and exercises that they tell of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from labkit.course.exercises import load
from labkit.errors import LabError
from labkit.labs.metadata import find_labs
from labkit.labs.teaching import pages, stale

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS, TEACH = ROOT / "notebooks", ROOT / "docs" / "teach"
NOTES = yaml.safe_load((TEACH / "notes.yaml").read_text())


def test_the_pages_are_current() -> None:
    assert not list(stale(NOTEBOOKS, TEACH)), "run `make teach`, and commit what it writes"


def test_every_lab_has_its_minutes_and_every_wrong_answer_its_row() -> None:
    made = pages(NOTEBOOKS, NOTES)
    for lab in find_labs(NOTEBOOKS):
        part = made["labs.md"].split(f'<a id="lab-{lab.number}"></a>')[1].split("<a id=")[0]
        assert f"plan {lab.plan_minutes};" in part and part.count("\n- ") >= 3, lab.name
        for each in load(NOTEBOOKS, lab.number).by_id.values():
            section = made["mistakes.md"].split(f"`{each.id}`")[1].split("\n#")[0]
            assert section.count("\n| ") == 1 + len(each.wrong), each.id
            assert " ".join(each.hints[each.wrong[0].hint].split()).replace("|", "\\|") in section


def test_no_day_of_a_plan_is_too_full() -> None:
    rows = re.findall(r"^\| .* \| (\d+) \| (\d+) \|$", pages(NOTEBOOKS, NOTES)["plans.md"], re.MULTILINE)
    assert len(rows) == sum(len(plan["days"]) for plan in NOTES["plans"])
    assert all(int(used) <= int(there) for used, there in rows), rows
    for plan in NOTES["plans"]:
        assert sum(day["minutes"] for day in plan["days"]) == plan["minutes"]


def test_a_change_in_an_exercise_makes_a_page_stale(tmp_path: Path) -> None:
    notebooks, teach = tmp_path / "notebooks", tmp_path / "teach"
    shutil.copytree(NOTEBOOKS, notebooks, ignore=shutil.ignore_patterns("work", "game-day"))
    teach.mkdir()
    shutil.copy(TEACH / "notes.yaml", teach)
    first = stale(notebooks, teach)
    assert first.keys() == {"labs.md", "plans.md", "mistakes.md"}
    for name, text in first.items():
        (teach / name).write_text(text)
    assert not stale(notebooks, teach)
    path = notebooks / "exercises" / "00.yaml"
    path.write_text(
        path.read_text()
        .replace("  - name: one replica", "  - name: a single replica", 1)
        .replace("    - name: one replica", "    - name: a single replica")
    )
    assert list(stale(notebooks, teach)) == ["mistakes.md"]


def test_a_plan_with_a_lab_that_is_not_there_is_named() -> None:
    day = {"title": "One", "minutes": 90, "do": ["77"]}
    with pytest.raises(LabError, match="names lab 77"):
        pages(NOTEBOOKS, {"plans": [{"title": "A plan", "text": "…", "days": [day]}]})


def test_a_lab_with_two_notebooks_is_found_by_its_two_digits_and_needs_no_notes() -> None:
    made = pages(NOTEBOOKS, {})
    assert "**It teaches**" in made["labs.md"] and "**Say:**" not in made["labs.md"]
