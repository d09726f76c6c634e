"""The report of a shift: numbers, figures, logbook and reflection, as one HTML page that loads nothing."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from labkit.errors import LabError
from labkit.gameday.alerting import Alert, burn_rate, judge_alert
from labkit.gameday.efficiency import Efficiency
from labkit.gameday.journal import Entry
from labkit.gameday.slo import Availability, Objective, availability, per_second, spent
from labkit.plots import alert_figure, budget_figure, efficiency_figure, shift_figure

_TEMPLATES = Path(__file__).parent / "templates"
_HEIGHT_PX = 900


@dataclass(frozen=True)
class Story:
    """What an incident was: told after the shift.

    Attributes:
        what: what was done to the system.
        healer: who repairs such an incident: "you", or the part of the system that does.
        commands: what repairs it.
    """

    title: str
    what: str
    healer: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """How a shift went.

    Attributes:
        seed: of the script; the same one gives the same script again.
        judged: every request, see `slo.judge`.
        outcomes: per incident, see `outcome.outcomes`.
        stories: number of the incident → what it was.
        nodes: t_seconds, ready and all: how many nodes were Ready.
        left_out: incidents that could not strike here → the reason.
        answers: question → the learner's answer.
        facts: name → value: where it was.
        started_at: seconds since 1970 when the shop opened.
        by: who acted: "you" or "the reference operator".
    """

    seed: int
    objective: Objective
    judged: pd.DataFrame
    outcomes: pd.DataFrame
    stories: Mapping[int, Story]
    efficiency: Efficiency
    nodes: pd.DataFrame
    entries: tuple[Entry, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    started_at: float = 0.0
    by: str = "you"

    @property
    def level(self) -> Availability:
        """Availability and error budget."""
        return availability(self.judged, self.objective)

    @property
    def titles(self) -> dict[int, str]:
        """Number → title of each incident."""
        return {number: story.title for number, story in self.stories.items()}

    @property
    def times(self) -> pd.DataFrame:
        """Per incident: what it was, how it was noticed, and the seconds it took (NaN: it did not happen)."""
        table = self.outcomes
        return pd.DataFrame(
            {
                "incident": [self.titles[int(number)] for number in table["number"]],
                "noticed by": [by or "nobody" for by in table["detected_by"]],
                "detect_s": table["detect_s"].round(1).to_numpy(),
                "recover_s": table["recover_s"].round(1).to_numpy(),
                "bad_requests": table["bad_requests"].to_numpy(),
                "repaired by": [self._repaired_by(row) for row in table.to_dict("records")],
            },
            index=pd.Index(table["number"], name="number"),
        )

    def shift_figure(self) -> Figure:
        """The whole shift on one time axis."""
        return shift_figure(
            per_second(self.judged), self.outcomes, spent(self.judged), self.efficiency.frame, self.titles,
            budget=self.level.budget, objective=str(self.objective), nodes=self.nodes, title=self.headline(),
        )  # fmt: skip

    def budget_figure(self) -> Figure:
        """Where the error budget went."""
        level = self.level
        return budget_figure(self.outcomes, self.titles, bad=level.bad, budget=level.budget)

    def efficiency_figure(self) -> Figure:
        """The autoscaler's replicas against the ideal."""
        work = self.efficiency
        return efficiency_figure(
            work.frame, percent=work.percent, too_many_s=work.too_many_s, too_few_s=work.too_few_s
        )

    def alert_figure(self, alert: Alert) -> Figure:
        """What an alert would have done on this shift; of its rules the first one is drawn."""
        rule, percent = alert.rules[0], alert.objective_percent
        at = np.arange(1.0, float(self.judged["done_s"].max()) + 1 if len(self.judged) else 2.0)
        windows = {"long": rule.long_s, "short": rule.short_s}
        rates = pd.DataFrame(
            {name: burn_rate(self.judged, at, length, percent) for name, length in windows.items()}
        )
        rates.insert(0, "t_seconds", at)
        alarms = judge_alert(alert, self.judged, self.outcomes).alarms
        return alert_figure(rates, rule.burn_rate, alarms, self.outcomes, self.titles)

    def headline(self) -> str:
        """The shift in one line."""
        over = int((self.outcomes["state"] == "recovered").sum())
        return f"{over} of {len(self.outcomes)} incidents over, {self.level.percent:.1f} % of requests good"

    def page(self) -> str:
        """The report as HTML; figures are in it."""
        level, work = self.level, self.efficiency
        times = self.outcomes
        numbers = [
            (
                f"{level.percent:.2f} %",
                f"of {level.requests:,} requests good; {self.objective.percent:g} % promised",
            ),
            (_times(level.spent_percent / 100), "of the shift's error budget spent"),
            (_seconds(times["detect_s"].mean()), "to detect an incident, on average"),
            (_seconds(times["recover_s"].mean()), "to recover from one, on average"),
            (f"{work.percent:.0f} %", "of the ideal work per replica-second"),
        ]
        engine = Environment(
            loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        return engine.get_template("report.html.j2").render(
            report=self, level=level, work=work, numbers=numbers, rows=self._rows(), seconds=_seconds,
            log=[_line(entry) for entry in self.entries],
            figures=[
                (_data_uri(self.shift_figure()), "The whole shift: customers, budget, incidents, replicas"),
                (_data_uri(self.budget_figure()), "Where the error budget went"),
                (_data_uri(self.efficiency_figure()), "The autoscaler's replicas, and the ideal"),
            ],
        )  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Write report.html, and the numbers as CSV and JSON beside it; returns the page's path.

        Raises:
            LabError: the folder cannot be written.
        """
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "report.html").write_text(self.page())
            self.judged.to_csv(path / "requests.csv", index=False)
            self.outcomes.to_csv(path / "incidents.csv", index=False)
            (path / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n")
        except OSError as error:
            raise LabError(
                f"The report cannot be written to {path}: {error.strerror}.", "Name another folder."
            ) from error
        return path / "report.html"

    def summary(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        return {
            "seed": self.seed,
            "started_at": round(self.started_at, 3),
            "objective": asdict(self.objective),
            "availability": asdict(self.level),
            "efficiency_percent": round(self.efficiency.percent, 1),
            "incidents": json.loads(self.outcomes.to_json(orient="records")),
            "left_out": dict(self.left_out),
            "answers": dict(self.answers),
        }

    def __str__(self) -> str:
        level = self.level
        return (
            f"{self.headline()} ({level.bad} of {level.requests} were not); "
            f"{_times(level.spent_percent / 100)} of the error budget spent"
        )

    def _repr_html_(self) -> str:
        frame = f"width:100%;height:{_HEIGHT_PX}px;border:1px solid #cfd5dd;border-radius:6px"
        return f'<iframe sandbox srcdoc="{html.escape(self.page())}" style="{frame}"></iframe>'

    def _repaired_by(self, row: Mapping[Any, Any]) -> str:
        if row["state"] != "recovered":
            return "nobody"
        story = self.stories[int(row["number"])]
        if row["kind"] == "load-surge" and not self._scaled(row["struck_s"], row["recovered_s"]):
            return "nobody: it ended"
        if story.healer != "you":
            return story.healer
        return self.by if self.by == "you" or not pd.isna(row["acted_s"]) else "itself"

    def _scaled(self, begin_s: float, end_s: float) -> bool:
        """Whether more replicas became ready within a time."""
        frame = self.efficiency.frame
        ready = frame.loc[frame["t_seconds"].between(begin_s, end_s), "ready"]
        return len(ready) > 0 and bool(ready.max() > ready.iloc[0])

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[Any, Any]] = self.outcomes.to_dict("records")
        return [
            {**row, "story": self.stories[int(row["number"])], "by": self._repaired_by(row)} for row in rows
        ]


def _seconds(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _times(ratio: float) -> str:
    return f"{100 * ratio:.0f} %" if ratio < 2 else f"{ratio:.1f} ×"


def _line(entry: Entry) -> dict[str, Any]:
    return {
        "t": f"{entry.t_seconds:.0f} s",
        "number": entry.number or "",
        "what": entry.what,
        "text": entry.text,
    }


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
