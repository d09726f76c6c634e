"""The runner when something goes wrong: nothing that ran is lost, nothing that failed is shown as passed."""

from __future__ import annotations

import json
import tempfile
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
from junitparser import Error, JUnitXml, Skipped

from labkit.errors import ClusterError, ConfigError
from labkit.labs.execute import Failure, LabRun, execute
from labkit.labs.metadata import find_labs, load_lab
from labkit.labs.report import Run, write_report
from labkit.labs.run import Listener, Options, run_labs
from tests.notebooks.test_runner import PARAMETERS, NoCluster, options
from tests.notebooks.tiny import META, code, standard, write

NOT_THERE = {**META["providers"], "embedded": "Not for this provider."}


class Stuck(NoCluster):
    """A cluster that cannot be removed, once the labs have begun."""

    def remove(self) -> None:
        super().remove()
        if self.asked.count("remove") > 1:
            raise ClusterError("The cluster does not go away.")


def junit(folder: Path) -> dict[str, list]:
    """Suite → results of its first case."""
    return {suite.name: next(iter(suite)).result for suite in JUnitXml.fromfile(str(folder / "junit.xml"))}


def test_a_kernel_that_dies_in_a_proof_fails_its_lab_and_no_other(tmp_path):
    cells = standard("91")
    cells[4] = code("check", f"import os; os._exit(3)\n{cells[4].source}", "check")
    write(tmp_path, cells, lab="91")
    write(tmp_path, standard("92"), lab="92")
    run = run_labs(find_labs(tmp_path), options(tmp_path, proving=True), NoCluster())
    assert [one.state for one in run.labs] == ["failed", "passed"]
    assert run.labs[0].failure.cell_id == "check" and run.labs[0].failure.error == "The kernel died."
    assert "kernel died" in run.labs[0].proofs[0].said
    results = junit(tmp_path / "report")
    assert isinstance(results["91-tiny"][0], Error) and results["92-tiny"] == []


def test_an_interrupted_lab_is_no_passed_one_and_later_ones_are_named(tmp_path):
    write(tmp_path, standard("91"), lab="91")
    write(tmp_path, standard("92"), lab="92")

    def stop(cell):
        if cell.n == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_labs(find_labs(tmp_path), options(tmp_path), NoCluster(), Listener(cell_done=stop))
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert [lab["state"] for lab in summary["labs"]] == ["failed", "skipped"] and not summary["ok"]
    assert summary["labs"][0]["checks"][0]["state"] == "passed", "what had run is not lost"
    results = junit(tmp_path / "report")
    assert isinstance(results["91-tiny"][0], Error) and "interrupted" in results["91-tiny"][0].message
    assert isinstance(results["92-tiny"][0], Skipped) and isinstance(results["run"][0], Error)


def test_the_report_is_written_although_tidying_fails(tmp_path):
    write(tmp_path, standard(), providers=NOT_THERE)
    with pytest.raises(ClusterError):
        run_labs(find_labs(tmp_path), options(tmp_path), Stuck())
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["labs"][0]["state"] == "skipped" and "does not go away" in summary["trouble"]
    assert isinstance(junit(tmp_path / "report")["run"][0], Error) and not summary["ok"]
    assert "does not go away" in (tmp_path / "report" / "index.html").read_text()


