"""Checks of lab 06: GitOps with Argo CD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labkit.addons.argocd import Application, ArgoCD, Delivery
from labkit.addons.git import WorkingCopy
from labkit.addons.pipeline import Pipeline
from labkit.checks.core import Finding, expect
from labkit.checks.objects import container_state, running_pods
from labkit.checks.registry import define
from labkit.checks.shop import SERVICES, SHOP, image_of, may, products, rolled_out
from labkit.cluster import Cluster
from labkit.kube import Object, dig

_WAVE = "argocd.argoproj.io/sync-wave"
_WAVES = {"orders": "1", "catalog": "2", "pricing": "2", "frontend": "3"}
_CATALOG = "app.kubernetes.io/name=catalog"


@define("06-argocd-ready", "Argo CD is ready", deadline_s=60)
def argocd_ready(cluster: Cluster, argocd: ArgoCD) -> Iterator[Finding]:
    """Its three programs are Ready, its kinds are known, and Redis has a password."""
    status = argocd.status()
    lacking = ", ".join(f"{name} {state}" for name, state in status.parts.items())
    yield expect(status.state == "ready", "its three programs are Ready", f"it is {status.state}: {lacking}")
    yield expect(
        status.version.startswith("v3."), "it is version 3", f"it is {status.version or 'not there'}"
    )
    secret = cluster.kube.find("Secret", "argocd-redis", namespace="argocd")
    yield expect(
        bool(dig(secret, "data.auth")), "its cache has a password", "there is no Secret argocd-redis"
    )


@define("06-shop-follows-git", "The shop runs as git says, and Argo CD keeps it so", deadline_s=90)
def follows_git(cluster: Cluster, app: Application, deploy: WorkingCopy) -> Iterator[Finding]:
    """Synced to the last commit and Healthy; automated with self-heal and prune; the page has products."""
    yield from _settled(app, deploy)
    automated = dig(app.get(), "spec.syncPolicy.automated", {})
    both = bool(automated.get("selfHeal") and automated.get("prune"))
    yield expect(both, "it heals and prunes by itself", f"syncPolicy.automated is {automated or 'missing'}")
    for name in SERVICES:
        yield from rolled_out(cluster, name)
    offered = products(cluster)
    yield expect(
        isinstance(offered, list) and bool(offered), "the page offers products", f"it says: {offered}"
    )


@define("06-drift-corrected", "Both changes by hand are undone", deadline_s=60)
def drift_corrected(cluster: Cluster, app: Application, service: Object) -> Iterator[Finding]:
    """The Service is there again, as a new object; the catalog has the replicas that git says."""
    found = cluster.kube.find("Service", "pricing", namespace=SHOP)
    yield expect(found is not None, "there is a Service pricing", "it is gone")
    fresh = found is not None and dig(found, "metadata.uid") != dig(service, "metadata.uid")
    yield expect(
        fresh, "it is a new one: the old one was deleted", "it is the one from before; was it deleted?"
    )
    catalog = cluster.kube.find("Deployment", "catalog", namespace=SHOP)
    replicas = dig(catalog, "spec.replicas", 0)
    yield expect(replicas == 2, "the catalog is told to have 2 replicas", f"it is told to have {replicas}")
    now = app.status()
    yield expect(now.sync == "Synced", "Argo CD says Synced", str(now))
    yield expect(now.health == "Healthy", "Argo CD says Healthy", f"{now}; {app.explain()}")


@define("06-deliveries-measured", "Five commits are on their way no more: all run", deadline_s=20)
def deliveries_measured(
    cluster: Cluster, app: Application, deploy: WorkingCopy, deliveries: Sequence[Delivery]
) -> Iterator[Finding]:
    """Five deliveries by both ways, each seen, then synced, then healthy; the last one runs."""
    ways = {each.trigger for each in deliveries}
    enough = len(deliveries) >= 5 and ways == {"polling", "refresh"}
    yield expect(
        enough, "five commits, by polling and told", f"there are {len(deliveries)}, by {sorted(ways)}"
    )
    ordered = all(0 <= each.seen_s <= each.synced_s <= each.healthy_s for each in deliveries)
    yield expect(
        bool(deliveries) and ordered, "each was seen, then applied, then Ready", f"measured: {deliveries}"
    )
    yield from _settled(app, deploy)
    yield from rolled_out(cluster, "catalog", "v2")


@define(
    "06-bad-image-harmless", "The bad image is Synced, not Healthy, and no customer notices", deadline_s=60
)
def bad_image(cluster: Cluster, app: Application, deploy: WorkingCopy) -> Iterator[Finding]:
    """The Deployment asks for v9, a pod waits for it in vain, both old pods serve."""
    image = image_of(cluster, "catalog")
    yield expect(image.endswith(":v9"), "the catalog is told to be v9", f"its image is {image}")
    now = app.status()
    yield expect(now.revision == deploy.head() and now.sync == "Synced", "Synced to the bad commit", str(now))
    yield expect(now.health in ("Progressing", "Degraded"), "and not Healthy", str(now))
    pods = running_pods(cluster, _CATALOG, SHOP)
    waiting = [pod for pod in pods if "ImagePull" in container_state(pod)]
    states = "; ".join(container_state(pod) for pod in pods)
    yield expect(bool(waiting), "a pod cannot get its image", f"the pods: {states}")
    available = dig(cluster.kube.find("Deployment", "catalog", namespace=SHOP), "status.availableReplicas", 0)
    yield expect(available >= 2, "two pods of the old version serve", f"{available} are available")
    offered = products(cluster)
    yield expect(
        isinstance(offered, list) and bool(offered), "the page offers products", f"it says: {offered}"
    )


@define("06-rolled-back-by-git", "The revert is rolled out", deadline_s=60)
def rolled_back(cluster: Cluster, app: Application, deploy: WorkingCopy) -> Iterator[Finding]:
    """The last commit is the revert; the catalog is v2 again, complete; Synced and Healthy."""
    subject = deploy.run("log", "-1", "--format=%s").strip()
    yield expect(subject == 'Revert "Catalog v9"', "the last commit takes v9 back", f"it is “{subject}”")
    yield from rolled_out(cluster, "catalog", "v2")
    yield from _settled(app, deploy)


@define("06-waves-and-smoke-test", "Deployed in waves, and tested", deadline_s=120)
def waves(cluster: Cluster, app: Application, deploy: WorkingCopy) -> Iterator[Finding]:
    """Every Deployment has its wave, the hook's Job has succeeded, the quota is there; Synced and Healthy."""
    for name, wave in _WAVES.items():
        found = _wave(cluster, name)
        yield expect(found == wave, f"{name} is in wave {wave}", f"its wave is {found or 'none'}")
    job = cluster.kube.find("Job", "smoke-test", namespace=SHOP)
    done = dig(job, "status.succeeded", 0) > 0
    yield expect(
        done, "the smoke test has succeeded", cluster.kube.explain(job) if job else "there is no Job"
    )
    quota = cluster.kube.find("ResourceQuota", "shop", namespace=SHOP)
    yield expect(quota is not None, "there is a quota", "there is none in the namespace shop")
    yield from _settled(app, deploy)


