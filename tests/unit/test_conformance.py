"""Choosing specs, keeping their results, and what is told of them; the suite itself runs in a part of its own."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.airgap.context import dockerfile
from labkit.conformance import containers, images, records, report, session
from labkit.conformance.health import Health
from labkit.conformance.results import FAILED, PASSED, SKIPPED, Account, Result, Store
from labkit.conformance.run import Runner
from labkit.conformance.specs import CONFORMANCE, Spec, chosen, listed
from labkit.errors import ClusterError, ConfigError

POD = "[sig-node] Pods should start (quickly), [a+b] [Conformance]"
ALONE = "[sig-scheduling] Preemption [Serial] evicts [Conformance]"
OTHER = "[sig-network] DNS for everybody"

SUITE = """#!{python}
import json, pathlib, re, signal, sys, time
flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
specs = {specs!r}
chosen = [s for s in specs if re.search(flags.get("ginkgo.focus", "") or "^", s)]
if "ginkgo.focus" in flags:
    with open({seen!r}, "a") as seen:
        seen.write(chosen[0] + chr(10))
def report(state):
    failure = {{"Message": "it broke\\n  badly"}} if state != "passed" else None
    entries = [{{"LeafNodeType": "It", "LeafNodeText": s.split(" ", 1)[1], "ContainerHierarchyTexts": [s.split(" ", 1)[0]],
                "State": state, "Failure": failure}} for s in chosen]
    pathlib.Path(flags["ginkgo.json-report"]).write_text(json.dumps([{{"SpecReports": entries}}]))
def interrupted(*_):
    report("interrupted")
    sys.exit(1)
signal.signal(signal.SIGINT, interrupted)
if "slow" in chosen[0] and "ginkgo.focus" in flags:
    time.sleep(60)
report("failed" if "Preemption" in chosen[0] and "ginkgo.focus" in flags else "passed")
"""


class FakeCluster:
    """Gives the runner a shell, as clusters do."""

    kubeconfig = Path("/nowhere/kubeconfig")
    provider = "embedded"

    def shell(self, command: str | None = None) -> tuple[list[str], dict[str, str]]:
        return ["/bin/sh", "-c", command or ""], {"PATH": "/usr/bin:/bin"}


def suite(tmp_path: Path, *specs: str) -> Path:
    """A program that takes the suite's flags and reports as it does."""
    program = tmp_path / "suite"
    program.write_text(SUITE.format(python=sys.executable, specs=list(specs), seen=str(tmp_path / "seen")))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_specs_are_listed_and_selected_exactly(tmp_path: Path) -> None:
    specs = listed(suite(tmp_path, POD, ALONE, OTHER))
    assert [spec.text for spec in specs] == [POD, ALONE, OTHER]
    assert [spec.area for spec in specs] == ["node", "scheduling", "network"]
    assert [spec.serial for spec in specs] == [False, True, False]
    for spec in specs:  # Go's expressions and Python's agree on escaped punctuation
        assert [other.text for other in specs if re.search(spec.focus, other.text)] == [spec.text]


def test_chosen_specs_have_a_mark_and_match() -> None:
    specs = [Spec.of(text) for text in (POD, ALONE, OTHER)]
    assert [s.text for s in chosen(specs, [CONFORMANCE])] == [POD, ALONE]
    assert [s.text for s in chosen(specs, [CONFORMANCE], focus="Pods|DNS")] == [POD]
    assert [s.text for s in chosen(specs, [CONFORMANCE], skip="Serial")] == [POD]
    with pytest.raises(ConfigError, match="not a regular expression"):
        chosen(specs, [CONFORMANCE], focus="(")
    with pytest.raises(ConfigError, match="No spec matches"):
        chosen(specs, [CONFORMANCE], focus="nothing like this")


