"""The catalogue's file: TOML, validated, followed while the service runs."""

from __future__ import annotations

import hashlib
import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis.settings import SettingError

logger = logging.getLogger("catalog")


class Product(BaseModel):
    """A product; prices in euro cents, before discounts."""

    model_config = ConfigDict(extra="forbid")

    sku: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    name: str = Field(min_length=1, max_length=80)
    description: str = Field(default="", max_length=200)
    price_cents: int = Field(gt=0, le=100_000_00)
    icon: str = Field(default="box", pattern=r"^[a-z]{1,20}$")


@dataclass(frozen=True)
class Catalog:
    """The products of one version of the file; `revision` is 12 hexadecimal digits of its content."""

    revision: str
    products: dict[str, Product]


def parse(content: bytes, where: str) -> Catalog:
    """Read a catalogue.

    Raises:
        SettingError: names what is wrong, and in which product.
    """
    try:
        entries = tomllib.loads(content.decode()).get("products")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{where} is not TOML: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise SettingError(f"{where} has no [[products]]")
    products: dict[str, Product] = {}
    for number, entry in enumerate(entries, 1):
        try:
            product = Product.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise SettingError(f"{where}, product {number}: {field}: {first['msg']}") from None
        if product.sku in products:
            raise SettingError(f"{where}, product {number}: {product.sku} is there already")
        products[product.sku] = product
    return Catalog(hashlib.sha256(content).hexdigest()[:12], products)


class CatalogFile:
    """A catalogue that follows its file; a broken change is refused and the last good one stays in use.

    Attributes:
        current: the catalogue in use.
        problem: what is wrong with the file now, "" if it is in use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._read()
        self.current = parse(self._seen, str(path))
        self.problem = ""

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise SettingError(f"{self.path} cannot be read: {error.strerror}") from None

    def refresh(self) -> bool:
        """Look at the file again; True when its content changed. Reads it, since Kubernetes swaps links."""
        try:
            content = self._read()
            if content == self._seen and not self.problem:
                return False
            self._seen = content
            self.current = parse(content, str(self.path))
            self.problem = ""
            logger.info("catalogue reloaded", extra={"revision": self.current.revision})
        except SettingError as error:
            if str(error) == self.problem:
                return False
            self.problem = str(error)
            logger.error("change refused, the old catalogue stays", extra={"reason": self.problem})
        return True
