"""The game day: same seed, same script; the engine goes on whatever happens; numbers from known data."""

from __future__ import annotations

import math
import random
import socket
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from labkit import load
from labkit.errors import ConfigError, KubeError, LabError
from labkit.gameday.compose import stories
from labkit.gameday.efficiency import efficiency, needed_replicas
from labkit.gameday.engine import AGAIN_S, TRIES, Engine, Operator
from labkit.gameday.faults.bad_deploy import RELEASES
from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.game import TIMEOUT_S, Game, customers
from labkit.gameday.journal import Journal
from labkit.gameday.outcome import SIGNS, STRIKES, outcomes, suffering
from labkit.gameday.reflect import reflect
from labkit.gameday.report import Report
from labkit.gameday.script import CALM_RPS, KINDS, SURGE_RPS, make_script
from labkit.gameday.slo import MONTH_MINUTES, Objective, availability, judge, per_second, spent, with_pending

OBJECTIVE = Objective(99.0, 1000)
NAN = float("nan")


# The script


def test_same_seed_same_script_and_another_seed_another_one() -> None:
    assert make_script(7, "ci") == make_script(7, "ci")
    orders = {tuple(one.kind for one in make_script(seed, "ci").incidents) for seed in range(30)}
    assert len(orders) > 15
    assert {frozenset(order) for order in orders} == {frozenset(KINDS)}


@pytest.mark.parametrize("speed", ["ci", "class"])
def test_every_incident_has_its_room(speed: str) -> None:
    for seed in range(20):
        script = make_script(seed, speed)
        begins = [one.begin_s for one in script.incidents]
        rooms = [script.pace.room_s[one.kind] for one in script.incidents]
        assert begins[0] >= script.pace.warm_up_s
        for begin, room, after in zip(begins, rooms, [*begins[1:], script.duration_s], strict=True):
            assert after >= begin + room
    assert make_script(1, "ci").duration_s < 170


def test_leaving_one_out_changes_nothing_of_the_others() -> None:
    whole, part = make_script(3), make_script(3, kinds=[kind for kind in KINDS if kind != "drift"])
    assert [(o.kind, o.choice) for o in whole.incidents if o.kind != "drift"] == [
        (o.kind, o.choice) for o in part.incidents
    ]
    assert [o.number for o in part.incidents] == [1, 2, 3, 4]


def test_what_cannot_be_scripted_is_refused() -> None:
    for wrong in ({"speed": "slow"}, {"kinds": ["earthquake"]}, {"kinds": []}):
        with pytest.raises(ConfigError):
            make_script(1, **wrong)  # type: ignore[arg-type]


def test_the_surge_is_in_the_load_and_the_load_lasts_through_overtime() -> None:
    script = make_script(5, "ci")
    profile = script.profile()
    begin = next(one.begin_s for one in script.incidents if one.kind == "load-surge")
    assert profile.rate(begin - 0.1) == CALM_RPS
    assert profile.rate(begin + script.pace.surge_s - 1) == SURGE_RPS
    assert profile.rate(begin + script.pace.surge_s + 0.1) == CALM_RPS
    assert profile.duration_s >= script.limit_s
    calm = make_script(5, "ci", ["drift"]).profile()
    assert set(calm.rate(np.arange(0, 20.0))) == {CALM_RPS}


# The service level


def requests(rows: list[tuple[float, float, int, str]]) -> pd.DataFrame:
    """(t, latency_ms, status, degraded) of each request."""
    frame = pd.DataFrame(rows, columns=["t_scheduled_s", "latency_ms", "status", "degraded"])
    return frame.assign(failed=(frame["status"] == 0) | (frame["status"] >= 400))


def steady(end_s: float, bad: Any = lambda _t: False, every_s: float = 0.1) -> pd.DataFrame:
    times = np.arange(0, end_s, every_s)
    return requests([(float(t), 20.0, 500 if bad(t) else 200, "") for t in times])


