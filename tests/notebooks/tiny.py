"""Notebooks without a cluster, written for a test: what the runner must do with cells, checks and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labkit.labs.metadata import Lab, load_lab

META: dict[str, Any] = {
    "lab": "90",
    "title": "A lab for the tests",
    "summary": "Steps and checks with no cluster.",
    "needs": [],
    "providers": {"embedded": True, "kind": True, "existing": "It changes what is not ours to change."},
    "plan_minutes": 1,
    "measured_s": {"class": 1.0, "ci": 1.0},
    "limit_s": 60,
    "cell_limit_s": 20,
}

DEFINE = """
from labkit.checks import check, define, expect
done = []
@define("{lab}-step-done", "The step is done", deadline_s=0.3, every_s=0.1)
def step_done(done):
    yield expect(bool(done), "something is in the list", f"the list holds {{len(done)}} things")
"""


def code(cell_id: str, source: str, *tags: str, **facts: Any) -> nbformat.NotebookNode:
    """A code cell with a stable id."""
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    if facts:
        metadata["labkit"] = facts
    return new_code_cell(source, id=cell_id, metadata=metadata)


def standard(lab: str = "90", step: str = "done.append(1)") -> list[nbformat.NotebookNode]:
    """Parameters, a check's definition, its step, the check."""
    return [
        new_markdown_cell("# A lab\nA sentence.", id="intro"),
        code("parameters", 'provider = "embedded"\nspeed = "class"\ncluster_name = "lab"', "parameters"),
        code("define", DEFINE.format(lab=lab)),
        code("step", step, "step"),
        code("check", f'check("{lab}-step-done", done)', "check"),
        code("after", 'print(provider, speed, cluster_name, "after")'),
    ]


def write(folder: Path, cells: list[nbformat.NotebookNode], **meta: Any) -> Lab:
    """Write NN-tiny.ipynb into a folder and load it."""
    facts = {**META, **meta}
    path = folder / f"{facts['lab']}-tiny.ipynb"
    notebook = new_notebook(cells=cells, metadata={"labkit": facts})
    nbformat.write(notebook, path)
    return load_lab(path)
