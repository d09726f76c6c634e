"""The script of a game day: which incidents strike, in which order and when, all from one seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from labkit import load
from labkit.errors import ConfigError

KINDS = ("load-surge", "node-loss", "bad-deploy", "drift", "pool-exhausted")
_CHOICES = 720
"""Divisible by any small number of variants, so that each is equally likely."""


@dataclass(frozen=True)
class Pace:
    """How much time there is.

    Attributes:
        warm_up_s: of calm, before the first incident.
        room_s: kind → seconds from its strike to the next one's, a gap apart.
        gap_s: least and most of what the seed adds to each room.
        cool_down_s: after the last room.
        overtime_s: how long the shift goes on for incidents that are still open.
        surge_s: how long the load surge lasts.
        reaction_s: how long the reference operator thinks before it acts.
    """

    warm_up_s: float
    room_s: Mapping[str, float]
    gap_s: tuple[float, float]
    cool_down_s: float
    overtime_s: float
    surge_s: float
    reaction_s: float


PACES = {
    "ci": Pace(
        8, {"load-surge": 54, "node-loss": 26, "bad-deploy": 30, "drift": 16, "pool-exhausted": 10},
        (1, 4), 5, 60, 44, 2,
    ),
    "class": Pace(
        20, {"load-surge": 90, "node-loss": 80, "bad-deploy": 90, "drift": 60, "pool-exhausted": 60},
        (5, 20), 10, 180, 70, 8,
    ),
}  # fmt: skip
CALM_RPS, SURGE_RPS = 6.0, 24.0


@dataclass(frozen=True)
class Incident:
    """One entry of a script.

    Attributes:
        number: from 1, in the order in which they strike.
        begin_s: seconds since the game began.
        choice: picks one of the kind's variants, modulo their number.
    """

    number: int
    kind: str
    begin_s: float
    choice: int


@dataclass(frozen=True)
class Script:
    """What will happen, and when."""

    seed: int
    pace: Pace
    incidents: tuple[Incident, ...]
    duration_s: float

    @property
    def limit_s(self) -> float:
        """The game is over at the latest after so long, whatever is still open."""
        return self.duration_s + self.pace.overtime_s

    @property
    def frame(self) -> pd.DataFrame:
        """number, kind, begin_s, choice."""
        rows = [(one.number, one.kind, one.begin_s, one.choice) for one in self.incidents]
        return pd.DataFrame(rows, columns=["number", "kind", "begin_s", "choice"])

    def profile(self) -> load.Profile:
        """The customers: calm, and many more of them during the load surge; long enough for all overtime."""
        calm = load.constant(CALM_RPS, self.limit_s + 5)
        surge = next((one for one in self.incidents if one.kind == "load-surge"), None)
        if surge is None:
            return calm
        rise = self.pace.surge_s / 10
        more = load.ramp(0, SURGE_RPS - CALM_RPS, rise)
        more += load.constant(SURGE_RPS - CALM_RPS, self.pace.surge_s - rise)
        return calm | (load.constant(0, surge.begin_s) + more)


def make_script(seed: int, speed: str = "class", kinds: Collection[str] = KINDS) -> Script:
    """A script: the same seed and speed give the same one.

    Args:
        speed: "class" or "ci", the short one.
        kinds: those that are possible here; leaving some out changes neither order nor choices of the others.

    Raises:
        ConfigError: an unknown speed or kind, or no kind at all.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigError(
            f"A game day cannot have the incidents {unknown}." if unknown else "A game day needs incidents.",
            f"There are: {', '.join(KINDS)}.",
        )
    if speed not in PACES:
        raise ConfigError(f"There is no speed {speed!r}.", f"Speeds: {', '.join(PACES)}.")
    pace, chance = PACES[speed], random.Random(seed)
    order = list(KINDS)
    chance.shuffle(order)
    drawn = {kind: (chance.randrange(_CHOICES), round(chance.uniform(*pace.gap_s), 1)) for kind in order}
    at = pace.warm_up_s
    incidents: list[Incident] = []
    for kind in [kind for kind in order if kind in kinds]:
        choice, gap = drawn[kind]
        incidents.append(Incident(len(incidents) + 1, kind, round(at, 1), choice))
        at += pace.room_s[kind] + gap
    return Script(seed, pace, tuple(incidents), round(at + pace.cool_down_s, 1))
