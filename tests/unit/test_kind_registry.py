"""What a failed `docker pull` means."""

from __future__ import annotations

import pytest

from labkit.cluster.kind.registry import Unavailable, _refusal


@pytest.mark.parametrize(
    ("reference", "said", "meaning"),
    [
        (
            "127.0.0.1:40397/tiny:v1",
            "dial tcp 127.0.0.1:40397: connect: connection refused",
            "cannot be reached",
        ),
        ("127.0.0.1:5000/tiny:v1", "unexpected status: 403 Forbidden", "refuses to hand out"),
        ("127.0.0.1:40397/tiny:v1", "received unexpected HTTP status: 403", "refuses to hand out"),
        ("127.0.0.1:40404/tiny:v1", "manifest unknown", "has no"),
    ],
)
def test_a_port_is_no_status(reference: str, said: str, meaning: str) -> None:
    error = _refusal(reference, said)
    assert isinstance(error, Unavailable) and meaning in str(error)
