"""A game day: a seeded script of incidents strikes the finished system, and a report tells how it went.

from labkit.gameday import Game, build, make_script
world = build(cluster)
game = Game(world, make_script(seed=7, speed="ci")).start()
game.wait()
report = game.report()
"""

from __future__ import annotations

from labkit.gameday.build import build
from labkit.gameday.game import Game, script_for
from labkit.gameday.reflect import reflect
from labkit.gameday.report import Report
from labkit.gameday.review import read_review
from labkit.gameday.script import Script, make_script
from labkit.gameday.slo import Objective

__all__ = [
    "Game",
    "Objective",
    "Report",
    "Script",
    "build",
    "make_script",
    "read_review",
    "reflect",
    "script_for",
]
