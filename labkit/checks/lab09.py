"""Checks of lab 09: the game day."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labkit.addons.argocd import ArgoCD
from labkit.checks.core import Finding, expect
from labkit.checks.objects import seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.errors import ConfigError
from labkit.gameday import Game, Report
from labkit.gameday.alerting import EARLY_S, LINGER_S, Alert, judge_alert, read_alert, unheard
from labkit.gameday.build import SERVICES
from labkit.gameday.gitops import APPLICATION
from labkit.gameday.practice import practice_shift
from labkit.gameday.reflect import Reflection
from labkit.gameday.review import lacks
from labkit.kube import dig
from labkit.kube.conditions import rollout_lacks
from labkit.kube.connection import NotFound
from labkit.kube.objects import condition, is_true

SHOP = "shop"


@define(
    "09-system-stands", "The finished system stands: shop, load balancer, Argo CD, autoscaler", deadline_s=90
)
def system_stands(cluster: Cluster) -> Iterator[Finding]:
    """Argo CD has synchronized the shop; it has an external address, and an autoscaler sees its pods."""
    for name in SERVICES:
        deployment = cluster.kube.find("Deployment", name, namespace=SHOP)
        lacks = rollout_lacks(deployment) if deployment else "it is not there"
        yield expect(not lacks, f"{name} runs", lacks)
    service = cluster.kube.find("Service", "frontend", namespace=SHOP)
    address = dig(service, "status.loadBalancer.ingress[0].ip")
    yield expect(
        address is not None, "the shop has an address for the world outside", "its Service has none yet"
    )
    yield _synced(cluster)
    hpa = cluster.kube.find("HorizontalPodAutoscaler", "pricing", namespace=SHOP)
    there = seen(cluster, "HorizontalPodAutoscaler", SHOP)
    said = condition(hpa, "ScalingActive").get("message", "it has not looked yet") if hpa else there
    active = hpa is not None and condition(hpa, "ScalingActive").get("status") == "True"
    yield expect(active, "the autoscaler sees the CPU of pricing", said)


@define("09-shift-over", "The shift is over, and so is every incident", deadline_s=5)
def shift_over(game: Game) -> Iterator[Finding]:
    """Every incident of the script struck, was noticed, and is over."""
    over = game.engine.over
    yield expect(over, "the shift is over", f"{game.left()}; look at your desk")
    if not over:
        return
    for row in game.outcomes.to_dict("records"):
        fault = game.engine.fault(int(row["number"]))
        last = game.engine.signs
        last = last[last["number"] == row["number"]]
        saw = str(last["text"].iloc[-1]) if len(last) else "nobody looked at it"
        text = f"incident {row['number']}, {fault.title}, is over"
        told = [each for each in game.engine.journal.entries() if each.number == row["number"]]
        log = "; ".join(str(each).strip() for each in told)
        yield expect(
            row["state"] == "recovered",
            text,
            f"it is {row['state']}; at the end of the shift: {saw}. The logbook: {log}",
        )


@define("09-causes", "You know what each incident was", deadline_s=0)
def causes(game: Game, answer: object) -> Iterator[Finding]:
    """The learner names the kind of each incident, in the order in which they struck."""
    seen_by = {int(row["number"]): str(row["detected_by"]) for row in game.outcomes.to_dict("records")}
    yield from diagnosed([one.kind for one in game.script.incidents], answer, seen_by)


def diagnosed(kinds: list[str], answer: object, seen_by: Mapping[int, str]) -> Iterator[Finding]:
    """Whether a diagnosis is right.

    Args:
        seen_by: number of the incident → its first symptom; "" where nobody noticed it.
    """
    given = [str(each).strip().lower() for each in answer] if isinstance(answer, list | tuple) else []
    text = f"you name {len(kinds)} incidents"
    told = f"you named {len(given)}" if given else f"you said {answer!r}, which is no list of kinds"
    yield expect(len(given) == len(kinds), text, told, "count")
    for number, (kind, said) in enumerate(zip(kinds, given, strict=False), 1):
        symptom = seen_by.get(number) or "nobody noticed it"
        told = f"you said {said}; its first symptom was: {symptom}"
        yield expect(said == kind, f"incident {number} was what you say", told, kind)


@define("09-alert", "Your alert rings early, never in vain, and stops in time", deadline_s=0)
def alert(file: str | Path, report: Report) -> Iterator[Finding]:
    """The learner's burn-rate alert, on the practice shift and on the learner's own."""
    try:
        rules = read_alert(file)
    except ConfigError as error:
        yield expect(False, f"{file} is an alert", f"{error.message} {error.hint}".strip(), "unreadable")
        return
    yield from on_practice(rules)
    missed = unheard(rules, report.judged, report.outcomes)
    names = ", ".join(f"{number}, {report.titles[number]}" for number in missed)
    text = "it rings for each severe incident of your own shift"
    yield expect(not missed, text, f"it was silent all through incident {names}", "own")


def on_practice(rules: Alert) -> Iterator[Finding]:
    """How an alert does on the practice shift, where every mistake shows."""
    told = judge_alert(rules, *practice_shift())
    rows = told.incidents
    silent = rows.loc[rows["told_s"].isna()]
    lasted = silent["last_bad_s"] - silent["first_bad_s"]
    worst = ", ".join(f"{number} ({s:.0f} s)" for number, s in zip(silent["number"], lasted, strict=True))
    yield expect(silent.empty, "it rings for each incident", f"it is silent all through {worst}", "missed")
    late = rows.loc[rows["after_s"] > EARLY_S, "after_s"]
    text = f"within {EARLY_S:.0f} s of the first bad answer"
    yield expect(late.empty, text, f"it rings after up to {late.max():.0f} s", "late")
    vain = ", ".join(f"{begin:.0f} s" for begin, _ in told.in_vain[:5])
    vain = f"it rings in vain {len(told.in_vain)} times: at {vain}"
    yield expect(not told.in_vain, "never while nothing is wrong", vain, "in-vain")
    on = rows.loc[rows["rings_on_s"] > LINGER_S, "rings_on_s"]
    text = f"it stops within {LINGER_S:.0f} s when customers are well again"
    yield expect(on.empty, text, f"it rings on for up to {on.max():.0f} s", "lingers")


@define("09-review", "The review is in your own words", deadline_s=0)
def review(game: Game, reflection: Reflection) -> Iterator[Finding]:
    """Each question has an answer of the learner's own, and one of them rests on what happened."""
    answers = reflection.answers
    found = dict(lacks(answers, [one.kind for one in game.script.incidents]))
    for key, text in REVIEW.items():
        yield expect(key not in found, text, found.get(key, ""), key)


