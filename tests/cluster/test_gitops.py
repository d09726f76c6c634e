"""Git server, pipeline and Argo CD on a cluster: installed twice, half, and away; used wrongly; brought down meanwhile.

Their way through a lab is tested by labs 05 and 06.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.addons.argocd import ArgoCD
from labkit.addons.git import GitServer
from labkit.addons.git.working_copy import git as run_git
from labkit.addons.pipeline import Pipeline
from labkit.addons.pipeline.audit import leaks
from labkit.cluster.base import Cluster
from labkit.cluster.phases import silent
from labkit.errors import ConfigError, GitError, PipelineError, WaitTimeout

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
APPLICATION = """
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: small, namespace: argocd}
spec:
  project: default
  source: {repoURL: http://git.git.svc.cluster.local/shop-deploy.git, targetRevision: main, path: .}
  destination: {server: https://kubernetes.default.svc, namespace: default}
  syncPolicy:
    automated: {enabled: true, selfHeal: true, prune: true}
    retry: {limit: 1, refresh: true, backoff: {duration: 1s, factor: 1, maxDuration: 5s}}
"""
MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: gitops-test}\ndata: {word: one}\n"
WORKFLOW = """
on: push
jobs:
  first:
    runs-on: ubuntu-latest
    steps:
      - name: Say it
        env: {TOKEN: "${{ secrets.GIT_TOKEN }}"}
        run: echo "the token is $TOKEN"; echo "KUBECONFIG=${KUBECONFIG:-none}"
      - {name: Refuse, run: exit 3}
  second: {needs: first, runs-on: ubuntu-latest, steps: [{name: Never, run: echo never}]}
"""


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[GitServer]:
    """A git server, removed afterwards."""
    git = GitServer(cluster)
    git.install(silent)
    yield git
    git.uninstall()
    assert git.status().state == "absent"


@pytest.fixture(scope="module")
def argocd(cluster: Cluster, server: GitServer) -> Iterator[ArgoCD]:
    """Argo CD, which follows shop-deploy with one ConfigMap in it; removed afterwards."""
    copy = server.clone("shop-deploy")
    (copy.path / "map.yaml").write_text(MAP)
    copy.run("checkout", "--quiet", "-B", "main")
    copy.commit("One map")
    copy.run("push", "--quiet", "--set-upstream", "origin", "main")
    made = ArgoCD(cluster)
    made.install(silent)
    made.add_repository("small", server.internal_url("shop-deploy"), "argocd", server.password("argocd"))
    cluster.kube.apply(APPLICATION)
    yield made
    made.uninstall()
    assert made.status().state == "absent"
    assert cluster.kube.find("ConfigMap", "gitops-test") is not None, "what was deployed stays"
    cluster.kube.delete("ConfigMap", "gitops-test")


def test_installed_again_the_server_keeps_passwords_and_repositories(server: GitServer) -> None:
    before = server.password("student")
    assert server.install(silent).state == "ready"
    assert server.password("student") == before
    credentials = next(server.clone("shop").path.parent.glob("credentials"))
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert before not in (server.clone("shop").path / ".git/config").read_text()
    with pytest.raises(GitError, match="no user 'nobody'"):
        server.password("nobody")


def test_a_half_installed_server_is_completed(cluster: Cluster, server: GitServer) -> None:
    cluster.kube.delete("Deployment", "git", namespace="git")
    assert server.status().state == "incomplete"
    cluster.kube.wait(
        "Pod", labels="app.kubernetes.io/name=git", until="deleted", namespace="git", timeout_s=60
    )
    with pytest.raises(GitError, match="does not answer"):
        server.pushes()
    assert server.install(silent).state == "ready"


def test_a_wrong_password_is_told(server: GitServer, tmp_path: Path) -> None:
    url = server.url("shop").replace("://", "://student:wrong@")
    with pytest.raises(GitError, match="does not accept user and password") as refused:
        run_git("-c", "http.proxy=", "clone", "--quiet", url, str(tmp_path / "copy"))
    assert "wrong" not in str(refused.value)


def test_a_run_fails_at_its_step_keeps_its_secret_and_has_no_kubeconfig(
    cluster: Cluster, server: GitServer
) -> None:
    with pytest.raises(ConfigError, match="deploy_by"):
        Pipeline(cluster, server, deploy_by="hand")
    pipeline = Pipeline(cluster, server, deploy_by="argocd")
    with pytest.raises(PipelineError, match="does not run"):
        pipeline.wait_for("0" * 40)
    copy = server.clone("shop")
    copy.run("checkout", "--quiet", "-B", "main")
    pipeline.install(silent)
    try:
        (copy.path / ".github/workflows").mkdir(parents=True)
        (copy.path / ".github/workflows/deliver.yml").write_text(WORKFLOW)
        commit = copy.commit("A workflow")
        copy.run("push", "--quiet", "--set-upstream", "origin", "main")
        run = pipeline.wait_for(commit, timeout_s=120)
        assert run.result == "failure" and run.jobs == ["first"]
        assert run.problem.startswith("first · Refuse failed")
        assert "the token is ***" in run.log("Say it") and "KUBECONFIG=none" in run.log()
        copy.edit(".github/workflows/deliver.yml", "needs: first", "needs: frist")
        copy.commit("A mistake")
        run = pipeline.wait_for(copy.push(), timeout_s=60)
        assert (run.result, run.steps) == ("invalid", ()) and "needs a job that does not exist" in run.problem
        copy.edit(".github/workflows/deliver.yml", "runs-on: ubuntu-latest\n", "runs-at: ubuntu-latest\n")
        copy.commit("Another mistake")
        run = pipeline.wait_for(copy.push(), timeout_s=60)
        assert (run.result, run.steps) == ("invalid", ()) and "deliver.yml, line 5" in run.problem
        with pytest.raises(WaitTimeout, match="No run of 1111111"):
            pipeline.wait_for("1" * 40, timeout_s=0.2)
        assert not any(leaks(cluster, server, pipeline).values())
    finally:
        pipeline.uninstall()
    assert pipeline.status().state == "absent"


def test_stopping_the_runner_ends_what_runs(cluster: Cluster, server: GitServer) -> None:
    pipeline = Pipeline(cluster, server, deploy_by="argocd")
    pipeline.install(silent)
    copy = server.clone("shop")
    steps = "[{name: Long, run: sleep 600 && touch ended}]"
    text = f"on: push\njobs:\n  long: {{runs-on: ubuntu-latest, steps: {steps}}}\n"
    (copy.path / ".github/workflows/deliver.yml").write_text(text)
    copy.commit("A long run")
    copy.push()
    time.sleep(3)
    begin = time.monotonic()
    pipeline.stop()
    assert time.monotonic() - begin < 20
    assert pipeline.status().state == "absent"
    pipeline.uninstall()


def test_argo_cd_follows_heals_and_prunes(cluster: Cluster, server: GitServer, argocd: ArgoCD) -> None:
    app, copy = argocd.application("small"), server.clone("shop-deploy")
    app.wait(copy.head())
    cluster.kube.delete("ConfigMap", "gitops-test")
    cluster.kube.wait("ConfigMap", "gitops-test", "exists", timeout_s=60)
    (copy.path / "second.yaml").write_text(MAP.replace("gitops-test", "gitops-second"))
    copy.commit("A second map")
    found = app.follow(copy.push(), since=time.monotonic(), trigger="refresh")
    assert 0 <= found.seen_s <= found.synced_s <= found.healthy_s
    copy.revert()
    commit = copy.push()
    app.refresh()
    app.wait(commit)
    cluster.kube.wait("ConfigMap", "gitops-second", "deleted", timeout_s=60)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("data: {word: one}", "data: {word: one", "yaml"), ("data: {word: one}", "data: [one]", "ConfigMap")],
)
def test_a_manifest_that_cannot_be_is_told_and_taken_back(
    server: GitServer, argocd: ArgoCD, old: str, new: str, said: str
) -> None:
    app, copy = argocd.application("small"), server.clone("shop-deploy")
    copy.edit("map.yaml", old, new)
    copy.commit("Wrong")
    wrong = copy.push()
    app.refresh()
    with pytest.raises(WaitTimeout) as refused:
        app.wait(wrong, timeout_s=12)
    assert said.lower() in str(refused.value).lower()
    copy.revert()
    commit = copy.push()
    app.refresh()
    app.wait(commit)


def test_argo_cd_installed_twice_half_and_asked_for_what_is_not_there(
    cluster: Cluster, argocd: ArgoCD
) -> None:
    cluster.kube.delete("Deployment", "argocd-repo-server", namespace="argocd")
    assert argocd.status().state == "incomplete"
    assert argocd.install(silent).state == "ready"
    with pytest.raises(Exception, match="no Application 'nothing'"):
        argocd.application("nothing").status()
