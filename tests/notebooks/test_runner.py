"""The runner on notebooks without a cluster: cells, limits, proofs, skipping, reports."""

from __future__ import annotations

import base64
import fcntl
import json
import re
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from junitparser import JUnitXml

from labkit.errors import LabError
from labkit.labs.execute import CellDone, execute
from labkit.labs.metadata import Lab, find_labs, load_lab, steps_and_checks
from labkit.labs.run import Listener, Options, run_labs
from labkit.labs.times import record, shown_line, time_line
from labkit.labs.turns import turn
from tests.notebooks.tiny import META, code, standard, write

PARAMETERS = {"provider": "kind", "speed": "ci", "cluster_name": "none"}
PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
).decode()


class NoCluster:
    """The site of labs that make no cluster; counts what it is asked."""

    def __init__(self, lacks: str = "") -> None:
        self.asked: list[str] = []
        self.lacks = lacks

    def claim(self) -> None:
        self.asked.append("claim")

    def gap(self, lab: Lab) -> str:
        return self.lacks if lab.builds_images else ""

    def warnings(self) -> list[str]:
        return ["12:00:01 Pod/web-1 BackOff: Back-off restarting failed container"]

    def facts(self) -> dict[str, str]:
        return {"Kubernetes": "none here"}

    def remove(self) -> None:
        self.asked.append("remove")

    def release(self) -> None:
        self.asked.append("release")


def options(tmp_path: Path, **changes) -> Options:
    return Options("embedded", "ci", tmp_path / "report", "none", **changes)


def test_parameters_reach_the_cells(tmp_path):
    run = execute(write(tmp_path, standard()), tmp_path / "out.ipynb", PARAMETERS)
    assert run.state == "passed" and run.failure is None
    last = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1]
    assert last.outputs[0].text == "kind ci none after\n"
    assert [c.state for c in run.checks] == ["passed"] and run.proofs == []


def test_a_lab_that_measures_runs_alone_and_is_not_passed_by(tmp_path):
    file, order = tmp_path / "turns", []

    def lab(name: str, alone: bool) -> threading.Thread:
        def body() -> None:
            with turn(file, alone, lambda: order.append(f"{name} waits")):
                order.append(f"{name} begins")
                ends[name].wait(10)
                order.append(f"{name} ends")

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    def reached(*expected: str) -> None:
        deadline = time.monotonic() + 10
        while order != list(expected) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert order == list(expected)

    ends = {name: threading.Event() for name in "abcd"}
    threads = [lab("a", False)]
    reached("a begins")
    threads.append(lab("b", False))
    reached("a begins", "b begins")
    threads.append(lab("c", True))
    reached("a begins", "b begins", "c waits")
    threads.append(lab("d", False))
    reached("a begins", "b begins", "c waits", "d waits")
    order.clear()
    ends["a"].set()
    ends["b"].set()
    ends["c"].set()
    ends["d"].set()
    for thread in threads:
        thread.join(10)
    assert sorted(order[:2]) == ["a ends", "b ends"]
    assert order[2:] == ["c begins", "c ends", "d begins", "d ends"]


def test_a_lab_is_alone_only_while_it_measures(tmp_path):
    file, seen = tmp_path / "turns", []
    parameters = code("parameters", 'provider = ""', "parameters")
    cells = [code("before", "1"), code("first", "2"), code("last", "3"), code("after", "4")]
    lab = write(tmp_path, [parameters, *cells], alone=["first", "last"], limit_s=10)

    def others_may_go_on() -> bool:
        with file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def told(cell: CellDone) -> None:
        seen.append((cell.first_line, others_may_go_on()))
        if cell.first_line == "1":  # somebody else works for longer than the lab may
            begun = threading.Event()
            threading.Thread(target=work, args=[begun]).start()
            assert begun.wait(10)

    def work(begun: threading.Event) -> None:
        with turn(file, False):
            begun.set()
            time.sleep(12)

    with turn(file, False) as mine:
        run = execute(lab, tmp_path / "out.ipynb", PARAMETERS, on_cell=told, alone=mine.take)
    assert run.state == "passed", run.reason
    assert seen[1:] == [("1", True), ("2", False), ("3", False), ("4", True)]
    assert run.seconds < 10  # waiting is not the lab's time


@pytest.mark.parametrize("span", [["first", "nowhere"], ["first"], True])
def test_what_is_measured_lies_between_two_cells(tmp_path, span):
    with pytest.raises(LabError, match="alone"):
        write(tmp_path, [code("first", "2")], alone=span)


