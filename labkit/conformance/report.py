"""Results for people and machines: a table, JUnit XML, and docs/conformance.md."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from labkit.conformance import records
from labkit.conformance.results import FAILED, SKIPPED, Result
from labkit.conformance.specs import CONFORMANCE
from labkit.versions import versions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
STATES = ("passed", "failed", "not applicable", "skipped")


def counts(results: Iterable[Result], known: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Area → verdict → number of specs."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        found[result.area][records.verdict(result, known)] += 1
    return dict(sorted(found.items()))


def table(results: Sequence[Result], known: Mapping[str, str]) -> str:
    """Counts per area, then each spec that did not pass, with its reason."""
    areas = counts(results, known)
    lines = [f"{'area':16}" + "".join(f"{state:>16}" for state in STATES)]
    for area, found in areas.items():
        lines.append(f"{area:16}" + "".join(f"{found[state]:16}" for state in STATES))
    total = sum(areas.values(), Counter[str]())
    lines.append(f"{'all':16}" + "".join(f"{total[state]:16}" for state in STATES))
    for state in STATES[1:]:
        chosen = [r for r in results if records.verdict(r, known) == state]
        lines += ["", f"{state}:"] if chosen else []
        lines += [f"  {r.text}\n      {known.get(r.text) or r.message}" for r in chosen]
    return "\n".join(lines) + "\n"


def write_junit(results: Iterable[Result], path: Path, known: Mapping[str, str]) -> None:
    """JUnit XML with one case per spec; not applicable ones are skipped, with the reason."""
    areas: dict[str, TestSuite] = {}
    for result in results:
        suite = areas.setdefault(result.area, TestSuite(f"conformance {result.area}"))
        case = TestCase(result.text, f"conformance.{result.area}", result.seconds)
        verdict = records.verdict(result, known)
        if verdict == FAILED:
            case.result = [Failure(result.message)]
        elif verdict != "passed":
            case.result = [Skipped(known.get(result.text) or result.message)]
        suite.add_testcase(case)
    xml = JUnitXml("conformance")
    for suite in areas.values():
        suite.update_statistics()  # type: ignore[no-untyped-call]
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    path.parent.mkdir(parents=True, exist_ok=True)
    xml.write(str(path), pretty=True)


def write_page(path: Path = PAGE) -> None:
    """Write docs/conformance.md from the records."""
    path.write_text(page())


def page() -> str:
    """The page of all providers' records."""
    lines = [
        "# Conformance",
        "",
        f"Kubernetes' own end-to-end tests (k8s.io/kubernetes/test/e2e v{versions().kubernetes}, unchanged) "
        "against labkit's clusters. `labkit conformance --record` writes this page; `make conformance` runs "
        "the tests on your machine.",
        "",
        "Each spec stands here with its latest recorded result.",
    ]
    for provider in sorted(file.stem for file in records.folder().glob("*.json")):
        lines += _provider(provider)
    return "\n".join(lines) + "\n"


def _provider(provider: str) -> list[str]:
    results, known = list(records.load(provider).values()), records.reasons(provider)
    out = ["", f"## {provider}", "", _origin(provider)]
    groups = {"Conformance": [r for r in results if CONFORMANCE in r.text]}
    groups["HorizontalPodAutoscaler"] = [r for r in results if CONFORMANCE not in r.text]
    for name, group in groups.items():
        if group:
            out += [
                "",
                f"### {name}: {sum(r.state == 'passed' for r in group)} of {len(group)} specs passed",
                "",
            ]
            out += _counts(group, known)
    out += _unable(results, known)
    for state, title in ((FAILED, "Fail, and could pass"), (SKIPPED, "Skipped by the suite itself")):
        chosen = [r for r in results if records.verdict(r, known) == state]
        if chosen:
            out += ["", f"### {title}", "", *(f"* {_code(r.text)}: {_plain(r.message)}" for r in chosen)]
    return out


def _origin(provider: str) -> str:
    """Which runs the results are of."""
    run, others = records.account(provider)
    if run is None:
        return "The results are of several runs, some by root, and over several versions of labkit."
    return f"{run}" + (f" {others} results are of other runs." if others else "")


def _counts(results: list[Result], known: Mapping[str, str]) -> list[str]:
    areas = counts(results, known)
    shown = [s for s in STATES if any(found[s] for found in areas.values())]
    out = ["| area | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
    for area, found in areas.items():
        out.append(f"| {area} | " + " | ".join(str(found[state] or "") for state in shown) + " |")
    return out


def _unable(results: list[Result], known: Mapping[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if records.verdict(result, known) == "not applicable":
            by_reason[known[result.text]].append(result.text)
    out = []
    for reason, meaning in records.explanations().items():
        if by_reason[reason]:
            out += ["", f"### Cannot pass: {reason} ({len(by_reason[reason])})", "", meaning, ""]
            out += [f"* {_code(text)}" for text in by_reason[reason]]
    return out


def _code(text: str) -> str:
    return f"`{text}`"


def _plain(message: str) -> str:
    return message.replace("|", "/").replace("`", "'").replace("<", "&lt;")
