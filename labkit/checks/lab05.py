"""Checks of lab 05: a CI/CD pipeline."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.addons.git import GitServer, WorkingCopy
from labkit.addons.pipeline import Pipeline, Run
from labkit.addons.pipeline.audit import leaks
from labkit.checks.core import Finding, expect
from labkit.checks.registry import define
from labkit.checks.shop import PIPELINE_ACCOUNT, image_of, may, products, rolled_out
from labkit.cluster import Cluster
from labkit.labs.visit import VisitError, get


@define("05-git-server", "The git server has both repositories, and asks for a password", deadline_s=20)
def git_server(cluster: Cluster, git: GitServer) -> Iterator[Finding]:
    """It is ready, both repositories have commits, and nobody reads them without a password."""
    del cluster
    status = git.status()
    said = ", ".join(f"{name} {state}" for name, state in status.parts.items())
    yield expect(status.state == "ready", "the git server is ready", f"it is {status.state}: {said}")
    if status.state != "ready":
        return
    filled = {push.repository for push in git.pushes()}
    for name in ("shop", "shop-deploy"):
        yield expect(
            name in filled, f"{name} has commits", f"only these have some: {sorted(filled) or 'none'}"
        )
    try:
        code = get(git.url("shop") + "/info/refs?service=git-upload-pack").status
    except VisitError as error:
        yield expect(False, "it answers", error.message)
        return
    yield expect(code == 401, "who gives no password is refused", f"it answered with HTTP {code}")


@define("05-runner-ready", "The runner waits for pushes, and may do what it needs and no more", deadline_s=20)
def runner_ready(cluster: Cluster, pipeline: Pipeline) -> Iterator[Finding]:
    """It hears from the git server; its account may change Deployments of the shop, not read all secrets."""
    status = pipeline.status()
    yield expect(
        status.state == "ready", "the runner waits for pushes", f"it is {status.state}: {status.parts}"
    )
    wanted = may(cluster, "patch", "deployments", "apps", "shop")
    yield expect(wanted, "it may change Deployments of the shop", f"{PIPELINE_ACCOUNT} may not")
    too_much = may(cluster, "get", "secrets", "", "git")
    yield expect(not too_much, "it may not read the git server's Secret", f"{PIPELINE_ACCOUNT} may")


@define("05-delivered", "The pushed commit runs", deadline_s=60)
def delivered(cluster: Cluster, git: GitServer, shop: WorkingCopy) -> Iterator[Finding]:
    """The commit is on the server, its tag in shop-deploy, its image in the pods, its order on the page."""
    commit = shop.head()
    yield from _pushed(git, shop)
    tag = commit[:7]
    written = _released(git)
    yield expect(
        tag in written, f"shop-deploy says {tag}", "its kustomization.yaml has another tag for the catalog"
    )
    yield from rolled_out(cluster, "catalog", tag)
    offered = products(cluster)
    names = [str(one["name"]) for one in offered] if isinstance(offered, list) else []
    yield expect(
        bool(names) and names == sorted(names),
        "products come sorted by name",
        f"they are: {names or offered}",
    )


@define("05-broken-commit-stopped", "The broken commit was stopped by its test", deadline_s=10)
def broken_stopped(
    cluster: Cluster, git: GitServer, pipeline: Pipeline, shop: WorkingCopy
) -> Iterator[Finding]:
    """Its run failed in the job test; nothing of it is in shop-deploy or in the cluster; prices agree."""
    tag = shop.head()[:7]
    run = _run_of(pipeline, shop)
    said = f"{run.result}, jobs {run.jobs}" if run else "there is no run of it"
    stopped = run is not None and run.result == "failure" and run.jobs == ["test"]
    yield expect(stopped, f"the run of {tag} failed in its test, and no other job began", said)
    yield expect(
        tag not in _released(git), f"shop-deploy knows nothing of {tag}", "its tag was written there"
    )
    image = image_of(cluster, "catalog")
    yield expect(
        bool(image) and not image.endswith(tag), "the old version runs", f"the catalog's image is {image}"
    )
    yield _one_price(cluster)


@define("05-repaired", "The revert runs, and a mug has one price", deadline_s=60)
def repaired(cluster: Cluster, git: GitServer, pipeline: Pipeline, shop: WorkingCopy) -> Iterator[Finding]:
    """The last commit is the revert; its run succeeded; its tag is in shop-deploy and in the pods."""
    subject = shop.run("log", "-1", "--format=%s").strip()
    yield expect(subject.startswith("Revert"), "the last commit takes another one back", f"it is “{subject}”")
    run = _run_of(pipeline, shop)
    yield expect(
        run is not None and run.ok, "its run succeeded", str(run) if run else "there is no run of it"
    )
    tag = shop.head()[:7]
    yield expect(tag in _released(git), f"shop-deploy says {tag}", "the catalog's tag there is another one")
    yield from rolled_out(cluster, "catalog", tag)
    yield _one_price(cluster)


@define("05-workflow-refused", "The workflow was refused, with its place", deadline_s=10)
def workflow_refused(cluster: Cluster, pipeline: Pipeline, shop: WorkingCopy) -> Iterator[Finding]:
    """The run is invalid, no step of it was begun, and the reason is told."""
    del cluster
    run = _run_of(pipeline, shop)
    said = f"its result is {run.result}: {run.problem}" if run else "there is no run of it"
    yield expect(run is not None and run.result == "invalid", "the run of the last commit is invalid", said)
    told = run is not None and "deliver.yml" in run.problem
    yield expect(told, "the reason names the file", said)
    yield expect(run is not None and not run.steps, "no step was begun", said)


@define("05-both-commits-there", "The server has the colleague's commit and yours", deadline_s=10)
def both_there(cluster: Cluster, deploy: WorkingCopy) -> Iterator[Finding]:
    """The server's branch is what the copy has, and it contains both."""
    del cluster
    there = deploy.run("ls-remote", "origin", "refs/heads/main").split()[:1]
    yield expect(there == [deploy.head()], "your last commit is on the server", f"it has {there}")
    deploy.run("fetch", "--quiet")
    subjects = deploy.run("log", "--format=%s", "-5", "origin/main").splitlines()
    for wanted in ("Say what this is", "Say who answers for it"):
        yield expect(wanted in subjects, f"“{wanted}” is there", f"the last commits there: {subjects}")


