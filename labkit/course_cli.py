"""The course outside of a notebook: `labkit course`, `start`, `check`, `hint`, `slides` and more."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from labkit.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def course(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one with the course.")],
    notebooks: Annotated[Path | None, typer.Option(help="Folder of labs.")] = None,
) -> None:
    """Write the labs into a folder of yours, with the exercises open. What you have changed stays."""
    from labkit.labs.copies import hand_out
    from labkit.labs.metadata import notebooks_dir

    handed = hand_out(notebooks_dir(notebooks), folder.absolute())
    typer.echo(f"{folder}: {handed.words()}.")


def start(
    folder: Annotated[Path, typer.Argument(help="Your course folder; made if it is not there.")] = Path(
        "labkit-course"
    ),
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; the next free one if it is taken.")] = 8888,
    notebooks: Annotated[Path | None, typer.Option(help="Folder of labs.")] = None,
) -> None:
    """Open JupyterLab with the labs in a folder of yours."""
    from labkit.course.place import HOLDER
    from labkit.labs.copies import START

    course(folder, notebooks)
    # `!kubectl` and `!labkit` in cells are the programs beside this Python.
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    settings = folder.absolute() / HOLDER / "jupyter"
    _no_news(settings)
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        filter(None, (str(settings), os.environ.get("JUPYTER_CONFIG_PATH")))
    )
    argv = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.absolute()}"]
    argv += [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--LabApp.default_url=/lab/tree/{START}",
    ]
    argv += [] if browser else ["--no-browser"]
    sys.stdout.flush()
    os.execv(sys.executable, argv)


def _no_news(settings: Path) -> None:
    """Let JupyterLab ask nobody on the internet for news and updates, nor the learner whether it may."""
    page = settings / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}})
    )


def progress(
    as_json: Json = False,
    figure: Annotated[
        Path | None, typer.Option(help="Write a figure of your guesses there: a .png or .svg file.")
    ] = None,
) -> None:
    """Show how far you are: checks, hints and solutions of each lab, or how your guesses get better."""
    if figure:
        _draw_guesses(figure)
        return
    from labkit.labs.overview import overview, table

    labs = overview()
    typer.echo(json.dumps([lab.as_dict() for lab in labs], indent=2) if as_json else table(labs))


def _draw_guesses(target: Path) -> None:
    if target.suffix not in (".png", ".svg"):
        raise ConfigError(
            f"{target} is neither .png nor .svg.", "Name it so: labkit progress --figure guesses.png"
        )
    from labkit.course.guesses import guesses_so_far

    drawn = guesses_so_far()
    words = ". ".join(text.get_text() for text in drawn.texts)
    drawn.savefig(target, metadata={"Title": words})
    typer.echo(f"{target}: {words}.")


def check(
    lab: Annotated[str, typer.Argument(help="A lab's number, 03, or the id of a check, 00-service.")],
    name: Annotated[str, typer.Option("--cluster", "-c", help="The cluster's name.")] = "lab",
    as_json: Json = False,
) -> None:
    """Run a lab's checks that need only the cluster. Exit code: 0 when all pass, 1 when one does not."""
    from labkit.checks import checks_of, find, run_check
    from labkit.cluster.providers import open_cluster
    from labkit.course.numbers import parse

    number, _ = parse(lab) or (lab, "")
    chosen = [find(lab)] if "-" in lab else [spec for spec in checks_of(number) if spec.needs_only_cluster]
    if not chosen:
        raise ConfigError(f"No check of lab {lab} needs only the cluster.", "Run them in the notebook.")
    cluster = open_cluster(name)
    results = [run_check(spec, cluster, deadline_s=0) for spec in chosen]
    if as_json:
        typer.echo(json.dumps([result.as_dict() for result in results], indent=2))
    else:
        for result in results:
            typer.echo(str(result))
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


def hint(
    exercise: Annotated[str, typer.Argument(help="Id of an exercise: 00-service.")],
    name: Annotated[str, typer.Option("--cluster", "-c", help="The cluster's name.")] = "lab",
) -> None:
    """Show the next hint of an exercise, chosen by what the cluster shows now."""
    from labkit.checks import find, run_check
    from labkit.checks import hint as show
    from labkit.cluster.providers import open_cluster
    from labkit.errors import ClusterError

    spec = find(exercise)
    if spec.needs_only_cluster:
        with suppress(ClusterError):  # the first level needs none
            run_check(spec, open_cluster(name), deadline_s=0)
    show(exercise)


def solution(
    exercise: Annotated[str, typer.Argument(help="Id of an exercise: 00-service.")],
    yes: Annotated[bool, typer.Option("--yes", help="Show it; your progress says so.")] = False,
) -> None:
    """Show how an exercise is solved."""
    from labkit.checks import solution as show

    show(exercise, confirmed=yes)


def slides(
    lab: Annotated[str, typer.Argument(help="A lab's number: 08.")],
    report: Annotated[
        Path | None, typer.Option("--from", help="Folder of a report.  [the last one in ./reports…]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file.  [NN-name-slides.html]")
    ] = None,
) -> None:
    """Write an executed lab as slides: one HTML file that needs no network. Press ? in it for its keys."""
    from labkit.course.place import sources
    from labkit.labs.slides import executed_lab, write_slides

    executed = executed_lab(lab, report)
    target = output or Path(f"{executed.stem}-slides.html")
    count = write_slides(executed, target, sources())
    typer.echo(f"{target}: {count} slides, from {executed}.")