def test_progress_is_told_per_cell(tmp_path):
    told = []
    execute(write(tmp_path, standard()), tmp_path / "out.ipynb", PARAMETERS, on_cell=told.append)
    assert [(c.n, c.total) for c in told] == [(n, 5) for n in range(1, 6)]
    assert told[2].first_line == "done.append(1)" and told[2].ok and told[2].seconds > 0


def test_proof_is_counted_and_leaves_the_lab_alone(tmp_path):
    run = execute(write(tmp_path, standard()), tmp_path / "out.ipynb", PARAMETERS, proving=True)
    assert run.state == "passed"
    assert [(p.id, p.fails) for p in run.proofs] == [("90-step-done", True)]


def test_a_check_that_cannot_fail_fails_the_lab(tmp_path):
    cells = standard()
    cells[2].source += "\ndone.append('already')"
    run = execute(write(tmp_path, cells), tmp_path / "out.ipynb", PARAMETERS, proving=True)
    assert run.state == "failed" and "before its step" in run.reason and "90-step-done" in run.reason


def test_what_stands_from_the_beginning_on_a_provider_is_not_proved_there(tmp_path):
    cells = standard()
    cells[2].source += "\ndone.append('already')"
    cells[4] = code("check", cells[4].source, "check", stands_on=["existing"])
    lab = write(tmp_path, cells, providers={"embedded": True, "kind": True, "existing": True})
    there = execute(lab, tmp_path / "out.ipynb", {**PARAMETERS, "provider": "existing"}, proving=True)
    assert (there.state, there.proofs, len(there.checks)) == ("passed", [], 1)
    assert execute(lab, tmp_path / "out.ipynb", PARAMETERS, proving=True).state == "failed"


def test_a_failing_cell_stops_the_lab_and_keeps_the_notebook(tmp_path):
    run = execute(write(tmp_path, standard(step="done.appendix(1)")), tmp_path / "out.ipynb", PARAMETERS)
    assert run.state == "failed" and run.failure is not None
    assert run.failure.cell_id == "step" and run.failure.source == "done.appendix(1)"
    assert "AttributeError" in run.failure.error and "\x1b" not in run.failure.traceback
    assert [c.state for c in run.checks] == ["not reached"]
    kept = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert kept.cells[-1].id == "after" and kept.cells[-1].outputs == []


def test_a_failing_check_tells_its_hints(tmp_path):
    run = execute(write(tmp_path, standard(step="pass")), tmp_path / "out.ipynb", PARAMETERS)
    assert run.failure is not None and "the list holds 0 things" in run.failure.error
    assert run.checks[0].state == "failed" and "holds 0" in run.checks[0].hints[0]


@pytest.mark.parametrize("step", ["import time; time.sleep(60)", "!sleep 60"])
def test_a_cell_over_its_limit_is_ended(tmp_path, step):
    begin = time.monotonic()
    run = execute(write(tmp_path, standard(step=step), cell_limit_s=5), tmp_path / "out.ipynb", PARAMETERS)
    assert run.failure is not None and "after 5 s, its limit" in run.failure.error
    assert time.monotonic() - begin < 30


def test_a_cell_may_have_its_own_limit(tmp_path):
    cells = standard()
    cells[3] = code("step", "import time; time.sleep(60)", "step", limit_s=1)
    run = execute(write(tmp_path, cells), tmp_path / "out.ipynb", PARAMETERS)
    assert run.failure is not None and "after 1 s, its limit" in run.failure.error


def test_a_command_that_fails_fails_the_cell(tmp_path):
    run = execute(write(tmp_path, standard(step="!echo out; exit 3")), tmp_path / "out.ipynb", PARAMETERS)
    assert run.failure is not None and "exit code 3" in run.failure.error and run.failure.cell_id == "step"


def test_a_command_may_fail_where_its_cell_says_so(tmp_path):
    cells = [*standard(), code("no", "!false", "may-fail"), code("yes", "!true")]
    assert execute(write(tmp_path, cells), tmp_path / "out.ipynb", PARAMETERS).state == "passed"


def test_a_dead_kernel_is_a_failure_not_a_hang(tmp_path):
    run = execute(
        write(tmp_path, standard(step="import os; os._exit(3)")), tmp_path / "out.ipynb", PARAMETERS
    )
    assert (
        run.failure is not None and run.failure.error == "The kernel died." and run.failure.cell_id == "step"
    )


def test_works_with_an_empty_home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("JUPYTER_PATH", str(home))
    cells = [*standard(), code("which", "import sys; print(sys.executable)")]
    assert execute(write(tmp_path, cells), tmp_path / "out.ipynb", PARAMETERS).state == "passed"
    shown = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text.strip()
    assert shown == sys.executable


