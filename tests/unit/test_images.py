"""Images: Dockerfiles read, bundles built with the real pip (offline), the store after accidents."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from labkit import images
from labkit.errors import ImageError
from labkit.image_cli import app
from labkit.images.dockerfile import join, read_dockerfile

WHEEL = "greeter-1.0-py3-none-any.whl"
BUILD = """\
import sys; from pathlib import Path; from labkit import images
images.build(sys.argv[1], sys.argv[3], store=images.ImageStore(Path(sys.argv[2])))
"""
DOCKERFILE = f"""\
FROM python:3.12-slim AS base
ARG GREETING=hello
ENV GREETING=$GREETING PATH="/app/bin:$PATH" MIX='$GREETING'
LABEL org.example.title="a greeter"
WORKDIR /app
COPY requirements.txt {WHEEL} ./
RUN pip install --no-cache-dir --no-index --no-deps -r requirements.txt
COPY --chown=1000:1000 src/ src
COPY *.toml conf/
USER 1000
EXPOSE 8080 9090/udp
CMD ["greet", "--port", "8080"]
"""


def make_wheel(directory: Path, text: str = "hi") -> None:
    """A real wheel with one module and one console script, so that pip needs no network."""
    with zipfile.ZipFile(directory / WHEEL, "w") as wheel:
        wheel.writestr("greeter.py", f"def main():\n    print({text!r})\n")
        info = "greeter-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ngreet = greeter:main\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "greeter"
    (root / "src/deep").mkdir(parents=True)
    make_wheel(root)
    files = {
        "Dockerfile": DOCKERFILE,
        "requirements.txt": f"./{WHEEL}\n",
        "src/main.py": "print(1)\n",
        "src/.hidden": "h",
        "src/deep/secret.env": "s",
        "src/deep/kept.env": "k",
        "one.toml": "1",
        "two.toml": "2",
        ".dockerignore": "# nothing secret\n**/*.env\n!src/deep/kept.env\ntwo.*\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def store(tmp_path: Path) -> images.ImageStore:
    return images.ImageStore(tmp_path / "store")


def from_dockerfile(tmp_path: Path, text: str) -> Path:
    root = tmp_path / "ctx"
    root.mkdir(exist_ok=True)
    (root / "Dockerfile").write_text(text)
    return root


def test_build_makes_a_bundle_whose_console_script_runs(context: Path, store: images.ImageStore) -> None:
    said: list[str] = []
    image = images.build(context, "docker.io/demo/greeter", store=store, progress=said.append)
    assert image.tags == ("demo/greeter:latest",)
    config = json.loads((store.root / "blobs" / image.digest / "config.json").read_text())
    assert config["digest"] == image.digest
    assert config["env"] == [
        "LANG=C.UTF-8",
        "GREETING=hello",
        "PATH=/app/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "MIX=$GREETING",
    ]
    assert (config["cmd"], config["entrypoint"]) == (["greet", "--port", "8080"], [])
    assert (config["workdir"], config["user"]) == ("/app", "1000")
    assert config["exposed_ports"] == ["8080/tcp", "9090/udp"]
    assert config["labels"] == {"org.example.title": "a greeter"}
    [directory] = config["path_prepend"]
    assert subprocess.run([f"{directory}/greet"], capture_output=True, text=True).stdout == "hi\n"
    assert subprocess.run([f"{directory}/python", "-c", "import yaml"], capture_output=True).returncode == 1
    assert any("--chown" in note for note in image.notes) and any("3.12" in note for note in image.notes)
    assert any(line.startswith("built demo/greeter:latest") for line in said)


def test_copy_follows_dockerignore_globs_and_directories(context: Path, store: images.ImageStore) -> None:
    rootfs = images.build(context, "greeter", store=store).rootfs
    assert rootfs is not None
    found = sorted(str(path.relative_to(rootfs)) for path in rootfs.rglob("*") if path.is_file())
    assert found == [
        "app/conf/one.toml",
        f"app/{WHEEL}",
        "app/requirements.txt",
        "app/src/.hidden",
        "app/src/deep/kept.env",
        "app/src/main.py",
    ]


def test_links_named_in_copy_are_followed_and_those_inside_are_kept(
    context: Path, store: images.ImageStore
) -> None:
    (context / "alias").symlink_to("src")
    (context / "src/main.link").symlink_to("main.py")
    (context / "Dockerfile").write_text("FROM python\nCOPY alias /app\nCOPY src/main.link /one/\n")
    rootfs = images.build(context, "a", store=store).rootfs
    assert rootfs is not None and not (rootfs / "app").is_symlink()
    assert (rootfs / "app/main.link").readlink() == Path("main.py")
    assert (rootfs / "one/main.link").read_text() == "print(1)\n" and not (
        rootfs / "one/main.link"
    ).is_symlink()


def test_same_content_same_digest_and_the_layer_is_shared(context: Path, store: images.ImageStore) -> None:
    first = images.build(context, "a:1", store=store)
    again = images.build(context, "a:2", store=store)
    assert (first.digest, again.tags) == (again.digest, ("a:1", "a:2"))
    (context / "src/main.py").write_text("print(2)\n")
    said: list[str] = []
    changed = images.build(context, "a:3", store=store, progress=said.append)
    assert changed.digest != first.digest and changed.layers == first.layers
    assert not any(line.startswith("pip") for line in said) and any("cached" in line for line in said)


def test_changed_wheel_behind_an_unchanged_requirements_file_is_installed(
    context: Path, store: images.ImageStore
) -> None:
    (context / "requirements.txt").write_text("-r inner.txt\n")
    (context / "inner.txt").write_text("greeter\n")
    text = DOCKERFILE.replace("COPY requirements.txt", "COPY inner.txt requirements.txt")
    (context / "Dockerfile").write_text(text.replace("--no-deps", "--find-links ."))
    images.build(context, "a:1", store=store)
    make_wheel(context, "changed")
    image = images.build(context, "a:2", store=store)
    run = subprocess.run([f"{image.path_prepend[0]}/greet"], capture_output=True, text=True)
    assert run.stdout == "changed\n"
    (context / "inner.txt").write_text("greeter==1.0\n")
    assert images.build(context, "a:3", store=store).layers != image.layers


@pytest.mark.parametrize("victim", ["rootfs", "config", "layer", "moved"])
def test_damage_is_detected_and_a_build_repairs_it(
    victim: str, context: Path, store: images.ImageStore, tmp_path: Path
) -> None:
    image = images.build(context, "a:1", store=store)
    store.verify(image)
    assert image.rootfs is not None
    if victim == "rootfs":
        (image.rootfs / "app/src/main.py").write_text("evil")
    elif victim == "config":
        config = image.rootfs.parent / "config.json"
        config.write_text(config.read_text().replace("8080", "8081"))
    elif victim == "layer":
        next(store.layers.path(image.layers[0]).rglob("greeter.py")).write_text("")
    else:
        store.root.rename(tmp_path / "elsewhere")
        store = images.ImageStore(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="damaged"):
        store.verify(store.get("a:1"))
    rebuilt = images.build(context, "a:1", store=store)
    store.verify(rebuilt)
    run = subprocess.run([f"{rebuilt.path_prepend[0]}/greet"], capture_output=True, text=True)
    assert (rebuilt.digest, run.stdout) == (image.digest, "hi\n")


def test_byte_code_written_at_run_time_is_no_damage(context: Path, store: images.ImageStore) -> None:
    image = images.build(context, "a:1", store=store)
    assert image.rootfs is not None
    (image.rootfs / "app/src/__pycache__").mkdir()
    (image.rootfs / "app/src/__pycache__/main.pyc").write_bytes(b"x")
    store.verify(image)


def test_unreadable_bundle_is_listed_as_damaged(context: Path, store: images.ImageStore) -> None:
    image = images.build(context, "a:1", store=store)
    (store.root / "blobs" / image.digest / "config.json").write_text('{"half')
    assert [found.notes for found in store.images() if found.tags == ("a:1",)] == [
        ("damaged: build it again",)
    ]
    store.verify(images.build(context, "a:1", store=store))


def test_killed_build_leaves_nothing_and_the_next_one_works(context: Path, store: images.ImageStore) -> None:
    """kill -9 while pip runs: pip is made to wait by a source package whose build sleeps."""
    (context / "slow").mkdir()
    (context / "slow/setup.py").write_text(
        "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent: time.sleep(0.1)\n"
    )
    (context / "Dockerfile").write_text("FROM python\nCOPY slow /slow\nRUN pip install --no-index /slow\n")
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(context), str(store.root), "a"])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not list(store.layers.root.glob("*/venv/bin/python")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for path in (store.root / "tmp").iterdir():
        os.utime(path, (0, 0))  # as if a while had passed
    assert len(store.images()) == 1
    (context / "Dockerfile").write_text("FROM python\nCOPY slow /slow\n")
    image = images.build(context, "a", store=store)
    store.verify(image)
    assert list((store.root / "tmp").iterdir()) == []
    store.collect()
    kept = {path.name for path in store.layers.root.iterdir() if path.is_dir()}
    assert kept == set(image.layers)


def test_two_processes_build_the_same_image_at_once(context: Path, store: images.ImageStore) -> None:
    command = [sys.executable, "-c", BUILD, str(context), str(store.root)]
    running = [subprocess.Popen([*command, f"a:{number}"]) for number in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    [_, image] = store.images()
    assert image.tags == ("a:0", "a:1", "a:2")
    store.verify(image)


def test_failed_pip_shows_its_error_and_leaves_no_layer(context: Path, store: images.ImageStore) -> None:
    (context / "Dockerfile").write_text("FROM python\n\nRUN pip install --no-index no-such-package\n")
    with pytest.raises(ImageError, match=r"Dockerfile, line 3: pip install failed.*(?s:.*)no-such-package"):
        images.build(context, "a", store=store)
    assert [path for path in store.layers.root.iterdir() if path.is_dir()] == []
    assert len(store.images()) == 1


def test_an_image_of_one_program(tmp_path: Path, store: images.ImageStore) -> None:
    program = tmp_path / "made-elsewhere"
    program.write_text("#!/bin/sh\necho it runs as $0\n")
    name = "quay.io/example/agent:v1"
    image = images.from_program(name, program, "/bin/agent", links=["/agent"], env=["A=b"], store=store)
    assert (image.tags, image.entrypoint, image.env) == ((name,), ("/bin/agent",), ("A=b",))
    assert image.rootfs is not None and (image.rootfs / "agent").readlink() == Path("bin/agent")
    assert subprocess.check_output([image.rootfs / "bin/agent"], text=True).startswith("it runs as")
    again = images.from_program(name, program, "/bin/agent", links=["/agent"], env=["A=b"], store=store)
    assert again.digest == image.digest and not store.damage(image.digest)
    with pytest.raises(ImageError, match="cannot be written"):
        images.from_program(name, tmp_path / "missing", "/bin/agent", store=store)
    assert store.get(name).digest == image.digest


def test_tag_remove_and_collect(context: Path, store: images.ImageStore) -> None:
    first = images.build(context, "a:1", store=store)
    store.tag("a:1", "docker.io/library/b")
    assert store.get("b").digest == store.get(first.short_digest).digest == first.digest
    store.remove("a:1")
    assert store.get("b:latest").tags == ("b:latest",)
    (context / "src/main.py").write_text("2")
    second = images.build(context, "b", store=store)
    assert [image.tags for image in store.images()] == [(images.HOST_IMAGE,), ("b:latest",), ()]
    store.collect(untagged=True)
    assert [image.digest for image in store.images()] == ["", second.digest]
    store.remove(second.short_digest)
    assert [image.built_in for image in store.images()] == [True]
    assert [path for path in store.layers.root.iterdir() if path.is_dir()] == []
    with pytest.raises(ImageError, match="There is no image 'b'"):
        store.remove("b")
    for refused in (lambda: store.remove("labkit/host"), lambda: store.tag("labkit/host", "x")):
        with pytest.raises(ImageError, match="built in"):
            refused()


def test_unreadable_refs_are_one_clear_error(store: images.ImageStore) -> None:
    store.root.mkdir()
    (store.root / "refs.json").write_text("[")
    with pytest.raises(ImageError, match="Delete that file"):
        store.images()


REFUSED = {
    "FROM alpine:3\n": (1, "FROM alpine:3", "python"),
    "FROM python\nFROM python\n": (2, "second FROM", "one stage"),
    "RUN pip install x\nFROM python\n": (1, "RUN before FROM", "FROM"),
    "FROM python\n\n# c\nHEALTHCHECK CMD true\n": (4, "HEALTHCHECK", "livenessProbe"),
    "FROM python\nADD x /\n": (2, "ADD", "COPY"),
    "FROM python\nFRMO x\n": (2, "FRMO", "knows"),
    "FROM python\nRUN apt-get update \\\n  && pip install x\n": (2, "apt-get update", "Only `pip install"),
    "FROM python\nRUN pip install fastapi>=0.1\n": (2, "redirection", "Quote it"),
    "FROM python\nRUN pip install x; rm -rf /\n": (2, "not supported", ""),
    "FROM python\nRUN pip install -e .\n": (2, "-e is not supported", ""),
    "FROM python\nRUN pip install -r requirements.txt\n": (2, "not in the image yet", "COPY it before"),
    "FROM python\nRUN pip install -r /../../etc/passwd\n": (2, "not in the image", ""),
    "FROM python\nRUN <<EOF\nEOF\n": (2, "here-document", "COPY"),
    "FROM python\nCOPY ../outside /\n": (2, "leaves the build context", ""),
    "FROM python\nCOPY link /\n": (2, "leaves the build context", ""),
    "FROM python\nCOPY missing* /app/\n": (2, "no such file", ".dockerignore"),
    "FROM python\nCOPY a b dest\n": (2, "several files", "dest/"),
    "FROM python\nCOPY --from=build a b\n": (2, "--from", "one stage"),
    "FROM python\nCOPY --chmod=u+x a b\n": (2, "octal", ""),
    "FROM python\nCMD ['python']\n": (2, "JSON", "double quotes"),
    "FROM python\nEXPOSE http\n": (2, "PORT", ""),
    "FROM python\nENV a=1 b\n": (2, 'can\'t find = in "b". Must be of the form: name=value', ""),
    "FROM python\nWORKDIR\n": (2, "WORKDIR requires exactly one argument", ""),
    'FROM python\n\nENV A="${B?is not given}"\n': (3, "is not given", ""),
    "FROM python\nRUN pip install x || true\n": (2, "joined by ||", "Only `pip install"),
    "FROM python\nRUN pip install $(cat list)\n": (2, "output of a command", ""),
    "FROM python\nRUN cd /x\n": (2, "RUN cd /x is not supported", ""),
    "FROM python\nCOPY <<EOF /x\nEOF\n": (2, "here-document", ""),
    "FROM python\nCOPY --parents a b/\n": (2, "--parents", ""),
    "FROM python\nCOPY a/../../outside /\n": (2, "leaves the build context", ""),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals_name_file_line_and_a_way_out(text: str, tmp_path: Path, store: images.ImageStore) -> None:
    line, what, hint = REFUSED[text]
    root = from_dockerfile(tmp_path, text)
    (root / "a").write_text("a")
    (root / "b").write_text("b")
    (root / "link").symlink_to("/etc/passwd")
    with pytest.raises(ImageError) as caught:
        images.build(root, "x", store=store)
    assert f"{root / 'Dockerfile'}, line {line}: " in caught.value.message
    assert what in caught.value.message and hint in caught.value.hint


def test_arg_env_and_shell_forms_are_read_as_docker_does(tmp_path: Path) -> None:
    text = """ARG VERSION=3.11
