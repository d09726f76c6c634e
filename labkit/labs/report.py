"""The report of a run: reports/index.html, the executed labs, figures, JUnit XML and summary.json."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from markupsafe import Markup

from labkit.errors import ConfigError
from labkit.labs.desk import check_desk
from labkit.labs.execute import LabRun
from labkit.labs.metadata import Lab
from labkit.labs.pages import TEMPLATES, Figure, extract_figures, page_css, write_page

SCHEMA = 1
_PAGES = ("index.html", "junit.xml", "summary.json")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PACKAGES = ("labkit", "kubernetes", "papermill", "matplotlib", "pandas")


@dataclass
class Run:
    """A whole run.

    Attributes:
        started: local time at its begin.
        seconds: wall time, the cluster's removal included.
        facts: name → value, what is known of machine and cluster.
        trouble: what ended the run before its time, or went wrong after its labs; "" where nothing did.
    """

    provider: str
    speed: str
    started: datetime
    labs: list[LabRun] = field(default_factory=list)
    seconds: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)
    trouble: str = ""

    def count(self, state: str) -> int:
        """Labs in that state: "passed", "failed" or "skipped"."""
        return sum(run.state == state for run in self.labs)

    @property
    def ok(self) -> bool:
        """No lab failed, at least one ran or was skipped for a reason, and nothing else went wrong."""
        return bool(self.labs) and self.count("failed") == 0 and not self.trouble

    def headline(self) -> str:
        """One line: how many labs passed, failed, were skipped, and the time they took."""
        parts = [f"{self.count(s)} {s}" for s in ("passed", "failed", "skipped") if self.count(s)]
        plural = "lab" if len(self.labs) == 1 else "labs"
        return f"{len(self.labs)} {plural}: {', '.join(parts)} in {duration(self.seconds)}"

    def as_dict(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "provider": self.provider,
            "speed": self.speed,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "trouble": self.trouble,
            "labs": [run.as_dict() for run in self.labs],
            "facts": self.facts,
        }


def duration(seconds: float) -> str:
    """12 s, 3 min 5 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def machine_facts() -> dict[str, str]:
    """What matters of the machine for reading the timings; neither its name nor its addresses."""
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "System": f"{system}, Linux {platform.release().split('-')[0]}, {platform.machine()}",
        "CPUs": str(len(os.sched_getaffinity(0))),
        "Memory": f"{gib:.0f} GiB",
        "User": "root" if os.geteuid() == 0 else "an ordinary user, no privileges",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def prepare(folder: Path, labs: list[Lab]) -> None:
    """Make the report's folders, and remove what an earlier run wrote there (nothing else).

    Raises:
        ConfigError: a file that this run would write is there, and no run wrote it.
        OSError: the folder cannot be written.
    """
    check_folder(folder, labs)
    for path in _written(folder):
        path.unlink(missing_ok=True)
    for part in ("labs", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    # A run that is killed leaves this behind, so that the next one knows which files are a run's.
    names = [{"name": lab.name, "state": "not reached", "figures": []} for lab in labs]
    _write(
        folder / "summary.json", json.dumps({"schema": SCHEMA, "ok": False, "labs": names}, indent=2) + "\n"
    )


def check_folder(folder: Path, labs: list[Lab]) -> None:
    """Say what is wrong with a folder for a report, before anything is done for it.

    Raises:
        ConfigError: it cannot be written, or a file is there that is not a report's.
    """
    check_desk(folder / "desk")
    above = next(each for each in (folder, *folder.parents) if each.exists() or each.is_symlink())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"The report cannot be written to {folder}.", "Name another folder with --report.")
    pages = [f"labs/{lab.name}{ending}" for lab in labs for ending in (".ipynb", ".html")]
    ours = _written(folder)
    for name in [*_PAGES, *pages]:
        if (folder / name).exists() and folder / name not in ours:
            raise ConfigError(
                f"{folder / name} is there, and no run of labs wrote it.",
                "Move it away, or name another folder with --report.",
            )


