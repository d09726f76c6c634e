"""Images without a registry: what is known before any engine is asked, files for classrooms, and faults in words."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from labkit.airgap import machine, pack, rootfs
from labkit.airgap.context import Context, add_programs, dockerfile
from labkit.airgap.docker import KEY, OWN, Docker, build_fault
from labkit.airgap.node import check, storage_manifest
from labkit.airgap.specs import Catalogue, Spec, catalogue, parse
from labkit.errors import AcquireError, ConfigError, ImageError, LabkitError, MachineError
from labkit.phases import Phase, silent
from labkit.versions import UpstreamImage, versions

ROOT = Path(__file__).resolve().parents[2]


def small(**tables: dict[str, Any]) -> Catalogue:
    """A catalogue of a few images, with the repository's recipes."""
    return parse({"debian": {"suite": "bookworm"}, "images": tables}, ROOT / "airgap", {})


# The list of images


def test_bases_come_before_what_is_made_of_them_and_every_name_is_there_once() -> None:
    known = catalogue()
    seen: set[str] = set()
    for spec in known.specs.values():
        assert {*filter(None, (spec.base,)), *spec.baked} <= seen, spec.short
        seen.add(spec.short)
    names = [name for spec in known.specs.values() for name in spec.names]
    assert len(names) == len(set(names))
    assert known.named("node").baked


def test_every_upstream_image_of_the_labs_can_be_made() -> None:
    known = catalogue()
    for name, image in versions().images.items():
        spec = known.named(name)
        assert image.program in spec.programs.values() or image.installed in spec.packages


def test_an_image_can_have_a_file_of_a_pinned_module() -> None:
    table = {"files": {"/licence": "k8s.io/api//LICENSE", "/run.sh": "k8s.io/kubernetes//hack/build-go.sh"}}
    context = Context()
    add_programs(context, small(one=table).specs["one"], {})
    assert b"Apache License" in context.files["files/licence"]
    assert (context.modes["files/run.sh"], context.modes["files/licence"]) == (0o755, 0o644)


@pytest.mark.parametrize(
    ("asked", "short"),
    [
        ("python:3.12-slim", "python"),
        ("docker.io/library/python:3.12-slim", "python"),
        ("library/python:3.12-slim", "python"),
        ("busybox", "busybox"),
        (f"registry.k8s.io/kube-proxy:v{versions().kubernetes}", "kube-proxy"),
        ("metrics-server", "metrics-server"),
    ],
)
def test_an_image_is_found_by_any_spelling_of_its_name(asked: str, short: str) -> None:
    assert catalogue().named(asked).short == short


