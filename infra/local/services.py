"""The deployed services: their documents, their tokens and their mailboxes."""

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property

from fdl.engine import EngineSettings, engine_settings
from fdl.model import Service, service_from_json
from fdl.quantities import parse_memory
from infra.local import buckets
from infra.local.database import Database
from infra.local.objects import Notification, ObjectStore
from infra.local.stored import Bucket, BucketForbidden
from infra.local.users import policy
from infra.local.users.identity import ADMIN, user_of
from infra.local.users.private import PrivateBucket, private_buckets, with_private_buckets

SCHEMA = """
CREATE TABLE IF NOT EXISTS services (
    name TEXT PRIMARY KEY,
    document TEXT NOT NULL,
    token TEXT NOT NULL,
    owner TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL
);
"""


class ServiceExists(Exception):  # noqa: N818 - the cluster's answer, not a defect
    """A service of that name is deployed already."""


class NoSuchService(Exception):  # noqa: N818
    """No service of that name is deployed."""


@dataclass(frozen=True)
class Deployed:
    """A service as the cluster runs it; `revision` grows with each update."""

    service: Service
    token: str
    owner: str
    revision: int
    updated: float = 0.0

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def tenant(self) -> str:
        """The user who owns it; empty where that is the administrator."""
        return "" if self.owner == ADMIN else self.owner

    @cached_property
    def variables(self) -> dict[str, str]:
        """Its environment variables, secrets among them."""
        return {**self.service.environment.variables, **self.service.environment.secrets}

    @cached_property
    def settings(self) -> EngineSettings:
        """How the engine treats its jobs: the annotations `dioscar/...`."""
        return engine_settings(self.service.annotations)

    @cached_property
    def memory(self) -> int:
        """Bytes of memory that one of its runs may take."""
        return int(parse_memory(self.service.memory))


