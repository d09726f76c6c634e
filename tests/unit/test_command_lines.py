"""No command line is put together as text with a value in it: values are arguments, or in quotes.

One unquoted path with a blank in it was enough to delete a neighbour's folder.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {"sh", "bash", "dash", "/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"}
TEXTS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "create_subprocess_shell",
}
GIVEN = {
    "labkit/images/dockerfile.py": "text",  # the shell form of a Dockerfile's author
    "labkit/cluster/kind/cluster.py": "command",  # what the user gave to `labkit shell -c`
    "labkit/labs/shell.py": "shell=True",  # a notebook's own `x = !command`
    "tests/unit/test_conformance.py": "command or ''",  # a stand-in for that
}
"""File → the command line of somebody else that it hands on, whole and as it is."""


def files(*patterns: str) -> list[Path]:
    """Files of the repository; without git, as in an unpacked archive, all that are there."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    names = done.stdout.split("\0") if done.returncode == 0 else []
    found = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    if not found:
        found = [
            p for pattern in patterns for p in ROOT.rglob(pattern) if ".venv" not in p.parts and p.is_file()
        ]
    return found


# Python


def python_faults(source: str) -> Iterator[tuple[int, str]]:
    """Lines that give a shell a text which is not written there as a constant."""
    tree = ast.parse(source)
    fixed = constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if any(ast.unparse(node.func).endswith(name) for name in TEXTS):
                yield node.lineno, ast.unparse(node.func)
            if any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords):
                yield node.lineno, "shell=True"
        parts = node.elts if isinstance(node, ast.List | ast.Tuple) else getattr(node, "args", None)
        for shell, option, text in windows(parts):
            if is_shell(shell) and is_option(option) and not is_fixed(text, fixed):
                yield text.lineno, ast.unparse(text)


def windows(parts: object) -> Iterator[tuple[ast.expr, ast.expr, ast.expr]]:
    if isinstance(parts, list):
        yield from zip(parts, parts[1:], parts[2:], strict=False)


def is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in SHELLS


def is_option(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(re.fullmatch(r"-[a-z]*c", str(node.value)))


def is_fixed(node: ast.expr, fixed: set[str]) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in fixed)


