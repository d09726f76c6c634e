"""The pipeline's runs as act tells them, the workflow's file, and its scripts."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from labkit import plots
from labkit.addons.argocd import Delivery, chain, deliveries_frame
from labkit.addons.argocd.application import app_status, settled
from labkit.addons.pipeline import Run, Step, runs_frame
from labkit.addons.pipeline.environment import environment
from labkit.addons.pipeline.execute import _follow
from labkit.addons.pipeline.run import Reader

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "services/.github/workflows/deliver.yml"


class Clock:
    """Counts up one second at each look."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def line(job: str, step: str, **more: Any) -> str:
    """A line as act writes it."""
    return json.dumps({"jobID": job, "job": f"deliver/{job}", "step": step, "level": "info", **more}) + "\n"


def read(*lines: str, secrets: tuple[str, ...] = ()) -> Reader:
    reader = Reader(100.0, secrets, Clock())
    for each in lines:
        reader.line(each)
    return reader


def begun(job: str, step: str) -> str:
    return line(job, step, msg=f"⭐ Run Main {step}")


def ended(job: str, step: str, result: str, seconds: float) -> str:
    return line(job, step, msg="…", stepResult=result, executionTime=int(seconds * 1e9))


def test_steps_have_their_times_and_output() -> None:
    reader = read(
        line("test", "Set up job", msg="⭐ Run Set up job"),
        begun("test", "Test"),
        line("test", "Test", msg="2 passed\n", raw_output=True),
        ended("test", "Test", "success", 1.5),
        begun("image", "Build"),
    )
    assert reader.steps == (
        Step("test", "Test", "success", 1.0, 1.5, "2 passed\n"),
        Step("image", "Build", "running", 2.0, 0.0, ""),
    )


def test_a_failed_step_is_the_problem_with_its_last_words() -> None:
    reader = read(
        begun("test", "Test"),
        line(
            "test", "Test", msg="FAILED test_catalog.py::test_prices\n1 failed, 2 passed\n", raw_output=True
        ),
        ended("test", "Test", "failure", 1.5),
        line("test", "Test", level="error", msg="exit status 1"),
    )
    assert reader.problem() == "test · Test failed: FAILED test_catalog.py::test_prices"
    assert not reader.invalid


def test_a_workflow_that_cannot_be_read() -> None:
    reader = read(
        "Error: workflow is not valid. 'deliver.yml': Line: 18 Column 5: Failed to match job-factory: "
        "Line: 18 Column 5: Unknown Property stps\n",
        "Line: 18 Column 5: Failed to match workflow-job: Line: 18 Column 5: Unknown Property stps\n",
        "Actions YAML Schema Validation Error detected:\n",
    )
    assert reader.invalid and reader.steps == ()
    assert reader.problem() == "deliver.yml, line 18: Unknown Property stps"
    reader = read("Error: workflow is not valid. 'deliver.yml': yaml: line 16: did not find expected ','\n")
    assert reader.invalid and reader.problem().endswith("line 16: did not find expected ','")
    reader = read("Error: Could not find any stages to run. View the valid jobs with `act --list`.\n")
    assert reader.invalid and "a job that does not exist" in reader.problem()


SECRETS = {
    "OPENAI_API_KEY": "hush-1", "AWS_ACCESS_KEY_ID": "hush-2", "AWS_SECRET_ACCESS_KEY": "hush-3",
    "SSH_AUTH_SOCK": "/tmp/hush-4", "HTTPS_PROXY": "http://me:hush-5@proxy.example:3128",
    "http_proxy": "http://me:hush-6@proxy.example:3128", "PIP_INDEX_URL": "https://me:hush-7@pypi.example/simple",
    "UV_INDEX": "own=https://hush-8@pypi.example/simple", "NETRC": "/hush-9", "MY_PASSPHRASE": "hush-10",
    "DATABASE_URL": "postgres://me:hush-11@db/x", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/hush-12",
    "LABKIT_TUNNEL_TOKEN": "hush-13", "GITHUB_TOKEN": "hush-14", "DOCKER_AUTH_CONFIG": "hush-15",
    "KUBECONFIG": "/hush-16", "XDG_RUNTIME_DIR": "/hush-17", "GNUPGHOME": "/hush-18", "JPY_API_TOKEN": "hush-19",
}  # fmt: skip