def test_a_request_is_good_when_answered_whole_and_in_time() -> None:
    judged = judge(
        requests(
            [
                (0, 10, 200, ""),
                (1, 1500, 200, ""),
                (2, 10, 200, "pricing"),
                (3, 4000, 0, ""),
                (4, 5, 503, "pricing"),
            ]
        ),
        OBJECTIVE,
    )
    assert judged["verdict"].tolist() == ["good", "slow", "degraded", "failed", "failed"]
    assert judged["bad"].tolist() == [False, True, True, True, True]
    assert judged["done_s"].tolist()[3] == 7


def test_the_budget_is_what_the_objective_allows() -> None:
    judged = judge(steady(60, lambda t: 10 <= t < 13), OBJECTIVE)  # 600 requests, 30 of them bad
    level = availability(judged, OBJECTIVE)
    assert (level.requests, level.bad, level.budget) == (600, 30, pytest.approx(6))
    assert level.percent == pytest.approx(95)
    assert level.spent_percent == pytest.approx(500)
    assert level.outage_minutes == pytest.approx(0.05, rel=0.01)
    assert level.month_percent == pytest.approx(100 * 0.05 / (MONTH_MINUTES * 0.01), rel=0.01)
    assert spent(judged)["bad"].iloc[[0, 115, -1]].tolist() == [0, 16, 30]
    table = per_second(judged, 2.0)
    assert table[["good", "slow", "degraded", "failed"]].to_numpy().sum() * 2 == 600
    assert table.loc[table["failed"] > 0, "t_seconds"].tolist() == [11, 13]


def test_without_requests_nothing_is_promised_or_spent() -> None:
    level = availability(judge(requests([]), OBJECTIVE), OBJECTIVE)
    assert math.isnan(level.percent) and level.spent_percent == 0
    for wrong in (100, 0):
        with pytest.raises(ConfigError):
            Objective(wrong)


def test_a_request_without_an_answer_is_bad_as_soon_as_it_is_late() -> None:
    arrivals = np.arange(0, 20, 0.1)
    answered = steady(20)
    known = answered[(answered["t_scheduled_s"] < 5) | (answered["t_scheduled_s"] > 8)]
    told = known[known["t_scheduled_s"] < 8.5]
    judged, later = (judge(with_pending(told, arrivals, now, OBJECTIVE), OBJECTIVE) for now in (9.0, 12.0))
    assert later.loc[later["bad"], "done_s"].min() == judged.loc[judged["bad"], "done_s"].min()
    assert judged.loc[judged["bad"], "t_seconds"].between(4.99, 7.4).all()
    assert judged["bad"].sum() == 23 and set(judged.loc[judged["bad"], "verdict"]) == {"slow"}
    assert with_pending(answered, arrivals, 30.0, OBJECTIVE) is answered


def test_what_was_answered_is_not_pending_however_its_time_was_rounded() -> None:
    arrivals = make_script(7, "ci").profile().arrivals("uniform")
    answered = requests([(round(float(t), 6), 20.0, 200, "") for t in arrivals])
    assert with_pending(answered, arrivals, arrivals[-1] + 10, OBJECTIVE) is answered


# Detected and recovered


def strikes(*rows: tuple[int, bool, float], at_once: bool = False) -> pd.DataFrame:
    return pd.DataFrame(
        [(n, "drift", hurts, at_once, struck, NAN) for n, hurts, struck in rows], columns=STRIKES
    )


def signs(*rows: tuple[int, float, bool, bool]) -> pd.DataFrame:
    return pd.DataFrame([(*row, "seen") for row in rows], columns=SIGNS)


def test_customers_suffer_from_a_tenth_of_bad_answers() -> None:
    times = np.arange(0, 10, 0.1)
    one_in_twenty, one_in_eight = (np.arange(100) % each == 0 for each in (20, 8))
    at = np.array([5.0])
    assert not suffering(times, one_in_twenty, at, ahead=False)[0]
    assert suffering(times, one_in_eight, at, ahead=False)[0]
    single = np.zeros(100, dtype=bool)
    single[50] = True
    assert not suffering(times[::10], single[::10], at, ahead=False)[0], "one bad answer is no incident"


