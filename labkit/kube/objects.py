"""Reading API objects, which are plain dicts."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from labkit.errors import ConfigError

Object = dict[str, Any]
Objects = list[Object]

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_SUFFIX = {
    **{
        suffix: 1000.0**power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{suffix: 1024.0**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def dig(obj: Any, path: str, default: Any = None) -> Any:
    """The value at a path such as `status.conditions[0].type`, `default` where a step is missing or null."""
    for name, index in _STEP.findall(path):
        if name and isinstance(obj, dict):
            obj = obj.get(name)
        elif index and isinstance(obj, list) and int(index) < len(obj):
            obj = obj[int(index)]
        else:
            return default
    return default if obj is None else obj


def condition(obj: Object, kind: str) -> Object:
    """The status condition of a type, or {}."""
    found = (entry for entry in dig(obj, "status.conditions", []) if entry.get("type") == kind)
    return next(found, {})


def is_true(obj: Object, kind: str) -> bool:
    return bool(condition(obj, kind).get("status") == "True")


def title(obj: Object) -> str:
    """`Deployment shop/web`, as messages name an object."""
    namespace = dig(obj, "metadata.namespace", "")
    return (
        f"{obj.get('kind', 'object')} {namespace}{'/' if namespace else ''}{dig(obj, 'metadata.name', '?')}"
    )


def quantity(text: str | int | float) -> float:
    """A resource quantity as a number: `250m` is 0.25, `1Gi` is 1073741824.0.

    Raises:
        ConfigError: it is not a quantity.
    """
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)", str(text))
    try:
        number, suffix = match.groups() if match else ("", "")
        return float(number) * _SUFFIX[suffix]
    except (ValueError, KeyError):
        raise ConfigError(
            f"{text!r} is not a quantity.", "Quantities are like 250m, 2, 64Mi or 1Gi."
        ) from None


def timestamp(text: str | None) -> float | None:
    """Seconds since 1970 of an API time, None for none."""
    return datetime.fromisoformat(text).timestamp() if text else None


def selector(obj: Object) -> str:
    """The label selector of a workload or Service as a query string, "" where it selects nothing."""
    found = dig(obj, "spec.selector", {})
    labels = found.get("matchLabels", {} if "matchExpressions" in found else found)
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