@pytest.mark.parametrize("kubeconfig", [True, False])
def test_steps_see_what_they_need_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubeconfig: bool
) -> None:
    """A step that prints its environment and looks into its home, run as act is run."""
    for name, value in {**SECRETS, "LANG": "C.UTF-8", "SSL_CERT_FILE": "/etc/ca.pem",
                        "https_proxy": "http://proxy.example:3128"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "user/.ssh").mkdir(parents=True)
    (tmp_path / "user/.netrc").write_text("machine x login me password hush-20\n")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    runner = tmp_path / "runner"
    runner.mkdir()
    if kubeconfig:
        (runner / "kubeconfig").touch()
    cluster: Any = SimpleNamespace(name="demo", provider="embedded")
    env = environment(cluster, "http://127.18.0.5:80", runner, [tmp_path / "tools"])
    with (tmp_path / "log").open("w") as log:
        look = ["/bin/sh", "-c", "env; ls -A ~; cat ~/.netrc; git config --global --list; echo $PATH"]
        _follow(look, env, threading.Event(), Reader(0.0), log)
    said = (tmp_path / "log").read_text()
    assert "hush" not in said, [line for line in said.splitlines() if "hush" in line]
    seen = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert seen["LANG"] == "C.UTF-8" and seen["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert seen["https_proxy"] == "http://proxy.example:3128", "without a password it is needed, and harmless"
    assert "127.18.0.5" in seen["NO_PROXY"] and seen["LABKIT_CLUSTER"] == "demo"
    assert seen["HOME"] == str(runner / "home") and seen["PATH"].split(":")[1] == str(tmp_path / "tools")
    assert seen["XDG_STATE_HOME"] == str(tmp_path / "user/.local/state"), (
        "labkit in a step finds the clusters"
    )
    assert seen.get("KUBECONFIG") == (str(runner / "kubeconfig") if kubeconfig else None)


def test_secrets_are_masked_should_they_get_so_far() -> None:
    reader = read(
        begun("test", "Test"),
        line("test", "Test", msg="the token is hush\n", raw_output=True),
        "plain hush\n",
        secrets=("hush",),
    )
    assert reader.steps[0].output == "the token is ***\n"
    assert "hush" not in reader.problem()


def run(number: int, result: str = "success") -> Run:
    steps = [Step("test", "Check out", "success", 1, 1), Step("test", "Test", result, 2, 8, "2 passed\n")]
    if result == "success":
        steps += [Step("image", "Build", "success", 11, 4), Step("deploy", "Write the tag", "success", 16, 2)]
    problem = "" if result == "success" else "test · Test failed"
    return Run(number, f"{number}" * 40, "A change", result, problem, tuple(steps), 18.0, 1000.0)


def test_a_run_reads_well() -> None:
    said = str(run(2, "failure"))
    assert said.startswith("run 2 · 2222222 “A change”: failure after 18 s")
    assert "✘ test · Test" in said and said.endswith("✘ test · Test failed")
    assert run(1).jobs == ["test", "image", "deploy"] and run(1).ok
    assert run(1).log("test") == "── test · Test\n2 passed"


def test_figures_say_what_happened() -> None:
    frame = runs_frame([run(1), run(2, "failure")])
    assert list(frame.columns) == ["run", "commit", "job", "step", "result", "begin_s", "seconds"]
    figure = plots.pipeline_figure(frame, names={1: "good", 2: "bad"})
    words = [text.get_text() for text in figure.texts]
    assert words[0] == "From push to rollout in 18 s; a failing test stops the others"
    found = deliveries_frame(
        [Delivery("a", "1" * 40, "polling", 6, 7, 9), Delivery("b", "2" * 40, "refresh", 1, 2, 4)]
    )
    figure = plots.delivery_figure(found)
    assert "looks after 1.0 s; by polling after 6.0 s" in figure.texts[0].get_text()
    for draw in (plots.pipeline_figure, plots.delivery_figure):
        with pytest.raises(Exception, match="There are no"):
            draw(pd.DataFrame(columns=frame.columns))


def test_the_chain_begins_with_the_push_and_ends_with_the_pods() -> None:
    stages = chain(run(1), Delivery("release", "1" * 40, "refresh", 1.0, 2.0, 7.0, since=1019.0))
    assert [stage.name for stage in stages] == [
        "runner", "test", "image", "deploy", "Argo CD", "sync", "rollout",
    ]  # fmt: skip
    assert stages[0].begin_s == 0 and stages[4].begin_s == 19
    assert stages[-1].begin_s + stages[-1].seconds == 26


def application(**status: Any) -> dict[str, Any]:
    return {"kind": "Application", "metadata": {"name": "shop"}, "status": status}


def test_what_an_application_says() -> None:
    new = app_status(application())
    assert (new.sync, new.health, new.revision) == ("Unknown", "Missing", "")
    good = app_status(
        application(
            sync={"status": "Synced", "revision": "abc"},
            health={"status": "Healthy"},
            operationState={
                "phase": "Succeeded",
                "message": "successfully synced",
                "syncResult": {"revision": "abc"},
            },
        )
    )
    assert settled(good, "abc") and settled(good) and not settled(good, "def") and good.message == ""
    bad = app_status(
        application(
            sync={"status": "Unknown"},
            conditions=[{"type": "ComparisonError", "message": "manifest is wrong"}],
            operationState={"phase": "Failed", "message": "one object was refused"},
        )
    )
    assert bad.message == "manifest is wrong; one object was refused" and not settled(bad)
    failed = {"phase": "Failed", "message": "one object was refused", "syncResult": {"revision": "bad"}}
    there = {"sync": {"status": "Synced", "revision": "good"}, "health": {"status": "Healthy"}}
    back = app_status(application(**there, operationState=failed))
    assert settled(back, "good") and back.message == "", "the revert of what was refused needs no sync"
    under_way = app_status(application(**there, operationState={**failed, "phase": "Running"}))
    assert not settled(under_way, "good")


def test_the_workflow_has_only_run_steps_and_needs_in_order() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow[True] == {"push": {"branches": ["main"]}}  # YAML 1.1 reads `on` as true
    jobs = workflow["jobs"]
    assert list(jobs) == ["test", "image", "deploy"]
    assert jobs["image"]["needs"] == "test" and jobs["deploy"]["needs"] == ["test", "image"]
    for job in jobs.values():
        assert job["runs-on"] == "ubuntu-latest"
        for step in job["steps"]:
            assert "run" in step and "uses" not in step and step["name"]


def test_the_scripts_can_be_executed_and_say_what_they_do() -> None:
    for name in ("apply", "changed", "image", "release", "test", "tools"):
        script = ROOT / "services/ci" / name
        assert os.access(script, os.X_OK)
        subprocess.run(["sh", "-n", str(script)], check=True)
        assert script.read_text().splitlines()[1].startswith(f"# {name} ") or name == "tools"


def test_only_services_that_changed_are_built(tmp_path: Path) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*args: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@labkit.example"]
        argv = ["git", *who, *args]
        return subprocess.run(argv, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout

    def commit(*files: str) -> str:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(f"{file} {files}")
        git("add", "-A")
        git("commit", "-qm", "change")
        return git("rev-parse", "HEAD").strip()

    def changed(before: str, after: str) -> str:
        argv = [str(ROOT / "services/ci/changed"), before, after]
        return subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    first = commit("README.md", "catalog/main.py", "orders/main.py")
    second = commit("orders/store.py", "catalog/products.py")
    third = commit("README.md")
    assert changed(first, second) == "catalog orders"
    assert changed(second, third) == ""
    assert changed("0" * 40, third) == "frontend catalog orders pricing"
