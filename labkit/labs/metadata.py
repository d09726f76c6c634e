"""What a notebook says about itself: `metadata.labkit`, validated, and the tags of its cells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import nbformat
from nbformat import NotebookNode

from labkit.course.cells import check_id_of
from labkit.course.numbers import LAB, lab_paths, parse
from labkit.errors import ConfigError, LabError

PROVIDERS = ("embedded", "kind", "existing")
SPEEDS = ("class", "ci")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "lab",
        "title",
        "summary",
        "needs",
        "providers",
        "plan_minutes",
        "measured_s",
        "limit_s",
        "cell_limit_s",
    ],
    "properties": {
        "lab": {"type": "string", "pattern": f"^{LAB}$"},
        "title": {"type": "string", "minLength": 3},
        "summary": {"type": "string", "minLength": 10},
        "needs": {"type": "array", "items": {"type": "string", "pattern": f"^{LAB}$"}, "uniqueItems": True},
        "providers": {
            "type": "object",
            "required": list(PROVIDERS),
            "additionalProperties": False,
            "properties": {
                p: {"oneOf": [{"const": True}, {"type": "string", "minLength": 10}]} for p in PROVIDERS
            },
        },
        "programs": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "images": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "plan_minutes": {"type": "integer", "minimum": 1, "maximum": 180},
        "measured_s": {
            "type": "object",
            "additionalProperties": False,
            "properties": {s: {"type": "number", "exclusiveMinimum": 0} for s in SPEEDS},
        },
        "measured_on": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                p: {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {s: {"type": "number", "exclusiveMinimum": 0} for s in SPEEDS},
                }
                for p in PROVIDERS
                if p != "embedded"
            },
        },
        "limit_s": {"type": "integer", "minimum": 10, "maximum": 3600},
        "cell_limit_s": {"type": "integer", "minimum": 5, "maximum": 1800},
        "alone": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
        "builds_images": {"type": "boolean"},
    },
}


class NoSuchLab(LabError, ConfigError):
    """A lab, or the folder with the labs, was named that is not there."""


@dataclass(frozen=True)
class Lab:
    """A lab and what its notebook says about itself.

    Attributes:
        number: two digits, and a letter for the second notebook of a lab that has two.
        needs: numbers of labs that must have passed before.
        providers: provider → True, or the reason why the lab cannot run there.
        plan_minutes: what a student should plan, reading and trying included.
        measured_s: speed → seconds of the last recorded headless run.
        limit_s: the whole headless run is ended after that many seconds.
        cell_limit_s: and each cell after that many.
        alone: ids of the first and the last cell of what is measured, which another lab on the machine at the
            same time would spoil; () in a lab that does not measure.
        builds_images: its pods run images that are built on this machine, which not every cluster can have.
        programs, images: of versions.toml, which the runner gets before the first lab.
    """

    path: Path
    number: str
    title: str
    summary: str
    needs: tuple[str, ...]
    providers: dict[str, bool | str]
    plan_minutes: int
    measured_s: dict[str, float]
    limit_s: int
    cell_limit_s: int
    alone: tuple[str, ...] = ()
    builds_images: bool = False
    programs: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The notebook's file name without ending."""
        return self.path.stem

    def skip_reason(self, provider: str) -> str:
        """Why the lab cannot run on a provider; "" when it can."""
        answer = self.providers[provider]
        return "" if answer is True else str(answer)


def notebooks_dir(given: Path | None = None) -> Path:
    """The folder with the labs: the given one, ./notebooks, or the one beside labkit's checkout.

    Raises:
        NoSuchLab: none of them is a folder.
    """
    candidates = [given] if given else [Path("notebooks"), Path(__file__).resolve().parents[2] / "notebooks"]
    for folder in candidates:
        if folder.is_dir():
            return folder.resolve()
    raise NoSuchLab(
        f"No folder of labs: {', '.join(map(str, candidates))}.",
        "Run it in labkit's checkout, or name the folder with --notebooks.",
    )


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook of format 4; cells that are stored without an id get one by their place.

    Raises:
        LabError: the file is missing or is no valid notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
        notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        _name_cells(notebook, json.loads(text))
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise LabError(f"There is no notebook {path}.") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise LabError(f"{path} is no valid notebook: {error}", "Save it again in JupyterLab.") from error
    return notebook


