"""One bad file costs one cluster: the others are shown and taken down, and nobody else's folder is touched."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import labkit
from labkit.cli import main
from labkit.cluster.existing import ExistingCluster
from labkit.cluster.phases import silent
from labkit.cluster.providers import status_of, take_down
from labkit.cluster.show import merge_kubeconfig
from labkit.cluster.state import Directory, cluster_names, strangers
from labkit.errors import ClusterError, ConfigError, KubeError, LabkitError
from labkit.kube import Kube

from .api_server import Server, kubeconfig

ONE = {"items": []}
DAMAGED = ["", "[]", '{"format": 1, "context": 7}']


@pytest.fixture
def clusters() -> Iterator[Path]:
    """The folder of clusters, in a short path, for this process and those it starts."""
    with tempfile.TemporaryDirectory(prefix="lk.") as short, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", short)
        folder = Path(short) / "labkit/clusters"
        folder.mkdir(parents=True)
        yield folder


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.answers["/api/v1/nodes"] = [(200, ONE)]
    yield made
    made.http.shutdown()


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def labkit_command(*args: str, **env: str) -> Done:
    """The command, in this process: a dozen new ones would take a minute."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["labkit", *args])
        for name, value in {"COLUMNS": "160", **env}.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_record_disables_neither_status_nor_down(
    text: str, clusters: Path, server: Server, tmp_path: Path
) -> None:
    ExistingCluster.up("well", silent, kubeconfig=str(kubeconfig(tmp_path, server.port)))
    Directory("hurt").create()
    (clusters / "hurt/existing.json").write_text(text)
    Directory("torn").create()
    (clusters / "torn/state.json").write_text(text)
    (clusters / "My Photos").mkdir()
    (clusters / "My Photos/beach.jpg").write_text("sun")
    shown = labkit_command("status")
    assert shown.returncode == 0, shown.stderr
    assert "well" in shown.stdout and shown.stdout.count(": damaged") == 2
    assert "labkit down hurt" in shown.stdout and "My Photos" in shown.stderr
    states = {each["name"]: each["state"] for each in json.loads(labkit_command("status", "--json").stdout)}
    assert states == {"well": "degraded", "hurt": "damaged", "torn": "damaged"}
    gone = labkit_command("down", "--all")
    assert gone.returncode == 0, gone.stderr
    assert [path.name for path in clusters.iterdir()] == ["My Photos"]
    assert (clusters / "My Photos/beach.jpg").read_text() == "sun"


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_kind_cluster_is_shown_and_the_others_go(text: str, clusters: Path, tmp_path: Path) -> None:
    """Docker's command answers that no container is there, as it does where none was left."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\ncase "$1" in inspect|network) exit 1;; info) echo "{}";; esac\n')
    docker.chmod(0o755)
    Directory("boxes").create()
    (clusters / "boxes/kind.json").write_text(text)
    Directory("half").create()
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert "kind.json is damaged" in labkit_command("status", **path).stdout
    gone = labkit_command("down", "boxes", **path)
    assert gone.returncode == 0, gone.stderr
    assert cluster_names() == ["half"]


def test_one_cluster_that_does_not_go_keeps_no_other(clusters: Path, tmp_path: Path) -> None:
    Directory("boxes").create()
    (clusters / "boxes/kind.json").write_text("{")
    Directory("half").create()
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    done = labkit_command("down", "--all", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "'boxes' is not gone" in done.stderr and "Cluster 'half' is gone" in done.stdout
    assert cluster_names() == ["boxes"]


def test_somebody_elses_folder_is_left_alone(clusters: Path) -> None:
    (clusters / "thesis").mkdir()
    (clusters / "thesis/chapter").write_text("years of work")
    (clusters / "elsewhere").symlink_to(clusters / "thesis")
    assert cluster_names() == [] and len(strangers()) == 2
    for act in (take_down, status_of, lambda name: labkit.up(name, workers=0, listener=silent)):
        with pytest.raises(ClusterError, match="left alone"):
            _raise_reason(act("thesis"))
    assert (clusters / "thesis/chapter").read_text() == "years of work"


def _raise_reason(status: object) -> None:
    reason = getattr(status, "reason", "")
    if reason:
        raise ClusterError(reason)


def test_a_failed_up_keeps_the_record_that_was_there(clusters: Path, server: Server, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, server.port)
    ExistingCluster.up("mine", silent, kubeconfig=str(file))
    before = {path.name: path.read_bytes() for path in (clusters / "mine").iterdir() if path.is_file()}
    with pytest.raises(ClusterError, match="9 were asked for"):
        ExistingCluster.up("mine", silent, workers=9)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ClusterError, match="does not answer"):
        ExistingCluster.up("mine", silent, registry="other.example/x")
    assert {
        path.name: path.read_bytes() for path in (clusters / "mine").iterdir() if path.is_file()
    } == before
    with pytest.raises(ClusterError):
        ExistingCluster.up("new", silent, kubeconfig=str(file))
    assert not (clusters / "new").exists(), "one that was not there is not there"


def test_a_context_of_any_file_of_the_list_is_found(
    clusters: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    first.write_text("apiVersion: v1\nkind: Config\n")
    monkeypatch.setenv("KUBECONFIG", f"{first}{os.pathsep}{kubeconfig(tmp_path, server.port)}")
    ExistingCluster.up("mine", silent, context="x")
    monkeypatch.delenv("KUBECONFIG")
    assert ExistingCluster.up("mine", silent).status().urls["context"] == "x"
    assert clusters.is_dir()


def test_merging_goes_into_the_users_file_of_the_list(
    clusters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory("lab")
    directory.create()
    own = kubeconfig(directory.path, 1).rename(directory.kubeconfig)
    before = own.read_text()
    (tmp_path / "second").write_text("apiVersion: v1\nkind: Config\n")
    (tmp_path / "link").symlink_to(tmp_path / "second")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, target in {
        str(own): tmp_path / ".kube/config",
        f"{own}:{tmp_path / 'missing'}:{tmp_path / 'link'}": tmp_path / "second",
        f":{tmp_path / 'a'}:{tmp_path / 'b'}": tmp_path / "b",
    }.items():
        monkeypatch.setenv("KUBECONFIG", value)
        assert str(target) in merge_kubeconfig("lab", own)
        names = [each["name"] for each in yaml.safe_load(target.read_text())["contexts"]]
        assert names == ["labkit-lab"]
    assert own.read_text() == before and (tmp_path / "link").is_symlink()
    (tmp_path / "b").write_text("{")
    with pytest.raises(ConfigError, match="no kubeconfig"):
        merge_kubeconfig("lab", own)
    assert clusters.is_dir()


@pytest.mark.parametrize("text", ["", "{", "[]", "a: b", "\x00", "contexts: 3\ncurrent-context: x", "- 1"])
def test_a_malformed_kubeconfig_is_one_clear_error(text: str, clusters: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(KubeError, match="cannot be used"):
        Kube(file)
    with pytest.raises(LabkitError):
        ExistingCluster.up("mine", silent, kubeconfig=str(file))
    assert list(clusters.iterdir()) == []
