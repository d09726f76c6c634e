"""Labs: their metadata, how they are executed headless, and the report of a run."""

from __future__ import annotations

from labkit.labs.metadata import Lab, find_labs, load_lab, notebooks_dir

__all__ = ["Lab", "find_labs", "load_lab", "notebooks_dir"]
