"""A Dockerfile as typed steps. What the embedded builder cannot do is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import ImageError
from labkit.images.grammar import parse

DEFAULT_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_INSTEAD = {
    "ADD": "Use COPY for files of the build context; download others before the build.",
    "HEALTHCHECK": "Kubernetes ignores it; declare livenessProbe and readinessProbe in the pod's manifest.",
    "VOLUME": "Declare volumes and volumeMounts in the pod's manifest.",
    "STOPSIGNAL": "Handle SIGTERM, which Kubernetes sends first.",
    "SHELL": 'Use the exec form: CMD ["program", "argument"].',
    "ONBUILD": "Write the instructions into the Dockerfile that needs them.",
    "MAINTAINER": 'Use LABEL maintainer="…".',
}
_KNOWN = "FROM python:*, ARG, ENV, LABEL, WORKDIR, COPY, RUN pip install, EXPOSE, USER, ENTRYPOINT and CMD"


@dataclass(frozen=True)
class Match:
    """A file or folder of the build context that a source of COPY names.

    Attributes:
        path: as the source names it.
        real: where it is, which differs when `path` is a link; "" when that is outside of the context.
        folder: it is one.
        entries: what is below a folder, relative to it, parents before children.
    """

    path: str
    real: str
    folder: bool
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A source of COPY as it is written, and what it names."""

    pattern: str
    wildcard: bool = False
    outside: bool = False
    matches: tuple[Match, ...] = ()


