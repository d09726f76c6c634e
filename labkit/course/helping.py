"""Help with an exercise, in three levels: where to look, what is wrong, and nearly the solution."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from labkit.course.cells import cells_of, exercise_of, notebooks_of
from labkit.course.exercises import Exercise, solution
from labkit.course.progress import Progress, ProgressError
from labkit.errors import LabError

LEVELS = 3
_T = TypeVar("_T")


def help_text(exercise: Exercise, level: int, missing: Sequence[str]) -> str:
    """What a level of help says.

    Args:
        level: 1 to 3; the second one needs something to choose from, and is the first one without.
        missing: keys of the findings that were not met at the last look, most important first.
    """
    if level >= LEVELS:
        return f"Nearly the solution:\n{exercise.nearly.rstrip()}"
    chosen = next((exercise.hints[key] for key in missing if key in exercise.hints), "")
    if level == 2 and chosen:
        return f"What is wrong: {chosen.strip()}"
    return f"Where to look: {exercise.where.strip()}"


def solved_cells(notebooks: Path, exercise_id: str) -> dict[str, str]:
    """Id of each cell that the learner writes for an exercise → its solution.

    Raises:
        LabError: the lab's source is not there, or has no such exercise.
    """
    for path in notebooks_of(notebooks, exercise_id):
        own = [cell for cell in cells_of(path) if exercise_of(cell) == exercise_id]
        if own:
            return {cell["id"]: solution("".join(cell["source"])) for cell in own}
    raise LabError(f"No lab in {notebooks} has an exercise {exercise_id!r}.")


class Notes:
    """Notes of what a learner does, which never get in the way: what cannot be kept is told once.

    Args:
        progress: makes the record; asked at each event, since the learner may have changed the name.
        say: where the one line goes.
    """

    def __init__(
        self,
        progress: Callable[[], Progress] = Progress,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self._progress, self._say = progress, say
        self._told = False

    def note(self, kind: str, name: str, **facts: Any) -> None:
        """Keep an event, or tell once that it could not be kept."""
        self._try(lambda: self._progress().note(kind, name, **facts), None)

    def hint_level(self, name: str) -> int:
        """The highest level of help that was shown for an exercise."""
        return self._try(lambda: self._progress().hint_level(name), 0)

    def _try(self, act: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return act()
        except ProgressError as error:
            if not self._told:
                self._told = True
                self._say(f"{error.message} {error.hint}")
            return otherwise
