"""A Dockerfile, read into typed steps; whatever the embedded builder cannot do is refused with its line."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]
from dockerfile_parse.util import WordSplitter  # type: ignore[import-untyped]

from labkit.errors import ImageError

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
_VARIABLE = re.compile(
    r"""\\(?P<escaped>.) | '(?P<quoted>[^']*)'
      | \$\{(?P<braced>\w+)(?::(?P<op>[-+])(?P<word>[^}]*))?\} | \$(?P<plain>[A-Za-z_]\w*)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Copy:
    """COPY: sources are patterns relative to the context, dest is as written."""

    line: int
    sources: tuple[str, ...]
    dest: str
    workdir: str
    mode: int | None


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

    def error(self, line: int, what: str, hint: str = "") -> ImageError:
        return ImageError(f"{self.file}, line {line}: {what}", hint)


def read_dockerfile(file: Path, build_args: Mapping[str, str] | None = None) -> Recipe:
    """Read `file`.

    Raises:
        ImageError: no such file, or an instruction outside the subset; names file, line and instruction.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ImageError(
            f"The Dockerfile {file} cannot be read: {err}.", "Name a directory that has one."
        ) from err
    reader = _Reader(Recipe(file), dict(build_args or {}))
    for line, instruction, value in _instructions(file, text):
        reader.take(line, instruction, value)
    if not reader.started:
        raise ImageError(f"{file} has no FROM instruction.", "Begin it with FROM python:3.11-slim.")
    return reader.recipe


def _instructions(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Line (from 1), instruction and value of each; a line that belongs to none is an error, not skipped."""
    covered: set[int] = set()
    found = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    for entry in found:
        covered.update(range(entry["startline"], entry["endline"] + 1))
    for number, line in enumerate(text.splitlines()):
        if line.strip() and number not in covered:
            why = "the file ends within it" if line.rstrip().endswith("\\") else "it is not INSTRUCTION value"
            raise ImageError(f"{file}, line {number + 1}: {line.strip()!r} cannot be read: {why}.")
    for entry in found:
        if entry["instruction"] != "COMMENT":
            yield entry["startline"] + 1, entry["instruction"], entry["value"].strip()


