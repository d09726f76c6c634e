"""`labkit run` as a command: exit codes, JSON on stdout alone, an interruption that leaves a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit import acquire
from tests.notebooks.tiny import code, standard, write


@pytest.fixture
def lab_run(tmp_path):
    """Runs the command on notebooks in tmp_path, with state of its own; the cluster's programs are there."""
    acquire.binaries()
    own = {f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("STATE", "DATA", "CONFIG")}
    env = {**os.environ, **own, "XDG_RUNTIME_DIR": str(tmp_path)}

    def start(*words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "labkit", "run", *words, "--notebooks", str(tmp_path)]
        argv += ["--report", str(tmp_path / "report"), "--cluster", "nowhere"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 — what runs us may ignore it
        return subprocess.Popen(argv, env=env, text=True, start_new_session=True, preexec_fn=heed, **pipes)

    return start


def test_json_alone_goes_to_stdout(tmp_path, lab_run):
    write(tmp_path, standard())
    process = lab_run("--json", "--speed", "ci")
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 0, progress
    summary = json.loads(out)
    assert summary["ok"] and summary["labs"][0]["checks"][0]["state"] == "passed"
    assert "[binaries]" in progress.split("1/5")[0]
    assert "1/5" in progress and "index.html" in progress
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == summary


def test_a_failed_lab_shows_why_and_exits_with_1(tmp_path, lab_run):
    write(tmp_path, standard(step="1 / 0"))
    process = lab_run()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cell step" in out and "1 / 0" in out and "ZeroDivisionError" in out
    assert "90-tiny.ipynb" in out and "1 lab: 1 failed" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["77"], "90-tiny"),
        (["--provider", "vmware"], "embedded"),
        (["--speed", "fast"], "class"),
        (["--wrong-answers", "91,92"], "is no lab of this run"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(tmp_path, lab_run, words, said):
    write(tmp_path, standard())
    process = lab_run(*words)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (1, 2) and said in error and "Traceback" not in error
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_a_report_and_no_kernel(tmp_path, lab_run, number):
    mark = tmp_path / "kernel"
    wait = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    write(tmp_path, standard())
    write(tmp_path, [*standard("91")[:3], code("wait", wait)], lab="91")
    process = lab_run()
    until(lambda: mark.exists() and mark.read_text())
    kernel = int(mark.read_text())
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    until(lambda: not Path(f"/proc/{kernel}").exists())
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert [lab["state"] for lab in summary["labs"]] == ["passed", "failed"] and not summary["ok"]
    assert "interrupted" in summary["labs"][1]["reason"]


def until(true, limit_s: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)
