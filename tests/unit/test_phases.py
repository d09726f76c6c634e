"""How the phases of `up` are told and shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from labkit.cluster.phases import Live, Phase, Plain, phase
from labkit.errors import MachineError


def test_a_phase_tells_its_begin_its_progress_and_its_end() -> None:
    told: list[Phase] = []
    with phase("etcd", told.append, "starting") as step:
        step.tell("listening", 0.5)
        step.tell("ready")
    assert [(p.text, p.state) for p in told] == [
        ("starting", "running"), ("listening", "running"), ("ready", "running"), ("ready", "done"),
    ]  # fmt: skip
    assert [p.fraction for p in told] == [None, 0.5, None, 1.0]
    assert {p.name for p in told} == {"etcd"}


@pytest.mark.parametrize(
    ("error", "said"), [(MachineError("the disk is full\nmore", "hint"), "the disk is full"), (KeyboardInterrupt(), "KeyboardInterrupt")]
)  # fmt: skip
def test_a_failed_phase_tells_why_and_the_error_goes_on(error: BaseException, said: str) -> None:
    told: list[Phase] = []
    with pytest.raises(type(error)), phase("etcd", told.append):
        raise error
    assert (told[-1].state, told[-1].text) == ("failed", said)


def test_a_note_is_shown_at_once_and_leaves_the_text_as_it_was() -> None:
    told: list[Phase] = []
    out = io.StringIO()
    show = Plain(out)
    with phase("binaries", lambda now: (told.append(now), show(now))[0], "looking") as step:
        step.note("the cache was damaged")
    assert [line.partition(" (")[0] for line in out.getvalue().splitlines()] == [
        "[binaries] …the cache was damaged",
        "[binaries] looking",
    ]
    assert [(now.text, now.note) for now in told] == [
        ("looking", False), ("the cache was damaged", True), ("looking", False),
    ]  # fmt: skip


def test_plain_lines_are_one_for_each_phase_and_rare_in_between() -> None:
    out = io.StringIO()
    show = Plain(out, every_s=20)
    show(Phase("binaries", "looking", "running", 0.0))
    show(Phase("binaries", "10 of 99 packages", "running", 5.0))
    show(Phase("binaries", "30 of 99 packages", "running", 21.0))
    show(Phase("binaries", "31 of 99 packages", "running", 22.0))
    show(Phase("binaries", "compiled", "done", 60.04))
    show(Phase("etcd", "no space", "failed", 1.0))
    assert out.getvalue().splitlines() == [
        "[binaries] …30 of 99 packages (21.0 s)",
        "[binaries] compiled (60.0 s)",
        "[etcd] failed: no space (1.0 s)",
    ]


def test_a_terminal_shows_every_phase_once_with_its_last_text() -> None:
    out = io.StringIO()
    with Live(Console(file=out, force_terminal=True, width=120)) as show:
        for now in (
            Phase("etcd", "starting [1/2]", "running", 0.1),
            Phase("etcd", "etcd ready [2/2]", "done", 0.4, 1.0),
            Phase("join", "no answer", "failed", 2.0),
        ):
            show(now)
    last = out.getvalue().rpartition("\x1b[1A")[2]
    assert "etcd ready [2/2]" in out.getvalue()
    assert "✘ no answer" in out.getvalue()
    assert "✔" in last or "✔" in out.getvalue()
