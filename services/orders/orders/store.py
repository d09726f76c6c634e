"""Orders in SQLite: an order that was answered is on the disk, whatever happens to the process afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from chassis.settings import SettingError

T = TypeVar("T")

# Applied in order, once each; PRAGMA user_version counts them. Only ever append.
MIGRATIONS = (
    """CREATE TABLE orders (
         id TEXT PRIMARY KEY, created_at TEXT NOT NULL, customer TEXT NOT NULL,
         total_cents INTEGER NOT NULL, lines TEXT NOT NULL,
         idempotency_key TEXT UNIQUE, request_digest TEXT NOT NULL)""",
    "CREATE INDEX orders_created_at ON orders (created_at)",
)


class KeyReused(Exception):
    """The idempotency key belongs to an order with other contents."""


@dataclass(frozen=True)
class Placed:
    """An order, and whether this request created it or an earlier one with the same key did."""

    order: dict[str, Any]
    replayed: bool


class Store:
    """The database. One thread owns the connection, as SQLite has one writer; the event loop never waits.

    Raises:
        SettingError: the file cannot be opened, or was written by a newer version of this service.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "sqlite")
        self._db = self._thread.submit(self._open).result()

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=2)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
            db.execute("PRAGMA synchronous = FULL")  # a commit returns when the disk has it
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise SettingError(f"{self.path} has schema {version}; this version knows {len(MIGRATIONS)}")
            for number, statement in enumerate(MIGRATIONS[version:], version + 1):
                db.executescript(f"BEGIN; {statement}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error as error:
            raise SettingError(f"{self.path} cannot be opened: {error}") from None
        return db

    async def _call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(self._db))

    async def place(self, customer: str, lines: list[dict[str, Any]], key: str | None) -> Placed:
        """Keep an order; the same key with the same contents gives the first order again.

        Raises:
            KeyReused: the key has been used for other contents.
            sqlite3.Error: the order could not be kept.
        """
        # Without prices: between two attempts of the same customer they may change, and the first ones hold.
        content = json.dumps([customer, *([line["sku"], line["quantity"]] for line in lines)])
        row = {
            "id": secrets.token_hex(6),
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "customer": customer,
            "total_cents": sum(line["quantity"] * line["unit_cents"] for line in lines),
            "lines": json.dumps(lines),
            "idempotency_key": key,
            "request_digest": hashlib.sha256(content.encode()).hexdigest(),
        }
        return await self._call(lambda db: _insert(db, row))

    async def get(self, order_id: str) -> dict[str, Any] | None:
        """An order, or None."""
        row = await self._call(
            lambda db: db.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
        )
        return _public(row) if row else None

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The newest orders first."""
        query = "SELECT * FROM orders ORDER BY created_at DESC, rowid DESC LIMIT ?"
        rows = await self._call(lambda db: db.execute(query, (limit,)).fetchall())
        return [_public(row) for row in rows]

    async def stats(self) -> dict[str, int]:
        """Number of orders and their total."""
        query = "SELECT count(*) AS orders, coalesce(sum(total_cents), 0) AS total_cents FROM orders"
        return dict(await self._call(lambda db: db.execute(query).fetchone()))

    async def check(self) -> str:
        """ "" when the database can be written: takes the write lock and gives it back."""
        await self._call(lambda db: db.executescript("BEGIN IMMEDIATE; ROLLBACK;"))
        return ""

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        self._thread.submit(self._db.close).result()
        self._thread.shutdown()


def _insert(db: sqlite3.Connection, row: dict[str, Any]) -> Placed:
    columns = ", ".join(row)
    names = ", ".join(f":{name}" for name in row)
    db.execute(
        f"INSERT INTO orders ({columns}) VALUES ({names}) ON CONFLICT (idempotency_key) DO NOTHING", row
    )
    if row["idempotency_key"] is None:
        kept = db.execute("SELECT * FROM orders WHERE id = :id", row).fetchone()
    else:
        kept = db.execute("SELECT * FROM orders WHERE idempotency_key = :idempotency_key", row).fetchone()
    if kept["request_digest"] != row["request_digest"]:
        raise KeyReused
    return Placed(_public(kept), kept["id"] != row["id"])


def _public(row: sqlite3.Row) -> dict[str, Any]:
    order = {name: row[name] for name in ("id", "created_at", "customer", "total_cents")}
    return {**order, "lines": json.loads(row["lines"])}
