"""What the exercises of lab 09 judge without a cluster: right and wrong answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from labkit.checks import lab09
from labkit.course.helping import solved_cells
from labkit.errors import ConfigError
from labkit.gameday.alerting import Alert, Rule, judge_alert, read_alert, unheard
from labkit.gameday.practice import practice_shift
from labkit.gameday.reflect import QUESTIONS
from labkit.gameday.review import EXAMPLE, lacks, read_review
from labkit.gameday.script import KINDS, make_script
from labkit.plots import alert_figure

from .wrong_answers import NOTEBOOKS, keys, written, wrong_answers

# Lab 09: the diagnosis


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        (["drift", "node-loss"], []),
        ((" Drift", "NODE-LOSS "), []),
        (["node-loss", "drift"], ["drift", "node-loss"]),
        (["drift"], ["count"]),
        ("drift, node-loss", ["count"]),
        (..., ["count"]),
        (["drift", "node-loss", "drift"], ["count"]),
    ],
)
def test_a_diagnosis_names_each_incident(answer: Any, missing: list[str]) -> None:
    assert keys(lab09.diagnosed(["drift", "node-loss"], answer, {1: "", 2: "requests fail"})) == missing


def test_a_wrong_diagnosis_is_told_what_was_seen() -> None:
    first, *_ = [f for f in lab09.diagnosed(["drift"], ["node-loss"], {1: "no endpoint"}) if not f.ok]
    assert "no endpoint" in first.hint


@pytest.mark.parametrize("speed", ["ci", "class"])
@pytest.mark.parametrize("wrong", wrong_answers("09-causes"))
def test_wrong_diagnoses_draw_their_hint_with_the_labs_seed(wrong, speed: str) -> None:
    names: dict[str, Any] = {"script": make_script(7, speed)}
    exec(wrong.cells["causes-answer"], names)
    kinds = [one.kind for one in names["script"].incidents]
    assert keys(lab09.diagnosed(kinds, names["causes"], {}))[0] == wrong.hint


# Lab 09: the alert


@pytest.mark.parametrize("wrong", wrong_answers("09-alert"))
def test_wrong_alerts_draw_their_hint(tmp_path: Path, wrong) -> None:
    assert keys(lab09.on_practice(read_alert(written(wrong.cells, tmp_path))))[0] == wrong.hint


@pytest.mark.parametrize(
    "rules",
    [
        [(15, 5, 14)],
        [(20, 5, 10)],
        [(10, 5, 10)],
        [(30, 5, 14)],
        [(15, 5, 14), (30, 10, 20)],
    ],
)
def test_alerts_that_are_good_in_one_way_or_another(rules) -> None:
    assert keys(lab09.on_practice(Alert(tuple(Rule(*rule) for rule in rules)))) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no list of rules"),
        ("rules: []", "no list of rules"),
        ("rules: [1]", "no fields"),
        ("rules: [{longWindow: 15, shortWindow: 5s, burnRate: 1}]", "longWindow: 15"),
        ("rules: [{longWindow: 15s, shortWindow: 5s}]", "burnRate"),
        ("rules: [{longWindow: 5s, shortWindow: 15s, burnRate: 1}]", "short window"),
        ("objective: 100\nrules: [{longWindow: 15s, shortWindow: 5s, burnRate: 1}]", "objective"),
        ("rules: [", "cannot be read"),
    ],
)
def test_what_is_no_alert_names_the_field(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "alert.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_alert(tmp_path / "alert.yaml")


def test_a_severe_incident_must_be_heard() -> None:
    judged, outcomes = practice_shift()
    assert unheard(Alert((Rule(15, 5, 14),)), judged, outcomes) == []
    assert unheard(Alert((Rule(600, 300, 150),)), judged, outcomes) == [2], "7 of 10 bad for a minute"
    calm = judged.assign(bad=False)
    assert unheard(Alert((Rule(600, 300, 150),)), calm, outcomes) == []
    told = judge_alert(Alert((Rule(15, 5, 14),)), calm, outcomes)
    assert told.alarms == () and told.incidents.empty


def test_an_incident_that_never_struck_is_no_incident() -> None:
    judged, outcomes = practice_shift()
    none = outcomes.assign(struck_s=float("nan"), recovered_s=float("nan"))
    told = judge_alert(Alert((Rule(15, 5, 14),)), judged, none)
    assert told.incidents.empty and len(told.in_vain) == 3


def test_the_alert_has_a_figure() -> None:
    _, outcomes = practice_shift()
    rates = pd.DataFrame({"t_seconds": [1.0, 2.0], "long": [0.0, 20.0], "short": [0.0, 90.0]})
    texts = [text.get_text() for text in alert_figure(rates, 14, [(1.5, 2.0)], outcomes, {1: "a node"}).texts]
    assert "Your alert rang once" in texts
    assert "Your alert kept silent" in [t.get_text() for t in alert_figure(rates, 14, [], outcomes, {}).texts]


# Lab 09: the review


@pytest.mark.parametrize("wrong", wrong_answers("09-review"))
def test_wrong_reviews_draw_their_hint(tmp_path: Path, wrong) -> None:
    answers = read_review(written(wrong.cells, tmp_path)).answers
    assert next(key for key, _ in lacks(answers, KINDS)) == wrong.hint


@pytest.mark.parametrize("marked", [True, False])
def test_the_solved_review_is_read_with_and_without_marks(tmp_path: Path, marked: bool) -> None:
    (text,) = solved_cells(NOTEBOOKS, "09-review").values()
    text = (
        f"%%writefile\n### BEGIN SOLUTION\n{text.partition(chr(10))[2]}\n### END SOLUTION\n"
        if marked
        else text
    )
    answers = read_review(written({"a": text}, tmp_path)).answers
    assert all(answers.values()) and "SOLUTION" not in "".join(answers.values())
    assert list(lacks(answers, KINDS)) == []


def test_a_review_may_be_written_in_many_ways(tmp_path: Path) -> None:
    page = tmp_path / "review.md"
    page.write_text(
        "Review by Ada\n## what was hard\nAt 140 s nothing told me which of the two it was.\n"
        "## What would you do differently?\nI would look at the events before I restart anything at all.\n"
        "## What helped\nMy neighbour, who had seen the very same thing on another day.\n"
    )
    answers = read_review(page).answers
    assert list(answers) == list(QUESTIONS.values()) and list(lacks(answers, [])) == []


def test_the_example_does_not_pass_however_it_is_written() -> None:
    answers = dict(zip(QUESTIONS.values(), EXAMPLE.values(), strict=True))
    assert next(lacks(answers, KINDS))[0] == "example"
    shouted = {question: f"  {text.upper()}!!" for question, text in answers.items()}
    assert next(lacks(shouted, KINDS))[0] == "example"
    same = dict.fromkeys(answers, "The node was lost and nobody had seen it for a minute.")
    assert [key for key, _ in lacks(same, KINDS)] == ["same"]
    assert next(lacks({}, KINDS))[0] == "empty"


def test_a_review_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_review(tmp_path / "none.md")