@define(
    "05-no-secret-leaks", "No password is in a commit, a log, or a file that others can read", deadline_s=10
)
def no_leaks(cluster: Cluster, git: GitServer, pipeline: Pipeline) -> Iterator[Finding]:
    """The runner has ended; the whole history of both repositories, logs and modes of files are looked at."""
    state = pipeline.status().state
    yield expect(state == "absent", "the runner has ended, and its secrets with it", f"it is {state}")
    for place, found in leaks(cluster, git, pipeline).items():
        yield expect(not found, f"no password in {place}", f"found in: {', '.join(found[:5])}")


def _one_price(cluster: Cluster) -> Finding:
    """Whether the list of products and the product's own page agree."""
    catalog = cluster.url("catalog", "shop")
    try:
        listed = {one["sku"]: one["price_cents"] for one in get(f"{catalog}/products").json["products"]}
        single = get(f"{catalog}/products/mug").json["price_cents"]
    except (VisitError, KeyError, ValueError) as error:
        return expect(False, "a mug has one price", str(error))
    said = f"the list says {listed.get('mug')}, its page {single}"
    return expect(listed.get("mug") == single, "a mug has one price", said)


def _pushed(git: GitServer, shop: WorkingCopy) -> Iterator[Finding]:
    main = [push.after for push in git.pushes() if (push.repository, push.ref) == ("shop", "refs/heads/main")]
    there = main[-1] if main else ""
    changed = len(main) > 1
    yield expect(changed, "shop has more than its first commit", "nothing was pushed since it was filled")
    yield expect(
        there == shop.head(), "your last commit is on the server", f"the server has {there[:7] or 'none'}"
    )


def _released(git: GitServer) -> str:
    return git.clone("shop-deploy", user="pipeline").run("show", "HEAD:kustomization.yaml")


def _run_of(pipeline: Pipeline, shop: WorkingCopy) -> Run | None:
    commit = shop.head()
    return next((run for run in reversed(pipeline.runs) if run.commit == commit), None)
