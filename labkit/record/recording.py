"""A finished recording: tables, saved and loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import pandas as pd

from labkit import boxes
from labkit.errors import ConfigError


def _table() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True)
class Recording:
    """Tables with a column `t_seconds`: seconds since `started_at` (seconds since 1970).

    Attributes:
        nodes, leases, pods, hpas, deployments, replica_sets: one row per object and sample: namespace, name,
            and its facts (see `labkit.record.facts`). Leases are the nodes': `renewed_at`, in seconds since
            1970.
        usage: one row per pod and measurement of metrics.k8s.io: namespace, name, cpu_millicores,
            memory_bytes, window_s; t_seconds is when it was measured.
        node_usage: the same of nodes.
        probes: one row per own probe and sample: name, value, duration_ms, error.
        transitions: one row per change, also between samples: kind, namespace, name, what, before, after;
            `what` is a fact, or "exists" when an object appears (before False) or goes.
        gaps: one row per sample that could not be taken: source, error.
    """

    started_at: float
    interval_s: float
    nodes: pd.DataFrame = field(default_factory=_table)
    leases: pd.DataFrame = field(default_factory=_table)
    pods: pd.DataFrame = field(default_factory=_table)
    hpas: pd.DataFrame = field(default_factory=_table)
    deployments: pd.DataFrame = field(default_factory=_table)
    replica_sets: pd.DataFrame = field(default_factory=_table)
    usage: pd.DataFrame = field(default_factory=_table)
    node_usage: pd.DataFrame = field(default_factory=_table)
    probes: pd.DataFrame = field(default_factory=_table)
    transitions: pd.DataFrame = field(default_factory=_table)
    gaps: pd.DataFrame = field(default_factory=_table)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: table for name, table in named.items() if isinstance(table, pd.DataFrame)}

    def _repr_html_(self) -> str:
        filled = {name: table for name, table in self.tables.items() if len(table)}
        ends = [float(table["t_seconds"].max()) for table in filled.values() if "t_seconds" in table]
        rows = [
            (name, f"{len(table):,}", ", ".join(column for column in table.columns if column != "t_seconds"))
            for name, table in filled.items()
        ]
        missing = len(self.gaps)
        return boxes.box(
            f"Recording of {max(ends, default=0.0):.0f} s",
            boxes.line(f"a sample every {self.interval_s:g} s"),
            boxes.table(("table", "rows", "columns"), rows),
            boxes.line(f"{missing} samples could not be taken: see .gaps" if missing else "", warning=True),
            state="degraded" if missing else "ok",
        )

    def save(self, directory: str | Path) -> Path:
        """Write a CSV file per table, and recording.json; returns the directory, which is made."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables.items():
            table.to_csv(path / f"{name}.csv", index=False)
        about = {"started_at": self.started_at, "interval_s": self.interval_s}
        (path / "recording.json").write_text(json.dumps(about))
        return path

    @classmethod
    def load(cls, directory: str | Path) -> Recording:
        """Read what `save` wrote.

        Raises:
            ConfigError: there is no recording in the directory.
        """
        path = Path(directory)
        try:
            about = json.loads((path / "recording.json").read_text())
            names = [each.name for each in fields(cls) if each.name not in ("started_at", "interval_s")]
            tables = {name: _read(path / f"{name}.csv") for name in names}
            return cls(about["started_at"], about["interval_s"], **tables)
        except (OSError, ValueError, KeyError) as err:
            raise ConfigError(f"{path} has no readable recording: {err}.") from err


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(file)
    except (pd.errors.EmptyDataError, FileNotFoundError):  # an older recording has fewer tables
        return pd.DataFrame()