class Services:
    """All deployed services, held in memory and kept in the database."""

    def __init__(self, database: Database, store: ObjectStore, region: str) -> None:
        database.add_schema(SCHEMA)
        self._database = database
        self._store = store
        self._region = region
        self._opening = ""
        self._changing = asyncio.Lock()
        self._deployed = {row["name"]: _deployed(row) for row in database.read.execute("SELECT * FROM services")}
        self.on_change: list[Callable[[str], None]] = []
        self.creating: list[Callable[[sqlite3.Connection, Service, str], None]] = []
        """What else is made for a service and its owner, in the transaction that deploys it; who raises, refuses it."""
        self.deleting: list[Callable[[sqlite3.Connection, Deployed], None]] = []
        self.is_user: Callable[[str], bool] = lambda owner: False
        self.prepare: Callable[[Service], Awaitable[None]] = _nothing
        store.targets.append(self.is_target)

    def get(self, name: str) -> Deployed | None:
        """The service of that name."""
        return self._deployed.get(name)

    def all(self) -> list[Deployed]:
        """Every service, by name."""
        return [self._deployed[name] for name in sorted(self._deployed)]

    def arn(self, name: str) -> str:
        """The notification target that MinIO would know the service by."""
        return f"arn:minio:sqs:{self._region}:{name}:webhook"

    def target(self, arn: str) -> Deployed | None:
        """The service behind a notification target."""
        parts = arn.split(":")
        known = len(parts) == 6 and parts[:3] == ["arn", "minio", "sqs"] and parts[5] == "webhook"
        return self._deployed.get(parts[4]) if known else None

    def is_target(self, arn: str) -> bool:
        """Whether a bucket may notify `arn`."""
        return self.target(arn) is not None or (bool(self._opening) and arn == self.arn(self._opening))

    async def create(self, service: Service, owner: str = ADMIN) -> Deployed:
        """Deploy a service: its row, its buckets and their notifications are one transaction."""
        now = time.time()
        service = with_private_buckets(service, owner)
        deployed = Deployed(service, secrets.token_hex(32), owner, 1, now)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO services VALUES (?, ?, ?, ?, ?, ?, ?)",
                (service.name, _document(service), deployed.token, owner, deployed.revision, now, now),
            )
            for make in self.creating:
                make(connection, service, owner)
            self._open_mailboxes(connection, service, owner)

        async with self._changing:
            if service.name in self._deployed:
                raise ServiceExists(service.name)
            await self.prepare(service)
            self._opening = service.name
            try:
                await self._database.write(work)
            finally:
                self._opening = ""
            self._changed(deployed)
        return deployed

    async def update(self, service: Service) -> Deployed:
        """Replace a service's document; its token and owner stay."""
        async with self._changing:
            before = self._deployed.get(service.name)
            if before is None:
                raise NoSuchService(service.name)
            await self.prepare(service)
            service = with_private_buckets(service, before.owner)
            deployed = Deployed(service, before.token, before.owner, before.revision + 1, time.time())

            def work(connection: sqlite3.Connection) -> None:
                connection.execute(
                    "UPDATE services SET document = ?, revision = ?, updated = ? WHERE name = ?",
                    (_document(service), deployed.revision, deployed.updated, service.name),
                )
                self._close_mailboxes(connection, before, remove=False)
                self._open_mailboxes(connection, service, before.owner)

            await self._database.write(work)
            self._changed(deployed)
        return deployed

    async def delete(self, name: str, finish: Callable[[sqlite3.Connection], None]) -> None:
        """Remove a service; `finish` ends its jobs in the same transaction. Buckets that hold data stay."""
        async with self._changing:
            before = self._deployed.get(name)
            if before is None:
                raise NoSuchService(name)

            def work(connection: sqlite3.Connection) -> None:
                connection.execute("DELETE FROM services WHERE name = ?", (name,))
                for end in self.deleting:
                    end(connection, before)
                self._close_mailboxes(connection, before, remove=True)
                finish(connection)

            await self._database.write(work)
            self._deployed.pop(name, None)
            for tell in self.on_change:
                tell(name)

    def _changed(self, deployed: Deployed) -> None:
        self._deployed[deployed.name] = deployed
        for tell in self.on_change:
            tell(deployed.name)

    def _open_mailboxes(self, connection: sqlite3.Connection, service: Service, owner: str) -> None:
        """Buckets for inputs and outputs, and a notification per input, with the filter that OSCAR sets.

        A bucket that the service was the first to name is visible to those who may see the service.
        """
        for bucket in sorted(service.own_buckets):
            self._check_bucket(buckets.get(connection, bucket), owner)
            self._store.create_bucket(connection, bucket, owner=owner, service=service.name, exist_ok=True)
            made = buckets.get(connection, bucket)
            if made is not None and made.service == service.name and made.owner == owner:
                buckets.share(connection, bucket, service.visibility, service.allowed_users)
        for private in private_buckets(service, owner):
            self._open_private(connection, private, service.name, owner)
        arn = self.arn(service.name)
        for bucket, folder in _listened(service, owner):
            prefix = f"{folder}/" if folder else ""
            wanted = Notification(id=f"{service.name}:{prefix}", arn=arn, events=("s3:ObjectCreated:*",), prefix=prefix)
            others = [n for n in self._store.notifications_in(connection, bucket) if n != wanted]
            self._store.set_notifications(connection, bucket, [*others, wanted])

    def _open_private(self, connection: sqlite3.Connection, private: PrivateBucket, service: str, owner: str) -> None:
        found = buckets.get(connection, private.name)
        if found is not None and not private.is_this(found, service, owner):
            raise BucketForbidden(
                f'the bucket "{private.name}", which {private.uid} would have (isolation_level: USER), already exists; '
                "name another path of the input"
            )
        self._store.create_bucket(connection, private.name, owner=private.uid, service=service, exist_ok=True)
        buckets.share(connection, private.name, policy.RESTRICTED, [owner])

    def _check_bucket(self, bucket: Bucket | None, owner: str) -> None:
        """Raises BucketForbidden where a service names a bucket that is there already and is not for its owner.

        That holds for the administrator too, who would otherwise hand data to whoever was quicker to take the name.
        """
        if bucket is None or bucket.owner == owner:
            return
        if owner == ADMIN and self.is_user(bucket.owner):
            raise BucketForbidden(f'the bucket "{bucket.name}" belongs to the user {bucket.owner}; name another path')
        if not policy.writes_bucket(user_of(owner), bucket):
            raise BucketForbidden(f'the bucket "{bucket.name}" is not yours and not shared with you; name another path')

    def _close_mailboxes(self, connection: sqlite3.Connection, deployed: Deployed, *, remove: bool) -> None:
        service, arn = deployed.service, self.arn(deployed.name)
        listened = _listened(service, deployed.owner)
        for bucket, _ in listened:
            if not self._store.has_bucket(connection, bucket):
                continue
            others = [n for n in self._store.notifications_in(connection, bucket) if n.arn != arn]
            self._store.set_notifications(connection, bucket, others)
        if remove:
            for bucket in {*service.own_buckets, *(bucket for bucket, _ in listened)}:
                self._store.delete_bucket_if_empty(connection, bucket, service=service.name)


def _listened(service: Service, owner: str) -> list[tuple[str, str]]:
    """The buckets whose objects trigger a service, with the folder in each."""
    return [
        *((entry.bucket, entry.folder) for entry in service.mailboxes),
        *((private.name, private.folder) for private in private_buckets(service, owner)),
    ]


def exists(connection: sqlite3.Connection, name: str, token: str | None = None) -> bool:
    """Whether, in this transaction, a service of that name (and that token) is deployed."""
    row = connection.execute("SELECT token FROM services WHERE name = ?", (name,)).fetchone()
    return row is not None and token in (None, row[0])


async def _nothing(service: Service) -> None:
    """What has to be done before a service can have its mailboxes, where they are the cluster's own."""


def _document(service: Service) -> str:
    return json.dumps(service.model_dump(mode="json"))


def _deployed(row: sqlite3.Row) -> Deployed:
    service = service_from_json(json.loads(row["document"]))
    return Deployed(service, row["token"], row["owner"], row["revision"], row["updated"])
