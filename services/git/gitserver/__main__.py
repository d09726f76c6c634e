"""Serve the repositories of $REPOSITORIES in $DATA to the users in $USERS_FILE."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import waitress  # type: ignore[import-untyped]

from gitserver.app import App
from gitserver.pushes import Pushes
from gitserver.repositories import Repositories
from gitserver.users import Users


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.getLogger("dulwich").setLevel(logging.WARNING)
    data = Path(os.environ.get("DATA", "/data"))
    repositories = Repositories(data, os.environ.get("REPOSITORIES", "").split())
    users = Users(Path(os.environ.get("USERS_FILE", "/run/secrets/git-users/users.json")))
    app = App(repositories, users, Pushes(data / "pushes.jsonl"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, port = os.environ.get("HOST", "0.0.0.0"), os.environ.get("PORT", "8080")
    waitress.serve(app, listen=f"{host}:{port}", threads=12, ident=None, _quiet=True)


if __name__ == "__main__":
    main()