def test_noticed_by_customers_when_answers_come_in_and_over_when_requests_sent_succeed() -> None:
    judged = judge(steady(60, lambda t: 20 <= t < 30), OBJECTIVE)
    seen = signs(*[(1, t, False, t >= 25) for t in np.arange(20, 60, 0.5)])
    row = outcomes(strikes((1, True, 20.0)), seen, judged, 60).iloc[0]
    assert row["state"] == "recovered"
    assert 20 < row["detected_s"] < 20.6 and row["detected_by"] == "customers: requests fail"
    assert 29.5 < row["recovered_s"] < 30.5
    assert row["recover_s"] == row["recovered_s"] - 20
    assert 95 <= row["bad_requests"] <= 100


def test_a_timeout_is_noticed_when_it_is_given_up() -> None:
    rows = [
        (t, 4000.0 if 20 <= t < 30 else 20.0, 0 if 20 <= t < 30 else 200, "") for t in np.arange(0, 60, 0.1)
    ]
    row = outcomes(
        strikes((1, True, 20.0)), signs((1, 20.1, False, True)), judge(requests(rows), OBJECTIVE), 60
    ).iloc[0]
    assert row["detect_s"] > 4


def test_noticed_by_the_api_and_over_only_when_objects_are_good() -> None:
    seen = signs(
        (1, 20.5, False, False), (1, 22.0, True, False), (1, 30.0, False, False), (1, 41.0, False, True)
    )
    row = outcomes(strikes((1, False, 20.0)), seen, judge(steady(60), OBJECTIVE), 60).iloc[0]
    assert (row["detected_s"], row["detected_by"]) == (22.0, "seen")
    assert 41 <= row["recovered_s"] <= 41.25
    assert row["bad_requests"] == 0


def test_good_must_hold_before_it_is_over() -> None:
    flapping = signs(
        *[(1, float(t), False, t % 2 == 0) for t in range(22, 50)],
        (1, 50.0, False, True),
        (1, 21.0, True, False),
    )
    table = outcomes(
        strikes((1, False, 20.0)), flapping.sort_values("t_seconds"), judge(steady(60), OBJECTIVE), 60
    )
    assert table["recovered_s"].iloc[0] >= 50
    assert (
        outcomes(
            strikes((1, False, 20.0)), flapping.sort_values("t_seconds"), judge(steady(60), OBJECTIVE), 52
        ).iloc[0]["state"]
        == "detected"
    )


def test_what_nobody_saw_stays_open_and_what_comes_later_is_to_come() -> None:
    table = outcomes(
        strikes((1, True, 20.0), (2, True, NAN), (3, True, 99.0)),
        signs((1, 21.0, False, True)),
        judge(steady(60), OBJECTIVE),
        60,
    )
    assert table["state"].tolist() == ["open", "to come", "to come"]
    assert table["detect_s"].isna().all() and table["bad_requests"].tolist() == [0, 0, 0]


def test_what_heals_before_anybody_notices_is_over_and_not_blamed_for_what_comes_later() -> None:
    judged = judge(steady(60, lambda t: 40 <= t < 50), OBJECTIVE)
    healed = signs((1, 20.2, False, False), *[(1, t, False, True) for t in np.arange(20.7, 60, 0.5)])
    row = outcomes(strikes((1, True, 20.0), at_once=True), healed, judged, 60).iloc[0]
    assert row["state"] == "recovered" and row["recover_s"] == pytest.approx(0.75, abs=0.3)
    assert math.isnan(row["detected_s"]) and math.isnan(row["detect_s"]) and row["detected_by"] == ""
    assert row["bad_requests"] == 0
    later = outcomes(strikes((1, True, 20.0)), healed, judged, 60).iloc[0]
    assert later["detect_s"] > 20, "what takes effect later looks good at first"
    noticed = judge(steady(60, lambda t: 20 <= t < 21), OBJECTIVE)
    row = outcomes(strikes((1, True, 20.0), at_once=True), healed, noticed, 60).iloc[0]
    assert row["detect_s"] < 1 and 20.7 <= row["recovered_s"] < 22