FROM python:${VERSION}-slim
ARG WHO
ARG DIR=/srv
WORKDIR $DIR
WORKDIR app/../web
ENV OLD some value
ENV A="x y" B=${WHO:-nobody} \\
    # a comment between
    C=${A:+set} D=\\$A E=${NONE}.
ENTRYPOINT exec python main.py
COPY ["a b", "/dst dir/"]
RUN python3 -m pip install "a>=1" && pip3 install b[extra]==2
"""
    root = from_dockerfile(tmp_path, text)
    recipe = read_dockerfile(root / "Dockerfile", {"WHO": "me"})
    assert recipe.python == "3.11-slim" and recipe.workdir == "/srv/web"
    assert recipe.env["OLD"] == "some value"
    assert [recipe.env[name] for name in "ABCDE"] == [
        "x y",
        "me",
        "",
        "$A",
        ".",
    ]  # A is not set before its line
    assert recipe.entrypoint == ["/bin/sh", "-c", "exec python main.py"] and recipe.cmd == []
    copy, first, second = recipe.steps
    assert (copy.sources, copy.dest) == (("a b",), "/dst dir/")  # type: ignore[union-attr]
    assert (first.args, second.args) == (("a>=1",), ("b[extra]==2",))  # type: ignore[union-attr]


@given(st.text(alphabet="a./", max_size=20), st.text(alphabet="a./", max_size=20))
def test_paths_never_leave_the_root(workdir: str, path: str) -> None:
    joined = join(workdir, path)
    assert joined.startswith("/") and not {"..", "."} & set(joined.split("/"))


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("shop/catalog:v1", "shop/catalog:v1"),
        ("docker.io/shop/catalog:v1", "shop/catalog:v1"),
        ("docker.io/library/nginx", "nginx:latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("registry.example/a:1.0", "registry.example/a:1.0"),
    ],
)
def test_names_are_normalised(name: str, normal: str) -> None:
    assert images.normalise(name) == normal == images.normalise(normal)


@pytest.mark.parametrize("name", ["", "Shop/x", "a:", "a b", "../x", "a@sha256:00", "a:-x", "/a", "a//b"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=re.escape(repr(name))):
        images.normalise(name)


def test_command_line(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    run = CliRunner().invoke
    built = run(app, ["build", str(context), "-t", "cli:1", "--build-arg", "GREETING=hola", "--json"])
    assert built.exit_code == 0, built.output
    assert "GREETING=hola" in json.loads(built.stdout)["env"]
    assert run(app, ["tag", "cli:1", "cli:2"]).exit_code == 0
    listed = run(app, ["list"]).stdout
    assert "labkit/host:latest" in listed and "cli:1" in listed and "cli:2" in listed
    assert {tag for image in json.loads(run(app, ["list", "--json"]).stdout) for tag in image["tags"]} == {
        "labkit/host:latest",
        "cli:1",
        "cli:2",
    }
    assert json.loads(run(app, ["inspect", "cli:2"]).stdout)["user"] == "1000"
    assert run(app, ["rm", "cli:1", "cli:2"]).exit_code == 0
    assert isinstance(run(app, ["inspect", "cli:2"]).exception, ImageError)
