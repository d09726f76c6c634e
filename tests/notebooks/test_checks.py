"""A check looks until its deadline, names what it saw, and can be proven to fail."""

from __future__ import annotations

import pytest

from labkit.checks import check, define, expect, predict, prove
from labkit.checks.core import MIME, StepNotDone, repeat
from labkit.errors import CheckFailed, ConfigError, KubeError


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@define("91-list-long-enough", "The list is long enough", deadline_s=0.2, every_s=0.05)
def _long_enough(things, wanted=2):
    yield expect(bool(things), "the list has things", "it is empty")
    yield expect(len(things) >= wanted, f"it has {wanted}", f"it has {len(things)}")


@define("91-cluster-answers", "The cluster answers", deadline_s=0)
def _answers():
    raise KubeError("The API server refused the request.", "Look at its log.")
    yield


def test_passes_and_shows_every_finding():
    result = check("91-list-long-enough", [1, 2])
    assert result.passed and result.attempts == 1
    assert "✔ it has 2" in str(result)
    bundle = result._repr_mimebundle_()
    assert bundle[MIME]["passed"] and "it has 2" in bundle["text/html"]


def test_failure_names_what_was_seen():
    with pytest.raises(CheckFailed) as failed:
        check("91-list-long-enough", [1])
    assert "1 of 2 not met" in failed.value.message
    assert "it has 1" in failed.value.hint and "the list has things" not in failed.value.hint


def test_stop_false_only_shows():
    assert not check("91-list-long-enough", [], stop=False).passed


def test_looks_until_the_deadline_and_no_longer():
    clock, looks = Clock(), []

    def findings():
        looks.append(clock.now)
        return [expect(False, "never")]

    result = repeat("91-x", "x", findings, deadline_s=10, every_s=3, clock=clock, sleep=clock.sleep)
    assert looks == [0, 3, 6, 9] and result.attempts == 4 and not result.passed


def test_stops_looking_when_all_is_well():
    clock = Clock()
    result = repeat(
        "91-x", "x", lambda: [expect(clock.now >= 4, "late")],
        deadline_s=60, every_s=2, clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    assert result.passed and result.attempts == 3 and result.seconds == 4


def test_a_check_that_finds_nothing_does_not_pass():
    assert not repeat("91-x", "x", list, deadline_s=0, every_s=1).passed


def test_an_error_of_the_cluster_is_a_finding():
    with pytest.raises(CheckFailed, match="refused the request"):
        check("91-cluster-answers")


def test_hints_are_escaped():
    result = check("91-list-long-enough", [], stop=False)
    object.__setattr__(result, "title", "<script>")
    assert "<script>" not in result._repr_html_()


@pytest.mark.parametrize(
    ("source", "fails", "said"),
    [
        ('check("91-list-long-enough", things)', True, "it is empty"),
        ('check("91-list-long-enough", things, stop=False)', True, "it is empty"),
        ('check("91-list-long-enough", [1, 2])', False, "passes although"),
        ("nowhere + 1", False, "NameError"),
    ],
)
def test_a_proof_is_a_failed_check_and_nothing_else(source, fails, said):
    names = {"check": check, "things": []}
    proof = prove(source, names)
    assert proof["fails"] is fails and said in proof["said"]
    assert set(names) == {"check", "things"}


def test_proving_looks_once_only(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("a proof waits for nothing"))
    assert prove('check("91-list-long-enough", [], deadline_s=60)', {"check": check})["fails"]


def test_unknown_check_lists_the_known_ones():
    with pytest.raises(ConfigError, match="91-list-long-enough"):
        check("91-nonsense")


@pytest.mark.parametrize("bad", ["third-worker", "1-x", "91_x", "91-list-long-enough"])
def test_malformed_or_second_id_is_refused(bad):
    with pytest.raises(ValueError, match="check id"):
        define(bad, "x")


def test_failure_renders_as_one_line_in_a_notebook():
    result = check("91-list-long-enough", [], stop=False)
    assert len(StepNotDone(result)._render_traceback_()) == 1


def test_a_prediction_is_compared_with_the_measurement():
    guess = predict("How long?", 10, "s")
    assert guess.answer == 10 and "10 s" in str(guess)
    assert str(guess.compare(5.0, "Fast.")) == "You said 10 s; it was 5 s: 2.0 times less. Fast."
    assert guess.compare(11).verdict == "close" and guess.compare(10).verdict == "exactly"
    assert guess.compare(0).verdict == "off by 10 s"


def test_a_choice_is_right_or_wrong_and_the_widget_is_the_answer():
    guess = predict("Which?", "a", choices=["a", "<b>"])
    bundle = guess._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "&lt;b&gt;" in bundle["text/html"]
    guess._widget.value = "<b>"
    assert guess.compare("<b>").verdict == "correct" and guess.compare("a").verdict == "not what you said"
    assert "&lt;b&gt;" in guess.compare("a")._repr_html_()


@pytest.mark.parametrize("wrong", [("x", ()), ("x", ("a", "b"))])
def test_a_prediction_without_a_usable_answer_is_refused(wrong):
    answer, choices = wrong
    with pytest.raises(ConfigError):
        predict("?", answer, choices=choices)
