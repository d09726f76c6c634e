"""A tunnel's credentials: which tunnel it is, and the secret that proves it. The secret is never shown."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import uuid
from dataclasses import dataclass, field

from labkit.errors import ConfigError


@dataclass(frozen=True)
class Credentials:
    """What `cloudflared tunnel create` writes to a file, and what a token has inside.

    Attributes:
        account: Cloudflare's account tag.
        tunnel_id: a UUID.
        secret: base64; neither repr nor str show it.
    """

    account: str
    tunnel_id: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> Credentials:
        """Credentials for a rehearsal, made up on the spot."""
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        return cls("rehearsal", str(uuid.uuid4()), secret)

    @classmethod
    def from_token(cls, token: str) -> Credentials:
        """Credentials from a tunnel token, as Cloudflare's dashboard and `cloudflared tunnel token` show it.

        Raises:
            ConfigError: it is none; the token is not repeated.
        """
        try:
            raw = json.loads(base64.b64decode(token.strip(), validate=True))
            return cls(str(raw["a"]), str(uuid.UUID(raw["t"])), str(raw["s"]))
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"This is no tunnel token ({len(token.strip())} characters).",
                "It is the long text after --token in Cloudflare's dashboard; "
                "`cloudflared tunnel token NAME` prints it too.",
            ) from None

    @classmethod
    def from_file(cls, text: str) -> Credentials:
        """Credentials from the text of a credentials file."""
        raw = json.loads(text)
        return cls(raw["AccountTag"], raw["TunnelID"], raw["TunnelSecret"])

    def file(self) -> str:
        """The text of cloudflared's credentials file."""
        return json.dumps(
            {"AccountTag": self.account, "TunnelSecret": self.secret, "TunnelID": self.tunnel_id}
        )