def test_results_survive_a_line_that_was_cut_off(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(Result(POD, FAILED, 1.0, "no"))
    store.add(Result(POD, PASSED, 2.0))
    with (tmp_path / "results.jsonl").open("a") as stream:
        stream.write('{"text": "[sig-no')
    assert store.results() == {POD: Result(POD, PASSED, 2.0)}


def test_runner_keeps_results_and_runs_serial_specs_last(tmp_path: Path) -> None:
    program = suite(tmp_path, ALONE, POD)
    store, told = Store(tmp_path / "out"), []
    runner = Runner(FakeCluster(), program, store)  # type: ignore[arg-type]
    runner.run(listed(program), 2, lambda result, done, count, _: told.append((result.state, done, count)))
    assert told == [(PASSED, 1, 2), (FAILED, 2, 2)]
    assert (tmp_path / "seen").read_text().splitlines() == [POD, ALONE]
    found = store.results()
    assert found[POD].state == PASSED and not found[POD].log
    assert found[ALONE].message == "it broke badly" and Path(found[ALONE].log).exists()


def test_suite_runs_beside_clusters_that_have_no_shell_here(tmp_path: Path) -> None:
    program, store = suite(tmp_path, POD), Store(tmp_path / "out")
    cluster = FakeCluster()
    cluster.provider, cluster.shell = "kind", None  # type: ignore[assignment]
    Runner(cluster, program, store).run(listed(program), 1, lambda *_: None)  # type: ignore[arg-type]
    assert store.results()[POD].state == PASSED


def test_interrupted_run_forgets_what_was_cut_off(tmp_path: Path) -> None:
    # What runs in the background ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupt(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(tmp_path: Path) -> None:
    slow = "[sig-apps] slow [Conformance]"
    program, store = suite(tmp_path, POD, slow), Store(tmp_path / "out")
    runner = Runner(FakeCluster(), program, store, known_s={POD: 99.0})  # type: ignore[arg-type]

    def interrupt(result: Result, *_: object) -> None:
        assert result.text == POD
        threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run(listed(program), 1, interrupt)
    assert time.monotonic() - begin < 30
    assert list(store.results()) == [POD]


def test_spec_beyond_its_limit_fails(tmp_path: Path) -> None:
    slow = "[sig-apps] slow [Conformance]"
    program, store = suite(tmp_path, slow), Store(tmp_path / "out")
    Runner(FakeCluster(), program, store, limit_s=1.0).run(listed(program), 1, lambda *_: None)  # type: ignore[arg-type]
    assert store.results()[slow].message.startswith("not finished after 1 s")


def test_every_passing_spec_has_its_turn() -> None:
    specs = [Spec.of(f"[sig-node] spec {number} [Conformance]") for number in range(50)]
    seconds = {spec.text: 10.0 + number for number, spec in enumerate(specs)}
    seconds[specs[7].text] = 400.0  # longer than a part is to be
    drawn = [records.part(specs, seconds, f"commit {n}", 300) for n in range(200)]
    assert {spec for part in drawn for spec in part} == set(specs)
    assert records.part(specs, seconds, "abc", 300) == records.part(specs, seconds, "abc", 300)
    totals = [sum(seconds[spec.text] for spec in part) for part in drawn]
    assert max(totals) == 400 and min(totals) > 200
    assert [specs[7]] in drawn
    seconds[specs[7].text] = records.LONGEST_S + 1
    assert specs[7] not in {spec for n in range(200) for spec in records.part(specs, seconds, str(n), 300)}
    assert records.part(specs[:1], {specs[0].text: 9.0}, "x", 300) == specs[:1]


def test_reports_tell_reasons_apart(tmp_path: Path) -> None:
    results = [
        Result(POD, PASSED, 1), Result(ALONE, FAILED, 2, "no <isolation>"), Result(OTHER, FAILED, 3, "broken"),
        Result("[sig-apps] gone", SKIPPED, 0, "needs a cloud"),
    ]  # fmt: skip
    known = {ALONE: "isolation"}
    report.write_junit(results, tmp_path / "junit.xml", known)
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("4", "1", "2")
    table = report.table(results, known)
    assert "not applicable:\n  " + ALONE + "\n      isolation" in table
    assert "failed:\n  " + OTHER + "\n      broken" in table


def test_recorded_reasons_are_explained_and_of_recorded_specs() -> None:
    explained = records.explanations()
    for file in records.folder().glob("*.json"):
        known = records.reasons(file.stem)
        assert set(known.values()) <= set(explained)
        assert set(known) <= set(records.load(file.stem))


def test_only_a_whole_run_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "folder", lambda: tmp_path / "records")
    store = Store(tmp_path / "run")
    for text in (POD, ALONE):
        store.add(Result(text, PASSED, 1.0))
    whole = Account("2030-01-02", 2, 3, "an ordinary user", 4, 61.0, 500, 530, "")
    store.conclude(whole)
    records.save("kind", store.results().values(), store.account())
    assert records.account("kind") == (whole, 0)
    assert "2 specs in one run of 61 min" in str(whole) and "(+6%); no component" in str(whole)
    store.add(Result(OTHER, PASSED, 1.0))  # of another run
    assert store.account() is None
    for _ in range(2):  # recorded again, it is still one
        records.save("kind", [Result(POD, FAILED, 1.0, "no")], store.account())
    assert records.account("kind") == (whole, 1)
    records.save("kind", [Result(OTHER, PASSED, 1.0)])
    assert records.account("kind") == (whole, 2)
    again = replace(whole, date="2030-01-03")  # of all conformance tests, and no others
    records.save("kind", [Result(POD, FAILED, 1.0, "no"), Result(ALONE, PASSED, 1.0)], again)
    assert records.account("kind") == (again, 1)
    assert {text: result.state for text, result in records.load("kind").items()} == {
        POD: FAILED,
        ALONE: PASSED,
        OTHER: PASSED,
    }
    grown = str(replace(whole, memory_at_first_mb=400))
    assert (
        "was 400 MB at first, 500 MB after a run of the same specs and 530 MB after this one (+6%)" in grown
    )
    store.clear()
    assert store.account() is None and records.account("nowhere") == (None, 0)