def test_run_goes_on_after_a_failure_but_not_where_it_is_needed(tmp_path):
    write(tmp_path, standard("91", step="1/0"), lab="91")
    write(tmp_path, standard("92"), lab="92", needs=["91"])
    write(tmp_path, standard("93"), lab="93")
    ended, site = [], NoCluster()
    run = run_labs(find_labs(tmp_path), options(tmp_path), site, Listener(lab_ended=ended.append))
    assert [one.state for one in run.labs] == ["failed", "skipped", "passed"] and not run.ok
    assert "needs lab 91" in run.labs[1].reason
    assert len(ended) == 3
    assert site.asked == ["claim", "remove", "remove", "remove", "release"]
    assert run.labs[0].failure and "BackOff" in run.labs[0].failure.events[0]


def test_a_second_try_is_told(tmp_path):
    memory = tmp_path / "memory"
    once = f"from pathlib import Path\nseen = Path({str(memory)!r})\nif not seen.exists():\n    seen.touch()\n    1/0\ndone.append(1)"
    write(tmp_path, standard("91", step=once), lab="91")
    write(tmp_path, standard("92", step="1/0"), lab="92")
    ended, site = [], NoCluster()
    choice = options(tmp_path, second_try=True, turns=tmp_path / "turns")
    run = run_labs(find_labs(tmp_path), choice, site, Listener(lab_ended=ended.append))
    assert [one.state for one in run.labs] == ["passed", "failed"] and not run.ok
    assert [one.state for one in ended] == ["failed", "passed", "failed", "failed"]
    assert "the first one failed: ZeroDivisionError" in run.labs[0].reason
    assert "ZeroDivisionError" in (tmp_path / "report" / "index.html").read_text()
    assert site.asked == ["claim", "remove", "remove", "remove", "remove", "remove", "release"]


def test_keep_cluster_removes_nothing(tmp_path):
    write(tmp_path, standard("91", step="1/0"), lab="91")
    site = NoCluster()
    run_labs(find_labs(tmp_path), options(tmp_path, keep_cluster=True), site)
    assert site.asked == ["claim", "release"]


def test_a_lab_is_skipped_with_its_reason_where_it_cannot_run(tmp_path):
    lab = write(tmp_path, standard())
    run = run_labs([lab], Options("existing", "ci", tmp_path / "r", "none"), NoCluster())
    assert run.ok and run.labs[0].state == "skipped" and "not ours" in run.labs[0].reason
    cases = list(JUnitXml.fromfile(str(tmp_path / "r" / "junit.xml")))
    assert cases[0].skipped == 1 and cases[0].failures == 0


def test_a_lab_that_builds_images_is_skipped_where_they_do_not_arrive(tmp_path):
    labs = [
        write(tmp_path, standard("91"), lab="91", builds_images=True),
        write(tmp_path, standard("92"), lab="92"),
        write(tmp_path, standard("93"), lab="93", providers={**META["providers"], "embedded": "Not for this one."}, builds_images=True),
    ]  # fmt: skip
    run = run_labs(labs, options(tmp_path), NoCluster(lacks="The nodes are elsewhere."))
    assert [(one.state, one.reason) for one in run.labs] == [
        ("skipped", "The nodes are elsewhere."),
        ("passed", ""),
        ("skipped", "Not for this one."),
    ]
    assert run.ok


def report_of(tmp_path: Path) -> tuple[Path, dict]:
    cells = standard()
    picture = f'from IPython.display import Image\nImage(data=__import__("base64").b64decode("{PIXEL}"))'
    cells.append(code("picture", picture, figure="One <pixel>"))
    cells.append(code("widget", "import ipywidgets\nipywidgets.IntSlider()"))
    write(tmp_path, cells)
    write(tmp_path, standard("91", step="raise ValueError('<b>bold</b>')"), lab="91")
    run_labs(find_labs(tmp_path), options(tmp_path, proving=True), NoCluster())
    folder = tmp_path / "report"
    return folder, json.loads((folder / "summary.json").read_text())


def test_report_is_complete_and_loads_nothing(tmp_path):
    folder, summary = report_of(tmp_path)
    assert [lab["state"] for lab in summary["labs"]] == ["passed", "failed"] and summary["ok"] is False
    assert (folder / "figures" / "90-picture.png").read_bytes().startswith(b"\x89PNG")
    pages = [folder / "index.html", *sorted((folder / "labs").glob("*.html"))]
    assert len(pages) == 3
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<script|<link|@import|src=[\"']?(https?:)?//|url\(", text), page.name
    index = pages[0].read_text()
    for href in re.findall(r'(?:href|src)="([^"#]+)"', index):
        assert (folder / href).exists(), href
    assert "One &lt;pixel&gt;" in index and "&lt;b&gt;bold" in index and "<b>bold</b>" not in index
    assert "BackOff" in index and "1 of 2" in index
    lab_page = pages[1].read_text()
    assert "data:image/png;base64," in lab_page and "IntSlider" in lab_page


