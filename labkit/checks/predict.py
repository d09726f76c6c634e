"""Predictions: the student commits to an answer, and the lab later compares it with what was measured."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labkit.checks.core import BOX
from labkit.course.helping import Notes
from labkit.errors import ConfigError

Answer = float | str
_NOTES = Notes()


class Prediction:
    """A question with an answer that can be changed: in a notebook by a widget, elsewhere in the call.

    Attributes:
        question: asked of the student.
        unit: of a number, "" for a choice.
        choices: the answers to choose from; () for a number.
    """

    def __init__(
        self, question: str, answer: Answer | None, unit: str = "", choices: Sequence[str] = ()
    ) -> None:
        if answer is None:
            pass
        elif choices and answer not in choices:
            raise ConfigError(f"{answer!r} is none of the choices.", f"Choices: {', '.join(choices)}.")
        elif not choices and not isinstance(answer, int | float):
            raise ConfigError("A prediction is a number, or one of `choices`.")
        self.question, self.unit, self.choices = question, unit, tuple(choices)
        self._given = answer

    @property
    def answer(self) -> Answer | None:
        """The answer as it stands now; None while there is none."""
        value: Answer | None = self._widget.value if "_widget" in self.__dict__ else self._given
        return None if value == "" else value

    @cached_property
    def _widget(self) -> Any:
        import ipywidgets  # type: ignore[import-untyped]

        layout = ipywidgets.Layout(width="max-content")
        if self.choices:
            return ipywidgets.RadioButtons(options=self.choices, value=self._given, layout=layout)
        if self._given is None:
            return _number_to_type(ipywidgets, self.question)
        narrow = ipywidgets.Layout(width="9em")
        return ipywidgets.FloatText(value=self._given, step=1, layout=narrow, tooltip=self.question)

    def compare(self, actual: Answer, why: str = "") -> Comparison:
        """Hold the answer against what was measured; without an answer it says so, and compares nothing.

        Args:
            actual: the measured number, or the choice that came true.
            why: one sentence that explains it.
        """
        answer = self.answer
        if isinstance(answer, str) and not self.choices:
            answer = _number(answer)
        if answer is not None and not os.environ.get("LABKIT_HEADLESS"):
            _NOTES.note("prediction", self.question, predicted=answer, measured=actual, unit=self.unit)
        return Comparison(self.question, answer, actual, self.unit, why)

    def __str__(self) -> str:
        options = f" ({' | '.join(self.choices)})" if self.choices else ""
        return f"? {self.question}{options}\n  your answer: {_text(self.answer, self.unit)}"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        import ipywidgets

        asked = f"<strong>{html.escape(self.question)}</strong>"
        row = ipywidgets.HBox([self._widget, ipywidgets.Label(self.unit)]) if self.unit else self._widget
        box = ipywidgets.VBox([ipywidgets.HTML(asked), row])
        bundle = dict(box._repr_mimebundle_(**options))
        rows = "".join(
            f"<div>{'◉' if choice == self.answer else '○'} {html.escape(choice)}</div>"
            for choice in self.choices
        )
        shown = rows or f"<div>your answer: {html.escape(_text(self.answer, self.unit))}</div>"
        style = f"border-left:4px solid #ddaa33;background:rgba(221,170,51,.1);{BOX}"
        bundle["text/html"] = f'<div style="{style}">{asked}{shown}</div>'
        bundle["text/plain"] = str(self)
        return bundle


@dataclass(frozen=True, repr=False)
class Comparison:
    """A prediction beside the measurement."""

    question: str
    predicted: Answer | None
    actual: Answer
    unit: str
    why: str

    @property
    def verdict(self) -> str:
        """How the two compare, in words."""
        if self.predicted is None:
            return "not answered"
        if isinstance(self.predicted, str) or isinstance(self.actual, str):
            return "correct" if self.predicted == self.actual else "not what you said"
        if self.predicted == self.actual:
            return "exactly"
        if not self.predicted or not self.actual or (self.predicted < 0) != (self.actual < 0):
            return f"off by {_text(abs(self.actual - self.predicted), self.unit)}"
        ratio = self.actual / self.predicted
        if 0.8 <= ratio <= 1.25:
            return "close"
        return f"{ratio:.1f} times as much" if ratio > 1 else f"{1 / ratio:.1f} times less"

    def __str__(self) -> str:
        said, was = _text(self.predicted, self.unit), _text(self.actual, self.unit)
        if self.predicted is None:
            return f"You have not answered; it was {was}.{' ' + self.why if self.why else ''}"
        return f"You said {said}; it was {was}: {self.verdict}.{' ' + self.why if self.why else ''}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said, was = (html.escape(_text(one, self.unit)) for one in (self.predicted, self.actual))
        why = f"<div>{html.escape(self.why)}</div>" if self.why else ""
        style = f"border-left:4px solid #3a86c8;background:rgba(58,134,200,.1);{BOX}"
        if self.predicted is None:
            return f'<div style="{style}">You have not answered; it was <strong>{was}</strong>.{why}</div>'
        head = (
            f"You said <strong>{said}</strong>; it was <strong>{was}</strong>: {html.escape(self.verdict)}."
        )
        return f'<div style="{style}">{head}{why}</div>'


def predict(question: str, answer: Answer | None, unit: str = "", choices: Sequence[str] = ()) -> Prediction:
    """Ask for a prediction before a step; `compare` holds it against the outcome after it.

    Args:
        answer: what stands there until the student changes it; also what a headless run says. None
            leaves it open.

    Raises:
        ConfigError: the answer is neither a number nor one of the choices.
    """
    return Prediction(question, answer, unit, choices)


def _number_to_type(ipywidgets: Any, question: str) -> Any:
    """A field that is empty at first, which a field for numbers cannot be."""
    layout = ipywidgets.Layout(width="9em")
    return ipywidgets.Text(value="", placeholder="your answer", layout=layout, tooltip=question)


def _number(text: str) -> float | None:
    """A number that somebody typed; None for anything else."""
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None


def _text(answer: Answer | None, unit: str) -> str:
    if answer is None:
        return "open"
    return answer if isinstance(answer, str) else f"{answer:.3g} {unit}".strip()
