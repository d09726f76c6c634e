"""A figure of guesses: how far they were off, one after the other."""

from __future__ import annotations

import math
from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import ConfigError
from labkit.plots.style import BLUE, GREEN, GREY, INK, RED, SKY, heading, headline, house, label_right, panels

CLOSE = 1.25
"""A guess that is off by this factor or less is close."""
FARTHEST = 16.0
"""What is off by more, or has another sign than what was measured, is drawn at this factor."""
_WINDOW = 5


@house
def guesses_figure(guesses: pd.DataFrame, *, title: str = "") -> Figure:
    """Guessed numbers by the factor that they were off, and choices by right and wrong, in their order.

    Args:
        guesses: one row per question; columns question, predicted, measured (numbers or words), unit.
        title: the message; by default what the data say.

    Raises:
        ConfigError: there is none.
    """
    if guesses.empty:
        raise ConfigError("There are no guesses to draw.", "A prediction that is compared is one.")
    rows = guesses.reset_index(drop=True)
    words = pd.Series([_word(row.predicted) or _word(row.measured) for row in rows.itertuples()], dtype=bool)
    numbers, choices = rows[~words], rows[words]
    heights = [2.6] * (not numbers.empty) + [0.7] * (not choices.empty)
    figure, axes = panels(heights, right=0.84, left=0.1)
    axes[0].set_xlim(0.4, len(rows) + 0.6)
    off = pd.Series(
        [ratio(p, m) for p, m in zip(numbers.predicted, numbers.measured, strict=True)], dtype=float
    )
    off.index = numbers.index
    rest = iter(axes)
    if not numbers.empty:
        _numbers_panel(next(rest), numbers, off)
    right = pd.Series(choices["predicted"] == choices["measured"])
    if not choices.empty:
        _choices_panel(next(rest), right)
    axes[-1].set_xlabel("your guesses, in the order you made them")
    axes[-1].set_xticks(sorted({1, len(rows), *range(5, len(rows), 5)}))
    said = "above the line you guessed too much, below it too little" if len(numbers) else "right or wrong"
    headline(
        figure,
        title or message(off, right),
        f"{len(rows)} guesses, each beside its measurement; {said}",
        left=0.1,
    )
    return figure


def ratio(predicted: float, measured: float) -> float:
    """How many times the measurement a guess was, within 1/FARTHEST to FARTHEST."""
    if predicted == measured:
        return 1.0
    if not measured or predicted / measured < 0:
        return FARTHEST if predicted > measured else 1 / FARTHEST
    return float(min(max(predicted / measured, 1 / FARTHEST), FARTHEST))


def message(off: pd.Series[float], right: pd.Series[bool]) -> str:
    """What the guesses say of the one who made them.

    Args:
        off: ratio of each guessed number, in order.
        right: whether each choice was.
    """
    factors = off.map(lambda each: max(each, 1 / each)).tolist()
    if not factors:
        return f"You chose right in {int(right.sum())} of {len(right)} questions"
    if len(factors) < 2 * 3:
        return f"Your guesses are off by a factor of {_factor(float(np.median(factors)))}"
    part = min(_WINDOW, len(factors) // 2)
    before, after = float(np.median(factors[:part])), float(np.median(factors[-part:]))
    if after < before / 1.1:
        return f"Your guesses get better: off by a factor of {_factor(before)} at first, now {_factor(after)}"
    if after > before * 1.1:
        return (
            f"The questions get harder: off by a factor of {_factor(before)} at first, now {_factor(after)}"
        )
    return f"Your guesses are off by a factor of {_factor(after)}, at first as now"


def _numbers_panel(axis: Axes, numbers: pd.DataFrame, off: pd.Series[float]) -> None:
    x = off.index.to_numpy() + 1
    factors = off.map(lambda each: max(each, 1 / each))
    typical = factors.rolling(_WINDOW, min_periods=1).median()
    axis.axhspan(1 / CLOSE, CLOSE, color=GREEN, alpha=0.15, linewidth=0)
    axis.fill_between(x, 1 / typical, typical, color=SKY, alpha=0.25, linewidth=0)
    axis.axhline(1, color=INK, linewidth=1)
    close = factors <= CLOSE
    axis.vlines(x, 1, off, color=np.where(close, GREEN, BLUE).tolist(), linewidth=1)
    axis.scatter(x, off, color=np.where(close, GREEN, BLUE).tolist(), zorder=3, s=34)
    top = max(4.0, float(factors.max()) * 2.5)
    axis.set_yscale("log", base=2)
    axis.set_ylim(1 / top, top)
    ticks = [each for each in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16) if 1 / top <= each <= top]
    axis.set_yticks(ticks, [_times(each) for each in ticks])
    axis.minorticks_off()
    heading(axis, "numbers: guess ÷ measurement")
    worst = int(factors.to_numpy().argmax())
    if factors.iloc[worst] > CLOSE:
        _name(axis, numbers.iloc[worst], float(x[worst]), float(off.iloc[worst]))
    now = float(typical.iloc[-1])
    label_right(
        axis,
        [
            (1.0, f"close: up to\n{CLOSE:g} times off", GREEN),
            (now, f"half of your last\n{_WINDOW}: within this", BLUE),
        ],
    )


def _name(axis: Axes, row: pd.Series, x: float, y: float) -> None:
    """Say of a guess what it was about."""
    guessed, measured = (f"{_number(row[key])} {row['unit']}".strip() for key in ("predicted", "measured"))
    question = shorten(str(row["question"]), 46, placeholder=" …")
    text = f"{question}\n{guessed} guessed, {measured} measured"
    low, high = axis.get_xlim()
    left = x < (low + high) / 2
    axis.annotate(
        text, (x, y), xytext=(8 if left else -8, 6 if y > 1 else -6), textcoords="offset points",
        ha="left" if left else "right", va="bottom" if y > 1 else "top", fontsize=8, color=GREY,
    )  # fmt: skip


def _choices_panel(axis: Axes, right: pd.Series[bool]) -> None:
    for number, good in right.items():
        x = int(str(number)) + 1
        axis.text(
            x, 0.5, "✔" if good else "✘", ha="center", va="center", fontsize=12, color=GREEN if good else RED
        )
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.grid(visible=False)
    heading(axis, "choices: right or not")
    label_right(axis, [(0.5, f"{int(right.sum())} of {len(right)} right", GREEN)])


def _word(value: object) -> bool:
    return isinstance(value, str)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _factor(value: float) -> str:
    return "10 or more" if value >= 10 else f"{value:.1f}"


def _times(value: float) -> str:
    if math.isclose(value, 1):
        return "exact"
    return f"{value:g} ×" if value > 1 else f"1/{1 / value:g}"
