"""The command labkit without a cluster: what it lists, refuses and finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from labkit.cluster.pki import Authority, kubeconfig
from labkit.cluster.providers import open_cluster, provider_class, provider_of
from labkit.cluster.show import duration, merge_kubeconfig
from labkit.cluster.state import Directory, Options, State
from labkit.doctor import examine
from labkit.errors import ConfigError

COMMANDS = ("up", "down", "status", "logs", "doctor", "kubeconfig", "shell", "build", "run", "image")


def labkit(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, as a process."""
    argv = [sys.executable, "-m", "labkit", *args]
    return subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", **env})


@pytest.fixture
def empty(tmp_path: Path) -> dict[str, str]:
    """An environment without clusters."""
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def test_help_lists_the_commands() -> None:
    said = labkit("--help").stdout
    assert [name for name in COMMANDS if f"│ {name} " not in said] == []
    assert "--speed" in labkit("run", "--help").stdout
    assert "inspect" in labkit("image", "--help").stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("down", "nobody"), 1, "There is no cluster 'nobody'"),
        (("logs", "etcd"), 1, "There is no cluster 'lab'"),
        (("kubeconfig", "nobody"), 1, "There is no cluster"),
        (("shell", "nobody"), 1, "There is no cluster"),
        (("up", "Not-A-Name"), 2, "cannot be a name"),
        (("up", "--provider", "minikube"), 2, "There is no provider 'minikube'"),
        (("up", "--provider", "clouds"), 2, "There is no provider 'clouds'"),
        (("up", "-o", "hpa_sync_s=soon"), 2, "NAME=NUMBER"),
        (("up", "-o", "workerz=3"), 2, "no option 'workerz'"),
        (("up", "--workers", "99"), 2, "0 to 62"),
        (("down", "lab", "--all"), 2, "Either a name or --all"),
        (("up", "-o", "workers=²"), 2, "NAME=NUMBER"),
        (("up", "-o", "workers=٣"), 2, "NAME=NUMBER"),
        (("up", "-o", f"workers={'9' * 5000}"), 2, "NAME=NUMBER"),
        (("image", "rm"), 2, "Nothing to remove"),
        (("image", "build", ".", "-t", "x:v1", "--build-arg", "x"), 2, "needs NAME=VALUE"),
        (("run", "77"), 2, "There is no lab '77'"),
        (("run", "--notebooks", "/nowhere"), 2, "No folder of labs: /nowhere"),
        (("run", "00", "--report", "/dev/null/reports"), 2, "cannot be written to /dev/null/reports"),
        (("run", "00", "--turns", "/nowhere/turns"), 2, "--turns /nowhere/turns cannot be written"),
        (("airgap", "list", "/nowhere"), 1, "/nowhere"),
        (("hpa", "simulate", "/nowhere.yaml"), 1, "/nowhere.yaml"),
        (("hpa", "simulate", "/nowhere.yaml", "--trace", "/nowhere.csv"), 1, "/nowhere.csv"),
        (("hpa", "explain", "x", "--kubeconfig", "/nowhere"), 1, "/nowhere"),
        (("image", "build", "/nowhere", "-t", "x:v1"), 1, "/nowhere"),
        (("check", "2b", "-c", "nobody"), 1, "There is no cluster"),
        (("check", "second"), 2, "'second' is not a lab's number"),
    ],
)
def test_wrong_use_is_one_message_and_an_exit_code(
    empty: dict[str, str], args: tuple[str, ...], code: int, said: str
) -> None:
    done = labkit(*args, **empty)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr


def test_output_that_cannot_be_written_is_one_message(empty: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "labkit", "status", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, **empty},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "labkit: No space left on device\n→ Free some space.\n")


def test_a_file_that_cannot_be_read_is_one_message(empty: dict[str, str]) -> None:
    folder = Path(empty["XDG_STATE_HOME"]) / "labkit/clusters/lab"
    folder.mkdir(parents=True)
    (folder / "existing.json").mkdir()  # unreadable for root as well
    done = labkit("kubeconfig", **empty)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("labkit: ") and str(folder) in done.stderr


def test_without_clusters_nothing_is_an_error(empty: dict[str, str]) -> None:
    assert "There is no cluster" in labkit("status", **empty).stdout
    assert json.loads(labkit("status", "--json", **empty).stdout) == []
    assert labkit("down", "--all", **empty).returncode == 0