def _written(folder: Path) -> set[Path]:
    """The files that the last run wrote there, as its summary tells; none where there was none."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        labs = [one for one in summary["labs"] if summary["schema"] == SCHEMA]
        names = [f"labs/{one['name']}{ending}" for one in labs for ending in (".ipynb", ".html")]
        names += [f"figures/{name}" for one in labs for name in one["figures"]]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    inside = [name for name in names if name.count("/") == 1 and ".." not in name]
    return {folder / name for name in [*_PAGES, *inside]} if labs else set()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_report(run: Run, folder: Path) -> Path:
    """Write all of the report; the path of index.html. A page that cannot be made costs that page alone."""
    figures: dict[str, list[Figure]] = {}
    for one in run.labs:
        if one.notebook is None:
            continue
        try:
            figures[one.lab.number] = extract_figures(one.lab, one.notebook, folder / "figures")
            one.figures = [figure.path for figure in figures[one.lab.number]]
            about = f"{one.state} in {duration(one.seconds)} · {run.provider}, speed {run.speed}"
            stopped_at = one.failure.cell_id if one.failure else ""
            write_page(one.lab, one.notebook, one.notebook.with_suffix(".html"), about, stopped_at)
        except Exception as error:
            run.facts[f"Page of lab {one.lab.number}"] = f"not made: {type(error).__name__}: {error}"
    _write(folder / "summary.json", json.dumps(run.as_dict(), indent=2) + "\n")
    write_junit(run, folder / "junit.xml")
    index = folder / "index.html"
    _write(index, render_index(run, figures))
    return index


def write_junit(run: Run, path: Path) -> None:
    """One suite per lab; its cases are the lab itself, each check, and each proof that the check can fail."""
    xml = JUnitXml("labs")
    for one in run.labs:
        suite = TestSuite(one.lab.name)
        suite.add_property("provider", run.provider)
        suite.add_property("speed", run.speed)
        suite.add_testcase(_case(one, "runs to its end", one.seconds, _outcome(one)))
        for check in one.checks:
            failed = None if check.state == "passed" else Failure(_xml("; ".join(check.hints) or check.state))
            suite.add_testcase(_case(one, f"check {check.id}", check.seconds, failed))
        for proof in one.proofs:
            broken = None if proof.fails else Failure(_xml(proof.said))
            suite.add_testcase(_case(one, f"check {proof.id} fails before its step", 0.0, broken))
        for trial in one.trials:
            broken = None if trial.ok else Failure(_xml(trial.said))
            suite.add_testcase(_case(one, f"exercise {trial.id}, {trial.what}", 0.0, broken))
        xml.add_testsuite(suite)
    if run.trouble:
        suite, case = (
            TestSuite("run"),
            TestCase("goes to its end", classname="run", time=round(run.seconds, 3)),
        )
        case.result = [Error(_xml(run.trouble))]
        suite.add_testcase(case)
        xml.add_testsuite(suite)
    xml.write(str(path), pretty=True)


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold, which are shown by their number instead."""
    return _NOT_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _case(run: LabRun, name: str, seconds: float, result: Failure | Error | Skipped | None) -> TestCase:
    case = TestCase(name, classname=run.lab.name, time=round(seconds, 3))
    if result is not None:
        case.result = [result]
    return case


def _outcome(run: LabRun) -> Failure | Error | Skipped | None:
    if run.state == "skipped":
        return Skipped(_xml(run.reason))
    if run.failure is None:
        return None
    error = Error(_xml(run.reason))
    parts = [run.failure.source, run.failure.error, "\n".join(run.failure.events)]
    error.text = _xml("\n\n".join(filter(None, parts)))
    return error


def render_index(run: Run, figures: dict[str, list[Figure]]) -> str:
    """The run as one page; pictures and labs are linked relative to it."""
    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    passed = sum(check.state == "passed" for one in run.labs for check in one.checks)
    proven = sum(proof.fails for one in run.labs for proof in one.proofs)
    numbers = [
        (f"{run.count('passed')} of {len(run.labs)}", "labs passed"),
        (f"{passed} of {sum(len(one.checks) for one in run.labs)}", "checks passed"),
        (duration(run.seconds), "from start to clean-up"),
        (sum(len(found) for found in figures.values()), "figures"),
    ]
    if proven or any(one.proofs for one in run.labs):
        numbers.insert(2, (str(proven), "checks proven to fail before their step"))
    exercises = sum(len(one.exercises) for one in run.labs)
    if exercises:
        numbers.insert(1, (str(exercises), "exercises solved"))
    wrong = [trial.ok for one in run.labs for trial in one.trials if trial.of_wrong_answer]
    if wrong:
        numbers.insert(2, (f"{sum(wrong)} of {len(wrong)}", "wrong answers that drew their hint"))
    page = engine.get_template("index.html.j2")
    return page.render(
        css=Markup(page_css()),
        headline=run.headline(),
        run={"provider": run.provider, "speed": run.speed, "started": f"{run.started:%d %B %Y, %H:%M}"},
        numbers=numbers,
        trouble=run.trouble,
        labs=[_card(one, figures.get(one.lab.number, [])) for one in run.labs],
        facts=run.facts,
    )


def _has_page(one: LabRun) -> bool:
    return one.notebook is not None and one.notebook.with_suffix(".html").exists()


def _card(one: LabRun, figures: list[Figure]) -> dict[str, Any]:
    proven = {proof.id for proof in one.proofs if proof.fails}
    checks = []
    for check in one.checks:
        css = {"passed": "", "failed": "failed"}.get(check.state, "not")
        note = f"{check.seconds:.1f} s" if check.state == "passed" else "; ".join(check.hints) or check.state
        note += " · proven" if check.id in proven else ""
        checks.append({"css": css, "title": check.title, "note": note})
    return {
        "number": one.lab.number,
        "title": one.lab.title,
        "summary": one.lab.summary,
        "state": one.state,
        "reason": one.reason,
        "seconds": max(one.seconds, 1.0),
        "took": duration(one.seconds) if one.state != "skipped" else "–",
        "cells": one.cells,
        "page": f"labs/{one.lab.name}.html" if _has_page(one) else None,
        "notebook": f"labs/{one.lab.name}.ipynb" if one.notebook else None,
        "checks": checks,
        "failure": one.failure,
        "figures": [{"href": f"figures/{f.path.name}", "caption": f.caption} for f in figures],
    }
