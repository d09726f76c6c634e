"""Where the course is: in a learner's folder, which carries its sources along, or in labkit's checkout."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from labkit.course.exercises import Exercise, Exercises, load
from labkit.course.numbers import lab_of

HOLDER = ".labkit"
"""Folder in a learner's course folder with the course as it was handed out."""
GIVEN = "given.json"
"""File in it: the course's version, and the digest of each file that was handed out."""


def sources() -> Path | None:
    """The folder of the labs' sources: of the course folder that we are in, else of the checkout, or None."""
    here = Path.cwd()  # which a kernel shares with its notebook
    carried = (folder / HOLDER / "notebooks" for folder in (here, *here.parents))
    checkout = Path(__file__).resolve().parents[2] / "notebooks"
    return next((folder for folder in (*carried, checkout) if folder.is_dir()), None)


def version() -> str:
    """The version of the course: that which the course folder that we are in was given, else labkit's own."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            return str(json.loads((folder / HOLDER / GIVEN).read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return metadata.version("labkit")


def exercise(check_id: str) -> Exercise | None:
    """The exercise that a check judges; None for a check of a demonstration.

    Raises:
        LabError: the lab's exercises cannot be read.
    """
    return _of(sources(), lab_of(check_id)).by_id.get(check_id)


@lru_cache(maxsize=32)
def _of(folder: Path | None, lab: str) -> Exercises:
    return load(folder, lab) if folder else Exercises(lab)
