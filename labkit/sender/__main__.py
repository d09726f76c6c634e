"""`python -m labkit.sender`: see `labkit.sender.generator`."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import json
import resource
import sys

from labkit.sender.clock import FineSelector
from labkit.sender.generator import generate


def main() -> None:
    """Read a plan, raise the limit of open files as far as allowed, and send."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = json.loads(sys.stdin.buffer.readline())
    arrivals = array.array("d", sys.stdin.buffer.read(8 * plan["count"])).tolist()
    gc.freeze()
    loop = asyncio.SelectorEventLoop(FineSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(generate(plan, arrivals))


if __name__ == "__main__":
    main()
