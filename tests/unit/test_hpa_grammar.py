"""Quantities and autoscalers, judged as upstream judges them.

data/hpa_quantities.jsonl.gz and data/hpa_judged.jsonl.gz hold what Kubernetes v1.37.2's own ParseQuantity and
validation said; `python -m tests.hpa.grammar` makes them, and compares more of them.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import ConfigError
from labkit.hpa import Controller, HpaError, from_manifest
from labkit.hpa.quantities import approximate, thousandths
from labkit.kube import quantity
from labkit.kube.quantities import parse_quantity

DATA = Path(__file__).parent / "data"


def lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt") as file:
        return [json.loads(line) for line in file]


def quantity_differs(row: dict[str, Any]) -> str:
    """How a quantity is read otherwise than upstream reads it; "" where it is not."""
    text = row["quantity"]
    try:
        value = parse_quantity(text)
    except ValueError:
        return "" if not row["ok"] else f"{text!r}: refused, and is {row}"
    if not row["ok"]:
        return f"{text!r}: read as {value}, and is none"
    milli = value.scaled(3)
    if milli is None:  # upstream overflows, the model refuses it
        return (
            ""
            if abs(value.number) * 10.0 ** min(value.exponent + 3, 300) > 9e18
            else f"{text!r}: {value} overflows"
        )
    if str(milli) != row["milli"]:
        return f"{text!r}: {milli} thousandths, upstream {row['milli']}"
    ours, theirs = approximate("x", text), float(row["approximate"])
    near = math.isclose(ours, theirs, rel_tol=3e-16)  # upstream multiplies large ones by a float
    return (
        "" if ours == theirs or (near and abs(ours) > 2**50) else f"{text!r}: {ours!r}, upstream {theirs!r}"
    )


def judged(case: dict[str, Any]) -> str:
    """How an autoscaler is judged otherwise than by upstream; "" where it is not."""
    fields = case["fields"]
    try:
        from_manifest(case["hpa"], Controller(scale_to_zero=case["zero"]))
    except HpaError as error:
        if not fields:
            return f"{error.field}: {error.problem}: refused, and is valid: {json.dumps(case['hpa'])}"
        known = fields in (["(decoding)"], ["(conversion)"]) or error.field in fields
        return "" if known else f"{error.field} is named, upstream names {fields}: {json.dumps(case['hpa'])}"
    return f"taken, and upstream refuses {fields}: {json.dumps(case['hpa'])}" if fields else ""


def test_quantities_are_read_as_upstream_reads_them() -> None:
    rows = lines("hpa_quantities.jsonl.gz")
    assert len(rows) > 1000 and 200 < sum(row["ok"] for row in rows) < len(rows)
    assert [said for row in rows if (said := quantity_differs(row))] == []


def test_autoscalers_are_judged_as_upstream_judges_them() -> None:
    cases = lines("hpa_judged.jsonl.gz")
    assert len(cases) >= 1000 and 200 < sum(not case["fields"] for case in cases) < len(cases)
    assert [said for case in cases if (said := judged(case))] == []


@pytest.mark.parametrize(
    "text", ["1K", "1_000", "\u0661", "\uff11m", "1e", "NaN", "1 Gi", "", True, None, [1]]
)
def test_what_is_no_quantity_is_none_anywhere(text: Any) -> None:
    with pytest.raises(ConfigError, match="not a quantity"):
        quantity(text)
    with pytest.raises(HpaError) as caught:
        thousandths("spec.value", text)
    assert caught.value.field == "spec.value"


def test_all_of_labkit_reads_quantities_by_one_parser() -> None:
    for text in ("250m", " 1.5Gi ", "100u", "1e3", "0.5", ".5", "+2"):
        assert quantity(text) == float(parse_quantity(text))
        assert thousandths("x", text) == parse_quantity(text).scaled(3)
