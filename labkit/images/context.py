"""COPY: files of the build context, laid into an image."""

from __future__ import annotations

import shutil
from pathlib import Path

from labkit.errors import ImageError
from labkit.images.dockerfile import Copy, Match, Recipe, join


def copy(recipe: Recipe, step: Copy, context: Path, rootfs: Path) -> None:
    """Carry out one COPY, as Docker does: a directory's contents are copied, not the directory.

    Raises:
        ImageError: nothing matches, or a source or a link leaves the build context.
    """
    matches = _matches(recipe, step, context)
    if len(matches) > 1 and not step.into_folder:
        raise recipe.error(
            step.line, f"COPY of several files to {step.dest}.", f"End it with a slash: {step.dest}/"
        )
    root = context.resolve()
    dest = rootfs / join(step.workdir, step.dest).lstrip("/")
    into = step.into_folder or dest.is_dir()
    for match in matches:
        real = root / match.real
        if match.folder:
            for entry in match.entries:
                _copy_one(recipe, step, real / entry, dest / entry, root, rootfs)
            dest.mkdir(parents=True, exist_ok=True)
        else:
            _copy_one(recipe, step, real, dest / Path(match.path).name if into else dest, root, rootfs)


def _matches(recipe: Recipe, step: Copy, context: Path) -> list[Match]:
    """What the sources name; a pattern may match nothing beside another source that is there."""
    for source in step.found:
        if source.outside:
            what = f"COPY {source.pattern} leaves the build context."
            raise recipe.error(step.line, what, "Copy the file into the context first.")
        for match in source.matches:
            if not match.real:
                raise _leaves(recipe, step, match.path)
    matches = [match for source in step.found for match in source.matches]
    for source in step.found:
        if not source.matches and not (source.wildcard and matches):
            hint = f"Paths are relative to {context}; check .dockerignore too."
            raise recipe.error(step.line, f"COPY {source.pattern}: no such file in the build context.", hint)
    return matches


def _leaves(recipe: Recipe, step: Copy, path: str) -> ImageError:
    hint = "Replace the link by the file itself, or by a relative link inside the context."
    return recipe.error(step.line, f"COPY {path} is a link that leaves the build context.", hint)


def _copy_one(recipe: Recipe, step: Copy, source: Path, target: Path, root: Path, rootfs: Path) -> None:
    path = source.relative_to(root)
    if not target.parent.resolve().is_relative_to(rootfs.resolve()):
        raise recipe.error(step.line, f"COPY {path}: its destination is a link that leaves the image.")
    if source.is_symlink():
        if not source.resolve().is_relative_to(root) or source.readlink().is_absolute():
            raise _leaves(recipe, step, str(path))
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
