"""Dockerfiles that public reports are about, each built and compared with what BuildKit makes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from labkit import images
from labkit.errors import ImageError

HEAD = "FROM python\n"


def built(tmp_path: Path, text: str | bytes, files: dict[str, str], **options: Any) -> images.Image:
    """The image of a Dockerfile and a few files."""
    root = tmp_path / "context"
    for name, content in {"a": "a", "b": "b", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "Dockerfile").write_bytes(text if isinstance(text, bytes) else text.encode())
    return images.build(root, "x", store=images.ImageStore(tmp_path / "store"), **options)


VALUES = {
    "ARG V=1\nFROM python\nARG V\nENV A=$V\n": "1",
    "ARG V=1\nFROM python\nENV A=$V.\n": ".",
    "ARG V=1\nFROM python\nARG V=2\nENV A=$V\n": "2",
    "ARG ONE=1\nARG TWO=${ONE}2\nFROM python\nARG TWO\nENV A=$TWO\n": "12",
    HEAD + "ENV B=b\nENV A=${NONE:-$B}\n": "b",
    HEAD + "ENV B=b\nENV A=${NONE:-${NEITHER:-${B}}}\n": "b",
    HEAD + "ENV B=\nENV A=${B-word}.\n": ".",
    HEAD + "ENV A=${B-word}\n": "word",
    HEAD + "ENV B=1\nENV A=${B:+word}\n": "word",
    HEAD + "ENV B=\nENV A=${B+word}\n": "word",
    HEAD + "ENV B=1\nENV C=$B\nENV A=${C:+<$B>}\n": "<1>",
    HEAD + "ENV B=here\nENV A=${B?needed}\n": "here",
    HEAD + "ENV B=x.tar.gz\nENV A=${B%.gz}\n": "x.tar",
    HEAD + "ENV B=x.tar.gz\nENV A=${B##*.}\n": "gz",
    HEAD + "ENV B=a-b-c\nENV A=${B//-/_}\n": "a_b_c",
    HEAD + 'ENV B=1\nENV A="it\'s $B"\n': "it's 1",
    HEAD + "ENV B=1\nENV A='$B'\n": "$B",
    HEAD + "ENV B=1\nENV A=\"'$B'\"\n": "'1'",
    HEAD + "ENV B=1 A=$B.\n": ".",
    HEAD + "ENV A=one\\ word\n": "one word",
    HEAD + 'ENV A="say \\"hi\\""\n': 'say "hi"',
    HEAD + "ENV A old  form = too\n": "old  form = too",
    HEAD + 'ENV A=x \\\n# a comment\n\n    B="y"\n': "x",
    HEAD + "env A=lower\n": "lower",
    "# escape=`\nFROM python\nENV A=x`\n B=y\n": "x",
    b"\xef\xbb\xbfFROM python\nENV A=bom\n": "bom",
    b"FROM python\r\nENV A=crlf\r\n": "crlf",
    HEAD + "ENV A=given \\\n": "given",
}


@pytest.mark.parametrize("text", VALUES, ids=repr)
def test_values_are_expanded_as_buildkit_does(text: str | bytes, tmp_path: Path) -> None:
    env = dict(line.split("=", 1) for line in built(tmp_path, text, {}).env)
    assert env["A"] == VALUES[text]


def test_build_arguments_win_over_defaults_on_both_sides_of_from(tmp_path: Path) -> None:
    text = "ARG TAG=3.9\nFROM python:$TAG\nARG TAG\nARG OWN=1\nENV A=$TAG-$OWN\n"
    image = built(tmp_path, text, {}, build_args={"TAG": "3.11", "OWN": "2"})
    assert "A=3.11-2" in image.env


COMMANDS = {
    "ENTRYPOINT []\n": ((), ()),
    'ENTRYPOINT ["a"]\nCMD []\n': (("a",), ()),
    'CMD ["x"]\nENTRYPOINT ["a"]\n': (("a",), ("x",)),
    "CMD [ -f /x ] && exec serve\n": ((), ("/bin/sh", "-c", "[ -f /x ] && exec serve")),
    "CMD [[ -f /x ]] && exec serve\n": ((), ("/bin/sh", "-c", "[[ -f /x ]] && exec serve")),
    "CMD echo $HOME \\\n  # left out\n  there\n": ((), ("/bin/sh", "-c", "echo $HOME   there")),
    'CMD ["sh", "-c", "echo $HOME"]\n': ((), ("sh", "-c", "echo $HOME")),
    'CMD [ "spaced" , "words" ]\n': ((), ("spaced", "words")),
}


@pytest.mark.parametrize("text", COMMANDS, ids=repr)
def test_commands_are_those_of_buildkit(text: str, tmp_path: Path) -> None:
    image = built(tmp_path, HEAD + text, {})
    assert (image.entrypoint, image.cmd) == COMMANDS[text]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("EXPOSE 8000-8002\n", ("8000/tcp", "8001/tcp", "8002/tcp")),
        ("ENV P=80\nEXPOSE $P/udp 70\n", ("70/tcp", "80/udp")),
        ('ENV P="80 81"\nEXPOSE $P\n', ("80/tcp", "81/tcp")),
    ],
)
def test_ports(text: str, ports: tuple[str, ...], tmp_path: Path) -> None:
    assert built(tmp_path, HEAD + text, {}).exposed_ports == ports


TREE = {
    "one.txt": "1",
    "two.txt": "2",
    "b.txt": "b",
    "src/a/deep.py": "d",
    "src/b.py": "s",
    "lib/src/c.py": "c",
}
COPIES = {
    "COPY [^o]*.txt /w/": {"b.txt", "two.txt"},
    "COPY ?.txt /w/": {"b.txt"},
    "COPY one.txt none*.txt /w/": {"one.txt"},
    "COPY src/../one.txt /w/": {"one.txt"},
    "COPY ./src/./a/ /w/": {"deep.py"},
    "COPY src /w": {"b.py", "a/deep.py"},
    "COPY src/* /w/": {"b.py", "deep.py"},
    'COPY ["one.txt", "/w/"]': {"one.txt"},
    "WORKDIR /w\nCOPY one.txt two.txt .": {"one.txt", "two.txt"},
    "COPY /one.txt /w/": {"one.txt"},
    "ENV F=one.txt\nCOPY ${F:-two.txt} /w/": {"one.txt"},
    "COPY one.txt /w/x.": {"x."},
}


def below(image: images.Image) -> set[str]:
    assert image.rootfs
    root = image.rootfs / "w"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("text", COPIES, ids=repr)
def test_copy_takes_the_files_that_buildkit_takes(text: str, tmp_path: Path) -> None:
    assert below(built(tmp_path, f"{HEAD}{text}\n", TREE)) == COPIES[text]


IGNORED = {
    "**": set(),
    "**/src": {"one.txt", "two.txt", "b.txt"},
    "**/*.py\n!src/b.py": {"one.txt", "two.txt", "b.txt", "src/b.py"},
    "src/../one.txt": {"two.txt", "b.txt", "src/a/deep.py", "src/b.py", "lib/src/c.py"},
    "*.txt\n!one.txt\n": {"one.txt", "src/a/deep.py", "src/b.py", "lib/src/c.py"},
    "src\n!src/a": {"one.txt", "two.txt", "b.txt", "src/a/deep.py", "lib/src/c.py"},
    "*\n!src/**/*.py": {"src/a/deep.py", "src/b.py"},
    "[^o]*.txt": {"one.txt", "src/a/deep.py", "src/b.py", "lib/src/c.py"},
    "\ufeff*.txt": {"src/a/deep.py", "src/b.py", "lib/src/c.py"},
    "# comment\n /src/ \n": {"one.txt", "two.txt", "b.txt", "lib/src/c.py"},
}


@pytest.mark.parametrize("ignore", IGNORED, ids=repr)
def test_dockerignore_leaves_what_buildkit_leaves(ignore: str, tmp_path: Path) -> None:
    files = {**TREE, ".dockerignore": ignore + "\n"}
    image = built(tmp_path, HEAD + "COPY . /w/\n", files)
    left = below(image) - {"a", "b", "Dockerfile", ".dockerignore"}
    assert left == IGNORED[ignore]


def test_a_source_through_a_link_to_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/current").symlink_to("src")
    assert below(built(tmp_path, HEAD + "COPY current/b.py /w/\n", TREE)) == {"b.py"}


def wheel_steps(tmp_path: Path, text: str) -> list[tuple[str, ...]]:
    from labkit.images.dockerfile import PipInstall, read_dockerfile

    file = tmp_path / "Dockerfile"
    file.write_text(HEAD + text)
    return [step.args for step in read_dockerfile(file).steps if isinstance(step, PipInstall)]


RUNS = {
    "RUN pip install a \\\n  # a comment\n\n  b\n": [("a", "b")],
    "RUN pip install 'a>=1' # for the tests\n": [("a>=1",)],
    "ENV V=1\nRUN pip install a==$V 'b$V'\n": [("a==1", "b$V")],
    'ARG V=1\nRUN pip install "a==${V}"\n': [("a==1",)],
    'RUN ["pip", "install", "a$V"]\n': [("a$V",)],
    "RUN --mount=type=cache,target=/root/.cache pip install a &&\\\n pip install b\n": [("a",), ("b",)],
}


@pytest.mark.parametrize("text", RUNS, ids=repr)
def test_run_is_read_as_the_shell_does(text: str, tmp_path: Path) -> None:
    assert wheel_steps(tmp_path, text) == RUNS[text]


def test_pip_sees_arguments_and_variables_in_the_order_of_their_lines(tmp_path: Path) -> None:
    from labkit.images.dockerfile import PipInstall, read_dockerfile

    file = tmp_path / "Dockerfile"
    file.write_text(HEAD + "ARG PIP_A=1\nENV PIP_B=2\nRUN pip install x\nENV PIP_B=3\nRUN pip install y\n")
    steps = [step for step in read_dockerfile(file).steps if isinstance(step, PipInstall)]
    assert [dict(step.env) for step in steps] == [{"PIP_A": "1", "PIP_B": "2"}, {"PIP_A": "1", "PIP_B": "3"}]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "context/locked"
    locked.mkdir(parents=True)
    locked.chmod(0)
    try:
        with pytest.raises(ImageError, match=r"line 2: .*locked: permission denied"):
            built(tmp_path, HEAD + "COPY . /w/\n", {})
    finally:
        locked.chmod(0o700)


def test_a_huge_context_is_refused_before_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.images.grammar.MAX_FILES", 3)
    with pytest.raises(ImageError, match="more than 3 files"):
        built(tmp_path, HEAD + "COPY . /w/\n", TREE)