@dataclass(frozen=True)
class Copy:
    """COPY: `found` says what each source names in the context; dest is as written."""

    line: int
    found: tuple[Source, ...]
    dest: str
    workdir: str
    mode: int | None

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources, as written."""
        return tuple(source.pattern for source in self.found)

    @property
    def into_folder(self) -> bool:
        """The destination is a folder by the way it is written."""
        return self.dest in ("", ".") or self.dest.endswith(("/", "/."))


@dataclass(frozen=True)
class PipInstall:
    """RUN pip install: the arguments after `install`, the directory it runs in, and PIP_* variables."""

    line: int
    args: tuple[str, ...]
    workdir: str
    env: tuple[tuple[str, str], ...]


@dataclass
class Recipe:
    """What a Dockerfile asks for: the final configuration, and the steps that make files."""

    file: Path
    python: str = ""
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    workdir: str = "/"
    user: str = ""
    exposed_ports: list[str] = field(default_factory=list)
    steps: list[Copy | PipInstall] = field(default_factory=list)
    workdirs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    own_cmd: bool = False

    def error(self, line: int, what: str, hint: str = "") -> ImageError:
        return ImageError(f"{self.file}, line {line}: {what}", hint)


def read_dockerfile(
    file: Path,
    build_args: Mapping[str, str] | None = None,
    context: Path | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> Recipe:
    """Read `file`; with a context, COPY also knows its files.

    Raises:
        ImageError: no such file, or an instruction outside the subset; names file, line and instruction.
        AcquireError, MachineError: the program that reads Dockerfiles cannot be had.
    """
    base = {"PATH": DEFAULT_PATH, **_BASE_ENV}
    parsed = parse(file, context, build_args=build_args, env=base, progress=progress)
    recipe, stages, error = Recipe(file), parsed["stages"] or [], parsed.get("error")
    if stages:
        _begin(recipe, stages[0])
        for found in stages[0]["instructions"] or []:
            _take(recipe, found)
    if stages[1:]:
        what = "a second FROM: multi-stage builds are not supported."
        raise recipe.error(stages[1]["line"], what, "Keep one stage, FROM python:*.")
    if error:
        hint = _hint(error["message"])
        if error["line"]:
            raise recipe.error(error["line"], f"{error['message']}.", hint)
        raise ImageError(f"{file}: {error['message']}.", hint)
    if not stages:
        raise ImageError(f"{file} has no FROM instruction.", "Begin it with FROM python:3.11-slim.")
    return recipe


def _begin(recipe: Recipe, stage: Mapping[str, Any]) -> None:
    """FROM: the configuration of a python image."""
    image = stage["base"]
    name, _, version = image.partition("@")[0].rpartition("/")[2].partition(":")
    if name != "python":
        hint = "Only FROM python:* runs without a container engine."
        raise recipe.error(stage["line"], f"FROM {image} is not supported.", hint)
    if stage["platform"]:
        recipe.notes.append(f"line {stage['line']}: FROM --platform has no effect here")
    recipe.python = version or "latest"
    recipe.env = dict(_BASE_ENV)
    recipe.cmd = ["python3"]


def _take(recipe: Recipe, found: dict[str, Any]) -> None:
    """Add one instruction to the recipe, if the subset has it."""
    name, line = found["name"], found["line"]
    add = _INSTRUCTIONS.get(name)
    if add is None and name in _INSTEAD:
        raise recipe.error(line, f"{name} is not supported.", _INSTEAD[name])
    if found.get("error"):
        raise recipe.error(line, _unreadable(found), _hint(found["error"]))
    if add is None:
        raise recipe.error(line, f"{name} is not supported.", f"The embedded builder knows {_KNOWN}.")
    if found.get("heredoc"):
        raise recipe.error(line, f"{name} with a here-document is not supported.", "COPY a file.")
    add(recipe, found)


def _unreadable(found: Mapping[str, Any]) -> str:
    text, why = found["text"], found["error"]
    if found["name"] == "EXPOSE":
        return f"{text} is not PORT, FIRST-LAST or PORT/udp: {why}."
    return f"{why}." if why.startswith(found["name"]) else f"{text}: {why}."


def _hint(message: str) -> str:
    if "no FROM" in message or "before FROM" in message or "no instructions" in message:
        return "Begin it with FROM python:3.11-slim."
    return f"The embedded builder knows {_KNOWN}." if "unknown instruction" in message else ""


def _env(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.env.update(found["pairs"])


def _label(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.labels.update(found["pairs"])


def _workdir(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.workdir = join(recipe.workdir, found["words"][0])
    recipe.workdirs.append(recipe.workdir)


def _user(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.user = found["words"][0]


def _expose(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.exposed_ports.extend(found.get("words", []))


def _entrypoint(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.entrypoint = _command(recipe, found)
    if not recipe.own_cmd:  # the base image's CMD does not go with another ENTRYPOINT
        recipe.cmd = []


def _cmd(recipe: Recipe, found: dict[str, Any]) -> None:
    recipe.cmd = _command(recipe, found)
    recipe.own_cmd = True


def _command(recipe: Recipe, found: dict[str, Any]) -> list[str]:
    """The exec form as it is; the shell form run by /bin/sh -c."""
    words = [str(word) for word in found.get("words", [])]
    if not found.get("shell"):
        return words
    text = " ".join(words)
    if re.match(r"\[[^\s\[]", text):  # no shell command begins like that: it was meant for JSON
        hint = 'Use double quotes: ["program", "argument"].'
        raise recipe.error(found["line"], f"{text} is not a JSON array of strings.", hint)
    return ["/bin/sh", "-c", text]


def _copy(recipe: Recipe, found: dict[str, Any]) -> None:
    line, asked = found["line"], found["copy"]
    for flag in found.get("flags", []):
        if flag in ("chown", "link"):
            recipe.notes.append(f"line {line}: COPY --{flag} has no effect here")
        elif flag != "chmod":
            hint = "There is one stage only: copy from the build context." if flag == "from" else ""
            raise recipe.error(line, f"COPY --{flag} is not supported.", hint)
    mode = asked.get("chmod")
    if mode and not re.fullmatch("[0-7]{3,4}", mode):
        raise recipe.error(line, f"COPY --chmod={mode} is not an octal mode.", "Use one like 755.")
    sources = tuple(_source(one) for one in asked["sources"] or [])
    recipe.steps.append(Copy(line, sources, asked["dest"], recipe.workdir, int(mode, 8) if mode else None))


def _source(found: Mapping[str, Any]) -> Source:
    matches = tuple(
        Match(one["path"], one["real"], one["folder"], tuple(one.get("entries", [])))
        for one in found["matches"] or []
    )
    return Source(found["pattern"], found["wildcard"], found.get("outside", False), matches)


def _run(recipe: Recipe, found: dict[str, Any]) -> None:
    line = found["line"]
    for flag in found.get("flags", []):
        recipe.notes.append(f"line {line}: RUN --{flag} has no effect here")
    env = tuple((name, value) for name, value in found["env"] if name.startswith("PIP_"))
    hint = "Only `pip install …` runs at build time; prepare anything else before the build and COPY it."
    for words in found.get("commands", []):
        args = pip_arguments(words)
        if args is None:
            raise recipe.error(line, f"RUN {' '.join(words)} is not supported.", hint)
        recipe.steps.append(PipInstall(line, tuple(args), recipe.workdir, env))
    refused = found.get("refused", "")
    if refused:
        if "redirection" in refused:
            hint = 'Quote it: "name>=1.0".'
        raise recipe.error(line, f"{found['text']} is not supported: {refused}.", hint)


_BASE_ENV = {"LANG": "C.UTF-8"}
_INSTRUCTIONS: dict[str, Callable[[Recipe, dict[str, Any]], None]] = {
    "ENV": _env,
    "LABEL": _label,
    "WORKDIR": _workdir,
    "USER": _user,
    "EXPOSE": _expose,
    "ENTRYPOINT": _entrypoint,
    "CMD": _cmd,
    "COPY": _copy,
    "RUN": _run,
    "ARG": lambda _recipe, _found: None,
}


def pip_arguments(words: list[str]) -> list[str] | None:
    """What follows `pip install` in a command, or None where it is another command."""
    if words[:1] and re.fullmatch(r"python(3(\.\d+)?)?", words[0]) and words[1:2] == ["-m"]:
        words = words[2:]
    if len(words) > 2 and re.fullmatch(r"pip(3(\.\d+)?)?", words[0]) and words[1] == "install":
        return words[2:]
    return None


def join(workdir: str, path: str) -> str:
    """An absolute, normalised path of the image; `..` cannot leave its root."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{workdir}/{path}").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
