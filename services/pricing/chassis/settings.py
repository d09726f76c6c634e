"""Settings from the environment, as in twelve-factor apps; a bad one is named and stops the start."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


class SettingError(Exception):
    """An environment variable or a configuration file has a value that cannot be used."""


def env_text(name: str, default: str) -> str:
    """The variable's value, or `default` where it is unset or empty."""
    return os.environ.get(name, "").strip() or default


def env_number(name: str, default: float, minimum: float = 0, maximum: float = float("inf")) -> float:
    """The variable as a number.

    Raises:
        SettingError: it is no number, or outside minimum … maximum.
    """
    text = env_text(name, str(default))
    try:
        value = float(text)
    except ValueError:
        raise SettingError(f"{name}={text!r} is not a number") from None
    if not minimum <= value <= maximum:
        raise SettingError(f"{name}={text} is not between {minimum:g} and {maximum:g}")
    return value


def env_switch(name: str) -> bool:
    """True for on, true, yes and 1; False for off, false, no, 0 and where it is unset."""
    text = env_text(name, "off").lower()
    if text in ("on", "true", "yes", "1"):
        return True
    if text in ("off", "false", "no", "0"):
        return False
    raise SettingError(f"{name}={text!r} is neither on nor off")


@dataclass(frozen=True)
class Settings:
    """What all services can be told.

    Attributes:
        host: address to listen on.
        drain_s: seconds to go on serving after SIGTERM, not ready, until no client finds this pod any more.
        shutdown_s: seconds that requests under way then have to finish.
        faults: whether `/faults` may be used.
    """

    host: str
    port: int
    pod: str
    version: str
    log_level: str
    drain_s: float
    shutdown_s: float
    faults: bool

    @classmethod
    def from_env(cls) -> Settings:
        """Read them.

        Raises:
            SettingError: naming the variable that cannot be used.
        """
        level = env_text("LOG_LEVEL", "info").upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingError(f"LOG_LEVEL={level!r} is not debug, info, warning or error")
        return cls(
            host=env_text("HOST", "0.0.0.0"),
            port=int(env_number("PORT", 8080, 0, 65535)),
            pod=env_text("POD_NAME", socket.gethostname()),
            version=env_text("VERSION", "dev"),
            log_level=level,
            drain_s=env_number("DRAIN_SECONDS", 0, 0, 300),
            shutdown_s=env_number("SHUTDOWN_SECONDS", 10, 0, 300),
            faults=env_switch("FAULTS"),
        )
