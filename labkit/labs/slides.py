"""An executed lab as slides for a demonstration: one HTML file that needs no network.

A cell's `slideshow.slide_type` (slide, subslide, fragment, skip, notes, -) says where it stands, as in
Jupyter. Where it says nothing, rules do: a heading begins a slide, and so does the next explanation after
code; set-up and clean-up are skipped; a figure stands without its code; an exercise is shown open, with its
solution and the usual mistakes in the speaker's notes.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from nbconvert.exporters.slides import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pygments.formatters.html import HtmlFormatter

from labkit.course.cells import exercise_of
from labkit.course.exercises import Exercise, load, solution
from labkit.course.numbers import parse
from labkit.errors import LabError
from labkit.labs.metadata import Lab, load_lab, read_notebook, tags
from labkit.labs.pages import TEMPLATES, shown_media
from labkit.labs.trials import skeleton_of

OUTPUT_LINES = 14
"""So much of an output's text stays on a slide; the rest is counted."""
SLIDE_LINES, FIGURE_ROOM = 26, 5
"""So many lines fill a slide; so many may stand above a figure."""
_SETUP = {"parameters", "injected-parameters", "papermill-error-cell-tag"}
_TYPES = {"slide", "subslide", "fragment", "skip", "notes", "-"}


def executed_lab(number: str, report: Path | None = None) -> Path:
    """The executed notebook of a lab.

    Args:
        number: of the lab, "08", "8" or "02b".
        report: folder of `labkit run`; by default that of ./reports and its like which ran the lab last.

    Raises:
        LabError: there is no such notebook, or the run of the lab did not pass.
    """
    digits, _ = parse(number) or (number, "")
    again = f"Run it first: labkit run {digits}"
    folders = [report] if report else sorted(Path().glob("reports*"))
    found = [path for folder in folders for path in folder.glob(f"labs/{digits}-*.ipynb")]
    if not found:
        where = report or "a folder reports of this folder"
        raise LabError(f"Slides need an executed lab {digits}, and {where} has none.", f"{again}.")
    path = max(found, key=lambda each: each.stat().st_mtime)
    state = _state(path.parents[1] / "summary.json", path.stem)
    if state != "passed":
        said = f"Lab {digits} in {path.parents[1]} is {state}; slides need a run that passed."
        raise LabError(said, f"{again}.")
    return path


def _state(summary: Path, name: str) -> str:
    try:
        labs = json.loads(summary.read_text(encoding="utf-8"))["labs"]
        return str(next(lab["state"] for lab in labs if lab["name"] == name))
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return "not in its summary.json"


def write_slides(executed: Path, target: Path, sources: Path | None = None) -> int:
    """Write a lab's slides, and return how many they are.

    Args:
        executed: a notebook with outputs.
        target: the HTML file.
        sources: folder of the labs, for the mistakes that speaker's notes tell of; None for none.

    Raises:
        LabError: it is no lab, has no outputs, or all of its cells are skipped.
        OSError: the file cannot be written.
    """
    lab, notebook = load_lab(executed), read_notebook(executed)
    if not any(cell.get("outputs") for cell in notebook.cells):
        raise LabError(f"{executed} has no outputs.", f"Run the lab first: labkit run {lab.number}.")
    arrange(notebook, load(sources, lab.number).by_id if sources else {})
    text = _render(lab, notebook, executed.parent)
    target.write_text(text, encoding="utf-8", errors="backslashreplace")
    return sum(kind_of(cell) in ("slide", "subslide") for cell in notebook.cells)


def kind_of(cell: NotebookNode) -> str:
    """A cell's slide type as its metadata say; "" where they say none that Jupyter knows."""
    said = cell.metadata.get("slideshow", {}).get("slide_type", "")
    return str(said) if said in _TYPES else ""


def arrange(notebook: NotebookNode, exercises: dict[str, Exercise]) -> None:
    """Give each cell a slide type, open the exercises, and shorten long outputs.

    Raises:
        LabError: every cell is skipped.
    """
    cells = _opened(notebook.cells, exercises)
    hidden, lines, has_code = True, 0, False  # code before the first section sets the lab up
    for n, cell in enumerate(cells):
        _shorten(cell)
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            hidden = "clean up" in cell.source.splitlines()[0].lower()
        skipped = _is_setup(cell) or (hidden and (n > 0 or cell.cell_type == "code"))
        kind = kind_of(cell) or ("skip" if skipped else _rule(cell, lines, has_code, cells[n - 1 : n]))
        cell.metadata["slideshow"] = {"slide_type": kind}
        if kind in ("slide", "subslide"):
            lines, has_code = 0, False
        if kind not in ("skip", "notes"):
            lines += _height(cell)
            has_code = has_code or cell.cell_type == "code"
    notebook.cells = cells
    first = next((cell for cell in cells if kind_of(cell) not in ("skip", "notes")), None)
    if first is None:
        raise LabError(
            "Every cell of this lab is skipped: there is no slide.", "See slide_type in its cells."
        )
    first.metadata["slideshow"] = {"slide_type": "slide"}


