"""Slides: which cell stands where, what a class must not see, and what is said when there is nothing to show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit.course.exercises import Exercise, WrongAnswer
from labkit.errors import LabError
from labkit.labs.slides import OUTPUT_LINES, arrange, executed_lab, kind_of, write_slides
from tests.notebooks.tiny import META

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SERVICE = "%%writefile work/90/a.yaml\nkind: Service\n### BEGIN SOLUTION\nport: 80\n### END SOLUTION"
EXERCISE = Exercise(
    "90-service", "A Service", 1, "Look at the port.", {"port": "It listens on another port."}, "port: …",
    (WrongAnswer("port 8080", "port", {"write": "port: 8080"}),),
)  # fmt: skip


def prints(text: str) -> list[nbformat.NotebookNode]:
    return [new_output("stream", name="stdout", text=text)]


def cells() -> list[nbformat.NotebookNode]:
    """A lab with every kind of cell, executed."""
    picture = new_output("display_data", data={"image/png": PNG, "text/plain": "<Figure>"})
    return [
        new_markdown_cell("# A lab\n\nIts goal.", id="intro"),
        new_code_cell("speed = 'class'", id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell("import labkit\ncluster = 1", id="start", outputs=prints("up")),
        new_markdown_cell("## First\n\nLook.", id="first"),
        new_code_cell(
            "!kubectl get pods", id="long", outputs=prints("".join(f"pod-{n}\n" for n in range(40)))
        ),
        new_markdown_cell(
            "And now [the next lab](01-next.ipynb) or [more](https://kubernetes.io/).", id="more"
        ),
        new_code_cell("plots.it()", id="figure", outputs=[picture]),
        new_code_cell("import json", id="import"),
        new_markdown_cell("### Your turn\n\nWrite it.", id="turn"),
        new_code_cell(
            SERVICE,
            id="write",
            outputs=prints("Writing work/90/a.yaml"),
            metadata={"tags": ["exercise"], "labkit": {"exercise": "90-service"}},
        ),
        new_code_cell("!kubectl apply -f work/90/a.yaml", id="apply", outputs=prints("created")),
        new_code_cell(
            "check('90-service')", id="check", outputs=prints("done"), metadata={"tags": ["check"]}
        ),
        new_markdown_cell("## Clean up\n\nAll of it.", id="cleanup"),
        new_code_cell("!kubectl delete all", id="delete", outputs=prints("gone")),
        new_markdown_cell("## What you know now\n\nMuch.", id="end"),
    ]


def report(folder: Path, state: str = "passed") -> Path:
    """A report with lab 90 in it."""
    (folder / "labs").mkdir(parents=True)
    path = folder / "labs" / "90-tiny.ipynb"
    nbformat.write(new_notebook(cells=cells(), metadata={"labkit": META}), path)
    (folder / "summary.json").write_text(json.dumps({"labs": [{"name": "90-tiny", "state": state}]}))
    return path


def test_headings_and_explanations_begin_slides_and_setup_is_skipped() -> None:
    notebook = new_notebook(cells=cells())
    arrange(notebook, {})
    kinds = {cell.id: kind_of(cell) for cell in notebook.cells if kind_of(cell) != "notes"}
    assert kinds == {
        "intro": "slide", "parameters": "skip", "start": "skip", "first": "slide", "long": "-", "more": "subslide",
        "figure": "-", "import": "skip", "turn": "subslide", "write": "-", "apply": "skip", "check": "skip",
        "cleanup": "skip", "delete": "skip", "end": "slide",
    }  # fmt: skip


def test_what_the_author_says_is_kept() -> None:
    notebook = new_notebook(cells=cells())
    by_id = {cell.id: cell for cell in notebook.cells}
    by_id["start"].metadata["slideshow"] = {"slide_type": "-"}
    by_id["long"].metadata["slideshow"] = {"slide_type": "skip"}
    by_id["more"].metadata["slideshow"] = {"slide_type": "fragment"}
    by_id["check"].metadata["slideshow"] = {"slide_type": "subslide"}
    by_id["end"].metadata["slideshow"] = {"slide_type": "a typing mistake"}
    arrange(notebook, {})
    assert [kind_of(by_id[name]) for name in ("start", "long", "more", "check", "end")] == [
        "-", "skip", "fragment", "subslide", "slide",
    ]  # fmt: skip


def test_an_exercise_is_open_and_the_speaker_knows_more() -> None:
    notebook = new_notebook(cells=cells())
    arrange(notebook, {"90-service": EXERCISE})
    at = next(n for n, cell in enumerate(notebook.cells) if cell.id == "write")
    shown, notes = notebook.cells[at], notebook.cells[at + 1]
    assert "port: 80" not in shown.source and "YOUR TURN" in shown.source and not shown.outputs
    assert kind_of(notes) == "notes"
    assert "port: 80" in notes.source and "port 8080: It listens on another port." in notes.source


def test_long_outputs_say_what_is_left_out() -> None:
    notebook = new_notebook(cells=cells())
    arrange(notebook, {})
    text = next(cell for cell in notebook.cells if cell.id == "long").outputs[0]["text"].split("\n")
    assert text[0] == "pod-0" and text[-1].endswith(f"… {40 - OUTPUT_LINES + 2} more lines")
    assert len(text) == OUTPUT_LINES - 1


def test_a_file_of_slides_asks_for_nothing(tmp_path: Path) -> None:
    count = write_slides(report(tmp_path / "reports"), tmp_path / "slides.html")
    page = (tmp_path / "slides.html").read_text()
    assert count == 5 == len(re.findall(r"<section[^>]*>(?!\s*<section)", page.split("</main>")[0]))
    for leaving in ('src="http', 'href="//', "@import", "url(http", 'rel="stylesheet"', "01-next.ipynb"):
        assert leaving not in page
    assert '<a href="https://kubernetes.io/"' in page
    assert 'alt="figure"' in page and "plots" not in page.split("<script>")[0]


def test_the_report_that_ran_the_lab_last_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match="labkit run 90"):
        executed_lab("90")
    report(tmp_path / "reports")
    newer = report(tmp_path / "reports-kind")
    assert executed_lab("90").resolve() == newer
    assert executed_lab("90", Path("reports")) == Path("reports/labs/90-tiny.ipynb")
    with pytest.raises(LabError, match="nowhere"):
        executed_lab("90", Path("nowhere"))
    with pytest.raises(LabError, match="labkit run 90b"):
        executed_lab("90b")


@pytest.mark.parametrize("state", ["failed", "not reached"])
def test_a_lab_that_did_not_pass_has_no_slides(tmp_path: Path, state: str) -> None:
    report(tmp_path / "r", state)
    with pytest.raises(LabError, match=f"is {state}"):
        executed_lab("90", tmp_path / "r")


def test_a_notebook_without_outputs_or_slides_is_named(tmp_path: Path) -> None:
    path = tmp_path / "90-tiny.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A lab")], metadata={"labkit": META}), path)
    with pytest.raises(LabError, match="no outputs"):
        write_slides(path, tmp_path / "slides.html")
    alone = new_notebook(cells=[new_code_cell("import os", outputs=prints("x"))])
    with pytest.raises(LabError, match="skipped"):
        arrange(alone, {})
