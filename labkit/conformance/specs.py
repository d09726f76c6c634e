"""The suite's specs: what they are called, and which of them there are to run."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import ConfigError, MachineError

CONFORMANCE = "[Conformance]"
AUTOSCALING = "[Feature:HPA]"
_LIST_S = 120
_SIG = re.compile(r"\[sig-([a-z-]+)\]")


@dataclass(frozen=True)
class Spec:
    """One spec.

    Attributes:
        text: its full text, by which the suite selects it.
        area: the group of Kubernetes' developers who own it, such as "node".
        serial: nothing else may run beside it: the suite says so, or it measures CPU use.
    """

    text: str
    area: str
    serial: bool

    @classmethod
    def of(cls, text: str) -> Spec:
        """The spec of a text."""
        found = _SIG.search(text)
        marks = ("[Serial]", "[Disruptive]", AUTOSCALING)
        return cls(text, found[1] if found else "other", any(mark in text for mark in marks))

    @property
    def focus(self) -> str:
        """A regular expression of Go that selects this spec and no other."""
        return re.sub(r"([^A-Za-z0-9_ ])", r"\\\1", self.text) + "$"


def listed(suite: Path) -> list[Spec]:
    """All specs of the suite, in its order.

    Raises:
        MachineError: it cannot be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "specs.json"
        argv = [str(suite), "--ginkgo.dry-run", "--ginkgo.succinct", f"--ginkgo.json-report={report}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LIST_S, cwd=folder, check=False)
        if done.returncode or not report.exists():
            raise MachineError(f"The test suite does not list its specs: {done.stderr.strip()[-500:]}")
        return [Spec.of(text) for text, _ in spec_reports(json.loads(report.read_text()))]


def spec_reports(report: Any) -> list[tuple[str, dict[str, Any]]]:
    """(full text, entry) of each spec in a report that ginkgo wrote as JSON."""
    out = []
    for suite in report:
        for entry in suite["SpecReports"]:
            if entry["LeafNodeType"] == "It":
                parts = [*(entry["ContainerHierarchyTexts"] or []), entry["LeafNodeText"]]
                out.append((" ".join(parts), entry))
    return out


def chosen(specs: Iterable[Spec], marks: Sequence[str], focus: str = "", skip: str = "") -> list[Spec]:
    """Those that have one of the marks and match `focus` but not `skip`, both regular expressions.

    Raises:
        ConfigError: an expression cannot be read, or nothing is left.
    """
    try:
        wanted, unwanted = re.compile(focus), re.compile(skip)
    except re.error as err:
        raise ConfigError(f"{err.pattern!r} is not a regular expression: {err}.") from err
    found = [
        spec
        for spec in specs
        if any(mark in spec.text for mark in marks)
        and wanted.search(spec.text)
        and not (skip and unwanted.search(spec.text))
    ]
    if not found:
        raise ConfigError(f"No spec matches {focus!r}.", "See their names: labkit conformance --list.")
    return found