def test_bad_requests_count_for_the_latest_open_incident_that_can_hurt() -> None:
    judged = judge(steady(60, lambda t: 20 <= t < 40), OBJECTIVE)
    seen = signs(*[(n, t, True, t >= 40) for t in np.arange(20, 60, 0.5) for n in (1, 2, 3)])
    table = outcomes(strikes((1, True, 20.0), (2, True, 30.0), (3, False, 35.0)), seen, judged, 60)
    assert table["bad_requests"].tolist() == [100, pytest.approx(98, abs=3), 0]
    first, second = table["detected_s"][:2]
    assert first < 21 and second >= 30, "suffering that was there before tells nothing of the second one"
    assert table["detected_by"].tolist()[1] == "seen"


# The autoscaler


def test_ideal_replicas_work_just_at_the_target() -> None:
    assert needed_replicas([0, 4, 5, 5.1, 99], 24, 120, 1, 6).tolist() == [1, 1, 1, 2, 6]


def test_efficiency_counts_spare_and_missing_replicas() -> None:
    profile = load.constant(5, 50) + load.constant(20, 50)
    ready = pd.DataFrame({"t_seconds": [-3.0, 60.0], "ready_replicas": [1, 5]})
    usage = pd.DataFrame({"cpu_millicores": [100.0, 100.0], "window_s": [10.0, 10.0]})
    done = 1000
    work = efficiency(ready, profile, 1.0, done, usage, target_millicores=125, low=1, high=6, end_s=100)
    assert work.replica_seconds == 60 + 5 * 40
    assert work.cpu_ms_per_request == pytest.approx(100 * 260 / 1000)
    assert work.ideal_replica_seconds == 50 * 2 + 50 * 5
    assert (work.too_few_s, work.too_many_s) == (50 * 1 + 10 * 4, 0)
    assert work.offered == pytest.approx(1250)
    assert work.percent == pytest.approx(100 * (1000 / 260) / (1250 / 350))
    empty = efficiency(
        ready, profile, 1.0, 0, usage.iloc[:0], target_millicores=125, low=1, high=6, end_s=100
    )
    assert empty.percent == 0 and empty.cpu_ms_per_request == 0


# The engine


class Inline(Executor):
    """Runs what is submitted at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Threaded(Executor):
    """One thread, waited for: what is raised stays in the future, as in the game."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(fn, *args, **kwargs)


class Pretended(Fault):
    """Breaks when struck, shows it after `shows_s`, and is good again `heals_s` after a repair."""

    kind, title = "drift", "something"
    commands = ("repair it",)

    def __init__(
        self, clock: Any, *, shows_s: float = 1.0, heals_s: float = 2.0, trouble: frozenset[str] = frozenset()
    ) -> None:
        self.clock, self.shows_s, self.heals_s, self.trouble = clock, shows_s, heals_s, trouble
        self.struck_s = self.repaired_s = NAN
        self.repairs = 0

    def strike(self) -> str:
        if "strike" in self.trouble:
            raise KubeError("refused")
        self.struck_s = self.clock()
        return "it broke"

    def look(self) -> Sign:
        if "look" in self.trouble and self.clock() < self.struck_s + 5:
            raise KubeError("no answer")
        good = self.clock() >= self.repaired_s + self.heals_s
        return Sign(not good and self.clock() >= self.struck_s + self.shows_s, good, "it shows")

    def repair(self) -> None:
        self.repairs += 1
        if "repair" in self.trouble and self.repairs == 1:
            raise KubeError("the repair was refused")
        self.repaired_s = self.clock()


