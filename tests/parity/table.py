"""docs/parity.md, made from the results of this suite.

pytest tests/parity --junitxml=build/parity.xml
python -m tests.parity.table build/parity.xml            # writes docs/parity.md
python -m tests.parity.table build/parity.xml --check    # exit code 1 where it does not agree
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

from tests.parity.behaviours import PROVIDERS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
HEADINGS = {
    "workloads": "Workloads",
    "network": "Network",
    "storage": "Storage and configuration",
    "nodes": "Nodes",
    "limits": "Limits, metrics, isolation",
}
INTRODUCTION = """# What each provider does

One suite, `tests/parity`, asks the providers for the same behaviours; this table is made of its results
(`python -m tests.parity.table`). Where a provider is said not to do something, the test demands that it does not,
so that a difference which has gone cannot stay here. The provider `existing` is whatever the cluster is; labs that
add or break nodes are skipped there.
"""
NOTES = """
## What the table cannot tell

* The embedded cluster isolates nothing: its pods are processes of the user who runs it, with that user's rights. It
  is for learning, not for other people's code.
* On kind a worker's CPUs are what pods may *request*; the nodes share the machine, and a pod without a limit may use
  all of it. On the embedded cluster it is the same. A worker's memory is a real limit for its pods on kind.
* On kind a ClusterIP exists inside the nodes only. `cluster.url()` leads there through a relay on the control plane's
  node; where there is no route to the nodes (Docker Desktop on macOS and Windows, rootless Docker), it is a
  `kubectl port-forward` to one pod, and LoadBalancer addresses are reached from inside of the cluster only.
* On the embedded cluster a client outside pods is connected by the Service proxy first, and its connection is reset
  when the pod behind the Service refuses; a client in a pod is refused at once. An abstract Unix socket's name, as
  `getsockname` tells it, begins with the pod's prefix, and its server sees the pod's shim as the client's process.
"""


def cells(*junit: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Group → behaviour → provider → what to say: as expected, "failed", or "not run" with the reason."""
    found: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for case in (case for file in junit for case in ET.parse(file).getroot().iter("testcase")):
        facts = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        if "behaviour" not in facts:
            continue
        group = str(case.get("classname", "")).rpartition("test_")[2]
        skipped = case.find("skipped")
        said = str(facts["answer"])
        if case.find("failure") is not None or case.find("error") is not None:
            said = "failed"
        elif skipped is not None:
            said = f"not run: {skipped.get('message', '')}"
        found[group][str(facts["behaviour"])][str(facts["provider"])] = said
    return found


def render(found: dict[str, dict[str, dict[str, str]]]) -> str:
    """The document."""
    lines = [INTRODUCTION]
    for group, heading in HEADINGS.items():
        if group not in found:
            continue
        lines += [f"## {heading}", "", f"| | {' | '.join(PROVIDERS)} |", "|---|" + "---|" * len(PROVIDERS)]
        for title, answers in found[group].items():
            row = [answers.get(provider, "not run") for provider in PROVIDERS]
            lines.append(f"| {title} | {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines) + NOTES


def rows(document: str) -> dict[str, tuple[str, ...]]:
    """Behaviour → cells, of a document."""
    table = {}
    for line in document.splitlines():
        parts = [part.strip() for part in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(parts) == len(PROVIDERS) + 1 and parts[0].strip("| "):
            table[parts[0]] = tuple(parts[1:])
    return table


def main(argv: list[str]) -> int:
    """Write the document, or check that it agrees."""
    text = render(cells(*(Path(each) for each in argv if each != "--check")))
    if "--check" not in argv:
        DOCUMENT.write_text(text)
        print(f"{DOCUMENT}: {len(rows(text))} behaviours")
        return 0
    if text == DOCUMENT.read_text():
        print(f"{DOCUMENT.name} agrees with the results")
        return 0
    new, old = rows(text), rows(DOCUMENT.read_text())
    for title in sorted({*new, *old}):
        if new.get(title) != old.get(title):
            print(f"{title}\n  results:  {new.get(title)}\n  document: {old.get(title)}")
    print(f"{DOCUMENT.name} does not agree: python -m tests.parity.table {argv[0]}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
