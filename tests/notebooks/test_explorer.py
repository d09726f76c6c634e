"""The explorer's notebook: its stored outputs are what it computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "hpa-explorer.ipynb"


def test_outputs_are_reproduced():
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(NOTEBOOK)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert f"{len(cells)} passed" in run.stdout


def test_only_deterministic_outputs_are_stored():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
        assert not (ignored and cell.outputs), cell.id
        assert not [one for one in cell.outputs if "image/png" in one.get("data", {})], cell.id
