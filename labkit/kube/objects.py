"""Reading API objects, which are plain dicts."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from labkit.errors import ConfigError
from labkit.kube.quantities import parse_quantity

Object = dict[str, Any]
Objects = list[Object]

_OPERATORS = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


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
    try:
        return float(parse_quantity(text))
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a quantity.", "Quantities are like 250m, 2, 64Mi or 1Gi."
        ) from None


def timestamp(text: str | None) -> float | None:
    """Seconds since 1970 of an API time, None for none."""
    return datetime.fromisoformat(text).timestamp() if text else None


def selector(obj: Object) -> str:
    """The label selector of a workload or Service as a query string, "" where it selects nothing."""
    found = dig(obj, "spec.selector", {})
    structured = "matchLabels" in found or "matchExpressions" in found
    return label_query(found if structured else {"matchLabels": found})


def label_query(selector: Object) -> str:
    """A LabelSelector as query strings have it, in upstream's order: `app=web,tier in (a,b),!old`.

    Raises:
        ConfigError: an expression has an operator or values that cannot be.
    """
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or []:
        key, operator, values = each.get("key"), each.get("operator"), each.get("values") or []
        if operator not in _OPERATORS or (operator in ("In", "NotIn")) != bool(values):
            raise ConfigError(
                f"{each!r} is not an expression of a label selector.",
                "Operators are In and NotIn with values, Exists and DoesNotExist without.",
            )
        parts.append((key, _OPERATORS[operator].format(key, ",".join(sorted(values)))))
    return ",".join(text for _, text in sorted(parts, key=lambda part: part[0]))