def test_doctor_tells_of_everything_for_people_and_scripts() -> None:
    findings = {finding.name: finding for finding in examine()}
    names = {"Python", "System", "Cluster programs", "Pod addresses", "Pod mounts", "kubectl", "Go", "Memory",
             "inotify", "Open files", "Slots", "Docker"}  # fmt: skip
    assert names <= set(findings)
    assert {finding.status for finding in findings.values()} <= {"ok", "warning", "missing"}
    assert all(finding.advice for finding in findings.values() if finding.status != "ok")
    done = labkit("doctor", "--json")
    assert {each["name"] for each in json.loads(done.stdout)} == set(findings)
    assert done.returncode == (1 if any(f.status == "missing" for f in findings.values()) else 0)
    assert "what to do" in labkit("doctor").stdout


def test_doctor_tells_how_pods_run(directory: Directory) -> None:
    state = State("lab", 3, Options(), 0.0, ready=True, sandbox={"sockets": True, "user_namespaces": False})
    directory.save(state)
    (finding,) = [each for each in examine() if each.name == "Pods of lab"]
    assert finding.found == "socket filter, linked volumes"
    (directory / "state.json").write_text("{")
    assert "Pods of lab" not in [each.name for each in examine()]


def test_doctor_names_what_a_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import labkit.doctor

    monkeypatch.setattr(labkit.doctor.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(labkit.doctor.acquire, "cached", lambda: None)
    files = {"/proc/sys/kernel/seccomp/actions_avail": "kill trap", "/proc/meminfo": "MemAvailable: 9 kB"}
    monkeypatch.setattr(labkit.doctor, "_read", lambda path: files.get(path, ""))
    findings = {finding.name: finding for finding in labkit.doctor.examine()}
    assert findings["System"].status == "missing"
    assert findings["Pod addresses"].status == "missing"
    assert "seccomp" in findings["Pod addresses"].found
    assert findings["Memory"].status == "warning"


def test_providers_are_found_by_name_and_by_what_they_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("embedded", "kind", "existing"):
        assert provider_class(name).provider == name
    with pytest.raises(ConfigError, match="no provider 'minikube'"):
        provider_class("minikube")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, file in (("a", "state.json"), ("b", "kind.json"), ("c", "existing.json")):
        folder = tmp_path / "labkit/clusters" / name
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    assert [provider_of(name) for name in "abcd"] == ["embedded", "kind", "existing", ""]
    with pytest.raises(ConfigError, match="its provider is kind, not embedded"):
        open_cluster("b", "embedded")


def test_a_merged_kubeconfig_keeps_what_was_there(
    directory: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(mine))
    ca = Authority.create("ca")
    text = kubeconfig(
        "lab", "https://127.18.0.1:6443", ca.pair.certificate, "admin", ca.issue("me", client=True)
    )
    directory.kubeconfig.write_text(text)
    merge_kubeconfig("lab", directory.kubeconfig)
    content = yaml.safe_load(mine.read_text())
    content["contexts"].append({"name": "work", "context": {"cluster": "c", "user": "u"}})
    content["current-context"] = "work"
    mine.write_text(yaml.safe_dump(content))
    said = merge_kubeconfig("lab", directory.kubeconfig)
    content = yaml.safe_load(mine.read_text())
    assert [each["name"] for each in content["contexts"]] == ["work", "labkit-lab"]
    assert content["current-context"] == "work"
    assert content["contexts"][1]["context"] == {"cluster": "labkit-lab", "user": "labkit-lab"}
    assert "labkit-lab" in said
    assert mine.stat().st_mode & 0o077 == 0
    mine.write_text("[1, 2]")
    with pytest.raises(ConfigError, match="no kubeconfig"):
        merge_kubeconfig("lab", directory.kubeconfig)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (150, "2 min"), (7300, "2 h 2 min"), (200_000, "2 d 8 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert labkit("--version").stdout == f"labkit {project['version']}\n"


def test_the_shell_completes_commands() -> None:
    asked = {"_LABKIT_COMPLETE": "complete_bash", "COMP_WORDS": "labkit st", "COMP_CWORD": "1"}
    command = [str(Path(sys.executable).with_name("labkit"))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked})
    assert sorted(done.stdout.split()) == ["start", "status"]
