"""A cluster's database, store, services and queue in this process, with a clock that the test sets."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fdl.model import service_from_json
from infra.local.blobs import Blobs
from infra.local.database import Database
from infra.local.engine import Engine
from infra.local.objects import ObjectStore
from infra.local.schedules.scheduler import Scheduler
from infra.local.schedules.shown import shown
from infra.local.services import Services

ZONE = ZoneInfo("Europe/Madrid")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    """A scheduler over a data folder; `now` is the time on its clock."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.now = at("2026-06-01T12:00:00")
        self.open()

    def open(self) -> None:
        self.database = Database(self.data / "dioscar.db")
        self.store = ObjectStore(self.database, Blobs(self.database, self.data / "blobs"), lambda: self.now)
        self.services = Services(self.database, self.store, "us-east-1")
        self.engine = Engine(self.data, self.database, self.store, self.services, "us-east-1")
        self.scheduler = Scheduler(self.database, self.engine, clock=lambda: self.now)

    def restart(self) -> None:
        """As after a crash or an orderly end: nothing is kept but what is in the database."""
        self.database.close()
        self.open()

    async def deploy(self, name: str, **more: Any) -> None:
        document = {
            "name": name,
            "image": "ghcr.io/dioscar/test",
            "script": "true",
            "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
            "environment": {"variables": {"DIOSCAR_FUNCTION": "contract.copy"}},
            **more,
        }
        await self.services.create(service_from_json(document))

    async def apply(self, name: str = "a", **fields: Any) -> str:
        """Take a schedule of the service `train`."""
        document = json.loads(json.dumps({"schedules": {name: {"service": "train", **fields}}}))
        return (await self.scheduler.apply(document))[name]

    async def look(self, to: str | float | None = None) -> float:
        """Set the clock, then look what is due."""
        if to is not None:
            self.now = at(to) if isinstance(to, str) else self.now + to
        return await self.scheduler.look()

    async def put(self, bucket: str, key: str, data: bytes = b"x") -> None:
        blob = await self.store.ingest_bytes(data)

        def work(connection: Any) -> None:
            self.store.create_bucket(connection, bucket, exist_ok=True)
            self.store.insert(connection, bucket, key, blob)

        await self.database.write(work)

    async def delete(self, bucket: str, key: str) -> None:
        await self.database.write(lambda connection: self.store.delete(connection, bucket, key))

    async def end(self, state: str = "Succeeded") -> None:
        """Every job has ended."""
        await self.database.write(lambda connection: connection.execute("UPDATE jobs SET state = ?", (state,)))

    def jobs(self) -> list[dict[str, Any]]:
        rows = self.database.read.execute("SELECT * FROM jobs WHERE service = 'train' ORDER BY seq").fetchall()
        return [dict(row) for row in rows]

    def requests(self) -> list[Any]:
        """What stands in the mailbox of `train`, in the order of the requests."""
        found = []
        for key in self.store.keys("train", "in/"):
            stored = self.store.get("train", key)
            assert stored is not None
            with self.store.open(stored) as content:
                assert content.data is not None
                found.append(json.loads(content.data))
        return found

    def shown(self, name: str = "a") -> dict[str, Any]:
        entry = self.scheduler.get(name)
        return shown(self.database.read, entry, self.scheduler.progress(entry))


def at(text: str) -> float:
    """A time on the clocks of Madrid, or by the offset that it says, in Unix seconds."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZONE)).timestamp()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()
