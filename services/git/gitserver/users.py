"""Who may do what: a file with each user's password and the repositories that the user may push to."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from pathlib import Path
from typing import TypedDict


class User(TypedDict, total=False):
    """What the file says of a user."""

    password: str
    push: list[str]


class Users:
    """The users of a JSON file, `{"NAME": {"password": "…", "push": ["REPOSITORY"]}}`. Every user may read
    everything.

    The file is read at each request, since Kubernetes exchanges a Secret's files while the server runs.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def name(self, authorization: str) -> str:
        """The user of an Authorization header; "" where it is missing or wrong."""
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
        name, _, password = given.partition(":")
        known = self._all().get(name, User()).get("password", "")
        right = hmac.compare_digest(known.encode(), password.encode())
        return name if scheme.lower() == "basic" and known and right else ""

    def may_push(self, name: str, repository: str) -> bool:
        """Whether a user may change a repository."""
        return repository in self._all().get(name, User()).get("push", [])

    def _all(self) -> dict[str, User]:
        users: dict[str, User] = json.loads(self._file.read_text())
        return users
