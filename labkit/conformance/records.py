"""Results kept among the sources: the latest one of each spec and provider, and why specs cannot pass."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from heapq import heappop, heappush
from importlib.resources import files
from pathlib import Path
from typing import Any

from labkit.conformance.results import FAILED, PASSED, Account, Result, merged, short
from labkit.conformance.specs import CONFORMANCE, Spec

_MESSAGE = 160
_OF_WHOLE_RUN = 4
"""Fields of a row (text, state, seconds, message); one that is not of the whole run has a fifth."""
LONGEST_S = 480.0
"""A spec that takes longer is in no slice; it runs with the whole suite only."""


def folder() -> Path:
    """Where the records are."""
    return Path(str(files("labkit.conformance"))) / "records"


def load(provider: str) -> dict[str, Result]:
    """Text of a spec → its recorded result; empty where nothing was recorded."""
    return {row[0]: Result(*row[:4]) for row in _read(provider)["results"]}


def account(provider: str) -> tuple[Account | None, int]:
    """The last run of all conformance tests that was recorded, and how many results are of other runs."""
    raw = _read(provider)
    others = sum(len(row) > _OF_WHOLE_RUN for row in raw["results"])
    return (Account(**raw["run"]) if raw["run"] else None), others if raw["run"] else 0


def _read(provider: str) -> dict[str, Any]:
    file = folder() / f"{provider}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    return {"results": [], "run": None, **known}


def save(provider: str, results: Iterable[Result], run: Account | None = None) -> None:
    """Record results; those of other specs stay as they are.

    Args:
        run: what they are all of; None where they are of several runs, or of a part of the suite.
    """
    new, before = list(results), _read(provider)
    texts = {result.text for result in new}
    rows: list[list[Any]] = [
        [r.text, r.state, round(r.seconds, 1), short(r.message, _MESSAGE)]
        for r in merged(load(provider).values(), new)
    ]
    if run is not None and {row[0] for row in rows if CONFORMANCE in row[0]} <= texts:
        facts, own = asdict(run), texts
    else:
        own = {row[0] for row in before["results"] if len(row) == _OF_WHOLE_RUN} - texts
        facts = before["run"]
    rows = [row if row[0] in own else [*row, "other run"] for row in rows]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    folder().mkdir(exist_ok=True)
    head = f'"run": {json.dumps(facts, ensure_ascii=False)}'
    (folder() / f"{provider}.json").write_text(f'{{{head}, "results": [\n{lines}\n]}}\n')


def reasons(provider: str) -> dict[str, str]:
    """Text of a spec → why it cannot pass on a provider, a key of `explanations`."""
    table = tomllib.loads((folder() / "reasons.toml").read_text()).get(provider, {})
    return {text: reason for reason, texts in table.items() for text in texts}


def explanations() -> dict[str, str]:
    """Reason → what it means, a sentence."""
    found: dict[str, str] = tomllib.loads((folder() / "reasons.toml").read_text())["explanations"]
    return found


def verdict(result: Result, known: Mapping[str, str]) -> str:
    """passed, failed, skipped, or "not applicable" for one that fails for a known reason."""
    return "not applicable" if result.state == FAILED and result.text in known else result.state


def part(specs: list[Spec], seconds: Mapping[str, float], commit: str, budget_s: float) -> list[Spec]:
    """A part of the specs that takes about `budget_s` one after another, chosen by a commit.

    The specs are dealt to as many parts as they need, a long one with few others; each commit draws one
    part, so that all get their turn.
    """
    known = {spec: seconds.get(spec.text, 0.0) for spec in specs}
    took = {spec: s for spec, s in known.items() if s <= LONGEST_S}
    count = max(1, round(sum(took.values()) / budget_s))
    parts = [(0.0, number) for number in range(count)]
    dealt: list[list[Spec]] = [[] for _ in parts]
    for spec in sorted(took, key=lambda spec: (-took[spec], spec.text)):
        total, number = heappop(parts)
        dealt[number].append(spec)
        heappush(parts, (total + took[spec], number))
    return dealt[int(hashlib.sha256(commit.encode()).hexdigest(), 16) % count]


def passing(provider: str) -> list[str]:
    """Texts of the specs that are recorded as passing."""
    return [text for text, result in load(provider).items() if result.state == PASSED]