@define("06-pruned", "What is not in git any more is gone", deadline_s=60)
def pruned(cluster: Cluster, app: Application, deploy: WorkingCopy) -> Iterator[Finding]:
    """Neither waves nor quota are there; Synced and Healthy."""
    quota = cluster.kube.find("ResourceQuota", "shop", namespace=SHOP)
    yield expect(quota is None, "the quota is gone", "it is still there")
    for name in _WAVES:
        found = _wave(cluster, name)
        yield expect(not found, f"{name} is in no wave", f"its wave is {found}")
    yield from _settled(app, deploy)


@define("06-whole-chain", "The line of code runs, and the pipeline had no key to the cluster", deadline_s=90)
def whole_chain(
    cluster: Cluster, app: Application, shop: WorkingCopy, deploy: WorkingCopy, pipeline: Pipeline
) -> Iterator[Finding]:
    """The run ended at the release; Argo CD has rolled it out; the pipeline's account may change nothing."""
    commit = shop.head()
    run = next((each for each in reversed(pipeline.runs) if each.commit == commit), None)
    said = str(run) if run else "there is no run of it"
    yield expect(run is not None and run.ok, f"the run of {commit[:7]} succeeded", said)
    applied = run is not None and any("Apply" in step.name for step in run.steps)
    yield expect(run is not None and not applied, "it applied nothing", said)
    yield expect(
        not may(cluster, "patch", "deployments", "apps", SHOP), "its account may change nothing", "it may"
    )
    yield from rolled_out(cluster, "catalog", commit[:7])
    deploy.pull()
    yield from _settled(app, deploy)


def _settled(app: Application, deploy: WorkingCopy) -> Iterator[Finding]:
    now, head = app.status(), deploy.head()
    at = now.revision == head and now.sync == "Synced"
    yield expect(at, f"Synced to {head[:7]}", f"{now}; {app.explain()}")
    yield expect(now.health == "Healthy", "Healthy", f"{now}; {app.explain()}")


def _wave(cluster: Cluster, name: str) -> str:
    deployment = cluster.kube.find("Deployment", name, namespace=SHOP)
    return str(dig(deployment, "metadata.annotations", {}).get(_WAVE, ""))