def test_a_kernel_that_cannot_be_had_is_a_failure_of_the_lab(tmp_path, monkeypatch):
    def no_kernel(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("labkit.labs.kernel.AsyncKernelManager", no_kernel)
    run = run_labs([write(tmp_path, standard())], options(tmp_path), NoCluster())
    assert run.labs[0].state == "failed" and "Too many open files" in run.labs[0].reason
    assert [check.state for check in run.labs[0].checks] == ["not reached"]
    assert isinstance(junit(tmp_path / "report")["90-tiny"][0], Error)


def test_any_text_fits_into_the_report(tmp_path):
    text = "bell \x07 null \x00 colour \x1b[31m half \ud800 end \ufffe"
    lab = write(tmp_path, standard())
    failed = LabRun(lab, "failed", reason=text, failure=Failure("step", text, text, text, (text,)))
    run = Run("kind", "ci", datetime.now().astimezone(), [failed, LabRun(lab, "skipped", reason=text)])
    write_report(run, tmp_path)
    said = junit(tmp_path)["90-tiny"][0].message
    assert said is None or "\x00" not in said
    assert "bell \\x07 null \\x00" in (tmp_path / "junit.xml").read_text()


def test_a_page_that_cannot_be_made_costs_that_page_alone(tmp_path):
    lab = write(tmp_path, standard())
    (tmp_path / "broken.ipynb").write_text("{")
    run = Run(
        "kind", "ci", datetime.now().astimezone(), [LabRun(lab, "passed", notebook=tmp_path / "broken.ipynb")]
    )
    index = write_report(run, tmp_path)
    assert "Page of lab 90" in index.read_text() and junit(tmp_path)["90-tiny"] == []


def test_sockets_fit_wherever_the_temporary_folder_is(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    run = execute(write(tmp_path, standard()), tmp_path / "out.ipynb", PARAMETERS)
    assert run.state == "passed", run.reason
    assert list(deep.iterdir()) == []


def test_files_that_no_run_wrote_stay(tmp_path):
    lab = write(tmp_path, standard(), providers=NOT_THERE)
    report = tmp_path / "report"
    mine = [
        report / "labs" / "05-mine.ipynb",
        report / "labs" / "05-mine.html",
        report / "figures" / "03-mine.png",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for _ in range(2):
        run_labs([lab], options(tmp_path), NoCluster())
        assert [path.read_text() for path in mine] == ["mine"] * 3


@pytest.mark.parametrize("name", ["index.html", "junit.xml", "summary.json", "labs/90-tiny.ipynb"])
def test_a_run_writes_over_nothing_of_somebody_else(tmp_path, name):
    lab, path = write(tmp_path, standard(), providers=NOT_THERE), tmp_path / "report" / name
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="no run of labs wrote it"):
        run_labs([lab], options(tmp_path), NoCluster())
    assert path.read_text() == "[]"


def test_a_report_of_a_run_that_was_killed_is_replaced(tmp_path):
    lab = write(tmp_path, standard(), providers=NOT_THERE)

    class Killed(NoCluster):
        def release(self) -> None:
            (tmp_path / "report" / "labs" / "90-tiny.ipynb").write_text("half")

    run_labs([lab], options(tmp_path), Killed())
    run_labs([lab], options(tmp_path), NoCluster())
    assert not (tmp_path / "report" / "labs" / "90-tiny.ipynb").exists()


def test_a_run_that_may_not_have_the_cluster_leaves_the_report(tmp_path):
    lab = write(tmp_path, standard(), providers=NOT_THERE)
    run_labs([lab], options(tmp_path), NoCluster())
    before = (tmp_path / "report" / "index.html").read_text()

    class Taken(NoCluster):
        def claim(self) -> None:
            raise ConfigError("Another `labkit run` uses the cluster.")

    with pytest.raises(ConfigError):
        run_labs([lab], Options("embedded", "ci", tmp_path / "report", "none"), Taken())
    assert (tmp_path / "report" / "index.html").read_text() == before


def test_a_notebook_without_cell_ids_runs(tmp_path):
    lab = write(tmp_path, standard())
    stored = json.loads(lab.path.read_text())
    stored["nbformat_minor"] = 4
    for cell in stored["cells"]:
        del cell["id"]
    lab.path.write_text(json.dumps(stored))
    told = []
    run = execute(load_lab(lab.path), tmp_path / "out.ipynb", PARAMETERS, on_cell=told.append, proving=True)
    assert run.state == "passed" and len(run.proofs) == 1, run.reason
    assert [(done.n, done.total) for done in told] == [(n, 5) for n in range(1, 6)]
    assert "cell-3" in [cell.id for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells]


def test_what_may_fail_blames_nobody(tmp_path):
    cells = [
        *standard(),
        code("raises", "1 / 0", "raises-exception"),
        code("may", "!exit 3\nx = !exit 4", "may-fail"),
        code("text", 'words = """\n!not a command\n"""'),
        code("fine", "def f(word):\n    x = !echo {word}\n    return x\n!true\nprint(f('seen'), end='')"),
    ]
    run = execute(write(tmp_path, cells), tmp_path / "out.ipynb", PARAMETERS)
    assert run.state == "passed" and run.failure is None, run.reason
    kept = {cell.id: cell for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells}
    assert kept["raises"].outputs[0].ename == "ZeroDivisionError"
    assert kept["fine"].outputs[0].text == "['seen']"


@pytest.mark.parametrize(
    ("source", "said"), [("x = !exit 5", "exit code 5: exit 5"), ("!exit 6\n!true", "exit code 6: exit 6")]
)
def test_a_command_that_fails_is_seen(tmp_path, source, said):
    cells = [*standard(), code("raises", "1 / 0", "raises-exception"), code("command", source)]
    run = execute(write(tmp_path, cells), tmp_path / "out.ipynb", PARAMETERS)
    assert run.state == "failed" and run.failure.cell_id == "command" and said in run.failure.error
