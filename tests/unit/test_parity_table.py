"""The table of docs/parity.md has a row for each test of tests/parity, with the answers that are tested."""

from __future__ import annotations

import importlib
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from tests.parity.behaviours import PROVIDERS
from tests.parity.table import DOCUMENT, HEADINGS, cells, main, render, rows


def declared() -> dict[str, tuple[str, ...]]:
    """Behaviour → answers, as the suite declares them."""
    found = {}
    for group in HEADINGS:
        module = importlib.import_module(f"tests.parity.test_{group}")
        for name in filter(lambda n: n.startswith("test_"), vars(module)):
            for mark in getattr(getattr(module, name), "pytestmark", []):
                if mark.name == "behaviour":
                    title, answers = mark.args
                    found[title] = tuple(str(answers[provider]) for provider in PROVIDERS)
    return found


def test_the_document_has_every_behaviour_with_its_tested_answer() -> None:
    """A cell may also say that it was not run, and why; never that it failed."""
    there, tested = rows(DOCUMENT.read_text()), declared()
    assert set(there) == set(tested)
    for title, cells_of in there.items():
        for said, expected in zip(cells_of, tested[title], strict=True):
            assert said == expected or said.startswith("not run"), title


def test_a_failure_and_a_skip_are_told_as_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def case(title: str, provider: str, inside: str) -> str:
        facts = {"behaviour": title, "provider": provider, "answer": "yes"}
        named = "".join(f"<property name={quoteattr(k)} value={quoteattr(v)}/>" for k, v in facts.items())
        return f'<testcase classname="tests.parity.test_nodes"><properties>{named}</properties>{inside}</testcase>'

    junit = tmp_path / "parity.xml"
    body = case("A", "embedded", "") + case("A", "kind", "<failure/>")
    body += case("B", "embedded", '<skipped message="no engine"/>') + case("B", "kind", "<error/>")
    junit.write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    table = rows(render(cells(junit)))
    assert table == {"A": ("yes", "failed"), "B": ("not run: no engine", "failed")}
    assert main([str(junit), "--check"]) == 1
    assert "does not agree" in capsys.readouterr().out
