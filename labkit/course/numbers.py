"""Numbers of labs: two digits, and a letter for the second notebook of a lab that has two."""

from __future__ import annotations

import re
from pathlib import Path

LAB = r"\d\d[a-z]?"
WORDS = r"[a-z0-9]+(-[a-z0-9]+)*"
CHECK = rf"{LAB}-{WORDS}"
"""The id of a check, and of the exercise that it judges: "00-service", "02b-reserve"."""


def lab_of(name: str) -> str:
    """The lab that a check, an exercise or a notebook belongs to: what its name begins with."""
    return name.partition("-")[0]


def lab_paths(folder: Path) -> list[Path]:
    """The notebooks of a folder that are labs, in the order of their numbers."""
    found = (path for path in folder.glob("[0-9][0-9]*-*.ipynb") if re.fullmatch(LAB, lab_of(path.name)))
    return sorted(found, key=lambda path: lab_of(path.name))


def parse(word: str) -> tuple[str, str] | None:
    """Number and rest of how somebody names a lab: "8", "02b", "08-autoscaling"; None for anything else."""
    match = re.fullmatch(r"(\d{1,2})([a-z]?)(-.*)?", word)
    return (match[1].zfill(2) + match[2], match[3] or "") if match else None
