"""Exercises, help with them, progress, and learners' copies."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml

from labkit.checks.catching_up import CatchUpStopped, Solved, carry_out, solved_up_to
from labkit.checks.core import CheckResult, expect
from labkit.checks.exercise import Desk, Note, YourTurn
from labkit.course import place
from labkit.course.exercises import OPEN, load, solution, without_solution
from labkit.course.helping import Notes, help_text, solved_cells
from labkit.course.progress import Progress, ProgressError
from labkit.errors import ConfigError, LabError
from labkit.labs.copies import hand_out, learners_copy
from labkit.labs.metadata import find_labs, read_notebook
from labkit.labs.overview import overview, table
from labkit.labs.trials import trials_of

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
YAML_CELL = "%%writefile work/00/a.yaml\nkind: Service\nspec:\n  ### BEGIN SOLUTION\n  a: 1\n  ### END SOLUTION\nend: true"
LABS = [lab for lab in find_labs(NOTEBOOKS) if (NOTEBOOKS / "exercises" / f"{lab.number}.yaml").exists()]


def failing(check_id: str, *keys: str) -> CheckResult:
    findings = tuple(expect(False, f"{key} is right", "it is not", key) for key in keys)
    return CheckResult(check_id, "A title", findings, 1, 0.1)


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(tmp_path / "own" / "progress.db", "ada", "1")


@pytest.fixture
def desk(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> tuple[Desk, list[str]]:
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    shown: list[str] = []
    return Desk(Notes(lambda: progress), shown.append), shown


# Sources of exercises.


def test_a_solution_gives_way_to_its_skeleton_and_nothing_else_changes():
    assert without_solution(YAML_CELL).splitlines()[2:] == ["spec:", f"  # {OPEN}", "end: true"]
    assert without_solution(YAML_CELL, "b: ?\nc: ?").splitlines()[3:5] == ["  b: ?", "  c: ?"]
    assert solution(YAML_CELL).splitlines()[3] == "  a: 1" and "###" not in solution(YAML_CELL)


def test_each_pair_of_marks_is_taken_out():
    twice = "### BEGIN SOLUTION\na = 1\n### END SOLUTION\nb = 2\n### BEGIN SOLUTION\nc = 3\n### END SOLUTION"
    assert without_solution(twice) == f"...  # {OPEN}\nb = 2\n...  # {OPEN}"


@pytest.mark.parametrize(
    "source", ["a = 1", "### BEGIN SOLUTION\na = 1", "### END SOLUTION\na = 1\n### BEGIN SOLUTION"]
)
def test_marks_that_do_not_pair_are_an_error(source: str):
    with pytest.raises(LabError, match="BEGIN SOLUTION"):
        without_solution(source)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.pop("where"), "'where' is a required property"),
        (lambda e: e["wrong"].pop(), "is too short"),
        (lambda e: e["wrong"][0].update(hint="nothing"), "hints that are not there: nothing"),
        (lambda e: e.update(points=0), "minimum"),
    ],
)
def test_a_description_that_is_wrong_names_what(tmp_path: Path, change, said: str):
    facts = yaml.safe_load((NOTEBOOKS / "exercises" / "00.yaml").read_text())
    one = {"00-backoff": facts["00-backoff"]}
    one["00-backoff"]["wrong"] = one["00-backoff"]["wrong"][:2]
    change(one["00-backoff"])
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "00.yaml").write_text(yaml.safe_dump(one))
    with pytest.raises(LabError, match=said):
        load(tmp_path, "00")


@pytest.mark.parametrize("lab", LABS, ids=[lab.number for lab in LABS])
def test_every_exercise_has_its_cells_its_check_and_its_wrong_answers(lab):
    trials = trials_of(read_notebook(lab.path), NOTEBOOKS)
    assert trials
    for trial in trials:
        assert len(trial.exercise.wrong) >= 2 and trial.first < trial.check
        assert all(OPEN in text for text in trial.skeletons.values())
        cells = solved_cells(NOTEBOOKS, trial.exercise.id)
        assert cells.keys() == trial.skeletons.keys()
        own = [wrong.cells for wrong in trial.exercise.wrong]
        assert all(text.strip() != cells[name].strip() for each in own for name, text in each.items())


# Help.


def test_help_goes_from_where_to_what_to_nearly():
    exercise = load(NOTEBOOKS, "00").by_id["00-service"]
    assert help_text(exercise, 1, []).startswith("Where to look")
    assert exercise.hints["port"].strip() in help_text(exercise, 2, ["port", "selector"])
    assert help_text(exercise, 2, ["other"]).startswith("Where to look"), "nothing was observed"
    assert "selector:" in help_text(exercise, 3, ["port"])


def test_a_check_that_is_asked_again_shows_the_next_level(desk, progress: Progress):
    table, shown = desk
    exercise = load(NOTEBOOKS, "00").by_id["00-service"]
    for _ in range(5):
        table.judged(exercise, failing("00-service", "selector"))
    assert 'hint("00-service")' in shown[0]
    assert [line.split(".")[0] for line in shown[1:]] == [
        "Hint 1 of 3",
        "Hint 2 of 3",
        "Hint 3 of 3",
        "Hint 3 of 3",
    ]
    assert "no endpoint" in shown[2]
    state = progress.states()["00-service"]
    assert (state.red, state.hints, state.passed_at) == (5, 3, None)


def test_the_level_of_help_survives_the_kernel(desk, progress: Progress):
    table, shown = desk
    exercise = load(NOTEBOOKS, "00").by_id["00-service"]
    table.judged(exercise, failing("00-service", "port"))
    table.help(exercise)
    later = Desk(Notes(lambda: progress), shown.append)
    later.judged(exercise, failing("00-service", "port"))
    later.help(exercise)
    assert shown[-1].startswith("Hint 2 of 3")


def test_without_a_look_there_is_no_second_level(desk):
    table, shown = desk
    exercise = load(NOTEBOOKS, "00").by_id["00-service"]
    table.help(exercise)
    table.help(exercise)
    assert shown[0].startswith("Hint 1") and "Run the check first" in shown[1]


def test_a_solution_is_shown_when_asked_twice_and_noted(desk, progress: Progress):
    table, shown = desk
    exercise = load(NOTEBOOKS, "00").by_id["00-service"]
    table.reveal(exercise)
    assert "once more" in shown[0] and "targetPort" not in shown[0]
    assert "00-service" not in progress.states()
    table.reveal(exercise)
    assert "targetPort: 8080" in shown[1]
    assert progress.states()["00-service"].revealed


def test_an_exercise_that_is_not_begun_is_one_friendly_line(desk, tmp_path: Path, monkeypatch):
    table, _ = desk
    monkeypatch.chdir(tmp_path)
    exercise = load(NOTEBOOKS, "00").by_id["00-service"]
    with pytest.raises(YourTurn) as stopped:
        table.turn_of(exercise, ())
    assert len(stopped.value._render_traceback_()) == 1
    assert "work/00/service.yaml" in stopped.value._render_traceback_()[0]
    (tmp_path / "work/00").mkdir(parents=True)
    (tmp_path / "work/00/service.yaml").write_text(without_solution(YAML_CELL))
    with pytest.raises(YourTurn):
        table.turn_of(exercise, ())
    (tmp_path / "work/00/service.yaml").write_text("kind: Service")
    table.turn_of(exercise, ())
    with pytest.raises(YourTurn, match="back-off"):
        table.turn_of(load(NOTEBOOKS, "00").by_id["00-backoff"], ("cluster", ...))


def test_a_headless_run_leaves_no_trace(desk, progress: Progress, monkeypatch):
    table, _ = desk
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    table.judged(load(NOTEBOOKS, "00").by_id["00-service"], failing("00-service", "port"))
    assert progress.events() == [] and not progress.path.exists()


# Progress.


def test_events_of_two_writers_at_once_are_all_kept(progress: Progress):
    def write(n: int) -> None:
        mine = Progress(progress.path, "ada", "1")
        for i in range(25):
            mine.note("check", f"0{n}-x", ok=i == 24)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(progress.events()) == 100
    assert {state.red for state in progress.states().values()} == {24}
    assert progress.path.stat().st_mode & 0o077 == 0


def test_each_event_notes_the_version_of_the_course_folder(course, progress: Progress, monkeypatch):
    root, folder = course
    hand_out(root / "notebooks", folder)
    given = folder / ".labkit" / "given.json"
    given.write_text(given.read_text().replace('"version": "', '"version": "9.'))
    monkeypatch.chdir(folder / "notebooks")
    Progress(progress.path, "ada").note("check", "00-service", ok=True)
    monkeypatch.chdir(root)
    Progress(progress.path, "ada").note("check", "00-service", ok=True)
    first, second = (event.course for event in progress.events())
    assert first == f"9.{second}" and second == metadata.version("labkit")


def test_one_learner_does_not_see_the_other(progress: Progress):
    progress.note("check", "00-service", ok=True)
    assert Progress(progress.path, "bob").events() == []


def test_a_damaged_record_is_told_and_stays(tmp_path: Path):
    path = tmp_path / "own" / "progress.db"
    path.parent.mkdir()
    path.write_text("no database " * 50)
    said: list[str] = []
    notes = Notes(lambda: Progress(path, "ada"), said.append)
    notes.note("check", "00-service", ok=True)
    notes.note("check", "00-service", ok=True)
    assert len(said) == 1 and "not kept" in said[0] and str(path) in said[0]
    assert path.read_text().startswith("no database")


def test_a_record_of_a_newer_version_is_left_alone(progress: Progress):
    progress.note("check", "00-service", ok=True)
    with sqlite3.connect(progress.path) as base:
        base.execute("PRAGMA user_version = 99")
    with pytest.raises(ProgressError, match="newer version"):
        progress.note("check", "00-service", ok=True)


def test_a_full_disk_costs_the_event_and_nothing_before(progress: Progress):
    progress.note("check", "00-service", ok=True)
    with sqlite3.connect(progress.path) as base:
        pages = base.execute("PRAGMA page_count").fetchone()[0]
    real = Progress._prepare

    def limited(self: Progress, base: sqlite3.Connection) -> None:
        base.execute(f"PRAGMA max_page_count = {pages}")
        real(self, base)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "_prepare", limited)
        with pytest.raises(ProgressError, match="full"):
            for _ in range(1000):
                progress.note("check", "00-service", ok=False, text="x" * 500)
    assert progress.events()[0].ok


# Learners' copies.


@pytest.fixture
def course(tmp_path: Path) -> tuple[Path, Path]:
    """Sources small enough to change, and a course folder of them."""
    root = tmp_path / "checkout"
    (root / "notebooks" / "exercises").mkdir(parents=True)
    shutil.copy(NOTEBOOKS / "00-start-here.ipynb", root / "notebooks")
    shutil.copy(NOTEBOOKS / "exercises" / "00.yaml", root / "notebooks" / "exercises")
    for top in ("manifests", "services"):
        (root / top).mkdir()
        (root / top / "a.yaml").write_text("first")
    folder = tmp_path / "mine"
    hand_out(root / "notebooks", folder)
    return root, folder


def test_a_copy_holds_no_solution_and_no_answer():
    for lab in find_labs(NOTEBOOKS):
        source = read_notebook(lab.path)
        copy = learners_copy(source)
        text = nbformat.writes(copy)
        assert "BEGIN SOLUTION" not in text and [c.id for c in copy.cells] == [c.id for c in source.cells]
        predictions = [c.source for c in copy.cells if c.cell_type == "code" and "= predict(" in c.source]
        assert all("None" in each for each in predictions), predictions
        for trial in trials_of(source, NOTEBOOKS):
            for cell_id, solved in solved_cells(NOTEBOOKS, trial.exercise.id).items():
                [own] = [c for c in copy.cells if c.id == cell_id]
                assert OPEN in own.source and own.source != solved


def test_help_in_a_notebook_is_a_box_with_code_in_it():
    note = Note("Hint 3 of 3. Compare `kubectl get <pod>`:\nspec:\n  a: <b>")
    page = note._repr_html_()
    assert "<code>kubectl get &lt;pod&gt;</code>" in page and ">spec:\n  a: &lt;b&gt;</pre>" in page
    assert repr(note).endswith("a: <b>")


def test_a_copy_imports_what_a_learner_may_ask_for():
    for lab in find_labs(NOTEBOOKS):
        text = "\n".join(cell.source for cell in learners_copy(read_notebook(lab.path)).cells)
        if "labkit.checks import" in text:
            [line] = [each for each in text.splitlines() if each.startswith("from labkit.checks import")]
            assert {"catch_up,", "hint,", "solution"} <= set(line.split()), line
        assert "check(" not in text or "labkit.checks import" in text, lab.name


def test_handing_out_again_changes_nothing(course):
    root, folder = course
    before = {path: path.stat().st_mtime_ns for path in folder.glob("notebooks/*.ipynb")}
    assert hand_out(root / "notebooks", folder).words() == "everything is there already"
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_the_learner_changed_stays_and_the_new_version_comes_beside(course):
    root, folder = course
    (folder / "manifests/a.yaml").write_text("mine")
    (folder / "services/own.py").write_text("mine too")
    (root / "manifests/a.yaml").write_text("second")
    (root / "services/a.yaml").write_text("second")
    handed = hand_out(root / "notebooks", folder)
    assert handed.updated == ["services/a.yaml"] and handed.kept == {
        "manifests/a.yaml": "manifests/a.new.yaml"
    }
    assert "1 of yours left as they are: manifests/a.yaml (new: manifests/a.new.yaml)" in handed.words()
    texts = [
        (folder / name).read_text()
        for name in ("manifests/a.yaml", "manifests/a.new.yaml", "services/own.py")
    ]
    assert texts == ["mine", "second", "mine too"]
    assert hand_out(root / "notebooks", folder).words() == "everything is there already"


def test_a_folder_of_somebody_else_is_refused(course, tmp_path: Path):
    root, folder = course
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        hand_out(root / "notebooks", other)
    (folder / ".labkit/given.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        hand_out(root / "notebooks", folder)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_who_has_solved_it_may_catch_up_after_a_restart(progress: Progress):
    progress.note("catch-up", "00-survives")
    progress.note("check", "00-service", ok=True)
    for name in ("00-service", "00-survives"):
        progress.note("catch-up", name)
    states = progress.states()
    assert states["00-survives"].revealed and not states["00-service"].revealed


def test_a_course_folder_carries_its_sources(course, monkeypatch):
    _, folder = course
    monkeypatch.chdir(folder / "notebooks")
    assert place.sources() == folder / ".labkit/notebooks"
    assert place.exercise("00-service") is not None and place.exercise("00-cleaned-up") is None
    assert "targetPort" in solved_cells(folder / ".labkit/notebooks", "00-service")["service-write"]


def test_overview_counts_points_but_none_for_a_solution_that_was_shown(
    course, progress: Progress, monkeypatch
):
    _, folder = course
    monkeypatch.chdir(folder)
    for name in ("00-service", "00-survives"):
        progress.note("check", name, ok=True)
    progress.note("hint", "00-survives", level=2)
    progress.note("solution", "00-survives")
    [lab] = overview(progress)
    assert (lab.points, lab.of_points, lab.hints, lab.revealed) == (2, 5, 2, ("00-survives",))
    assert set(lab.passed) == {"00-service", "00-survives"}
    assert "2/5" in table([lab]) and json.dumps(lab.as_dict())


# Catching up.


def test_catching_up_begins_after_the_last_check_that_passed():
    everything = solved_up_to(NOTEBOOKS, "00-service", set(), set())
    assert [cell.id for cell in everything][:2] == ["parameters", "imports"]
    assert everything[-1].id == "service-check"
    later = solved_up_to(NOTEBOOKS, "00-service", {"00-workers-ready"}, {"cluster_name"})
    assert later[0].id == "phases" and len(later) < len(everything)
    [written] = [cell for cell in later if cell.exercise]
    assert "targetPort: 8080" in written.source and "###" not in written.source
    assert "parameters" not in [
        cell.id for cell in solved_up_to(NOTEBOOKS, "00-service", set(), {"cluster_name"})
    ]


def test_catching_up_to_nowhere_is_told():
    with pytest.raises(LabError, match="No lab has a check '00-nothing'"):
        solved_up_to(NOTEBOOKS, "00-nothing", set(), set())


def test_the_learners_own_file_is_kept(tmp_path: Path):
    own = tmp_path / "work/00/service.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    shown: list[str] = []
    cell = Solved("service-write", "solved", "00-service")

    def run(source: str) -> None:
        own.write_text(source)

    for _ in range(2):
        carry_out([cell], run, shown.append, tmp_path)
    assert own.read_text() == "solved"
    copies = [own.with_name(f"service.mine-{n}.yaml").read_text() for n in (1, 2)]
    assert copies == ["mine", "solved"] and "work/00/service.mine-1.yaml" in shown[0]


def test_a_cell_that_fails_stops_it(tmp_path: Path):
    ran: list[str] = []

    def run(source: str) -> BaseException | None:
        ran.append(source)
        return ValueError("no pod") if source == "b" else None

    with pytest.raises(CatchUpStopped, match="cell two: ValueError: no pod"):
        carry_out([Solved("one", "a"), Solved("two", "b"), Solved("three", "c")], run, print, tmp_path)
    assert ran == ["a", "b"]
