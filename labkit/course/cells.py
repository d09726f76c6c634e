"""What a notebook's cells say of exercises and checks."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from labkit.course.numbers import lab_of
from labkit.errors import LabError


def notebooks_of(notebooks: Path, check_id: str) -> list[Path]:
    """The notebooks that may have a check: the lab of its number, then those that are no labs.

    Args:
        notebooks: their folder.
    """
    names = (f"{lab_of(check_id)}-*.ipynb", "[!0-9]*.ipynb")
    return [path for name in names for path in sorted(notebooks.glob(name))]


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, as its file has them.

    Raises:
        LabError: it cannot be read.
    """
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LabError(f"{path} cannot be read: {error}") from None


def exercise_of(cell: dict[str, Any]) -> str:
    """The exercise that a cell belongs to; "" for another cell."""
    about = cell.get("metadata", {})
    return str(about.get("labkit", {}).get("exercise", "")) if "exercise" in about.get("tags", []) else ""


def check_id_of(source: str) -> str | None:
    """The id in a cell's call `check("…", …)`, or None when there is no such call with a literal id."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "check"
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            return node.args[0].value
    return None