def test_junit_counts_labs_checks_and_proofs(tmp_path):
    folder, _ = report_of(tmp_path)
    passed, failed = JUnitXml.fromfile(str(folder / "junit.xml"))
    assert (passed.tests, passed.failures, passed.errors) == (3, 0, 0)
    assert (failed.tests, failed.failures, failed.errors) == (3, 1, 1)
    names = [case.name for case in passed]
    assert names == ["runs to its end", "check 90-step-done", "check 90-step-done fails before its step"]


def test_a_new_run_replaces_the_old_report_and_nothing_else(tmp_path):
    folder, _ = report_of(tmp_path)
    (folder / "figures" / "mine.png").write_bytes(b"mine")
    run_labs([load_lab(tmp_path / "90-tiny.ipynb")], options(tmp_path), NoCluster())
    assert not (folder / "labs" / "91-tiny.html").exists() and (folder / "figures" / "mine.png").exists()


def test_recorded_time_is_shown_to_the_student(tmp_path):
    cells = standard()
    cells[0].source += "\n\n**Time:** unknown"
    lab = write(tmp_path, cells, measured_s={})
    run = execute(lab, tmp_path / "out.ipynb", PARAMETERS)
    record(run, "class")
    again = load_lab(lab.path)
    assert again.measured_s["class"] == pytest.approx(run.seconds, abs=0.1)
    assert shown_line(nbformat.read(lab.path, as_version=4)) == time_line(again)
    record(run, "ci", "kind")
    assert load_lab(lab.path) == again
    assert set(nbformat.read(lab.path, as_version=4).metadata["labkit"]["measured_on"]["kind"]) == {"ci"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lab": "9"}, "labkit.lab"),
        ({"needs": ["x"]}, "labkit.needs.0"),
        ({"providers": {"embedded": True}}, "labkit.providers"),
        ({"limit_s": 0}, "labkit.limit_s"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_metadata_is_named(tmp_path, change, said):
    notebook = nbformat.v4.new_notebook(metadata={"labkit": {**META, **change}})
    nbformat.write(notebook, tmp_path / "90-x.ipynb")
    with pytest.raises(LabError, match=re.escape(said)):
        load_lab(tmp_path / "90-x.ipynb")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}'])
def test_a_broken_notebook_is_named(tmp_path, text):
    path = tmp_path / "90-x.ipynb"
    path.write_text(text)
    with pytest.raises(LabError, match="90-x"):
        load_lab(path)


@pytest.mark.parametrize("word", ["90", "90-tiny", "notebooks/90-tiny.ipynb"])
def test_labs_are_found_by_number_and_name(tmp_path, word):
    write(tmp_path, standard())
    assert [lab.number for lab in find_labs(tmp_path, [word])] == ["90"]


@pytest.mark.parametrize(("word", "number"), [("2b", "02b"), ("02b-tiny", "02b"), ("2", "02"), ("02", "02")])
def test_a_lab_may_have_a_second_notebook(tmp_path, word, number):
    for lab in ("02", "02b", "03"):
        write(tmp_path, standard(lab), lab=lab, needs=["02"] if lab == "02b" else [])
    assert [lab.number for lab in find_labs(tmp_path)] == ["02", "02b", "03"]
    assert [lab.number for lab in find_labs(tmp_path, [word])] == [number]
    (tmp_path / "02bc-notes.ipynb").write_text("no lab")
    assert len(find_labs(tmp_path)) == 3


@pytest.mark.parametrize("word", ["7", "90-other", "tiny", "", "90b"])
def test_unknown_lab_lists_the_known_ones(tmp_path, word):
    write(tmp_path, standard())
    with pytest.raises(LabError, match="90-tiny"):
        find_labs(tmp_path, [word])


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (("check",), "no cell tagged `step`"),
        (("step",), "has no check"),
        (("step", "check", "check"), "no cell tagged `step`"),
        (("step", "empty"), "calls no check"),
    ],
)
def test_steps_and_checks_come_in_pairs(order, said):
    cells = [
        code(f"c{n}", 'check("90-x", 1)' if kind == "check" else "pass", "check" if kind == "empty" else kind)
        for n, kind in enumerate(order)
    ]
    with pytest.raises(LabError, match=re.escape(said)):
        steps_and_checks(nbformat.v4.new_notebook(cells=cells))
