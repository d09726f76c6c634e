"""Faults on demand, so that a class can see what probes, limits and rollouts do about them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from dataclasses import asdict, dataclass
from typing import ClassVar

from chassis.settings import SettingError, env_number

logger = logging.getLogger("faults")
MAX_LEAK_MB = 4096


@dataclass
class Faults:
    """What goes wrong here at the moment; set by FAULT_<NAME> at the start and by PATCH /faults later.

    Attributes:
        delay_ms: every request waits that long first.
        error_rate: share of requests, 0 … 1, that are answered 500.
        unready: /readyz answers 503, so that Services leave this pod out.
        unhealthy: /healthz answers 503, so that the kubelet restarts the container.
        leak_mb_per_s: memory that is taken every second and never given back.
        burn_cores: cores kept busy, 0 … 1.
    """

    delay_ms: float = 0.0
    error_rate: float = 0.0
    unready: bool = False
    unhealthy: bool = False
    leak_mb_per_s: float = 0.0
    burn_cores: float = 0.0

    LIMITS: ClassVar[dict[str, float]] = {
        "delay_ms": 60_000,
        "error_rate": 1,
        "unready": 1,
        "unhealthy": 1,
        "leak_mb_per_s": 512,
        "burn_cores": 1,
    }

    @classmethod
    def from_env(cls) -> Faults:
        """FAULT_DELAY_MS, FAULT_ERROR_RATE and so on."""
        faults = cls()
        for name, limit in cls.LIMITS.items():
            faults._set(name, env_number(f"FAULT_{name.upper()}", 0, 0, limit))
        return faults

    def update(self, changes: dict[str, object]) -> None:
        """Change some of them.

        Raises:
            SettingError: an unknown name, or a value outside its range.
        """
        for name, value in changes.items():
            if name not in self.LIMITS:
                raise SettingError(f"no fault {name!r}; there are {', '.join(self.LIMITS)}")
            if not isinstance(value, int | float) or not 0 <= value <= self.LIMITS[name]:
                raise SettingError(f"{name} must be between 0 and {self.LIMITS[name]}, not {value!r}")
        for name, value in changes.items():
            self._set(name, float(value))  # type: ignore[arg-type]
        logger.warning("faults changed", extra={"faults": self.as_dict()})

    def _set(self, name: str, value: float) -> None:
        """Keep each attribute's type: a switch stays a switch."""
        setattr(self, name, type(getattr(self, name))(value))

    def reset(self) -> None:
        """Nothing goes wrong any more."""
        self.update(dict.fromkeys(self.LIMITS, 0))

    def as_dict(self) -> dict[str, float | bool]:
        """Name to value."""
        return asdict(self)

    async def strike(self) -> bool:
        """Delay the request; True when it must fail."""
        if self.delay_ms:
            await asyncio.sleep(self.delay_ms / 1000)
        return random.random() < self.error_rate


async def misbehave(faults: Faults) -> None:
    """Leak and burn for as long as the service lives; memory is given back when the leak is set to 0."""
    leaked: list[bytearray] = []
    burner: threading.Thread | None = None
    while True:
        if not faults.leak_mb_per_s:
            leaked.clear()
        elif len(leaked) * faults.leak_mb_per_s < MAX_LEAK_MB:
            leaked.append(bytearray(os.urandom(4096)) * int(faults.leak_mb_per_s * 256))
        if faults.burn_cores and (burner is None or not burner.is_alive()):
            burner = threading.Thread(target=_burn, args=(faults,), daemon=True)
            burner.start()
        await asyncio.sleep(1)


def _burn(faults: Faults) -> None:
    """Use `burn_cores` of each tenth of a second, until it is 0."""
    while faults.burn_cores:
        until = time.monotonic() + 0.1
        used = time.thread_time()
        while time.thread_time() - used < 0.1 * faults.burn_cores and time.monotonic() < until:
            sum(range(2000))
        time.sleep(max(until - time.monotonic(), 0.001))
