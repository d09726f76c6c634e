"""Figures of continuous delivery: runs of a pipeline by stage, and commits on their way into the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import ConfigError
from labkit.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, SKY, headline, house, panels, text_on

JOBS = {"test": BLUE, "image": ORANGE, "deploy": GREEN}
_STAGES = (("seen_s", GREY), ("synced_s", SKY), ("healthy_s", GREEN))
_STAGE_TEXT = (
    "grey: until Argo CD looks at git · light blue: until all is applied · green: until all pods are Ready"
)


@house
def pipeline_figure(
    runs: pd.DataFrame, *, names: Mapping[int, str] | None = None, title: str = "", subtitle: str = ""
) -> Figure:
    """Runs of a pipeline, one row each, with their steps as bars; where a step failed, the row ends in red.

    Args:
        runs: one row per step; columns run, commit, job, step, result, begin_s, seconds.
        names: what each run was about, by its number.

    Raises:
        ConfigError: there is no step.
    """
    if runs.empty:
        raise ConfigError(
            "There are no runs to draw.", "A run begins with a push; `pipeline.wait_for` returns it."
        )
    numbers = list(dict.fromkeys(runs["run"]))
    end = float((runs["begin_s"] + runs["seconds"]).max())
    figure, (axis,) = panels([0.62 * len(numbers)], right=0.86, left=0.215)
    for place, number in enumerate(numbers):
        mine = runs[runs["run"] == number]
        _row(axis, place, mine, end)
    labels = [_name(runs[runs["run"] == number], (names or {}).get(number, "")) for number in numbers]
    _rows(axis, labels, end)
    axis.set_xlabel("seconds since the push")
    failed = runs[runs["result"] == "failure"]
    stopped = f"; a failing {failed['step'].iloc[0].lower()} stops the others" if len(failed) else ""
    took = float((runs["begin_s"] + runs["seconds"])[runs["result"] == "success"].max())
    headline(
        figure,
        title or f"From push to rollout in {took:.0f} s{stopped}",
        subtitle or "each bar is a step of the workflow; a colour is a job",
        left=0.03,
    )
    return figure


@house
def delivery_figure(deliveries: pd.DataFrame, *, title: str = "") -> Figure:
    """Commits on their way into the cluster: when Argo CD looked, when all was applied, when all was Ready.

    Args:
        deliveries: columns label, trigger ("polling" or "refresh"), seen_s, synced_s, healthy_s (of push).

    Raises:
        ConfigError: there is none.
    """
    if deliveries.empty:
        raise ConfigError("There are no deliveries to draw.", "`Application.follow` measures one.")
    end = float(deliveries["healthy_s"].max())
    figure, (axis,) = panels([0.5 * len(deliveries)], right=0.93, left=0.255)
    for place, (_, row) in enumerate(deliveries.iterrows()):
        begin = 0.0
        for column, colour in _STAGES:
            upto = max(begin, float(row[column]))
            axis.barh(place, max(upto - begin, end * 0.003), left=begin, height=0.56, color=colour)
            if upto - begin > 0.09 * end:
                axis.text(
                    (begin + upto) / 2, place, f"{upto - begin:.1f} s", ha="center", va="center",
                    fontsize=8.5, color=text_on(colour),
                )  # fmt: skip
            begin = upto
        axis.annotate(
            f"{begin:.1f} s", (begin, place), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=9, color=INK, fontweight="bold",
        )  # fmt: skip
    _rows(axis, [f"{row.label}\n{_trigger(str(row.trigger))}" for row in deliveries.itertuples()], end)
    axis.set_xlabel("seconds since the push")
    headline(figure, title or _delivery_message(deliveries), _STAGE_TEXT, left=0.03)
    return figure


def _row(axis: Axes, place: int, steps: pd.DataFrame, end: float) -> None:
    failed = False
    for job in dict.fromkeys(steps["job"]):
        mine = steps[steps["job"] == job]
        for row in mine.itertuples():
            bad = row.result == "failure"
            failed = failed or bad
            axis.barh(
                place, max(float(row.seconds), end * 0.002), left=float(row.begin_s), height=0.5,
                color=RED if bad else JOBS.get(str(job), SKY), edgecolor="white", linewidth=0.6,
            )  # fmt: skip
        first, last = float(mine["begin_s"].iloc[0]), float((mine["begin_s"] + mine["seconds"]).iloc[-1])
        axis.annotate(
            str(job), (first, place), xytext=(0, 11.5), textcoords="offset points", fontsize=8.5,
            color=JOBS.get(str(job), GREY), va="bottom", ha="left", fontweight="bold",
        )  # fmt: skip
        longest = mine.loc[mine["seconds"].idxmax()]
        if float(longest["seconds"]) > 0.07 * end and last > first:
            _inside(axis, place, longest)
    over = float((steps["begin_s"] + steps["seconds"]).max())
    said = f"✘ {steps['step'].iloc[-1].lower()} failed" if failed else f"✔ {over:.0f} s"
    axis.annotate(
        said, (over, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9,
        color=RED if failed else INK, fontweight="bold",
    )  # fmt: skip


def _inside(axis: Axes, place: int, step: Any) -> None:
    """The time of a job's longest step, in its bar."""
    begin, seconds = float(step["begin_s"]), float(step["seconds"])
    colour = RED if step["result"] == "failure" else JOBS.get(str(step["job"]), SKY)
    words = f"{seconds:.0f} s"
    axis.text(
        begin + seconds / 2, place, words, ha="center", va="center", fontsize=8.5, color=text_on(colour)
    )


def _rows(axis: Axes, labels: Sequence[str], end: float) -> None:
    axis.set_yticks(range(len(labels)), labels, color=INK, fontsize=8.5)
    axis.set_ylim(len(labels) - 0.4, -0.75)
    axis.set_xlim(0, end * 1.02)
    axis.grid(visible=False)
    axis.grid(visible=True, axis="x", color="#EEEEEE")


def _name(steps: pd.DataFrame, about: str) -> str:
    commit = str(steps["commit"].iloc[0])
    short = about if len(about) <= 26 else about[:25] + "…"
    return f"{short}\n{commit}" if short else f"run {steps['run'].iloc[0]}\n{commit}"


def _trigger(trigger: str) -> str:
    return {"polling": "found by polling", "refresh": "told at once"}.get(trigger, trigger)


def _delivery_message(deliveries: pd.DataFrame) -> str:
    by = deliveries.groupby("trigger")["seen_s"].mean()
    if {"polling", "refresh"} <= set(by.index):
        told, found = by["refresh"], by["polling"]
        return f"Told of a push, Argo CD looks after {told:.1f} s; by polling after {found:.1f} s"
    return f"From push to Ready in {deliveries['healthy_s'].median():.0f} s (median of {len(deliveries)})"
