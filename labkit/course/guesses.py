"""How a learner's guesses get better: predictions beside what was measured, as a table and as a figure.

from labkit.course.guesses import guesses_so_far
guesses_so_far()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from labkit.course.progress import Event, Progress
from labkit.errors import LabError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def table_of(events: Iterable[Event]) -> pd.DataFrame:
    """The first guess at each question, in the order they were made; one that is made again knows too much.

    Returns:
        columns at (seconds since 1970), question, predicted, measured (numbers or words) and unit.
    """
    import pandas as pd

    first: dict[str, dict[str, object]] = {}
    for event in events:
        if event.kind == "prediction" and {"predicted", "measured"} <= event.detail.keys():
            row = {key: event.detail.get(key, "") for key in ("predicted", "measured", "unit")}
            first.setdefault(event.id, {"at": event.at, "question": event.id, **row})
    return pd.DataFrame(list(first.values()), columns=["at", "question", "predicted", "measured", "unit"])


def guesses_so_far(progress: Progress | None = None) -> Figure:
    """The figure of a learner's guesses; by default of whoever runs this.

    Raises:
        LabError: there is no guess yet.
        ProgressError: progress cannot be read.
    """
    from labkit.plots import guesses_figure

    table = table_of((progress or Progress()).events())
    if table.empty:
        raise LabError(
            "You have not guessed yet, so there is nothing to draw.",
            "Answer a prediction in a lab, then run the cell that compares it.",
        )
    return guesses_figure(table)
