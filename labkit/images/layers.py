"""Python layers: one virtual environment per list of `pip install` steps, shared by images."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import ImageError
from labkit.folders import write
from labkit.images.dockerfile import PipInstall, Recipe, join
from labkit.images.trees import file_digest, locked, tree_bytes, tree_digest

PIP_TIMEOUT_S = 900.0
_DROPPED = {"--no-cache-dir", "--break-system-packages", "--root-user-action", "--disable-pip-version-check"}
_REFUSED = {"-e", "--editable", "-t", "--target", "--prefix", "--root", "--user", "--python", "--src", "-b"}
_FILE_OPTIONS = {"-r", "--requirement", "-c", "--constraint"}
_PATH_OPTIONS = _FILE_OPTIONS | {"-f", "--find-links"}


@dataclass(frozen=True)
class Layer:
    """A finished virtual environment: `key` names it, `path` is the directory with bin/."""

    key: str
    path: Path

    @property
    def bin(self) -> Path:
        return self.path / "bin"


class Layers:
    """The layers of one store: `layers/<key>/venv`, finished when `layers/<key>/layer.json` is there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        return self.root / key / "venv"

    def size_bytes(self, key: str) -> int:
        """Bytes of its files; 0 where the layer is not there."""
        return int(self._record(key).get("size_bytes", 0))

    def damage(self, key: str) -> str:
        """What is wrong with a layer, or "" if its files are as they were built."""
        record = self._record(key)
        if not record:
            return f"layer {key} is missing or was never finished"
        if record.get("path") != str(self.path(key)):
            return f"layer {key} was moved, and virtual environments cannot be moved"
        if tree_digest(self.path(key)) != record.get("digest"):
            return f"layer {key} has been changed since it was built"
        if not (self.path(key) / "bin" / "python").exists():
            return f"layer {key} needs the Python at {record.get('interpreter')}, which is gone"
        return ""

    def ensure(
        self, recipe: Recipe, steps: list[PipInstall], rootfs: Path, progress: Callable[[str], None]
    ) -> Layer:
        """The layer for these steps, built if it is missing or damaged.

        Raises:
            ImageError: pip failed (its last lines are in the message), or an option makes no sense here.
        """
        commands = [_Command(recipe, step, rootfs) for step in steps]
        key = _key(commands)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.root / f"{key}.lock", PIP_TIMEOUT_S, f"the Python layer {key}"):
            damage = self.damage(key)
            if damage:
                if self._record(key):
                    progress(f"{damage}: building it again")
                self._build(key, commands, progress)
            else:
                progress(f"Python layer {key}: cached")
        return Layer(key, self.path(key))

    def _build(self, key: str, commands: list[_Command], progress: Callable[[str], None]) -> None:
        directory = self.root / key
        shutil.rmtree(directory, ignore_errors=True)
        try:
            directory.mkdir(mode=0o700)
            venv.EnvBuilder(symlinks=True, with_pip=False).create(self.path(key))
            for command in commands:
                progress(f"pip install {' '.join(command.step.args)}")
                command.run(self.path(key) / "bin" / "python")
            record = {
                "digest": tree_digest(self.path(key)),
                "size_bytes": tree_bytes(self.path(key)),
                "path": str(self.path(key)),
                "interpreter": str((self.path(key) / "bin" / "python").resolve()),
            }
            write(directory / "layer.json", json.dumps(record))
        except OSError as err:
            raise ImageError(
                f"Python layer {key} cannot be written: {err}.", "Check the free space."
            ) from err
        finally:
            if not (directory / "layer.json").exists():
                shutil.rmtree(directory, ignore_errors=True)

    def _record(self, key: str) -> dict[str, str]:
        try:
            record = json.loads((self.root / key / "layer.json").read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


class _Command:
    """One `pip install` of a Dockerfile, its paths turned from the image's to this machine's."""

    def __init__(self, recipe: Recipe, step: PipInstall, rootfs: Path) -> None:
        self.recipe, self.step, self.rootfs = recipe, step, rootfs
        self.cwd = rootfs / step.workdir.lstrip("/")
        self.files: list[Path] = []
        self.args = list(self._arguments())

    def _arguments(self) -> Iterator[str]:
        words = iter(self.step.args)
        for word in words:
            option, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
            if not word.startswith("-"):
                yield str(self._file(word)) if _is_path(word) else word
            elif option in _REFUSED:
                raise self._error(
                    f"pip install {option} is not supported.", "Install into the image's own environment."
                )
            elif option in _DROPPED:
                self.recipe.notes.append(f"line {self.step.line}: {option} has no effect here")
            elif option in _PATH_OPTIONS:
                value = value or next(words, "")
                yield option
                yield value if "://" in value else str(self._file(value, option in _FILE_OPTIONS))
            else:
                yield word

    def _file(self, name: str, requirements: bool = False) -> Path:
        """A path of the image, on this machine; its content is part of the layer's key."""
        path = self.rootfs / join(self.step.workdir, name.partition("[")[0]).lstrip("/")
        if not path.exists() or not path.resolve().is_relative_to(self.rootfs.resolve()):
            raise self._error(
                f"pip install needs {name}, which is not in the image yet.", "COPY it before RUN."
            )
        if path not in self.files:
            self.files.append(path)
            if requirements:
                self._nested(path)
        return path

    def _nested(self, path: Path) -> None:
        """Requirement files that a requirement file includes, relative to itself."""
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.replace("=", " ", 1).split() if line.startswith("--") else line.split()
            if len(words) > 1 and words[0] in _FILE_OPTIONS and "://" not in words[1]:
                inner = (path.parent / words[1]).resolve()
                relative = inner.relative_to(self.rootfs.resolve()) if self._inside(inner) else Path(words[1])
                self._file(f"/{relative}", requirements=True)

    def _inside(self, path: Path) -> bool:
        return path.is_relative_to(self.rootfs.resolve())

    def _error(self, what: str, hint: str) -> ImageError:
        return self.recipe.error(self.step.line, what, hint)

    def fingerprint(self) -> list[object]:
        contents = [tree_digest(path) if path.is_dir() else file_digest(path) for path in self.files]
        args = [arg.removeprefix(str(self.rootfs)) for arg in self.args]
        return [args, self.step.env, contents]

    def run(self, python: Path) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--quiet", *self.args]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
        env |= {k: v for k, v in self.step.env if k != "PIP_NO_CACHE_DIR"}
        code, output = _run(command, self.cwd, env)
        if code != 0:
            lines = [line for line in output.splitlines() if line.strip()]
            errors = [line for line in lines if "error" in line.lower()] or lines
            tail = "\n  ".join(errors[-6:])
            raise self._error(
                f"pip install failed with exit code {code}:\n  {tail}",
                "Check names and versions, the free space, and the connection to the package index.",
            )


def _run(command: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run in a process group of its own, which never outlives the call."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    try:
        output, _ = process.communicate(timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return 124, f"error: no end after {PIP_TIMEOUT_S:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, output


def _die_with_parent() -> None:
    """In the child: die when labkit does, so that no pip writes into a layer that another build repairs."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _is_path(word: str) -> bool:
    return word.startswith((".", "/")) or word.endswith((".whl", ".tar.gz", ".zip"))


def _key(commands: list[_Command]) -> str:
    """16 hexadecimal digits over the interpreter, the arguments and the contents of the files they name."""
    python = [
        platform.python_implementation(),
        platform.python_version(),
        platform.machine(),
        sys.base_prefix,
    ]
    text = json.dumps([python, [command.fingerprint() for command in commands]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
