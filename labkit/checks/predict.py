"""Predictions: the student commits to an answer, and the lab later compares it with what was measured."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labkit.checks.core import BOX, GOOD
from labkit.errors import ConfigError

Answer = float | str


class Prediction:
    """A question with an answer that can be changed: in a notebook by a widget, elsewhere in the call.

    Attributes:
        question: asked of the student.
        unit: of a number, "" for a choice.
        choices: the answers to choose from; () for a number.
    """

    def __init__(self, question: str, answer: Answer, unit: str = "", choices: Sequence[str] = ()) -> None:
        if choices and answer not in choices:
            raise ConfigError(f"{answer!r} is none of the choices.", f"Choices: {', '.join(choices)}.")
        if not choices and not isinstance(answer, int | float):
            raise ConfigError("A prediction is a number, or one of `choices`.")
        self.question, self.unit, self.choices = question, unit, tuple(choices)
        self._given = answer

    @property
    def answer(self) -> Answer:
        """The answer as it stands now."""
        value: Answer = self._widget.value if "_widget" in self.__dict__ else self._given
        return value

    @cached_property
    def _widget(self) -> Any:
        import ipywidgets  # type: ignore[import-untyped]

        layout = ipywidgets.Layout(width="max-content")
        if self.choices:
            return ipywidgets.RadioButtons(options=self.choices, value=self._given, layout=layout)
        return ipywidgets.FloatText(value=self._given, description=self.unit, step=1)

    def compare(self, actual: Answer, why: str = "") -> Comparison:
        """Hold the answer against what was measured.

        Args:
            actual: the measured number, or the choice that came true.
            why: one sentence that explains it.
        """
        return Comparison(self.question, self.answer, actual, self.unit, why)

    def __str__(self) -> str:
        options = f" ({' | '.join(self.choices)})" if self.choices else ""
        return f"? {self.question}{options}\n  your answer: {_text(self.answer, self.unit)}"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        import ipywidgets

        asked = f"<strong>{html.escape(self.question)}</strong>"
        box = ipywidgets.VBox([ipywidgets.HTML(asked), self._widget])
        bundle = dict(box._repr_mimebundle_(**options))
        rows = "".join(
            f"<div>{'◉' if choice == self.answer else '○'} {html.escape(choice)}</div>"
            for choice in self.choices
        )
        shown = rows or f"<div>your answer: {html.escape(_text(self.answer, self.unit))}</div>"
        style = f"border-left:4px solid #ddaa33;background:#fffaf0;{BOX}"
        bundle["text/html"] = f'<div style="{style}">{asked}{shown}</div>'
        bundle["text/plain"] = str(self)
        return bundle


@dataclass(frozen=True, repr=False)
class Comparison:
    """A prediction beside the measurement."""

    question: str
    predicted: Answer
    actual: Answer
    unit: str
    why: str

    @property
    def verdict(self) -> str:
        """How the two compare, in words."""
        if isinstance(self.predicted, str) or isinstance(self.actual, str):
            return "just so" if self.predicted == self.actual else "not what you said"
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
        return f"You said {said}; it was {was}: {self.verdict}.{' ' + self.why if self.why else ''}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said, was = (html.escape(_text(one, self.unit)) for one in (self.predicted, self.actual))
        why = f"<div>{html.escape(self.why)}</div>" if self.why else ""
        style = f"border-left:4px solid {GOOD};background:#f3f6fb;{BOX}"
        head = (
            f"You said <strong>{said}</strong>; it was <strong>{was}</strong>: {html.escape(self.verdict)}."
        )
        return f'<div style="{style}">{head}{why}</div>'


def predict(question: str, answer: Answer, unit: str = "", choices: Sequence[str] = ()) -> Prediction:
    """Ask for a prediction before a step; `compare` holds it against the outcome after it.

    Args:
        answer: what stands there until the student changes it; also what a headless run says.

    Raises:
        ConfigError: the answer is neither a number nor one of the choices.
    """
    return Prediction(question, answer, unit, choices)


def _text(answer: Answer, unit: str) -> str:
    return answer if isinstance(answer, str) else f"{answer:.3g} {unit}".strip()
