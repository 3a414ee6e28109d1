"""A cluster's link to another store: its parts put together, and their beginning and end."""

import asyncio
import sqlite3
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from infra.local.blobs import Blobs
from infra.local.database import Database
from infra.local.engine import Engine
from infra.local.external.intake import Intake
from infra.local.external.reconciler import Reconciler
from infra.local.external.remote import Remote
from infra.local.external.store import ExternalStore
from infra.local.services import Services
from infra.local.settings import Credentials, ExternalSettings
from layers.objects.errors import StoreUnavailable

FIRST_S = 5.0
"""How long a start waits for the store's first answer; without one, the cluster starts all the same."""
KIND, EXTERNAL = "store", "external"


class WrongStore(Exception):  # noqa: N818 - what it is
    """The data folder belongs to the other kind of store; the message says what to do."""


class Link:
    """The other store; `store` is what the engine works with."""

    def __init__(self, settings: ExternalSettings, keys: Credentials, database: Database, blobs: Blobs) -> None:
        self._settings = settings
        self._database = database
        self.remote = Remote(settings, keys)
        self.store = ExternalStore(database, blobs, self.remote)

    def attach(self, engine: Engine, services: Services) -> None:
        """Let the engine have jobs of what is in the store."""
        self.intake = Intake(engine, self.store, self.remote)
        self._reconciler = Reconciler(
            self._database, services, self.intake, self.remote, period_s=self._settings.reconcile_s
        )

    async def check(self) -> None:
        """Raise AccessRefused where the store answers, and does not know the keys."""
        with suppress(TimeoutError, StoreUnavailable):  # the first listing says so, and goes on asking
            await asyncio.wait_for(self.remote.check(), FIRST_S)

    def start(self) -> None:
        """Look what is there, now and from time to time."""
        self._reconciler.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._reconciler.stop()
        await self.intake.stop()
        self.remote.close()

    async def reconcile(self) -> int:
        """Jobs for what lies in mailboxes and has had none; returns how many."""
        return await self._reconciler.reconcile()

    def health(self) -> dict[str, Any]:
        """How the store is, for people to see."""
        return asdict(self._reconciler.health)


def claim(database: Database, *, external: bool) -> None:
    """Keep a data folder to one kind of store: rows of the other kind would have no contents. Raises WrongStore."""
    folder = database.path.parent

    def work(connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT value FROM meta WHERE name = ?", (KIND,)).fetchone()
        is_external = row is not None and row[0] == EXTERNAL
        if is_external and not external:
            raise WrongStore(
                f"{folder}: its objects are in another store; start it with --s3-external URL, or name another folder"
            )
        if external and not is_external:
            if connection.execute("SELECT 1 FROM objects LIMIT 1").fetchone() is not None:
                raise WrongStore(f"{folder}: has objects of its own; name another data folder for an external store")
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (KIND, EXTERNAL))

    database.write_blocking(work)