def _name_cells(notebook: NotebookNode, stored: dict[str, Any]) -> None:
    """Give cells that are stored without an id one that is the same each time the notebook is read."""
    ids = [cell.get("id") for cell in stored.get("cells", [])]
    for n, cell in enumerate(notebook.cells):
        if n >= len(ids) or not ids[n]:
            cell["id"] = next(name for more in ("", "-x", "-y") if (name := f"cell-{n + 1}{more}") not in ids)
            notebook["nbformat_minor"] = max(5, notebook.get("nbformat_minor", 5))


def load_lab(path: Path) -> Lab:
    """Read and validate a lab's metadata.

    Raises:
        LabError: naming the field that is missing or wrong.
    """
    notebook = read_notebook(path)
    raw = notebook.metadata.get("labkit")
    if raw is None:
        raise LabError(f"{path.name} has no metadata `labkit`.", "Copy that of another lab and change it.")
    try:
        jsonschema.validate(raw, SCHEMA)
    except jsonschema.ValidationError as error:
        where = ".".join(["labkit", *map(str, error.absolute_path)])
        raise LabError(f"{path.name}, metadata {where}: {error.message}") from None
    if not path.name.startswith(f"{raw['lab']}-"):
        raise LabError(
            f"{path.name} says that it is lab {raw['lab']}.", "The name begins with the lab's number."
        )
    lost = set(raw.get("alone", ())) - {cell.id for cell in notebook.cells if cell.cell_type == "code"}
    if lost:
        raise LabError(
            f"{path.name}, metadata labkit.alone: there is no code cell {', '.join(sorted(lost))}."
        )
    return Lab(
        path=path,
        number=raw["lab"],
        title=raw["title"],
        summary=raw["summary"],
        needs=tuple(raw["needs"]),
        providers=dict(raw["providers"]),
        plan_minutes=raw["plan_minutes"],
        measured_s=dict(raw["measured_s"]),
        limit_s=raw["limit_s"],
        cell_limit_s=raw["cell_limit_s"],
        alone=tuple(raw.get("alone", ())),
        builds_images=raw.get("builds_images", False),
        programs=tuple(raw.get("programs", ())),
        images=tuple(raw.get("images", ())),
    )


def find_labs(folder: Path, wanted: list[str] | None = None) -> list[Lab]:
    """The labs of a folder in the order of their numbers, or those wanted.

    Args:
        wanted: numbers ("08", "8", "02b") or names ("08-autoscaling"); [] or None for all.

    Raises:
        NoSuchLab: none there, or one unknown.
        LabError: two have one number, or one is no valid lab.
    """
    labs = [load_lab(path) for path in lab_paths(folder)]
    if not labs:
        raise NoSuchLab(f"There is no lab in {folder}.", "Labs are notebooks named NN-words.ipynb.")
    by_number = {lab.number: lab for lab in labs}
    if len(by_number) != len(labs):
        raise LabError(f"Two labs in {folder} have the same number.")
    if not wanted:
        return labs
    chosen: dict[str, Lab] = {}
    for word in wanted:
        number, rest = parse(Path(word).name.removesuffix(".ipynb")) or ("", "")
        lab = by_number.get(number)
        if lab is None or not lab.name.startswith(number + rest):
            raise NoSuchLab(f"There is no lab {word!r}.", f"Labs: {', '.join(one.name for one in labs)}.")
        chosen[lab.number] = lab
    return [chosen[number] for number in sorted(chosen)]


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def steps_and_checks(notebook: NotebookNode) -> dict[int, int]:
    """Index of the first cell tagged `step` → index of the cell tagged `check` that verifies it.

    A step begins with the first cell tagged `step` or `exercise` after the previous check.

    Raises:
        LabError: a check without a step before it, a step without a check, or a `check` cell that calls none.
    """
    pairs: dict[int, int] = {}
    step: int | None = None
    for index, cell in enumerate(notebook.cells):
        marked = tags(cell)
        if marked & {"step", "exercise"} and step is None:
            step = index
        if "check" not in marked:
            continue
        if check_id_of(cell.source) is None:
            raise LabError(f"Cell {cell.id!r} is tagged `check` but calls no check.")
        if step is None:
            raise LabError(f"Check in cell {cell.id!r} has no cell tagged `step` before it.")
        pairs[step] = index
        step = None
    if step is not None:
        raise LabError(f"The step that begins in cell {notebook.cells[step].id!r} has no check.")
    return pairs
