"""The build context: what .dockerignore leaves of it, and COPY."""

from __future__ import annotations

import shutil
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from pathspec import PathSpec

from labkit.errors import ImageError
from labkit.images.dockerfile import Copy, Recipe, join
from labkit.images.trees import walk

_MAX_FILES = 100_000


class Context:
    """The files of a build context that .dockerignore does not exclude, by path relative to it."""

    def __init__(self, root: Path, dockerfile: Path) -> None:
        self.root = root.resolve()
        named = dockerfile.with_name(dockerfile.name + ".dockerignore")  # Docker prefers it too
        ignore = _ignored(named if named.is_file() else self.root / ".dockerignore")
        self.paths: list[PurePosixPath] = []
        for path in walk(self.root):
            relative = PurePosixPath(path.relative_to(self.root).as_posix())
            if not ignore.match_file(relative.as_posix()):
                self.paths.append(relative)
            if len(self.paths) > _MAX_FILES:
                raise ImageError(
                    f"The build context {root} has more than {_MAX_FILES:,} files.",
                    "Name the service's own directory, or exclude what is not needed in .dockerignore.",
                )

    def matching(self, pattern: str) -> list[PurePosixPath]:
        """Paths that a COPY source names; `*`, `?` and `[…]` match within a component, dot files included."""
        parts = PurePosixPath(pattern.lstrip("/")).parts
        if not parts:
            return [PurePosixPath()]
        found = {
            PurePosixPath(*path.parts[: len(parts)])
            for path in self.paths
            if len(path.parts) >= len(parts) and all(map(fnmatchcase, path.parts, parts))
        }
        return sorted(found)

    def below(self, directory: PurePosixPath) -> list[PurePosixPath]:
        """Paths inside a directory of the context, parents before children."""
        return [path for path in self.paths if path.is_relative_to(directory) and path != directory]


def _ignored(file: Path) -> PathSpec[Any]:
    """Docker's rules: patterns are anchored at the context, the last one that matches decides."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as err:
        raise ImageError(f"{file} cannot be read: {err}.") from err
    patterns = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        negated = text.startswith("!")
        text = PurePosixPath(text.removeprefix("!").strip().lstrip("/")).as_posix()
        if text != ".":
            patterns.append(f"{'!' if negated else ''}/{text}")
    return PathSpec.from_lines("gitignore", patterns)


def copy(recipe: Recipe, step: Copy, context: Context, rootfs: Path) -> None:
    """Carry out one COPY, as Docker does: a directory's contents are copied, not the directory.

    Raises:
        ImageError: nothing matches, or a source or a link leaves the build context.
    """
    for source in step.sources:
        if ".." in PurePosixPath(source).parts:
            raise recipe.error(
                step.line, f"COPY {source} leaves the build context.", "Copy the file into the context first."
            )
    found = [(source, context.matching(source)) for source in step.sources]
    for source, paths in found:
        if not paths:
            hint = f"Paths are relative to {context.root}; check .dockerignore too."
            raise recipe.error(step.line, f"COPY {source}: no such file in the build context.", hint)
    several = sum(len(paths) for _, paths in found) > 1
    if several and not step.dest.endswith(("/", ".")):
        raise recipe.error(
            step.line, f"COPY of several files to {step.dest}.", f"End it with a slash: {step.dest}/"
        )
    dest = rootfs / join(step.workdir, step.dest).lstrip("/")
    into = step.dest.endswith(("/", ".")) or dest.is_dir()
    for path in (path for _, paths in found for path in paths):
        real = _followed(recipe, step, context, path)
        if (context.root / real).is_dir():
            for child in context.below(real):
                _copy_one(recipe, step, context, child, dest / child.relative_to(real), rootfs)
            dest.mkdir(parents=True, exist_ok=True)
        else:
            _copy_one(recipe, step, context, real, dest / path.name if into else dest, rootfs)


def _followed(recipe: Recipe, step: Copy, context: Context, path: PurePosixPath) -> PurePosixPath:
    """What a source is: a link that COPY names is followed; links inside a directory are kept."""
    target = (context.root / path).resolve()
    if not target.is_relative_to(context.root):
        hint = "Replace the link by the file itself, or by a relative link inside the context."
        raise recipe.error(step.line, f"COPY {path} is a link that leaves the build context.", hint)
    return PurePosixPath(target.relative_to(context.root).as_posix())


def _copy_one(
    recipe: Recipe, step: Copy, context: Context, path: PurePosixPath, target: Path, rootfs: Path
) -> None:
    source = context.root / path
    if not target.parent.resolve().is_relative_to(rootfs.resolve()):
        raise recipe.error(step.line, f"COPY {path}: its destination is a link that leaves the image.")
    if source.is_symlink():
        if not source.resolve().is_relative_to(context.root) or source.readlink().is_absolute():
            hint = "Replace the link by the file itself, or by a relative link inside the context."
            raise recipe.error(step.line, f"COPY {path} is a link that leaves the build context.", hint)
    elif not source.is_dir() and not source.is_file():
        recipe.notes.append(f"line {step.line}: {path} is not a file; left out")
        return
    try:
        _place(source, target, step.mode)
    except OSError as err:
        raise recipe.error(step.line, f"COPY {path}: {err.strerror}: {err.filename}.") from err


def _place(source: Path, target: Path, mode: int | None) -> None:
    """One file, link or directory; what its owner may execute, everybody may."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        target.mkdir(exist_ok=True)
        return
    target.unlink(missing_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    shutil.copyfile(source, target)
    executable = source.stat().st_mode & 0o100
    target.chmod(mode if mode is not None else 0o755 if executable else 0o644)