class Played:
    """A game on a clock that only the test moves."""

    def __init__(
        self,
        operator: Operator | None = None,
        seed: int = 2,
        executor: type[Executor] = Inline,
        **made: dict[str, Any],
    ) -> None:
        self.now = 0.0
        self.script = make_script(seed, "ci")
        self.faults = {
            o.number: Pretended(self.clock, **made.get(f"n{o.number}", {})) for o in self.script.incidents
        }
        frame = steady(self.script.limit_s, every_s=0.5)
        self.engine = Engine(
            self.script, self.faults, requests=lambda: frame[frame["t_scheduled_s"] <= self.now], clock=self.clock,
            executor=executor(), objective=OBJECTIVE, operator=operator,
        )  # fmt: skip

    def clock(self) -> float:
        return self.now

    def play(self) -> pd.DataFrame:
        for _ in range(1000):
            if self.engine.over:
                return self.engine.outcomes()
            self.engine.tick()
            self.now += 1.0
        raise AssertionError("it does not end")


def test_what_healed_unnoticed_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pretended, "at_once", True)
    game = Played(Operator(2.0), n1={"shows_s": 1.0, "heals_s": -1e9})
    game.faults[1].repaired_s = 0.0
    table = game.play()
    assert table["state"].tolist() == ["recovered"] * 5
    told = [str(entry) for entry in game.engine.journal.entries() if entry.number == 1]
    assert "before anybody noticed" in told[-1] and not any("detected" in line for line in told)
    assert game.faults[1].repairs == 0


def test_the_reference_operator_repairs_everything() -> None:
    game = Played(Operator(2.0))
    table = game.play()
    assert table["state"].tolist() == ["recovered"] * 5
    assert table["detect_s"].between(1, 3).all() and table["recover_s"].between(5, 11).all()
    assert all(fault.repairs == 1 for fault in game.faults.values())
    assert game.now <= game.script.duration_s + 6
    struck = table["struck_s"].tolist()
    assert all(0 <= at - one.begin_s <= 1 for at, one in zip(struck, game.script.incidents, strict=True))


def test_nobody_acts_and_the_script_goes_on_to_its_end() -> None:
    game = Played()
    table = game.play()
    assert table["state"].tolist() == ["detected"] * 5
    assert game.script.limit_s <= game.now < game.script.limit_s + 3
    assert "still open: incident 1" in game.engine.journal.entries()[-1].text
    game.now += 1000
    game.faults[1].repaired_s = 0.0
    assert game.engine.outcomes()["state"].tolist() == ["detected"] * 5, (
        "what happens later is not part of the shift"
    )


def test_late_and_by_hand_is_fine_too() -> None:
    game = Played()
    for _ in range(1000):
        game.engine.tick()
        game.now += 0.5
        if game.engine.over:
            break
        if game.now == 100.0:
            for fault in game.faults.values():
                fault.repaired_s = 100.0
    table = game.engine.outcomes()
    late = table[table["struck_s"] < 90]
    assert (late["state"] == "recovered").all() and (late["recovered_s"] > 100).all()


def test_one_that_is_skipped_holds_up_nothing() -> None:
    game = Played(Operator(2.0, frozenset({2})))
    table = game.play()
    assert table.set_index("number")["state"].drop(2).eq("recovered").all()
    assert table.set_index("number")["state"][2] == "detected"


def test_trouble_is_told_and_survived() -> None:
    game = Played(Operator(2.0), n1={"trouble": frozenset({"strike"})}, n2={"trouble": frozenset({"repair"})},
                  n3={"trouble": frozenset({"look"})})  # fmt: skip
    table = game.play().set_index("number")
    assert table["state"][[2, 3, 4, 5]].eq("recovered").all() and table["state"][1] != "recovered"
    told = [entry.text for entry in game.engine.journal.entries() if entry.what == "trouble"]
    assert told == ["the strike failed: refused", "the repair failed: the repair was refused"]
    assert game.faults[2].repairs == 2 and table["recover_s"][2] > AGAIN_S
    assert game.now <= game.script.duration_s + AGAIN_S, "an incident that could not strike is not waited for"
    assert stories(game.engine)[1].what == "the strike failed: refused"