def constants(tree: ast.AST) -> set[str]:
    """Names that only ever stand for constants."""
    values: dict[str, list[ast.expr | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        values.setdefault(name.id, []).append(node.value if target is name else None)
        elif isinstance(node, ast.For | ast.comprehension):
            told = node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else [None]
            for name in ast.walk(node.target):
                if isinstance(name, ast.Name):
                    values.setdefault(name.id, []).extend(told if name is node.target else [None])
        elif isinstance(node, ast.arg):
            values.setdefault(node.arg, []).append(None)
        elif isinstance(node, ast.AugAssign | ast.NamedExpr | ast.AnnAssign) and isinstance(
            node.target, ast.Name
        ):
            values.setdefault(node.target.id, []).append(node.value)
    return {name for name, given in values.items() if all(isinstance(v, ast.Constant) for v in given)}


@pytest.mark.parametrize("path", files("*.py"), ids=lambda p: str(p.relative_to(ROOT)))
def test_python_gives_shells_constants_only(path: Path) -> None:
    given = GIVEN.get(str(path.relative_to(ROOT)))
    assert [(line, text) for line, text in python_faults(path.read_text()) if text != given] == []


@pytest.mark.parametrize(
    "line",
    [
        'run(["sh", "-c", f"rm -rf {root}/proc"])',
        'engine.exec(box, "bash", "-lc", "cat " + path)',
        'script = "a {}".format(root)\nrun(("sh", "-c", script))',
        'run("ls", shell=True)',
        "os.system(x)",
        'def run_it(script):\n    run(["sh", "-c", script])',
    ],
)
def test_the_rule_for_python_finds_what_is_wrong(line: str) -> None:
    assert list(python_faults(line))
    assert not list(python_faults('SCRIPT = "rm -rf \\"$1\\""\nrun(["sh", "-c", SCRIPT, "sh", root])'))


# Go: what is not a test gives shells constants; tests put no path in


def go_faults(source: str, *, test: bool) -> list[str]:
    """Texts for a shell that are made of parts."""
    found = re.findall(r'"(?:ba)?sh",\s*"-c",\s*((?:"(?:[^"\\]|\\.)*"|`[^`]*`)?[^,)}\n]*)', source)
    mixed = [text for text in found if not re.fullmatch(r'"(?:[^"\\]|\\.)*"|`[^`]*`', text.strip())]
    if not test:
        return mixed
    return [
        text for text in mixed if re.search(r"\+ *\w*(dir|path|file|out|trace|root|folder)\w*\b", text, re.I)
    ]


@pytest.mark.parametrize("path", files("*.go"), ids=lambda p: str(p.relative_to(ROOT)))
def test_go_gives_shells_constants_only(path: Path) -> None:
    assert go_faults(path.read_text(), test=path.name.endswith("_test.go")) == []


def test_the_rule_for_go_finds_what_is_wrong() -> None:
    assert go_faults('exec.Command("sh", "-c", "rm "+root)', test=False)
    assert go_faults('[]string{"sh", "-c", "echo a > " + out}', test=True)
    assert not go_faults('exec.Command("sh", "-c", `rm "$1"`, "sh", root)', test=False)


# Shell


def shell_scripts() -> list[Path]:
    """Files that a shell runs."""
    places = files(".ci/*", "airgap/*", "services/ci/*", "*.sh")
    start = re.compile(rb"#!.*\b(ba|da)?sh\b|# shellcheck shell=")
    return [path for path in places if start.match(path.read_bytes()[:80])]


@pytest.mark.parametrize("path", shell_scripts(), ids=lambda p: str(p.relative_to(ROOT)))
def test_shell_scripts_quote(path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("shellcheck")), "-x", "-P", str(path.parents[1]), str(path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_of_shell_script_is_looked_at() -> None:
    names = {str(path.relative_to(ROOT)) for path in shell_scripts()}
    assert {".ci/run", "services/ci/environment", "airgap/node-routes/node-routes"} <= names


# Makefile


def makefile_faults(text: str) -> list[str]:
    """Uses of a variable outside quotes in recipes, but for those that hold words or a quoted path."""
    words = {
        "RUN",
        "LABS",
        "PROVIDER",
        "SPEED",
        "PARALLEL",
        "MAKE",
        "UV_VERSION",
        "UV_HOME",
        "RUNS",
        "RESUME",
        "HPA",
    }
    faults = []
    for line in text.splitlines():
        bare = re.sub(r'"[^"]*"', "", line) if line.startswith("\t") else ""
        faults += [
            f"{name}: {line.strip()}" for name in re.findall(r"\$\((\w+)\)", bare) if name not in words
        ]
    return faults


def test_the_makefile_quotes_paths() -> None:
    text = (ROOT / "Makefile").read_text()
    assert makefile_faults(text) == []
    assert re.search(r'^UV_HOME := "\$\$\{XDG_CACHE_HOME', text, re.M), "quoted, and read by the shell"
    assert makefile_faults("a:\n\trm -rf $(REPORT)\n") and not makefile_faults('a:\n\trm -rf "$(REPORT)"\n')


# Notebooks


def notebook_faults(path: Path) -> Iterator[str]:
    """Values in `!` lines outside quotes, but for names that stand for constants of the notebook."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    fixed = constants(ast.parse("\n".join(python_only(source) for source in cells)))
    for source in cells:
        for command in commands(source):
            bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", command)
            used = re.findall(r"\{([^{}]+)\}|\$([A-Za-z_]\w*)", bare)
            yield from (f"{command}" for braces, dollar in used if (braces or dollar) not in fixed)


def commands(source: str) -> list[str]:
    """The shell's lines of a cell, with those that go on."""
    joined = source.replace("\\\n", " ")
    return re.findall(r"^\s*(?:\w+ *= *)?!(.*)$", joined, re.M)


def python_only(source: str) -> str:
    """A cell without the shell's lines; nothing of one whose magic takes it whole, such as a file to write."""
    if source.startswith("%%"):
        return ""
    joined = source.replace("\\\n", " ")
    return re.sub(r"^(\s*)(\w+ *= *)?[!%].*$", r"\1\2...", joined, flags=re.M)


@pytest.mark.parametrize("path", files("notebooks/*.ipynb"), ids=lambda p: p.stem)
def test_notebooks_quote_values(path: Path) -> None:
    assert list(notebook_faults(path)) == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("!ls {shop}", True),
        ("!cat {deploy}/a | tail", True),
        ("!git -C {x} \\\n  log {desk}", True),
        ("!cat $desk/a", True),
        ('!ls "{shop}"', False),
        ("!kubectl get {what}", False),
        ("!kubectl get -o jsonpath='{.a}'", False),
    ],
)
def test_the_rule_for_notebooks(line: str, wrong: bool, tmp_path: Path) -> None:
    cells = ['for what in ("a b", "c"):\n    print(what)', "shop = desk.folder", line]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "one.ipynb")
    assert bool(list(notebook_faults(tmp_path / "one.ipynb"))) is wrong


def test_notebooks_are_all_read() -> None:
    assert len(files("notebooks/*.ipynb")) >= 10
