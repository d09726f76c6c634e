"""The labs as they are stored: no outputs, stable ids, short cells, checks that exist, measured times."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
import pytest

from labkit.checks import checks_of, find
from labkit.course.cells import check_id_of
from labkit.labs.metadata import find_labs, load_lab, steps_and_checks, tags
from labkit.labs.times import shown_line, time_line

ROOT = Path(__file__).resolve().parents[2]
LABS = find_labs(ROOT / "notebooks")
each_lab = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)


def notebook_of(lab):
    return nbformat.read(lab.path, as_version=4)


def code_cells(lab):
    return [cell for cell in notebook_of(lab).cells if cell.cell_type == "code"]


def prose(lab):
    return "\n".join(cell.source for cell in notebook_of(lab).cells if cell.cell_type == "markdown")


@each_lab
def test_stored_without_traces_of_a_run(lab):
    for cell in code_cells(lab):
        assert cell.outputs == [] and cell.execution_count is None, cell.id
        assert set(cell.metadata) <= {"tags", "labkit"}, cell.id
    assert set(notebook_of(lab).metadata) == {"kernelspec", "labkit", "language_info"}


@each_lab
def test_ids_are_words_and_stay(lab):
    notebook = notebook_of(lab)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert not [one for one in ids if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one)]
    assert not [one for one in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4})*.*", one)], "random ids"


@each_lab
def test_cells_are_short_and_introduced(lab):
    cells = notebook_of(lab).cells
    shown = [cell for cell in cells if cell.cell_type == "code" and "exercise" not in tags(cell)]
    sizes = [len(cell.source.splitlines()) for cell in shown]
    assert median(sizes) <= 3 and max(sizes) <= 12
    introduced = [a.cell_type == "markdown" for a, b in pairwise(cells) if b.cell_type == "code"]
    assert sum(introduced) / len(introduced) > 0.5


@each_lab
def test_parameters_are_those_of_the_runner(lab):
    (cell,) = [cell for cell in code_cells(lab) if "parameters" in tags(cell)]
    assigned = [node.targets[0].id for node in ast.parse(cell.source).body]
    assert assigned == ["provider", "speed", "cluster_name"]


@each_lab
def test_every_check_has_a_step_and_every_defined_check_is_used(lab):
    notebook = notebook_of(lab)
    assert len(steps_and_checks(notebook)) >= 3
    used = [check_id_of(cell.source) for cell in notebook.cells if "check" in tags(cell)]
    assert len(set(used)) == len(used)
    for check_id in used:
        assert check_id.startswith(lab.number) and find(check_id)
    assert sorted(used) == sorted(spec.id for spec in checks_of(lab.number))


@each_lab
def test_tells_what_a_lab_must_tell(lab):
    text = prose(lab)
    assert "**You will learn**" in text and "## Clean up" in text
    assert "https://kubernetes.io/docs/" in text
    assert "predict(" in "\n".join(cell.source for cell in code_cells(lab)), "nothing to predict"
    assert ".compare(" in "\n".join(cell.source for cell in code_cells(lab)), "no prediction is compared"
    assert any(cell.source.lstrip().startswith("!kubectl") for cell in code_cells(lab))


@each_lab
def test_time_is_measured_and_shown(lab):
    assert set(lab.measured_s) == {"class", "ci"}, "run `labkit run --record-times` at both speeds"
    assert shown_line(notebook_of(lab)) == time_line(lab)
    assert lab.measured_s["ci"] * 2 < lab.limit_s or lab.measured_s["class"] < lab.limit_s


@each_lab
def test_says_whether_it_builds_images(lab):
    code = "\n".join(cell.source for cell in code_cells(lab))
    assert lab.builds_images == bool(re.search(r"\bbuild_image\(|\bmove_in\(|labkit\.gameday", code))


@each_lab
def test_names_no_machine(lab):
    text = lab.path.read_text()
    assert not re.search(r"/root/|/home/|/tmp/|/work/", text)


@each_lab
def test_links_between_labs_lead_somewhere(lab):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose(lab)):
        assert (lab.path.parent / target).exists(), target


def test_labs_need_only_labs_that_come_before():
    numbers = [lab.number for lab in LABS]
    for lab in LABS:
        assert all(one in numbers and one < lab.number for one in lab.needs)
        assert load_lab(lab.path) == lab
