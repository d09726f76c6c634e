"""What a test of this suite declares: a behaviour in words, and how each provider is expected to answer.

The expectation is tested, whichever it is: where a provider is declared not to do something, the test demands that it
does not, so that a difference which has gone does not stay in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

PROVIDERS = ("embedded", "kind")


@dataclass(frozen=True)
class Answer:
    """Whether a provider does it, and what there is to say about that."""

    does: bool = True
    note: str = ""

    def __str__(self) -> str:
        return ("yes" if self.does else "no") + (f": {self.note}" if self.note else "")


def no(note: str) -> Answer:
    """The provider does not do it."""
    return Answer(False, note)


def yes(note: str = "") -> Answer:
    """The provider does it."""
    return Answer(True, note)


def behaviour(title: str, **answers: Answer) -> Callable[[Any], Any]:
    """Mark a test as one row of the table.

    Args:
        title: the behaviour as a statement.
        answers: provider → answer; "yes" for those that are not named.
    """
    unknown = set(answers) - set(PROVIDERS)
    assert not unknown, unknown
    return pytest.mark.behaviour(title, {name: answers.get(name, Answer()) for name in PROVIDERS})