REVIEW = {
    "empty": "each question has an answer",
    "example": "none of them is the example's",
    "same": "no two are the same",
    "short": "each is a sentence at least",
    "evidence": "one of them rests on what happened in this shift",
}


@define("09-report-kept", "The report of your own shift is kept, with your answers", deadline_s=0)
def report_kept(game: Game, folder: str | Path) -> Iterator[Finding]:
    """report.html and summary.json are of this very shift, and each question has an answer."""
    path = Path(folder)
    page, summary = path / "report.html", _summary(path / "summary.json")
    yield expect(page.is_file(), f"there is {page}", f"{path} has: {_names(path)}")
    mine = summary.get("started_at") == round(game.traffic.started_at, 3)
    yield expect(
        mine, "it is of this shift", "what is there is of another one" if summary else "there is none"
    )
    answers = summary.get("answers", {})
    empty = [question for question, answer in answers.items() if not answer]
    yield expect(
        bool(answers) and not empty,
        "each question has an answer",
        f"without one: {', '.join(empty) or 'all'}",
    )


@define("09-cleaned-up", "All nodes are back, and what the game brought is gone", deadline_s=90)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """No Application, no namespaces shop and campaign, every node Ready."""
    try:
        there = cluster.kube.find("Application", APPLICATION, namespace="argocd") is not None
    except NotFound:
        there = False
    yield expect(not there, "Argo CD has let go of the shop", f"there is still an Application {APPLICATION}")
    for name in (SHOP, "campaign"):
        space = cluster.kube.find("Namespace", name)
        phase = dig(space, "status.phase", "")
        yield expect(space is None or phase == "Terminating", f"the namespace {name} goes", f"it is {phase}")
    lost = [dig(node, "metadata.name") for node in cluster.kube.list("Node") if not is_true(node, "Ready")]
    yield expect(not lost, "every node is Ready", f"not Ready: {', '.join(lost)}")


def _synced(cluster: Cluster) -> Finding:
    try:
        status = ArgoCD(cluster).application(APPLICATION).status()
    except NotFound as error:
        return expect(False, "Argo CD keeps the shop as git says", error.message)
    good = status.sync == "Synced" and status.health == "Healthy"
    return expect(good, "Argo CD keeps the shop as git says", str(status))


def _summary(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _names(folder: Path) -> str:
    return ", ".join(sorted(each.name for each in folder.iterdir())) if folder.is_dir() else "nothing"
