"""The questions after a game day, with text fields for the answers."""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from labkit.errors import ConfigError

QUESTIONS = {
    "hard": "What was hard?",
    "helped": "What helped?",
    "differently": "What would you do differently?",
}
_STYLE = "border-left:4px solid #ddaa33;background:rgba(221,170,51,.1);padding:.55em .9em;margin:.3em 0"


class Reflection:
    """Answers to QUESTIONS: in a notebook in text fields, elsewhere in the call."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        unknown = sorted(set(answers) - set(QUESTIONS))
        if unknown:
            raise ConfigError(f"There is no question {unknown[0]!r}.", f"Questions: {', '.join(QUESTIONS)}.")
        self._given = {key: answers.get(key, "") for key in QUESTIONS}

    @property
    def answers(self) -> dict[str, str]:
        """Question → answer, as they stand now."""
        fields = self._fields if "_fields" in self.__dict__ else {}
        return {
            QUESTIONS[key]: (str(fields[key].value) if fields else given).strip()
            for key, given in self._given.items()
        }

    @cached_property
    def _fields(self) -> dict[str, Any]:
        import ipywidgets  # type: ignore[import-untyped]

        layout = ipywidgets.Layout(width="100%", height="5.5em")
        return {key: ipywidgets.Textarea(value=given, layout=layout) for key, given in self._given.items()}

    def __str__(self) -> str:
        return "\n".join(f"? {question}\n  {answer or '…'}" for question, answer in self.answers.items())

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        import ipywidgets

        parts: list[Any] = []
        for key, field in self._fields.items():
            parts += [ipywidgets.HTML(f"<strong>{html.escape(QUESTIONS[key])}</strong>"), field]
        bundle = dict(ipywidgets.VBox(parts)._repr_mimebundle_(**options))
        rows = "".join(
            f"<div><strong>{html.escape(question)}</strong><br>{html.escape(answer) or '…'}</div>"
            for question, answer in self.answers.items()
        )
        bundle["text/html"] = f'<div style="{_STYLE}">{rows}</div>'
        bundle["text/plain"] = str(self)
        return bundle


def reflect(**answers: str) -> Reflection:
    """Ask the questions of QUESTIONS; what is given stands there until the learner writes something else.

    Raises:
        ConfigError: an answer to a question that is not asked.
    """
    return Reflection(answers)
