"""pyproject.toml, environment.yml and requirements.lock name the same packages, and no registry."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def ranges(lines: list[str]) -> dict[str, str]:
    """Name to version range of requirement lines."""
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in parsed}


def test_conda_users_get_the_same_ranges() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [entry for entry in listed if isinstance(entry, str)]
    from_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    named = ranges([line for line in [*conda, *from_pip] if not line.startswith("-e")])
    assert named.pop("python") == PROJECT["requires-python"]
    assert named == ranges(PROJECT["dependencies"])


def test_lock_pins_every_dependency_inside_its_range() -> None:
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", LOCK, re.MULTILINE))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in requirements.lock: run `make lock`"
        assert pinned[name] in requirement.specifier, (
            f"{name} {pinned[name]} is outside {requirement.specifier}"
        )


def test_lock_has_hashes_and_names_no_host() -> None:
    assert "--hash=sha256:" in LOCK
    assert "://" not in LOCK


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Top-level names that the modules below a folder import, each with a file that does."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], file.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], file.name


def test_every_package_that_labkit_imports_is_declared() -> None:
    declared = set(ranges(PROJECT["dependencies"]))
    providers = packages_distributions()
    ours = {*sys.stdlib_module_names, "labkit"}
    undeclared = {
        f"{name} (in {file})"
        for name, file in imported(ROOT / "labkit")
        if name not in ours and not declared & {canonicalize_name(d) for d in providers.get(name, [])}
    }
    assert not undeclared, "imported, but not among pyproject.toml's dependencies"


def test_the_licence_is_apache_and_the_package_says_that_it_has_types() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (ROOT / "labkit" / "py.typed").is_file()
