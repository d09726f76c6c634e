"""How a learner's guesses get better: real predictions, kept by the real record, as a table and as a figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from labkit.checks import predict
from labkit.cli import app
from labkit.course.guesses import guesses_so_far, table_of
from labkit.course.progress import Progress
from labkit.errors import ConfigError, LabError
from labkit.plots import guesses_figure
from labkit.plots.guesses import FARTHEST, message, ratio

CHOICES = ["stays", "goes"]


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody with a record of their own, in a notebook."""
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def work_through_labs() -> None:
    """Ten numbers, ever better, and three choices; one question is asked again when its answer is known."""
    for n, (said, was) in enumerate([(1, 8), (90, 15), (4, 1), (10, 30), (60, 30), (5, 4), (20, 22), (3, 3)]):
        predict(f"Question {n}: how many seconds until it is there?", said, "s").compare(was)
    predict("Question 0: how many seconds until it is there?", 8, "s").compare(8)
    for n, (said, was) in enumerate([("stays", "goes"), ("goes", "goes"), ("stays", "stays")]):
        predict(f"Choice {n}", said, choices=CHOICES).compare(was)
    predict("Not answered", None, "s").compare(3)


@pytest.mark.usefixtures("learner")
def test_the_first_guess_at_each_question_counts() -> None:
    work_through_labs()
    table = table_of(Progress().events())
    assert list(table["question"])[:2] == [
        f"Question {n}: how many seconds until it is there?" for n in (0, 1)
    ]
    assert len(table) == 8 + 3 and "Not answered" not in set(table["question"])
    assert table.iloc[0][["predicted", "measured", "unit"]].tolist() == [1, 8, "s"]
    assert table["at"].is_monotonic_increasing


@pytest.mark.usefixtures("learner")
def test_the_figure_says_that_guesses_get_better() -> None:
    work_through_labs()
    figure = guesses_so_far()
    said = figure.texts[0].get_text()
    assert said == "Your guesses get better: off by a factor of 5.0 at first, now 1.2"
    assert [len(axis.collections) > 0 for axis in figure.axes] == [True, False]
    shown = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert shown.count("✔") == 2 and shown.count("✘") == 1 and "2 of 3 right" in shown
    assert any("1 s guessed, 8 s measured" in text for text in shown)


@pytest.mark.usefixtures("learner")
def test_the_command_writes_it_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "guesses.png"
    empty = CliRunner().invoke(app, ["progress", "--figure", str(target)])
    assert isinstance(empty.exception, LabError) and "not guessed yet" in str(empty.exception)
    work_through_labs()
    done = CliRunner().invoke(app, ["progress", "--figure", str(target)])
    assert done.exit_code == 0 and "Your guesses get better" in done.stdout
    with Image.open(target) as picture:
        assert picture.width >= 900 and "Your guesses get better" in picture.info["Title"]
    wrong = CliRunner().invoke(app, ["progress", "--figure", str(tmp_path / "guesses.xyz")])
    assert isinstance(wrong.exception, ConfigError)
    monkeypatch.setenv("LABKIT_LEARNER", "grace")  # has guessed nothing
    assert isinstance(CliRunner().invoke(app, ["progress", "--figure", str(target)]).exception, LabError)


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [(5, 5, 1), (0, 0, 0 + 1), (10, 5, 2), (5, 10, 0.5), (1, 0, FARTHEST), (-1, 3, 1 / FARTHEST), (0, 3, 1 / FARTHEST), (1e9, 1, FARTHEST), (-4, -2, 2)],
)  # fmt: skip
def test_how_far_a_guess_is_off(predicted: float, measured: float, expected: float) -> None:
    assert ratio(predicted, measured) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("off", "right", "said"),
    [
        ([], [True, False], "You chose right in 1 of 2 questions"),
        ([4.0, 0.25], [], "off by a factor of 4.0"),
        ([1.1, 1.0, 1.1, 3.0, 4.0, 1 / 5], [], "harder: off by a factor of 1.1 at first, now 4.0"),
        ([2.0] * 6, [], "2.0, at first as now"),
        ([16.0] * 3 + [1.0] * 3, [], "10 or more at first, now 1.0"),
    ],
)
def test_what_the_guesses_say(off: list[float], right: list[bool], said: str) -> None:
    assert said in message(pd.Series(off, dtype=float), pd.Series(right, dtype=bool))


def test_one_guess_is_enough_and_none_is_told() -> None:
    for predicted, measured in ((3.0, 0.0), ("stays", "goes")):
        table = pd.DataFrame([{"question": "Q", "predicted": predicted, "measured": measured, "unit": ""}])
        assert guesses_figure(table).axes
    with pytest.raises(ConfigError):
        guesses_figure(pd.DataFrame())