def _rule(cell: NotebookNode, lines: int, has_code: bool, before: list[NotebookNode]) -> str:
    """Where a cell stands that says nothing about it."""
    if cell.cell_type != "code":
        head = re.match(r"(#{1,3}) ", cell.source)
        if head:
            return "slide" if len(head[1]) < 3 else "subslide"
        return "subslide" if has_code else "-"
    room = FIGURE_ROOM if cell.metadata.get("figure_alone") else SLIDE_LINES / 2
    explained = bool(before) and before[0].cell_type == "markdown" and lines < room
    return "-" if explained or lines + _height(cell) <= SLIDE_LINES else "subslide"


def _is_setup(cell: NotebookNode) -> bool:
    """Whether a cell only imports, or holds parameters."""
    if tags(cell) & _SETUP:
        return True
    if cell.cell_type != "code":
        return False
    try:
        lines = ast.parse(cell.source).body
    except SyntaxError:  # %%writefile, !kubectl
        return False
    return all(isinstance(line, ast.Import | ast.ImportFrom) for line in lines)


def _height(cell: NotebookNode) -> int:
    """About how many lines a cell takes on a slide."""
    if cell.cell_type != "code":
        return sum(1 + len(line) // 90 for line in cell.source.splitlines() if line.strip())
    tall = 0 if cell.metadata.get("figure_alone") else len(cell.source.splitlines()) + 1
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            tall += SLIDE_LINES - FIGURE_ROOM
        else:
            tall += len(str(output.get("text", "") or data.get("text/plain", "")).splitlines()) + 1
    return tall


def _opened(cells: list[NotebookNode], exercises: dict[str, Exercise]) -> list[NotebookNode]:
    """Exercises as a class sees them: no solution on the slide, and no cell between it and the check."""
    opened: list[NotebookNode] = []
    current = ""
    for cell in cells:
        name = exercise_of(cell)
        if name:
            notes = _notes(cell.source, exercises.get(name) if name != current else None)
            cell.source, cell["outputs"], current = skeleton_of(cell), [], name
            opened += [cell, new_markdown_cell(notes, metadata={"slideshow": {"slide_type": "notes"}})]  # type: ignore[no-untyped-call]
            continue
        if current:
            cell.metadata.setdefault("slideshow", {"slide_type": "skip"})
            if "check" in tags(cell):
                current = ""
        opened.append(cell)
    return opened


def _notes(source: str, exercise: Exercise | None) -> str:
    kept = (
        f"**Your turn.** Give the class time before you go on. The solution:\n\n```\n{solution(source)}\n```"
    )
    if exercise is None:
        return kept
    mistakes = "\n".join(f"- {each.name}: {exercise.hints[each.hint].strip()}" for each in exercise.wrong)
    return f"{kept}\n\nWhere to look: {exercise.where.strip()}\n\nUsual mistakes:\n\n{mistakes}"


def _shorten(cell: NotebookNode) -> None:
    """Keep the beginning of a long text, and say how much is left out; a figure stands without its code."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            cell.metadata["figure_alone"] = True
        if "image/png" in data or "text/html" in data:
            continue
        holder, key = (output, "text") if "text" in output else (data, "text/plain")
        lines = str(holder.get(key, "")).rstrip("\n").split("\n")
        if len(lines) > OUTPUT_LINES:
            left = len(lines) - OUTPUT_LINES + 2
            holder[key] = "\n".join([*lines[: OUTPUT_LINES - 2], f"\x1b[0m… {left} more lines"])


def _render(lab: Lab, notebook: NotebookNode, folder: Path) -> str:
    exporter = SlidesExporter(  # type: ignore[no-untyped-call]
        template_name="slides",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_anchor_links=True,
    )
    shown_media(exporter, notebook)
    for cell in notebook.cells:
        caption = cell.metadata.get("labkit", {}).get("figure") or cell.id.replace("-", " ")
        for output in cell.get("outputs", []):
            if "image/png" not in output.get("data", {}):
                continue
            output.data.pop("text/html", None)  # a page has room for another size than a slide
            words = output.data.get("text/plain", "<")
            alt = caption if words.startswith("<") else words
            output.setdefault("metadata", {}).setdefault("image/png", {}).setdefault("alt", alt)
    style = HtmlFormatter(style="default").get_style_defs(".highlight")  # type: ignore[no-untyped-call]
    dark = HtmlFormatter(style="github-dark").get_style_defs('[data-theme="dark"] .highlight')  # type: ignore[no-untyped-call]
    resources = {
        "lab": {"title": f"{lab.number} · {lab.title}", "about": f"{lab.number} · {lab.title}"},
        "slides": {
            "css": (TEMPLATES / "slides.css").read_text(encoding="utf-8"),
            "script": (TEMPLATES / "slides.js").read_text(encoding="utf-8"),
            "code_css": f"{style}\n{dark}",
        },
        "metadata": {"name": lab.name, "path": str(folder)},
    }
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    # A link to another notebook leads nowhere from a file that travels alone.
    return re.sub(r'<a href="(?!https?:|#|mailto:)[^"]*"', "<a", body)