def test_an_error_of_any_kind_in_the_executor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the futures of strikes, looks and repairs: what is raised there must not vanish."""

    plain = {name: getattr(Pretended, name) for name in ("strike", "look", "repair")}
    for name in plain:

        def run(fault: Pretended, name: str = name) -> Any:
            if name in fault.trouble:
                raise ZeroDivisionError(f"in {name}")
            return plain[name](fault)

        monkeypatch.setattr(Pretended, name, run)
    game = Played(Operator(2.0), executor=Threaded, n1={"trouble": frozenset({"strike"})}, n2={"trouble": frozenset({"look"})},
                  n3={"trouble": frozenset({"repair"})})  # fmt: skip
    table = game.play().set_index("number")
    told = [(one.number, one.text) for one in game.engine.journal.entries() if one.what == "trouble"]
    assert told == [
        (1, "strike: ZeroDivisionError: in strike"),
        (2, "see: ZeroDivisionError: in look"),
        (3, "repair: ZeroDivisionError: in repair"),
    ], "each once"
    assert table["state"][[4, 5]].eq("recovered").all()


def test_requests_that_hang_when_the_shift_ends_are_bad() -> None:
    """A release that hangs at the end: the customers' open requests count against the shop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        profile = load.constant(20, 30)
        traffic = load.start(customers(url), profile, spacing="uniform", timeout_s=TIMEOUT_S)
        time.sleep(1.0)
        result = traffic.stop()
    level = availability(judge(result.requests, OBJECTIVE), OBJECTIVE)
    sent = (profile.arrivals("uniform") < result.profile.duration_s).sum()
    assert level.requests == level.bad == sent > 0


def test_what_the_generator_could_not_send_is_no_open_request() -> None:
    arrivals, none = np.arange(0, 20, 0.1), steady(0)
    assert len(with_pending(none, arrivals, 30.0, OBJECTIVE)) == len(arrivals)
    assert len(with_pending(none, arrivals, 30.0, OBJECTIVE, unsent=arrivals[50:])) == 50


def test_a_repair_that_does_not_help_is_tried_a_few_times_only() -> None:
    game = Played(Operator(2.0), n1={"heals_s": 1e9})
    game.play()
    assert game.faults[1].repairs == TRIES


def test_an_incident_that_shows_late_is_waited_for() -> None:
    game = Played(Operator(2.0))
    last = game.script.incidents[-1]
    game.faults[last.number].shows_s = game.script.duration_s + 20 - last.begin_s
    table = game.play().set_index("number")
    assert table["state"].eq("recovered").all() and table["detected_s"][last.number] > game.script.duration_s


def test_the_journal_keeps_secrets_until_the_end() -> None:
    game = Played(Operator(2.0))
    game.play()
    open_lines = [str(entry) for entry in game.engine.journal.entries() if not entry.secret]
    assert not any("broke" in line or "struck" in line for line in open_lines)
    assert sum("detected" in line for line in open_lines) == 5


# Releases, reflection, report


def test_each_bad_release_is_a_patch_of_one_deployment() -> None:
    for release in RELEASES:
        patch = yaml.safe_load(release.text())
        assert patch["metadata"]["name"] == release.deployment
        (container,) = patch["spec"]["template"]["spec"]["containers"]
        live = {"spec": {"template": {"spec": {"containers": [container]}}}}
        assert release.is_live(live)
        assert not release.is_live(
            {"spec": {"template": {"spec": {"containers": [{"image": "shop/frontend:v1"}]}}}}
        )


def test_answers_are_kept_and_unknown_questions_refused() -> None:
    answers = reflect(hard="The node", helped="  Argo CD ").answers
    assert list(answers.values()) == ["The node", "Argo CD", ""]
    with pytest.raises(ConfigError):
        reflect(easy="Nothing")


