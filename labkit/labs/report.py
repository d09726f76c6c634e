"""The report of a run: reports/index.html, the executed labs, figures, JUnit XML and summary.json."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from markupsafe import Markup

from labkit.labs.execute import LabRun
from labkit.labs.pages import TEMPLATES, Figure, extract_figures, page_css, write_page

PACKAGES = ("labkit", "kubernetes", "papermill", "matplotlib", "pandas")


@dataclass
class Run:
    """A whole run.

    Attributes:
        started: local time at its begin.
        seconds: wall time, the cluster's removal included.
        facts: name → value, what is known of machine and cluster.
    """

    provider: str
    speed: str
    started: datetime
    labs: list[LabRun] = field(default_factory=list)
    seconds: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)

    def count(self, state: str) -> int:
        """Labs in that state: "passed", "failed" or "skipped"."""
        return sum(run.state == state for run in self.labs)

    @property
    def ok(self) -> bool:
        """No lab failed, and at least one ran or was skipped for a reason."""
        return bool(self.labs) and self.count("failed") == 0

    def headline(self) -> str:
        """One line: how many labs passed, failed, were skipped, and the time they took."""
        parts = [f"{self.count(s)} {s}" for s in ("passed", "failed", "skipped") if self.count(s)]
        plural = "lab" if len(self.labs) == 1 else "labs"
        return f"{len(self.labs)} {plural}: {', '.join(parts)} in {duration(self.seconds)}"

    def as_dict(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "schema": 1,
            "ok": self.ok,
            "provider": self.provider,
            "speed": self.speed,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
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


def prepare(folder: Path) -> None:
    """Make the report's folders, and remove what an earlier run wrote there (nothing else).

    Raises:
        OSError: the folder cannot be written.
    """
    for part in ("labs", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    old = ["index.html", "junit.xml", "summary.json"]
    patterns = ["labs/[0-9][0-9]-*.ipynb", "labs/[0-9][0-9]-*.html", "figures/[0-9][0-9]-*.png"]
    for pattern in [*old, *patterns]:
        for path in folder.glob(pattern):
            path.unlink()


def write_report(run: Run, folder: Path) -> Path:
    """Write all of the report; the path of index.html."""
    figures: dict[str, list[Figure]] = {}
    for one in run.labs:
        if one.notebook is None:
            continue
        figures[one.lab.number] = extract_figures(one.lab, one.notebook, folder / "figures")
        one.figures = [figure.path for figure in figures[one.lab.number]]
        about = f"{one.state} in {duration(one.seconds)} · {run.provider}, speed {run.speed}"
        write_page(
            one.lab,
            one.notebook,
            one.notebook.with_suffix(".html"),
            about,
            one.failure.cell_id if one.failure else "",
        )
    (folder / "summary.json").write_text(json.dumps(run.as_dict(), indent=2) + "\n")
    write_junit(run, folder / "junit.xml")
    index = folder / "index.html"
    index.write_text(render_index(run, figures))
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
            failed = None if check.state == "passed" else Failure("; ".join(check.hints) or check.state)
            suite.add_testcase(_case(one, f"check {check.id}", check.seconds, failed))
        for proof in one.proofs:
            broken = None if proof.fails else Failure(proof.said)
            suite.add_testcase(_case(one, f"check {proof.id} fails before its step", 0.0, broken))
        xml.add_testsuite(suite)
    xml.write(str(path), pretty=True)


def _case(run: LabRun, name: str, seconds: float, result: Failure | Error | Skipped | None) -> TestCase:
    case = TestCase(name, classname=run.lab.name, time=round(seconds, 3))
    if result is not None:
        case.result = [result]
    return case


def _outcome(run: LabRun) -> Failure | Error | Skipped | None:
    if run.state == "skipped":
        return Skipped(run.reason)
    if run.failure is None:
        return None
    error = Error(run.reason)
    error.text = "\n\n".join([run.failure.source, run.failure.error, "\n".join(run.failure.events)])
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
    page = engine.get_template("index.html.j2")
    return page.render(
        css=Markup(page_css()),
        headline=run.headline(),
        run={"provider": run.provider, "speed": run.speed, "started": f"{run.started:%d %B %Y, %H:%M}"},
        numbers=numbers,
        labs=[_card(one, figures.get(one.lab.number, [])) for one in run.labs],
        facts=run.facts,
    )


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
        "page": f"labs/{one.lab.name}.html" if one.notebook else None,
        "notebook": f"labs/{one.lab.name}.ipynb" if one.notebook else None,
        "checks": checks,
        "failure": one.failure,
        "figures": [{"href": f"figures/{f.path.name}", "caption": f.caption} for f in figures],
    }
