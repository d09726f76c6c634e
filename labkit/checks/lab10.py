"""The check of the explorer's exercise. Its notebook is no lab: it needs no cluster."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.checks.core import Finding, expect
from labkit.checks.registry import define
from labkit.hpa import HpaError, HpaSpec, Run, from_manifest, simulate
from labkit.hpa.days import shop_day
from labkit.hpa.explorer import Setting, World

MISS_PERCENT = 2.0
COST_PERCENT = 80.0


@define("10-day", "Your autoscaler beats the default on the shop's day", deadline_s=0)
def day_beaten(manifest: object) -> Iterator[Finding]:
    """A manifest for pricing that keeps the promise all day, for four fifths of the default's price."""
    try:
        spec = from_manifest(str(manifest))
    except HpaError as error:
        yield expect(False, "what you export is a HorizontalPodAutoscaler", error.message, "unreadable")
        return
    aims = f"{spec.namespace}/{spec.name} for {spec.target_kind} {spec.target_name}"
    right = aims == "shop/pricing for Deployment pricing"
    yield expect(
        right, "it is that of the Deployment pricing, in the namespace shop", f"it is {aims}", "target"
    )
    try:
        own = on_the_day(spec)
    except HpaError as error:
        yield expect(False, "the simulator knows its metric", error.message, "metric")
        return
    other = on_the_day(Setting().spec())
    missed = own.totals["slo_miss_percent"]
    kept = missed <= MISS_PERCENT
    yield expect(kept, f"at most {MISS_PERCENT:g} % of the requests miss", f"it is {missed:.2f} %", "misses")
    share = 100 * own.totals["replica_seconds"] / other.totals["replica_seconds"]
    text = f"it costs at most {COST_PERCENT:.0f} % of the default"
    yield expect(share <= COST_PERCENT, text, f"it costs {share:.0f} %", "cost")


def on_the_day(spec: HpaSpec) -> Run:
    """The explorer's service on the shop's day, always with the same requests."""
    world = World()
    return simulate(world.scenario(spec), shop_day(), world.seed)
