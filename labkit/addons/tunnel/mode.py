"""Which tunnel it will be: a real one, or a rehearsal."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.addons.tunnel.credentials import Credentials
from labkit.errors import ConfigError

Mode = Literal["named", "quick", "rehearsal"]
EDGES = (("region1.v2.argotunnel.com", 7844), ("api.trycloudflare.com", 443))
TOKEN_VARIABLE = "LABKIT_TUNNEL_TOKEN"
_PROBE_S = 2.0
_MODES = ("auto", "named", "quick", "rehearsal")


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why in one line.

    Attributes:
        credentials: of a named tunnel; None where labkit or Cloudflare make some up.
    """

    mode: Mode
    why: str
    credentials: Credentials | None = None

    def __str__(self) -> str:
        return self.why


def choose(
    wanted: str = "auto", token: str | None = None, edges: Sequence[tuple[str, int]] = EDGES
) -> Choice:
    """Choose a tunnel.

    Args:
        wanted: auto: a rehearsal where Cloudflare's edge is not reached, else a named tunnel where there is a
            token, else a quick one; or one of these by name.
        token: a tunnel's token; by default $LABKIT_TUNNEL_TOKEN.
        edges: hosts and ports that must all be reached for a real tunnel; asked for two seconds each.

    Raises:
        ConfigError: there is no such mode, or a named tunnel has no token or a wrong one.
    """
    if wanted not in _MODES:
        raise ConfigError(f"There is no tunnel mode {wanted!r}.", f"Modes: {', '.join(_MODES)}.")
    given = token if token is not None else os.environ.get(TOKEN_VARIABLE, "")
    if wanted == "named" and not given:
        raise ConfigError("A named tunnel needs its token.", f"Set {TOKEN_VARIABLE}, or pass token=….")
    if wanted == "rehearsal":
        return Choice("rehearsal", "A rehearsal, as asked for: the edge is a process on this machine.")
    credentials = Credentials.from_token(given) if given and wanted != "quick" else None
    if wanted == "auto":
        unreached = next((f"{host}:{port}" for host, port in edges if not _reached(host, port)), "")
        if unreached:
            why = f"A rehearsal, as {unreached} is out of reach: the edge is a process on this machine."
            return Choice("rehearsal", why)
    if credentials is not None:
        return Choice("named", f"A named tunnel at Cloudflare, {credentials.tunnel_id}.", credentials)
    return Choice(
        "quick", "A quick tunnel at Cloudflare: real, public, without an account, gone when it ends."
    )


def _reached(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _PROBE_S):
            return True
    except OSError:
        return False
