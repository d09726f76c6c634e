"""The catalog: its file, and following it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from catalog.products import parse
from chassis.settings import SettingError

GOOD = '[[products]]\nsku = "mug"\nname = "Mug"\nprice_cents = {cents}\n'


def until(condition: Any, seconds: float = 30) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_products_of_the_shop(start: Any) -> None:
    catalog = start("catalog")
    answer = catalog.http.get("/products").json()
    assert {product["sku"] for product in answer["products"]} >= {"mug", "tote"}
    assert catalog.http.get("/products/mug").json() == answer["products"][0]
    assert catalog.http.get("/products/nothing").status_code == 404
    assert catalog.metric("catalog_products") == len(answer["products"])
    assert catalog.http.get("/readyz").json() == {"ready": True, "checks": {}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("products = 3", "no [[products]]"),
        ("[[products]", "not TOML"),
        (GOOD.format(cents=0), "product 1: price_cents"),
        (GOOD.format(cents=1).replace("name", "nmae"), "product 1: name: Field required"),
        (GOOD.format(cents=1) + 'colour = "red"\n', "product 1: colour"),
        (GOOD.format(cents=1) * 2, "product 2: mug is there already"),
        ("\xff", "product"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse(text.encode("latin-1"), "products.toml")
    assert reason in str(refused.value) and "products.toml" in str(refused.value)


def test_no_start_without_a_catalogue(start: Any, tmp_path: Path) -> None:
    catalog = start("catalog", wait=False, CATALOG_FILE=str(tmp_path / "none.toml"))
    assert catalog.process.wait(60) == 1
    assert "none.toml cannot be read: No such file" in catalog.log.read_text()


def mount(volume: Path, number: int, text: str) -> None:
    """Write a file as the kubelet writes a ConfigMap: a new directory, then one link is exchanged."""
    (volume / f"..{number}").mkdir(parents=True)
    (volume / f"..{number}" / "products.toml").write_text(text)
    (volume / "..tmp").symlink_to(f"..{number}")
    (volume / "..tmp").rename(volume / "..data")
    if not (volume / "products.toml").is_symlink():
        (volume / "products.toml").symlink_to("..data/products.toml")


def test_changes_are_followed_and_broken_ones_refused(start: Any, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    mount(volume, 1, GOOD.format(cents=100))
    catalog = start("catalog", CATALOG_FILE=str(volume / "products.toml"), CATALOG_RELOAD_SECONDS="0.1")

    def price() -> int:
        return int(catalog.http.get("/products/mug").json()["price_cents"])

    first = catalog.http.get("/products").json()["revision"]
    mount(volume, 2, GOOD.format(cents=200))
    until(lambda: price() == 200)
    assert catalog.http.get("/products").json()["revision"] != first

    mount(volume, 3, GOOD.format(cents=-3))
    until(lambda: "price_cents" in catalog.http.get("/products").json()["problem"])
    assert price() == 200, "the last good one stays"
    time.sleep(0.5)
    assert len(catalog.logged(level="ERROR")) == 1, "one line a change, not one a look"
    assert catalog.metric('catalog_reloads_total{result="refused"}') == 1

    (volume / "..data").unlink()
    until(lambda: "cannot be read" in catalog.http.get("/products").json()["problem"])
    mount(volume, 4, GOOD.format(cents=200))
    until(lambda: catalog.http.get("/products").json()["problem"] == "")
    assert catalog.http.get("/readyz").status_code == 200