@pytest.mark.parametrize(
    ("memory_mb", "runs", "verdict"),
    [
        ([500, 780], 1, ""),
        ([500, 780, 800], 2, ""),
        ([500, 780, 900], 2, "memory grew from 780 to 900 MB"),
    ],
)
def test_memory_is_judged_on_a_cluster_that_has_run_the_specs_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_mb: list[int], runs: int, verdict: str
) -> None:
    states = (Health(mb * 10**6, {}, frozenset(), frozenset()) for mb in memory_mb)
    monkeypatch.setattr(Health, "of", lambda *_: next(states))
    monkeypatch.setattr(Health, "settled", lambda *_, **__: next(states))
    monkeypatch.setattr(session, "open_cluster", lambda *_: FakeCluster())
    monkeypatch.setattr(session.Session, "suite", lambda _: suite(tmp_path, POD))
    monkeypatch.setattr(session.Session, "_provide", lambda *_: None)
    mine, told = session.Session("embedded", "class", tmp_path / "out"), []
    assert mine.run(session.Choice(runs=runs), 1, 60, told.append) == verdict
    account = mine.store.account()
    assert account is not None
    assert (account.memory_before_mb, account.memory_after_mb) == tuple(memory_mb[-2:])
    assert account.memory_at_first_mb == (500 if runs > 1 else None)
    assert (tmp_path / "seen").read_text().splitlines() == [POD] * runs
    assert ("memory grew from 500 to 780 MB; whether it goes on to grow, --runs 2 tells" in told) == (
        runs == 1
    )


def test_runs_and_resume_contradict_each_other(tmp_path: Path) -> None:
    mine = session.Session("embedded", "class", tmp_path)
    with pytest.raises(ConfigError, match="--runs begins anew"):
        mine.run(session.Choice(runs=2, resume=True), 1, 60, print)


def test_without_a_cluster_nothing_of_an_earlier_run_is_left_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> FakeCluster:
        raise ClusterError("There is no cluster 'class'.")

    monkeypatch.setattr(session, "open_cluster", gone)
    monkeypatch.setattr(session.Session, "suite", lambda _: suite(tmp_path, POD))
    mine = session.Session("embedded", "class", tmp_path / "out")
    mine.store.add(Result(POD, PASSED, 1.0))
    with pytest.raises(ClusterError):
        mine.run(session.Choice(), 1, 60, print)
    assert [spec.text for spec in mine.chosen(session.Choice(resume=True))] == [POD]


def test_page_is_what_the_records_say() -> None:
    assert report.PAGE.read_text() == report.page()


def test_recipes_are_of_known_programs() -> None:
    from labkit.versions import versions

    for recipe in images.recipes().values():
        assert set(recipe.compiled) <= set(versions().programs)


def test_every_recipe_is_a_container_image_too() -> None:
    names = [f"registry.k8s.io/e2e-test-images/{name}:1.0" for name in images.recipes()]
    known = containers.catalogue([*names, "registry.k8s.io/invalid/no-recipe:1", "quay.io/agnhost:1"])
    for name in names:
        spec = known.named(name)
        assert (spec.short, spec.names) == (containers.short(name), (name,))
        assert known.tag(spec).startswith("labkit-airgap/suite-")
    assert not any("no-recipe" in short or "quay" in short for short in known.specs)
    agnhost = known.named(names[0])
    assert dockerfile(agnhost, "base").endswith('ENTRYPOINT ["/agnhost"]\nCMD ["pause"]\n')
    # A link to Debian's own shell would make /bin a folder that hides it.
    assert not any(path.startswith("/bin/") for spec in known.specs.values() for path in spec.links)
    assert images.repository("registry.k8s.io/e2e-test-images/agnhost:2.55") == "agnhost"