def test_an_image_that_labkit_cannot_make_is_an_error_that_lists_those_it_can() -> None:
    with pytest.raises(ImageError, match="nginx:1") as caught:
        catalogue().named("nginx:1.27")
    assert "python:3.12-slim" in caught.value.hint


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"a": {"basis": "b"}}, "unknown basis"),
        ({"a": {"base": "b"}}, "'b' must be a table before"),
        ({"a": {"base": "b"}, "b": {}}, "'b' must be a table before"),
        ({"a": {"recipe": "no-such-folder"}}, "no-such-folder"),
        ({"a": {"packages": ["git"]}}, "need a base"),
        ({"a": {"programs": {"/x": "no-such-program"}}}, "no-such-program"),
        ({"a": {"upstream": "no.such/image:v1"}}, "no.such/image:v1"),
        ({"a": {"setuid": ["/x"]}}, "setuid names /x"),
    ],
)
def test_a_wrong_table_is_named(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small(**tables)


def test_a_table_may_add_to_an_image_of_one_program() -> None:
    image = UpstreamImage("kind", "/kind", links=("/also",), env=("A=1",))
    tables = {"base": {}, "tool": {"upstream": "x.io/tool:v1", "base": "base", "packages": ["git"]}}
    known = parse({"images": tables}, ROOT / "airgap", {"x.io/tool:v1": image, "x.io/some/other:v1": image})
    tool = known.named("x.io/tool:v1")
    assert (tool.short, tool.packages, tool.programs, tool.links) == (
        "tool",
        ("git",),
        {"/kind": "kind"},
        {"/also": "/kind"},
    )
    assert known.named("x.io/some/other:v1").short == "some-other"


# Keys


def test_a_key_follows_what_decides_the_content_and_nothing_else() -> None:
    def key(**changes: Any) -> str:
        base = {"packages": [], **{k[5:]: v for k, v in changes.items() if k.startswith("base_")}}
        base.pop("packages")
        own = {k: v for k, v in changes.items() if not k.startswith("base_")}
        known = small(below={**base}, it={"base": "below", "packages": ["git"], **own})
        return known.key(known.specs["it"])

    assert key() == key() == key(about="other words") == key(names=["x:1"])
    different = [
        key(),
        key(packages=["jq"]),
        key(env=["A=1"]),
        key(base_env=["A=1"]),
        key(programs={"/kind": "kind"}),
    ]
    assert len(set(different)) == len(different)


def test_a_recipe_that_changes_gives_another_key(tmp_path: Path) -> None:
    recipe = tmp_path / "it" / "Dockerfile"
    recipe.parent.mkdir()
    recipe.write_text("FROM scratch\n")
    known = parse({"images": {"it": {"recipe": "it"}}}, tmp_path, {})
    before = known.key(known.specs["it"])
    assert known.key(known.specs["it"]) == before
    recipe.write_text("FROM scratch\nENV A=1\n")
    assert known.key(known.specs["it"]) != before


def test_names_that_a_node_holds_are_part_of_its_key() -> None:
    def key(name: str) -> str:
        known = small(inner={"names": [name]}, outer={"baked": ["inner"]})
        return known.key(known.specs["outer"])

    assert key("a:1") != key("a:2")


# What Docker gets


def test_the_dockerfile_of_a_table() -> None:
    spec = Spec("x", base="below", packages=("git", "jq"), programs={"/bin/x": "kind"}, env=("A=1",), user="5", entrypoint=("/bin/x", "-v"))  # fmt: skip
    assert dockerfile(spec, "labkit-airgap/below:1").splitlines() == [
        "FROM labkit-airgap/below:1",
        "ARG APT_OPTIONS",
        "RUN install-packages git jq",
        "COPY files/ /",
        "ENV A=1",
        "USER 5",
        'ENTRYPOINT ["/bin/x", "-v"]',
    ]
    assert dockerfile(Spec("y", programs={"/y": "kind"}), "").startswith("FROM scratch\n")


def test_a_context_is_the_same_bytes_for_the_same_content(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")

    def stream() -> bytes:
        context = Context()
        context.add("Dockerfile", "FROM scratch\n")
        add_programs(
            context, Spec("x", programs={"/bin/x": "kind"}, links={"/y": "bin/x"}), {"kind": program}
        )
        out = io.BytesIO()
        context.write(out)
        return out.getvalue()

    first = stream()
    os.utime(program, (1, 1))
    assert stream() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        members = {m.name: m for m in archive}
    assert members["files/bin/x"].mode == 0o755
    assert members["files/y"].linkname == "bin/x"
    assert members["files/bin"].isdir()
    assert members["Dockerfile"].mode == 0o644


def test_this_machines_index_certificates_and_proxy_go_into_the_last_layer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("CERTIFICATES")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CERT", str(bundle))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.school.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/only/here")
    monkeypatch.setenv("https_proxy", "http://proxy.school.example:3128")
    files = machine.settings().files
    text = bytes(files["files/etc/pip.conf"]).decode()  # type: ignore[arg-type]
    assert "index-url = https://index.school.example/simple" in text
    assert "proxy = http://proxy.school.example:3128" in text
    assert "cert = /etc/ssl/certs/ca-certificates.crt" in text
    assert "/only/here" not in text
    assert files["files/etc/ssl/certs/ca-certificates.crt"] == b"CERTIFICATES"
    before = machine.settings_key()
    bundle.write_text("OTHERS")
    assert machine.settings_key() != before


# A node's image

GO = """package nodeimage
const image = "docker.io/x/y:v1"
const defaultStorageManifest = `
kind: A
image: ` + image + `
end: 1
`
"""


def test_the_storage_manifest_is_read_out_of_kinds_source() -> None:
    assert storage_manifest(GO) == "\nkind: A\nimage: docker.io/x/y:v1\nend: 1\n"
    with pytest.raises(AcquireError, match="no defaultStorageManifest"):
        storage_manifest("package nodeimage\n")
    with pytest.raises(AcquireError, match="uses other"):
        storage_manifest(GO.replace("+ image +", "+ other +"))


def test_an_image_that_a_cluster_starts_with_must_be_in_its_nodes() -> None:
    check(["busybox:1"], {"docker.io/library/busybox:1"})
    with pytest.raises(AcquireError, match=r"registry\.k8s\.io/new:v9"):
        check(["registry.k8s.io/new:v9"], set())


# Files for classrooms


class Engine(Docker):
    """An engine that has all images, and keeps what it is told to load."""

    def __init__(self, content: bytes, missing: Sequence[str] = ()) -> None:
        super().__init__()
        self.content, self.missing, self.loaded, self.names = content, missing, b"", []  # type: ignore[var-annotated]

    def info(self) -> dict[str, Any]:
        return {}

    def inspect(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        image = {"Size": len(self.content), "Id": "sha256:1", "Config": {"Labels": {OWN: "x", KEY: "y"}}}
        return {name: image for name in names if not any(part in name for part in self.missing)}

    def save(self, _tags: Sequence[str], out: Callable[[bytes], None]) -> None:
        for i in range(0, len(self.content), 7):
            out(self.content[i : i + 7])

    def load(self, write: Callable[[IO[bytes]], None]) -> None:
        stream = io.BytesIO()
        write(stream)
        self.loaded = stream.getvalue()

    def tag(self, _source: str, name: str) -> None:
        self.names.append(name)


CONTENT = bytes(range(256)) * 400


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A file of `save`."""
    file = tmp_path / "images.zip"
    pack.save(file, silent, Engine(CONTENT))
    return file


def test_what_was_saved_is_loaded(packed: Path) -> None:
    phases: list[Phase] = []
    engine = Engine(b"")
    told = pack.load(packed, phases.append, engine)
    assert engine.loaded == CONTENT
    assert told == pack.contents(packed)
    assert told.kubernetes == versions().kubernetes
    assert set(told.images) == {spec.short for spec in catalogue().shipped()}
    assert [p.name for p in phases if p.state == "done"][:1] == ["check"]
    assert max(p.fraction or 0 for p in phases) == 1
    assert not [p for p in packed.parent.iterdir() if p != packed]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(packed: Path, share: float) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(len(whole) * share)])
    engine = Engine(b"")
    with pytest.raises(ImageError, match="damaged or cut off"):
        pack.load(packed, silent, engine)
    assert engine.loaded == b""


def test_a_damaged_file_is_refused_before_docker_sees_it(packed: Path) -> None:
    whole = bytearray(packed.read_bytes())
    for place in range(60, len(whole) - 2000, 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        packed.write_bytes(damaged)
        engine = Engine(b"")
        with pytest.raises(ImageError, match="damaged"):
            pack.load(packed, silent, engine)
        assert engine.loaded == b""


def rewritten(file: Path, **changes: Any) -> None:
    """Change what the file says of itself."""
    with zipfile.ZipFile(file) as archive:
        about, images = json.loads(archive.read("labkit-airgap.json")), archive.read("images.tar")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.tar", images)
        archive.writestr("labkit-airgap.json", json.dumps(about | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, "checksum is another"),
        ({"platform": "linux-s390x"}, "is for linux-s390x"),
        ({"format": 99}, "has format 99"),
        ({"surprise": 1}, "not made by"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(packed: Path, changes: dict[str, Any], said: str) -> None:
    rewritten(packed, **changes)
    engine = Engine(b"")
    with pytest.raises(ImageError, match=said):
        pack.load(packed, silent, engine)
    assert engine.loaded == b""


def test_images_of_another_version_of_labkit_are_told(packed: Path) -> None:
    told = pack.contents(packed)
    rewritten(packed, images={**told.images, "node": "labkit-airgap/node:older"})
    phases: list[Phase] = []
    pack.load(packed, phases.append, Engine(b""))
    assert any("another version of labkit" in p.text and "node" in p.text for p in phases if p.note)


def test_what_is_no_such_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="There is no file"):
        pack.contents(tmp_path / "none")
    other = tmp_path / "other"
    other.write_bytes(b"hello")
    with pytest.raises(ImageError, match="not made by"):
        pack.contents(other)
    with pytest.raises(ImageError, match="cannot be read"):
        pack.contents(tmp_path)


def test_saving_needs_all_images_and_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="node") as caught:
        pack.save(tmp_path / "x.zip", silent, Engine(CONTENT, missing=["/node:"]))
    assert "labkit airgap build" in caught.value.hint

    class Broken(Engine):
        def save(self, _tags: Sequence[str], out: Callable[[bytes], None]) -> None:
            out(b"some")
            raise MachineError("the engine went away")

    with pytest.raises(MachineError, match="went away"):
        pack.save(tmp_path / "x.zip", silent, Broken(CONTENT))
    with pytest.raises(ConfigError, match="no folder"):
        pack.save(tmp_path / "none" / "x.zip", silent, Engine(CONTENT))
    assert list(tmp_path.iterdir()) == []


# Faults in words


def docker_that(folder: Path, script: str) -> Docker:
    """A client that does what a shell script does."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Docker(str(program))


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock", MachineError, "may not use"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", MachineError, "no engine answers"),
        ("write /var/lib/docker/tmp/x: no space left on device", MachineError, "disk of the Docker engine is full"),
        ("Error response from daemon: something else", AcquireError, "something else"),
    ],
)  # fmt: skip
def test_what_docker_says_becomes_one_clear_error(
    tmp_path: Path, said: str, kind: type[LabkitError], message: str
) -> None:
    docker = docker_that(tmp_path, f"echo '{said}' >&2; exit 1")
    for ask in (docker.info, lambda: docker.inspect(["x:1"])):
        with pytest.raises(kind, match=message):
            ask()
    assert isinstance(Docker.fault(said), kind)


