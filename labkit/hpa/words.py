"""Plain sentences for what the model decided, with the numbers that decided it."""

from __future__ import annotations

import math

from labkit.hpa.spec import Controller, Metric


def plural(count: int, noun: str) -> str:
    """`1 pod`, `3 pods`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def amount(thousandths: int | float, name: str = "") -> str:
    """A quantity for readers: `350m` for CPU, `128 MiB` for memory, else a plain number."""
    if name == "cpu":
        return f"{thousandths:g}m"
    value = thousandths / 1000
    if name == "memory":
        return f"{value / 2**20:.4g} MiB"
    return f"{value:.4g}"


def ratio_text(ratio: float) -> str:
    return f"{ratio:.3g}" if math.isfinite(ratio) else str(ratio)


def measured(metric: Metric, current: int, average: int, pods: int, ratio: float) -> str:
    """How far the pods' average is from its target."""
    over = plural(pods, "pod")
    if metric.target.average_utilization is not None and metric.source != "Pods":
        use = f"{current} % of the request ({amount(average, metric.name)} per pod over {over})"
        goal = f"{metric.target.average_utilization} %"
    else:
        use = f"{amount(average, metric.name)} per pod over {over}"
        goal = amount(metric.target.average_value or 0, metric.name)
    return f"{metric.label} is at {use}; the target is {goal}, so the ratio is {ratio_text(ratio)}."


def total_measured(metric: Metric, total: int, target: int, ratio: float) -> str:
    return (
        f"{metric.label} is at {amount(total)}; the target is {amount(target)}, "
        f"so the ratio is {ratio_text(ratio)}."
    )


def share_measured(metric: Metric, total: int, pods: int, target: int, ratio: float) -> str:
    return (
        f"{metric.label} is at {amount(total)} for {plural(pods, 'replica')}; the target is "
        f"{amount(target)} each, so the ratio is {ratio_text(ratio)}."
    )


def tolerated(ratio: float, down: float, up: float) -> str:
    return (
        f"A ratio of {ratio_text(ratio)} is inside the tolerance ({1 - down:.4g} to {1 + up:.4g}): no change."
    )


def multiplied(ratio: float, pods: int, replicas: int) -> str:
    return f"{ratio_text(ratio)} × {plural(pods, 'pod')}, rounded up, is {replicas}."


def divided(total: int, target: int, replicas: int) -> str:
    return f"{amount(total)} / {amount(target)}, rounded up, is {replicas}."


def missing_assumed(pods: int, ratio: float, percent: int | None) -> str:
    has = "has" if pods == 1 else "have"
    if ratio > 1.0:
        guess = "using nothing"
    else:
        guess = "using the target" if percent is None else f"using {max(100, percent)} % of the request"
    return f"{plural(pods, 'pod')} {has} no metric yet and {'is' if pods == 1 else 'are'} taken as {guess}."


def unready_assumed(pods: int) -> str:
    return f"{plural(pods, 'pod')} not ready yet: taken as using nothing, since this would be a scale-up."


def direction_lost(first: float, then: float, replicas: int | None = None, stay: int | None = None) -> str:
    if replicas is None:
        return (
            f"With those assumptions the ratio goes from {ratio_text(first)} to {ratio_text(then)}: "
            "the direction is not certain, no change."
        )
    return (
        f"A ratio of {ratio_text(then)} would give {replicas}, against the direction "
        f"from the present {stay}: no change."
    )


def stabilized(desired: int, held: int, window_s: float, direction: str) -> str:
    extreme = "highest" if direction == "down" else "lowest"
    return (
        f"The metrics ask for {desired}, but the {extreme} recommendation of the last "
        f"{window_s:g} s holds it at {held}."
    )


def rate_limited(direction: str, limit: int, wanted: int, rule: str) -> str:
    bound = "most" if direction == "up" else "least"
    return f"{wanted} is too fast a scale-{direction}: at {bound} {limit} now ({rule})."


def bounded(wanted: int, limit: int, name: str) -> str:
    return f"{wanted} is {'above' if name == 'maxReplicas' else 'below'} {name} {limit}."


def settings(controller: Controller, source: str) -> str:
    """The flags that counted, and where they come from."""
    times = (
        f"a round every {controller.sync_period_s:g} s, tolerance {controller.tolerance:g}, "
        f"scale-down window {controller.downscale_stabilization_s:g} s, "
        f"CPU initialization period {controller.cpu_initialization_period_s:g} s, "
        f"initial readiness delay {controller.initial_readiness_delay_s:g} s"
    )
    origin = f"read from {source}" if source else "assumed: upstream's defaults, as its flags cannot be seen"
    return f"The controller's flags: {times} ({origin})."
