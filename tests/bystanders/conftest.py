"""Which labs run with faults: --labs=00,01."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option --labs."""
    parser.addoption(
        "--labs", default="00,01,02,03,04", help="labs that run with faults, separated by commas"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test waits for the run."""
    for item in items:
        if "tests/bystanders" in str(item.path):
            item.add_marker(pytest.mark.timeout(1600))
