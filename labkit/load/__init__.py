"""Open-loop load: requests start when a profile says so, however slow the answers are.

    from labkit import load
    profile = load.constant(20, seconds=30) + load.ramp(20, 200, seconds=60)
    result = load.run(cluster.url("frontend"), profile)
    result.summary()

Why not locust or k6: locust simulates users who wait for their answer, also with `constant_throughput`: a
closed loop, in which a slow server slows the load and hides its own latency; and it patches the process with
gevent. k6's arrival-rate executors are open-loop, but k6 is a program of its own to build. So arrivals are
computed beforehand, and a process of its own sends them (`labkit.sender`). Latency counts from the scheduled
arrival (no coordinated omission) until the kernel has the last byte, so the generator's delay in reading is
not taken for the server's. Every result states what remains of its own. `python -m tests.bench` measures it.
"""

from __future__ import annotations

from labkit.load.profiles import Profile, constant, ramp, sine, spikes, steps, trace
from labkit.load.result import LoadResult, Summary
from labkit.load.run import Request, Running, run, start

__all__ = [
    "LoadResult",
    "Profile",
    "Request",
    "Running",
    "Summary",
    "constant",
    "ramp",
    "run",
    "sine",
    "spikes",
    "start",
    "steps",
    "trace",
]
