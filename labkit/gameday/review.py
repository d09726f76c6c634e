"""The review after a shift: a page in the learner's own words, read and judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from labkit.errors import ConfigError
from labkit.gameday.reflect import QUESTIONS, Reflection

EXAMPLE: Final = {
    "hard": "Customers noticed the lost node long before the cluster called it NotReady.",
    "helped": "Argo CD undid the change by hand before I had found it; git revert is an undo that lasts.",
    "differently": "Alert on degraded answers: every pod was Ready while the prices were missing.",
}
"""What an answer may look like; it is nobody's own."""
LEAST_WORDS: Final = 8
_ALIKE: Final = 0.8
_LONGEST: Final = 1000
_WORDS_OF: Final = {
    "load-surge": ("surge", "load", "scale", "replica"),
    "node-loss": ("node", "worker", "machine", "notready"),
    "bad-deploy": ("deploy", "release", "revert", "version", "image"),
    "drift": ("drift", "by hand", "argo"),
    "pool-exhausted": ("pool", "address", "metallb", "load balancer"),
}


def read_review(file: str | Path) -> Reflection:
    """The answers below a page's headings, which are the questions of `QUESTIONS`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    parts = re.split(r"^#+\s*(.+?)\s*$", text, flags=re.MULTILINE)
    below = {_plain(title): body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    return Reflection({key: below.get(_plain(question), "") for key, question in QUESTIONS.items()})


def lacks(answers: Mapping[str, str], kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What a review lacks, most important first: key and words; nothing for a good one.

    Args:
        answers: question → answer, as of `Reflection.answers`.
        kinds: of the incidents that struck.
    """
    empty = [question for question, answer in answers.items() if not answer or "YOUR TURN" in answer]
    if empty or not answers:
        yield "empty", f"without an answer: {' '.join(empty) or 'all of them'}"
        return
    copied = [question for question, answer in answers.items() if _is_example(answer)]
    if copied:
        yield "example", f"the example's words answer: {' '.join(copied)}"
    if len({_plain(answer) for answer in answers.values()}) < len(answers):
        yield "same", "two questions have the same answer"
    short = [question for question, answer in answers.items() if len(answer.split()) < LEAST_WORDS]
    if short:
        yield "short", f"fewer than {LEAST_WORDS} words answer: {' '.join(short)}"
    said = " ".join(answers.values()).lower()
    words = [word for kind in kinds for word in _WORDS_OF.get(kind, ())]
    if not re.search(r"\d", said) and not any(word in said for word in words):
        yield "evidence", "no answer names an incident of this shift, or a number of it"


def _is_example(answer: str) -> bool:
    own = _plain(answer[:_LONGEST])
    return any(
        SequenceMatcher(None, own, _plain(text), autojunk=False).ratio() >= _ALIKE
        for text in EXAMPLE.values()
    )


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