def report(**changes: Any) -> Report:
    game = Played(Operator(2.0), n2={"shows_s": 4.0})
    table = game.play()
    chance = random.Random(4)
    frame = steady(game.now, lambda t: 12 <= t < 18 and chance.random() < 0.5)
    judged = judge(frame, OBJECTIVE)
    ready = pd.DataFrame({"t_seconds": [0.0, 60.0, 100.0], "ready_replicas": [2, 4, 2]})
    usage = pd.DataFrame({"cpu_millicores": [100.0], "window_s": [10.0]})
    work = efficiency(
        ready, game.script.profile(), 0.7, 700, usage, target_millicores=120, low=2, high=6, end_s=game.now
    )
    nodes = pd.DataFrame({"t_seconds": [0.0, 50.0, 51.0, 60.0], "ready": [2, 1, 1, 2], "all": 2})
    made = {"answers": reflect(hard="<b>nothing</b>").answers, **changes}
    return Report(
        2,
        OBJECTIVE,
        judged,
        table,
        stories(game.engine),
        work,
        nodes,
        tuple(game.engine.journal.entries()),
        **made,
    )


def test_the_report_has_every_part_and_loads_nothing(tmp_path: Path) -> None:
    made = report(left_out={"drift": "it is not there"})
    path = made.save(tmp_path / "shift")
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 3
    for part in (
        "Logbook",
        "Reflection",
        "What was hard?",
        "error budget",
        "it is not there",
        "repair it",
        "What the words mean",
    ):
        assert part in page, part
    assert "&lt;b&gt;nothing&lt;/b&gt;" in page and "<b>nothing</b>" not in page
    assert "no answer yet" in page
    assert 'src="http' not in page and "<script" not in page
    assert (tmp_path / "shift" / "summary.json").exists()
    assert len(pd.read_csv(tmp_path / "shift" / "incidents.csv")) == 5
    assert made.times["repaired by"].tolist() == [*["you"] * 4, "nobody: it ended"]
    assert made.times["incident"].tolist() == ["something"] * 5


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot be written"):
        report().save(tmp_path / "file" / "below")


def test_an_incident_nobody_repaired_is_said_to_be_open() -> None:
    made = report()
    table = made.outcomes.copy()
    table.loc[1, ["state", "recovered_s", "recover_s"]] = ["detected", NAN, NAN]
    changed = Report(**{**made.__dict__, "outcomes": table})
    assert "not over" in changed.page() and changed.times["repaired by"].iloc[1] == "nobody"
    assert changed.headline().startswith("4 of 5 incidents over")


def test_an_autoscaler_that_did_nothing_gets_no_credit() -> None:
    made = report()
    table = made.outcomes.assign(kind="load-surge", struck_s=50.0, recovered_s=70.0)
    scaled, idle = (
        Report(**{**made.__dict__, "outcomes": table.assign(recovered_s=end)}) for end in (70.0, 55.0)
    )
    assert scaled.times["repaired by"].tolist() == ["you"] * 5
    assert idle.times["repaired by"].tolist() == ["nobody: it ended"] * 5


class Screen:
    """Stands where a dashboard would be."""

    def __init__(self) -> None:
        self.told = self.stopped = 0

    def tell(self) -> None:
        self.told += 1

    def stop(self) -> None:
        self.stopped += 1


def test_following_a_shift_leaves_the_desk_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    game, screen = Game.__new__(Game), Screen()
    game.script, journal = make_script(7, "ci"), Journal(lambda: 12.0)
    parts: dict[str, Any] = {
        "_thread": SimpleNamespace(join=lambda _s: None), "_stop": threading.Event(), "_told": 0,
        "_result": "there is one", "engine": SimpleNamespace(journal=journal),
        "traffic": SimpleNamespace(t_seconds=game.script.duration_s - 70),
    }  # fmt: skip
    for name, part in parts.items():
        setattr(game, name, part)
    journal.write("struck", "worker-1 lost power", 1, secret=True)
    journal.write("detected", "requests fail", 1)
    game.follow(screen)
    said = capsys.readouterr().out
    assert "requests fail" in said and "lost power" not in said and "1 min 10 s" in said
    game.follow(screen)
    assert "requests fail" not in capsys.readouterr().out and not screen.stopped
    journal.write("recovered", "all is well", 1)
    game._stop.set()
    game.follow(screen)
    said = capsys.readouterr().out
    assert "all is well" in said and said.rstrip().endswith("The shift is over.") and screen.stopped == 1
