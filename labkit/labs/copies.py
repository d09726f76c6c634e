"""Learners' copies: the labs without their solutions, in a folder that belongs to the learner.

What a learner has changed is never overwritten: what the folder was given is remembered by its digest, and
a new version of a changed file comes beside it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.course.cells import exercise_of
from labkit.course.numbers import lab_of, lab_paths
from labkit.course.place import GIVEN, HOLDER
from labkit.errors import ConfigError
from labkit.folders import write
from labkit.labs.metadata import read_notebook
from labkit.labs.trials import skeleton_of

START = "start.ipynb"
_READABLE = 0o644
_HELP = ("catch_up", "hint", "solution")
_IMPORTS = re.compile(r"^from labkit\.checks import (?P<names>\w+(?:, *\w+)*)[ \t]*$", re.MULTILINE)
_BESIDE = ("manifests", "services")
_LEFT_OUT = ("__pycache__", ".ipynb_checkpoints", "work", "game-day", "tests")


@dataclass
class Handed:
    """What was done to a course folder; paths relative to it.

    Attributes:
        new: files that were not there.
        updated: files that the learner had not touched, now of the new version.
        kept: files of the learner's → where the new version of each lies.
    """

    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """One line."""
        parts = [f"{len(self.new)} files written"] if self.new else []
        parts += [f"{len(self.updated)} updated"] if self.updated else []
        if self.kept:
            beside = ", ".join(f"{name} (new: {new})" for name, new in sorted(self.kept.items())[:3])
            more = f" and {len(self.kept) - 3} more" if len(self.kept) > 3 else ""
            parts.append(f"{len(self.kept)} of yours left as they are: {beside}{more}")
        return "; ".join(parts) or "everything is there already"


def hand_out(notebooks: Path, folder: Path) -> Handed:
    """Write the course into a folder, or bring the folder up to date.

    Args:
        notebooks: folder of the labs' sources; manifests and services lie beside it.

    Raises:
        ConfigError: the folder cannot be written, or holds something else.
        LabError: a lab's source is wrong.
    """
    given = _given(folder)
    if not given and folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty, and no course was written there.",
            "Name a new folder: labkit course my-course",
        )
    handed, digests = Handed(), dict(given)
    try:
        for name, content in _files(notebooks):
            _hand(folder, name, content, digests, handed)
        for lab in lab_paths(notebooks):
            (folder / "notebooks" / "work" / lab_of(lab.name)).mkdir(parents=True, exist_ok=True)
        _carry_sources(notebooks, folder / HOLDER / "notebooks")
        facts = {"version": version("labkit"), "files": digests}
        write(folder / HOLDER / GIVEN, json.dumps(facts, indent=1), _READABLE)
    except OSError as error:
        raise ConfigError(
            f"The course cannot be written to {folder}: {error}.", "Name another folder."
        ) from error
    return handed


def learners_copy(source: NotebookNode) -> NotebookNode:
    """A lab as a learner gets it: exercises open, predictions unanswered, no outputs."""
    copy = nbformat.from_dict(json.loads(json.dumps(source)))  # type: ignore[no-untyped-call]
    for cell in copy.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if exercise_of(cell):
            cell.source = skeleton_of(cell)
            cell.metadata["labkit"] = {"exercise": exercise_of(cell)}
        else:
            cell.source = _with_help(_unanswered(cell.source))
    copy.metadata["labkit"] = {**copy.metadata.get("labkit", {}), "course": version("labkit")}
    result: NotebookNode = copy
    return result


def _with_help(source: str) -> str:
    """The source, importing what a learner may ask for beside what the lab itself uses."""
    found = _IMPORTS.search(source)
    if not found:
        return source
    names = sorted({*re.findall(r"\w+", found["names"]), *_HELP})
    return f"{source[: found.start('names')]}{', '.join(names)}{source[found.end('names') :]}"


def _unanswered(source: str) -> str:
    """The source without the answers of its predictions."""
    if "predict(" not in source:
        return source
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return source
    lines = source.splitlines(keepends=True)
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        if getattr(call.func, "id", "") != "predict" or len(call.args) < 2:
            continue
        answer = call.args[1]
        if answer.end_lineno != answer.lineno or answer.end_col_offset is None:
            continue
        line = lines[answer.lineno - 1].encode()
        changed = line[: answer.col_offset] + b"None" + line[answer.end_col_offset :]
        lines[answer.lineno - 1] = changed.decode()
    return "".join(lines)


def start_page() -> NotebookNode:
    """A notebook that shows the labs, their minutes and the learner's progress, and opens them."""
    text = (
        "# Kubernetes labs\n\nRun the cell below (Shift-Enter) to see how far you are. "
        "A title opens its lab. Begin with lab 00; it brings up your cluster."
    )
    cells = [
        nbformat.v4.new_markdown_cell(text, id="intro"),  # type: ignore[no-untyped-call]
        nbformat.v4.new_code_cell(  # type: ignore[no-untyped-call]
            "from labkit.labs.overview import StartPage\nStartPage()", id="overview"
        ),
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    page: NotebookNode = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    )
    return page


def _files(notebooks: Path) -> Iterator[tuple[str, bytes]]:
    """Name in the course folder → content, of everything that a learner may change."""
    yield START, nbformat.writes(start_page()).encode() + b"\n"  # type: ignore[no-untyped-call]
    for path in sorted(notebooks.glob("*.ipynb")):
        copy = learners_copy(read_notebook(path))
        yield f"notebooks/{path.name}", nbformat.writes(copy).encode() + b"\n"  # type: ignore[no-untyped-call]
    for top in _BESIDE:
        root = notebooks.parent / top
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(part in _LEFT_OUT for part in parts):
                yield f"{top}/{'/'.join(parts)}", path.read_bytes()


def _hand(folder: Path, name: str, content: bytes, digests: dict[str, str], handed: Handed) -> None:
    """Write one file, beside the learner's own where the learner has changed it."""
    path, digest = folder / name, _digest(content)
    before = digests.get(name, "")
    if not path.exists():
        handed.new.append(name)
        write(path, content, _READABLE)
    elif (now := _digest(path.read_bytes())) == digest:
        pass
    elif now == before:
        handed.updated.append(name)
        write(path, content, _READABLE)
    elif before != digest:
        beside = f"{path.stem}.new{path.suffix}"
        handed.kept[name] = str(Path(name).with_name(beside))
        write(path.with_name(beside), content, _READABLE)
    digests[name] = digest


def _carry_sources(notebooks: Path, target: Path) -> None:
    """Take the labs' sources along: solutions and hints are looked up there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="sources-", dir=target.parent))
    try:
        for path in notebooks.glob("*.ipynb"):
            shutil.copy(path, fresh)
        if (notebooks / "exercises").is_dir():
            shutil.copytree(notebooks / "exercises", fresh / "exercises")
        shutil.rmtree(target, ignore_errors=True)
        fresh.chmod(0o755)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _given(folder: Path) -> dict[str, str]:
    """Name → digest of what was written there before; {} where no course was."""
    path = folder / HOLDER / GIVEN
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in facts["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): which files of {folder} are yours cannot be told any more.",
            "Write the course to a new folder, and copy your own files there.",
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
