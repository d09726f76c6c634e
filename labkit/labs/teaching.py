"""Pages for instructors, made from the notebooks, the exercises and docs/teach/notes.yaml.

python -m labkit.labs.teaching            # writes them; `make teach` does the same
python -m labkit.labs.teaching --check    # exit code 1 where one is not current
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from labkit.course.exercises import Exercises, load
from labkit.errors import LabError
from labkit.labs.metadata import Lab, find_labs, read_notebook
from labkit.labs.report import duration

ROOT = Path(__file__).resolve().parents[2]
_MADE = "<!-- Made by `make teach`; change the notebooks, their exercises or notes.yaml instead. -->"
_LEARN = re.compile(r"\*\*You will learn\*\*\n+((?:[-*] .*\n?|  .*\n?)+)")


def pages(notebooks: Path, notes: Mapping[str, Any]) -> dict[str, str]:
    """Name of each page → its text.

    Args:
        notes: content of notes.yaml; a lab that it does not know has no lines about demonstrations.

    Raises:
        LabError: a lab or its exercises cannot be read, or a plan names a lab that is not there.
    """
    labs = {lab.number: lab for lab in find_labs(notebooks)}
    numbers = sorted({path.stem for path in (notebooks / "exercises").glob("*.yaml")} | labs.keys())
    exercises = {number: load(notebooks, number) for number in numbers}
    return {
        "labs.md": _labs_page(labs, exercises, notes.get("labs") or {}),
        "plans.md": _plans_page(labs, notes),
        "mistakes.md": _mistakes_page(labs, exercises),
    }


def minutes_line(lab: Lab) -> str:
    """What a lab takes, as its notebook has it."""
    about = read_notebook(lab.path).metadata["labkit"]
    run = [f"{duration(lab.measured_s['class'])} on embedded"] if "class" in lab.measured_s else []
    others = about.get("measured_on", {}).items()
    run += [f"{duration(times['class'])} on {name}" for name, times in others if "class" in times]
    return f"plan {lab.plan_minutes}; the cells themselves ran for {' and '.join(run) or '(not measured)'}"


def _labs_page(labs: Mapping[str, Lab], exercises: Mapping[str, Exercises], notes: Mapping[str, Any]) -> str:
    lines = ["# The labs", "", _MADE, "", "| lab | minutes | exercises | points |", "|---|---:|---:|---:|"]
    for number, lab in labs.items():
        own = exercises[number]
        count = len(own.by_id)
        lines.append(
            f"| [{number} {lab.title}](#lab-{number}) | {lab.plan_minutes} | {count} | {own.points} |"
        )
    for number, lab in labs.items():
        note = notes.get(number) or notes.get(number[:2]) or {}
        link = f"../../notebooks/{lab.path.name}"
        lines += [
            "",
            f'<a id="lab-{number}"></a>',
            "",
            f"## {number} · {lab.title}",
            "",
            f"[{lab.summary}]({link})",
            "",
        ]
        lines += [f"**Minutes:** {minutes_line(lab)}.", ""]
        lines += ["**It teaches**", "", *_learned(lab), ""]
        if note:
            lines += [f"**It assumes:** {note['assumes']}", ""]
        written = exercises[number].by_id.values()
        if written:
            lines += ["**Exercises:** " + " · ".join(f"{e.title} ({_points(e.points)})" for e in written), ""]
        if note:
            lines += [f"**Demonstration:** {note['show']}", "", f"**Skip:** {note['skip']}", ""]
            lines += [f"**Say:** “{note['say']}”", ""]
    return _text(lines)


def _learned(lab: Lab) -> list[str]:
    """The points of a lab's "You will learn"."""
    found = _LEARN.search("\n".join(cell.source for cell in read_notebook(lab.path).cells[:2]))
    if not found:
        raise LabError(
            f"{lab.path.name} does not say what it teaches.", 'Its first cell needs "**You will learn**".'
        )
    return found[1].rstrip("\n").splitlines()


def _plans_page(labs: Mapping[str, Lab], notes: Mapping[str, Any]) -> str:
    demo = int(notes.get("demo_minutes", 20))
    lines = ["# Plans", "", _MADE, "", "The minutes are those that the labs plan with reading and trying."]
    lines += [f"A demonstration takes {demo} minutes with slides. What is left is for questions and breaks."]
    for plan in notes.get("plans") or []:
        lines += ["", f"## {plan['title']}", "", plan["text"].strip(), ""]
        lines += ["| when | labs | minutes | of |", "|---|---|---:|---:|"]
        for day in plan["days"]:
            done, shown = (_numbers(labs, day.get(key, []), plan["title"]) for key in ("do", "demo"))
            names = [f"[{n} {labs[n].title}](labs.md#lab-{n})" for n in done]
            names += [f"[{n} {labs[n].title}](labs.md#lab-{n}) (demonstration)" for n in shown]
            total = sum(labs[n].plan_minutes for n in done) + demo * len(shown)
            lines.append(f"| {day['title']} | {'<br>'.join(names)} | {total} | {day['minutes']} |")
    return _text(lines)


def _numbers(labs: Mapping[str, Lab], named: list[str], plan: str) -> list[str]:
    """Labs of a plan; a lab with two notebooks is named by its two digits."""
    chosen = []
    for name in named:
        own = [name] if name in labs else [number for number in labs if number[:2] == name]
        if not own:
            raise LabError(
                f"The plan {plan!r} names lab {name}, which is not there.", "See docs/teach/notes.yaml."
            )
        chosen += own
    return chosen


def _mistakes_page(labs: Mapping[str, Lab], exercises: Mapping[str, Exercises]) -> str:
    lines = ["# The usual mistakes", "", _MADE, ""]
    lines += ["Each mistake is tried when the labs are run with proofs, and draws the hint beside it."]
    for number, own in exercises.items():
        if not own.by_id:
            continue
        title = f"{number} · {labs[number].title}" if number in labs else "The HPA explorer"
        lines += ["", f"## {title}"]
        for each in own.by_id.values():
            lines += ["", f"### {each.title[:1].upper()}{each.title[1:]}", ""]
            lines += [f"`{each.id}`, {_points(each.points)}. Where to look: {_one(each.where)}", ""]
            lines += ["| mistake | the hint that it draws |", "|---|---|"]
            lines += [f"| {_cell(wrong.name)} | {_cell(each.hints[wrong.hint])} |" for wrong in each.wrong]
    return _text(lines)


def _points(count: int) -> str:
    return f"{count} point{'s' * (count != 1)}"


def _one(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one(text).replace("|", "\\|")


def _text(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def stale(notebooks: Path, folder: Path) -> dict[str, str]:
    """Pages of a folder that are not as they would be made now, with the text that they should have.

    Raises:
        LabError: notes.yaml cannot be read, or as `pages` says.
    """
    try:
        notes = yaml.safe_load((folder / "notes.yaml").read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{folder / 'notes.yaml'} cannot be read: {error}") from None
    made = pages(notebooks, notes)
    there = {name: folder / name for name in made}
    return {
        name: text
        for name, text in made.items()
        if not there[name].exists() or there[name].read_text(encoding="utf-8") != text
    }


def main(args: list[str]) -> int:
    """Write the pages, or tell which are not current."""
    folder = ROOT / "docs" / "teach"
    changed = stale(ROOT / "notebooks", folder)
    if "--check" in args:
        print(f"not current: {', '.join(changed)}; run `make teach`" if changed else "current")
        return 1 if changed else 0
    for name, text in changed.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(f"docs/teach/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