def test_without_docker_the_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no program `docker`") as caught:
        Docker().info()
    assert "docker.io" in caught.value.hint


def test_a_failing_build_step_is_named_with_its_last_words(tmp_path: Path) -> None:
    docker = docker_that(
        tmp_path,
        'case "$*" in *buildx*) exit 1;; esac\ncat >/dev/null\n'
        "echo 'Step 2/3 : RUN false'; echo 'The command returned a non-zero code: 1'; exit 1",
    )
    context = Context()
    context.add("Dockerfile", "FROM scratch\n")
    told: list[tuple[str, float | None]] = []
    with pytest.raises(AcquireError, match="RUN false") as caught:
        docker.build(context.write, "x:1", args={}, labels={}, progress=lambda *what: told.append(what))
    assert "non-zero code" in caught.value.hint
    assert ("RUN false", 1 / 3) in told


def test_a_mirror_that_fails_inside_a_build_is_told_from_a_failing_step() -> None:
    lines = ["Step 3/9 : RUN install-packages git", "E: Failed to fetch http://x/git.deb  403  Forbidden"]
    assert "LABKIT_DEBIAN_MIRROR" in build_fault(lines).hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("E: Release signed by unknown key (key id 1)", "as Debian signed them"),
        ("E: Failed getting release file http://x/dists/bookworm/Release", "does not give Debian's packages"),
        ("E: Couldn't download packages: dpkg", "does not give Debian's packages"),
        ("tar: write error: No space left on device", "disk is full"),
        ("E: something new", "debootstrap failed"),
    ],
)
def test_what_debootstrap_says_becomes_one_clear_error(line: str, message: str) -> None:
    assert message in rootfs.explain(["I: Retrieving", line], "http://x").message


