"""Images without a registry, on the real engine: small ones of the tests' own, and those that the labs use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labkit import airgap
from labkit.airgap.docker import OWN
from labkit.airgap.specs import catalogue
from labkit.errors import AcquireError, ImageError
from labkit.phases import Phase, silent
from labkit.versions import versions

pytestmark = pytest.mark.timeout(1500)
ROOT = Path(__file__).resolve().parents[2]


def docker(*args: str, check: bool = True, stdin: str = "") -> str:
    """Output of `docker ARGS`."""
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *args], capture_output=True, text=True, timeout=600, check=False, input=stdin, env=env
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def image_id(name: str) -> str:
    """An image's id, "" where the engine has none of that name."""
    return docker("image", "inspect", "--format", "{{.Id}}", name, check=False)


@pytest.fixture
def own() -> str:
    """A name of this test's own."""
    return f"labkit-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def recipe(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Makes the recipe of a small image, beginning from Debian as it is there already; gives upstream's name for it."""
    base = airgap.build(["debian"], silent)["debian"]
    folder, name = tmp_path / "airgap", f"{own}.example/upstream:v1"
    (folder / own).mkdir(parents=True)
    monkeypatch.setenv("LABKIT_AIRGAP", str(folder))
    monkeypatch.setattr("labkit.airgap.specs.versions", lambda: replace(versions(), images={}))

    def make(instructions: str) -> str:
        (folder / own / "Dockerfile").write_text(f"FROM {base}\n{instructions}")
        (folder / "images.toml").write_text(f'[images.{own}]\nnames = ["{name}"]\nrecipe = "{own}"\n')
        catalogue.cache_clear()
        return name

    yield make
    catalogue.cache_clear()
    ours = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"labkit-airgap/{own}").split()
    for each in [*ours, name]:
        docker("image", "rm", "--force", each, check=False)


def test_an_image_is_made_once_and_again_when_its_recipe_changes(
    recipe: Callable[[str], str], own: str
) -> None:
    name = recipe("RUN echo 1 >/content\n")
    phases: list[Phase] = []
    assert airgap.ensure_image(name, phases.append) == name
    assert docker("run", "--rm", name, "cat", "/content") == "1"
    assert any(p.name == f"image {own}" and p.fraction for p in phases)
    first, phases = image_id(name), []
    airgap.ensure_image(name, phases.append)
    assert (image_id(name), phases) == (first, [])
    recipe("RUN echo 2 >/content\n")
    airgap.ensure_image(name, silent)
    assert docker("run", "--rm", name, "cat", "/content") == "2"


def test_an_image_of_another_origin_keeps_its_name(recipe: Callable[[str], str], own: str) -> None:
    name = recipe("RUN echo ours >/content\n")
    docker("build", "--quiet", "--tag", name, "-", stdin="FROM scratch\nENV THEIRS=1\n")
    theirs = image_id(name)
    assert airgap.ensure_image(name, silent) == name
    assert airgap.build([own], silent)[own].startswith(f"labkit-airgap/{own}:")
    assert image_id(name) == theirs
    assert next(row for row in airgap.rows() if row.short == own).state == "official"


def test_a_step_that_fails_is_named_and_leaves_nothing(recipe: Callable[[str], str], own: str) -> None:
    name = recipe("RUN echo before && exit 7\n")
    with pytest.raises(AcquireError, match="exit 7"):
        airgap.ensure_image(name, silent)
    assert image_id(name) == ""
    assert docker("ps", "-aq", "--filter", f"label={OWN}={own}") == ""


def test_a_build_that_was_killed_goes_on(recipe: Callable[[str], str], own: str) -> None:
    recipe(f"RUN echo {own} >/first\nRUN sleep 20 && echo {own} >/last\n")
    argv = [sys.executable, "-m", "labkit", "airgap", "build", own]
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not _runs(own) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _runs(own), "the build has not come to its second step"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert airgap.rows()[0].state == "missing"
    tag = airgap.build([own], silent)[own]
    assert docker("run", "--rm", tag, "cat", "/first", "/last").split() == [own, own]
    deadline = time.monotonic() + 60
    while _runs(own) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not _runs(own)


def _runs(own: str) -> bool:
    """Whether the build step runs that sleeps."""
    return f"sleep 20 && echo {own}" in docker("ps", "--no-trunc", "--format", "{{.Command}}")


def test_a_file_brings_images_to_an_engine_without_them(
    recipe: Callable[[str], str], own: str, tmp_path: Path
) -> None:
    name = recipe("RUN echo packed >/content\n")
    with pytest.raises(ImageError, match=own):
        airgap.save(tmp_path / "x.zip", silent)
    tag = airgap.build([own], silent)[own]
    packed = airgap.save(tmp_path / "x.zip", silent)
    assert packed.images[own] == tag
    for each in (tag, name):
        docker("image", "rm", each)
    assert image_id(tag) == ""
    airgap.load(tmp_path / "x.zip", silent)
    assert docker("run", "--rm", name, "cat", "/content") == "packed"
    assert image_id(name) == image_id(tag)


def test_a_service_is_built_on_the_python_of_its_dockerfile_with_packages_from_the_index(own: str) -> None:
    base = airgap.build(["python"], silent)["python"]
    try:
        said = f"FROM {base}\nRUN pip install --no-cache-dir --no-deps tenacity\nUSER 10001\n"
        docker("build", "--network", "host", "--quiet", "--tag", own, "-", stdin=said)
        asked = docker(
            "run", "--rm", own, "python", "-c", "import tenacity, sys; print(*sys.version_info[:2])"
        )
        stated = docker("run", "--rm", own, "cat", "/etc/labkit-python")
        assert stated.startswith(f"Debian {asked.replace(' ', '.')}")
    finally:
        docker("image", "rm", "--force", own, check=False)


def test_the_node_image_holds_what_kind_and_kubeadm_ask_for() -> None:
    node = airgap.node_image(silent)
    ask = ["run", "--rm", "--entrypoint", "sh", node, "-c"]
    version = f"v{versions().kubernetes}"
    assert docker(*ask, "kubelet --version; kubeadm version -o short; cat /kind/version").split() == [
        "Kubernetes", version, version, version,
    ]  # fmt: skip
    docker(
        *ask,
        "set -e; for p in containerd runc ip iptables conntrack; do command -v $p; done; test ! -L /proc",
    )
    assert "local-path" in docker(*ask, "cat /kind/manifests/default-storage.yaml")
    assert (
        docker("image", "inspect", "--format", "{{json .Config.Entrypoint}}", node)
        == '["/usr/local/bin/entrypoint","/sbin/init"]'
    )


def test_nothing_is_done_where_all_is_there() -> None:
    first = airgap.build([], silent)
    before = {tag: image_id(tag) for tag in first.values()}
    phases: list[Phase] = []
    again = airgap.build([], phases.append)
    assert (again, phases) == (first, [])
    assert set(again) == {spec.short for spec in catalogue().shipped()}
    assert {tag: image_id(tag) for tag in again.values()} == before
