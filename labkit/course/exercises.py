"""Exercises: the parts of a lab that the learner writes.

Their texts and typical mistakes lie beside the notebooks as data.

`notebooks/exercises/NN.yaml` has those of lab NN, each under the id of the check that judges it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from labkit.course.numbers import CHECK, WORDS
from labkit.errors import LabError

OPEN = "YOUR TURN"
"""Stands in what a learner has not filled in yet."""

_TEXT = {"type": "string", "minLength": 3}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"pattern": rf"^{CHECK}$"},
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["title", "points", "where", "hints", "nearly", "wrong"],
        "properties": {
            "title": _TEXT,
            "points": {"type": "integer", "minimum": 1, "maximum": 10},
            "file": {"type": "string", "pattern": r"^work/[\w./-]+$"},
            "where": _TEXT,
            "hints": {
                "type": "object",
                "minProperties": 2,
                "propertyNames": {"pattern": rf"^{WORDS}$"},
                "additionalProperties": _TEXT,
            },
            "nearly": _TEXT,
            "wrong": {
                "type": "array",
                "minItems": 2,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name", "hint", "cells"],
                    "properties": {
                        "name": _TEXT,
                        "hint": {"type": "string"},
                        "cells": {
                            "type": "object",
                            "minProperties": 1,
                            "additionalProperties": {"type": "string"},
                        },
                        "undo": {"type": "string"},
                    },
                },
            },
        },
    },
}


@dataclass(frozen=True)
class WrongAnswer:
    """A typical mistake, and the hint that it must draw.

    Attributes:
        name: what is wrong about it, in a few words.
        hint: the key of the hint, of the exercise's `hints`.
        cells: id of a cell of the exercise → what a learner with this mistake writes into it.
        undo: source of a cell that takes back what the solution would not; "" for nothing.
    """

    name: str
    hint: str
    cells: dict[str, str]
    undo: str = ""


@dataclass(frozen=True)
class Exercise:
    """What a learner does in a lab, and what helps.

    Attributes:
        id: that of the check which judges it: "00-service".
        points: what it counts when a class is graded.
        where: first level of help: where to look.
        hints: second level: key of a finding that is not met → what is wrong. What the check sees chooses.
        nearly: third level: nearly the solution.
        file: what the learner writes, relative to the notebook; "" where the answer is in a cell.
        wrong: typical mistakes.
    """

    id: str
    title: str
    points: int
    where: str
    hints: dict[str, str]
    nearly: str
    wrong: tuple[WrongAnswer, ...]
    file: str = ""

    def is_open(self, folder: Path, answer: object = None) -> bool:
        """Whether the learner has not begun: no file, a mark of what to fill in, or `...` as the answer.

        Args:
            folder: of the notebook.
            answer: what the learner's cell gave to the check, where there is no file.
        """
        if answer is ...:
            return True
        if not self.file:
            return False
        try:
            return OPEN in (folder / self.file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return True


@dataclass(frozen=True)
class Exercises:
    """The exercises of a lab, by id, in their order."""

    lab: str
    by_id: dict[str, Exercise] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """What all of them count."""
        return sum(each.points for each in self.by_id.values())


def load(notebooks: Path, lab: str) -> Exercises:
    """The exercises of a lab.

    Args:
        notebooks: folder of the labs' sources.
        lab: two digits, and a letter where a lab has two notebooks.

    Raises:
        LabError: the file is not as the schema wants it; the message names the field.
    """
    path = notebooks / "exercises" / f"{lab}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        jsonschema.validate(raw, SCHEMA)
    except FileNotFoundError:
        return Exercises(lab)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{path} cannot be read: {error}") from None
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the whole"
        raise LabError(f"{path}, {where}: {error.message}") from None
    return Exercises(lab, {name: _exercise(name, facts, path) for name, facts in raw.items()})


def _exercise(name: str, facts: dict[str, Any], path: Path) -> Exercise:
    wrong = tuple(WrongAnswer(**each) for each in facts["wrong"])
    unknown = sorted({each.hint for each in wrong} - facts["hints"].keys())
    if unknown:
        raise LabError(f"{path}, {name}: wrong answers name hints that are not there: {', '.join(unknown)}.")
    return Exercise(name, **{**facts, "wrong": wrong})


_MARKS = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION[^\n]*\n(?P<solution>.*?)^[ \t]*### END SOLUTION[^\n]*(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)


def without_solution(source: str, skeleton: str = "") -> str:
    """A cell's source with its solutions taken out.

    Args:
        skeleton: what the first one's place is taken by; by default a line that says so.

    Raises:
        LabError: there is no pair of marks, or one is left over.
    """
    replacements = iter([skeleton] if skeleton else [])

    def replaced(match: re.Match[str]) -> str:
        mark = f"# {OPEN}" if source.startswith("%%") else f"...  # {OPEN}"
        text = next(replacements, mark)
        return "".join(f"{match['indent']}{line}".rstrip() + "\n" for line in text.splitlines())

    text, count = _MARKS.subn(replaced, source)
    if not count or "### BEGIN SOLUTION" in text or "### END SOLUTION" in text:
        raise LabError(
            "An exercise's cell needs its solution between the lines ### BEGIN SOLUTION and ### END SOLUTION."
        )
    return text.rstrip("\n")


def solution(source: str) -> str:
    """A cell's source without the marks."""
    return _MARKS.sub(lambda match: match["solution"], source).rstrip("\n")