def test_missing_tools_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "_TOOLS", ("sh", "no-such-tool"))
    with pytest.raises(MachineError, match="no-such-tool") as caught:
        rootfs.require_tools()
    assert "apt-get install no-such-tool" in caught.value.hint
    assert "airgap load" in caught.value.hint


# The runtime of CI's engine


@pytest.mark.parametrize("argv", [["create", "--bundle", "B", "id"], ["--root", "/r", "run", "-b", "B", "id"], ["exec", "--process", "B/process.json", "id"]])  # fmt: skip
def test_the_runtime_takes_out_one_capability_and_changes_nothing_else(
    tmp_path: Path, argv: list[str]
) -> None:
    process = {
        "args": ["x"],
        "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"]},
    }
    (tmp_path / "config.json").write_text(json.dumps({"ociVersion": "1", "process": process}))
    (tmp_path / "process.json").write_text(json.dumps(process))
    runc = tmp_path / "runc"
    runc.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\n')
    runc.chmod(0o755)
    given = [each.replace("B", str(tmp_path), 1) if each.startswith("B") else each for each in argv]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, str(ROOT / ".ci/runc-reduced"), *given], check=True, env=env, timeout=30)
    assert (tmp_path / "called").read_text().split() == given
    config = json.loads((tmp_path / "config.json").read_text())["process"]
    executed = json.loads((tmp_path / "process.json").read_text())
    changed, kept = (executed, config) if "exec" in argv else (config, executed)
    assert changed["capabilities"] == {"bounding": ["CAP_KILL"], "effective": []}
    assert changed["args"] == ["x"]
    assert kept == process


@pytest.mark.parametrize("name", ["my cache", "my cach'é $x"])
def test_a_blank_in_the_caches_path_costs_no_neighbour(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder `my` beside the cache `my cache` was removed once; stand-ins for what needs a mirror."""
    programs, neighbour, cache = tmp_path / "bin", tmp_path / "my", tmp_path / name
    for folder in (programs, neighbour, cache):
        folder.mkdir()
    (neighbour / "thesis").write_text("years of work")
    bodies = {"fakeroot": 'exec "$@"', "gpgv": "", "debootstrap": 'mkdir -p "$7/etc"; ln -s /proc "$7/proc"'}
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(rootfs, "_KEYRING", neighbour / "thesis")
    made = rootfs.unpacked("bookworm", "http://x", cache, lambda _text, _part: None)
    with made as archive, tarfile.open(archive) as tar:
        assert tar.getmember("./proc").isdir() and tar.getmember("./etc").isdir()
    assert (neighbour / "thesis").read_text() == "years of work"
