"""Checks: what a lab asks of the cluster, the same for a student and for CI.

    from labkit.checks import check
    check("01-third-worker-ready", cluster)

A check looks at the cluster until everything it expects is true or its deadline is over, and names what
it saw that is wrong. It never says which command repairs it.
"""

from __future__ import annotations

from labkit.checks.core import CheckResult, Finding, expect, prove
from labkit.checks.predict import Comparison, Prediction, predict
from labkit.checks.registry import (
    CheckSpec,
    catch_up,
    check,
    checks_of,
    define,
    find,
    hint,
    run_check,
    solution,
)

__all__ = [
    "CheckResult",
    "CheckSpec",
    "Comparison",
    "Finding",
    "Prediction",
    "catch_up",
    "check",
    "checks_of",
    "define",
    "expect",
    "find",
    "hint",
    "predict",
    "prove",
    "run_check",
    "solution",
]
