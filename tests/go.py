"""Format check, vet and tests of our own Go packages, with the flags of the build, so that upstream's are compiled once;
and whether every program that labkit compiles is pinned with all that it imports.
"""

from __future__ import annotations

import subprocess
import sys

from labkit import acquire
from labkit.acquire.build import FLAGS, environment
from labkit.tools import go
from labkit.versions import versions


def main() -> int:
    """Run gofmt and `go test`, which vets what it tests; 0 when both have nothing to say."""
    folder, program = acquire.sources(), go(print)
    gofmt = program.with_name("gofmt")
    if not gofmt.exists():  # Go from a Python package has it elsewhere
        root = subprocess.run(
            [str(program), "env", "GOROOT"], capture_output=True, text=True, check=True
        ).stdout
        gofmt = type(gofmt)(root.strip()) / "bin" / "gofmt"
    unformatted = subprocess.run(
        [str(gofmt), "-l", "."], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    if unformatted:
        print(f"gofmt would change:\n{unformatted}")
    argv = [str(program), "test", *FLAGS, "-timeout=8m", "./..."]
    runs = [
        subprocess.run(argv, cwd=module, env=environment(program), check=False).returncode
        for module in (folder, folder / "standins", folder / "dockerfile")
    ]
    wrong = bool(unformatted) or not all(map(pinned, versions().programs))
    return max(*map(abs, runs), int(wrong))


def pinned(name: str) -> bool:
    """Whether the go.mod and go.sum of a program's module name all that it imports."""
    wanted = versions().programs[name]
    program = go(print, oldest=wanted.go)
    listed = subprocess.run(
        [str(program), "list", "-mod=readonly", "-deps", wanted.package], cwd=acquire.sources() / wanted.module,
        env=environment(program), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        print(f"{name} cannot be compiled as it is pinned: {listed.stderr.strip()[-500:]}")
    return listed.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