class _Reader:
    """Takes the instructions in order; each `_xyz` method is one instruction."""

    def __init__(self, recipe: Recipe, build_args: dict[str, str]) -> None:
        self.recipe = recipe
        self.build_args = build_args
        self.args: dict[str, str] = {}
        self.started = False
        self.own_cmd = False

    def take(self, line: int, instruction: str, value: str) -> None:
        method = getattr(self, f"_{instruction.lower()}", None)
        if method is None or not instruction.isalpha():
            hint = _INSTEAD.get(instruction, f"The embedded builder knows {_KNOWN}.")
            raise self.recipe.error(line, f"{instruction} is not supported.", hint)
        if not self.started and instruction not in ("FROM", "ARG"):
            raise self.recipe.error(line, f"{instruction} before FROM.", "Begin with FROM python:3.11-slim.")
        if not value:
            raise self.recipe.error(line, f"{instruction} without a value.")
        if "<<" in value and instruction in ("RUN", "COPY"):
            raise self.recipe.error(
                line, f"{instruction} with a here-document is not supported.", "COPY a file."
            )
        method(line, value)

    def expand(self, text: str) -> str:
        """Replace $NAME, ${NAME}, ${NAME:-word} and ${NAME:+word} by ENV and ARG, as a Dockerfile does."""
        known = {"PATH": DEFAULT_PATH, **self.args, **self.recipe.env}

        def replace(match: re.Match[str]) -> str:
            if match["escaped"] is not None or match["quoted"] is not None:
                return "$" if match["escaped"] == "$" else match[0]
            value = known.get(match["braced"] or match["plain"], "")
            if match["op"] == "-":
                return value or match["word"]
            return (match["word"] if value else "") if match["op"] == "+" else value

        return _VARIABLE.sub(replace, text)

    def words(self, text: str) -> list[str]:
        return list(WordSplitter(self.expand(text)).split())

    def pairs(self, line: int, value: str) -> dict[str, str]:
        words = list(WordSplitter(value).split(dequote=False))
        if words and "=" not in words[0]:  # the old form: ENV name the rest
            name, _, rest = value.partition(" ")
            return {name: WordSplitter(self.expand(rest.strip())).dequote()}
        bad = next((word for word in words if "=" not in word), None)
        if bad is not None:
            raise self.recipe.error(line, f"{bad!r} is not name=value.")
        split = (word.partition("=") for word in words)
        return {
            WordSplitter(name).dequote(): WordSplitter(self.expand(text)).dequote() for name, _, text in split
        }

    def flags(
        self, line: int, instruction: str, value: str, ignored: tuple[str, ...]
    ) -> tuple[dict[str, str], str]:
        """The leading --flag=value words, and the rest; flags in `ignored` become a note."""
        found: dict[str, str] = {}
        while value.startswith("--"):
            word, _, value = value.partition(" ")
            name, _, argument = self.expand(word).removeprefix("--").partition("=")
            found[name] = argument
            value = value.lstrip()
            if name in ignored:
                self.recipe.notes.append(f"line {line}: {instruction} --{name} has no effect here")
        return found, value

    def command(self, line: int, value: str) -> list[str]:
        """The exec form as it is; the shell form run by /bin/sh -c."""
        if value.startswith("["):
            try:
                parsed = json.loads(value)
            except ValueError:
                parsed = None
            if isinstance(parsed, list) and parsed and all(isinstance(word, str) for word in parsed):
                return [str(word) for word in parsed]
            raise self.recipe.error(
                line,
                f"{value} is not a JSON array of strings.",
                'Use double quotes: ["program", "argument"].',
            )
        return ["/bin/sh", "-c", value]

    def _from(self, line: int, value: str) -> None:
        if self.started:
            raise self.recipe.error(
                line, "a second FROM: multi-stage builds are not supported.", "Keep one stage, FROM python:*."
            )
        _, value = self.flags(line, "FROM", value, ("platform",))
        image = self.expand(value).split()[0]
        name, _, version = image.partition("@")[0].rpartition("/")[2].partition(":")
        if name != "python":
            raise self.recipe.error(
                line, f"FROM {image} is not supported.", "Only FROM python:* runs without a container engine."
            )
        self.recipe.python = version or "latest"
        self.recipe.env = {"LANG": "C.UTF-8"}
        self.recipe.cmd = ["python3"]
        self.args = {}
        self.started = True

    def _arg(self, line: int, value: str) -> None:
        for word in WordSplitter(value).split(dequote=False):
            name, _, default = word.partition("=")
            if not name.isidentifier():
                raise self.recipe.error(line, f"ARG {word}: {name!r} is not a name.")
            self.args[name] = self.build_args.get(name, WordSplitter(self.expand(default)).dequote())

    def _env(self, line: int, value: str) -> None:
        self.recipe.env.update(self.pairs(line, value))

    def _label(self, line: int, value: str) -> None:
        self.recipe.labels.update(self.pairs(line, value))

    def _workdir(self, _line: int, value: str) -> None:
        self.recipe.workdir = join(self.recipe.workdir, WordSplitter(self.expand(value)).dequote())
        self.recipe.workdirs.append(self.recipe.workdir)

    def _user(self, _line: int, value: str) -> None:
        self.recipe.user = WordSplitter(self.expand(value)).dequote()

    def _expose(self, line: int, value: str) -> None:
        for word in self.words(value):
            port, _, protocol = word.partition("/")
            if not port.isdigit() or not 0 < int(port) < 65536 or protocol not in ("", "tcp", "udp"):
                raise self.recipe.error(line, f"EXPOSE {word} is not PORT or PORT/udp.")
            self.recipe.exposed_ports.append(f"{port}/{protocol or 'tcp'}")

    def _entrypoint(self, line: int, value: str) -> None:
        self.recipe.entrypoint = self.command(line, value)
        if not self.own_cmd:  # the base image's CMD does not go with another ENTRYPOINT
            self.recipe.cmd = []

    def _cmd(self, line: int, value: str) -> None:
        self.recipe.cmd = self.command(line, value)
        self.own_cmd = True

    def _copy(self, line: int, value: str) -> None:
        flags, value = self.flags(line, "COPY", value, ("chown", "link"))
        unknown = sorted(set(flags) - {"chown", "link", "chmod"})
        if unknown:
            hint = "There is one stage only: copy from the build context." if unknown == ["from"] else ""
            raise self.recipe.error(line, f"COPY --{unknown[0]} is not supported.", hint)
        mode = flags.get("chmod")
        if mode is not None and not re.fullmatch("[0-7]{3,4}", mode):
            raise self.recipe.error(line, f"COPY --chmod={mode} is not an octal mode.", "Use one like 755.")
        words = self.command(line, self.expand(value)) if value.startswith("[") else self.words(value)
        if len(words) < 2:
            raise self.recipe.error(line, f"COPY {value}: needs a source and a destination.")
        octal = None if mode is None else int(mode, 8)
        self.recipe.steps.append(Copy(line, tuple(words[:-1]), words[-1], self.recipe.workdir, octal))

    def _run(self, line: int, value: str) -> None:
        _, value = self.flags(line, "RUN", value, ("mount", "network", "security"))
        hint = "Only `pip install …` runs at build time; prepare anything else before the build and COPY it."
        if value.startswith("["):
            commands = [self.command(line, value)]
        else:
            lexer = shlex.shlex(self.expand(value), posix=True, punctuation_chars=True)
            lexer.whitespace_split, lexer.commenters = True, ""
            try:
                commands = _split(list(lexer))
            except ValueError as err:
                raise self.recipe.error(line, f"RUN {value}: {err}.", hint) from err
        env = tuple(
            sorted((k, v) for k, v in {**self.args, **self.recipe.env}.items() if k.startswith("PIP_"))
        )
        for words in commands:
            args = pip_arguments(words)
            operator = next((word for word in words if word and set(word) <= set("();<>|&")), None)
            if operator and operator[0] in "<>" and args is not None:
                raise self.recipe.error(
                    line,
                    f"RUN {value}: the shell reads {operator} as a redirection.",
                    'Quote it: "name>=1.0".',
                )
            if args is None or operator:
                raise self.recipe.error(line, f"RUN {' '.join(words)} is not supported.", hint)
            self.recipe.steps.append(PipInstall(line, tuple(args), self.recipe.workdir, env))


def _split(words: list[str]) -> list[list[str]]:
    """The commands between `&&`."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


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
