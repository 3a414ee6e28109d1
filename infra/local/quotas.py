"""What a user may take up: volumes, and buckets with what is in them. The administrator may take up everything."""

import json
import sqlite3
from dataclasses import asdict, dataclass, fields, replace

from fdl.model import Service
from fdl.quantities import parse_quantity
from infra.local import buckets
from infra.local.database import Database
from infra.local.objects import ObjectStore
from infra.local.services import Services
from infra.local.stored import Origin, StoredObject, StoreError
from infra.local.users.identity import ADMIN
from infra.local.volumes import Volume, VolumeError, Volumes, namespace_of

SCHEMA = """
CREATE TABLE IF NOT EXISTS quotas (user TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
"""
UNITS = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


@dataclass(frozen=True)
class Quota:
    """One user's limits, as OSCAR writes them; no number of buckets, or no size of one, is no limit."""

    disk: str = "7Gi"
    volumes: str = "5"
    max_disk_per_volume: str = "5Gi"
    min_disk_per_volume: str = "200Mi"
    buckets: str = ""
    storage_per_bucket: str = ""


class QuotaError(ValueError):
    """A limit is none."""


class QuotaExceeded(StoreError):  # noqa: N818
    """The user has no more room; S3 clients get MinIO's own code for it."""

    code = "XMinioAdminBucketQuotaExceeded"


class Quotas:
    """The limits of all users, held in memory and kept in the database."""

    def __init__(self, database: Database, store: ObjectStore, services: Services, volumes: Volumes) -> None:
        database.add_schema(SCHEMA)
        self._database = database
        self._store = store
        self._volumes = volumes
        rows = database.read.execute("SELECT user, document FROM quotas").fetchall()
        self._quotas = {row["user"]: Quota(**json.loads(row["document"])) for row in rows}
        services.creating.insert(0, self._check_service)
        volumes.checks.append(self._check_volume)
        store.listeners.append(self._check_object)

    def of(self, user: str) -> Quota:
        """What a user may take up."""
        return self._quotas.get(user, Quota())

    async def update(self, user: str, changes: dict[str, str]) -> None:
        """Set some of a user's limits. Raises QuotaError, in OSCAR's words."""
        quota = replace(self.of(user), **changes)
        for name in (field.name for field in fields(Quota)):
            _amount(name, getattr(quota, name))
        document = json.dumps(asdict(quota))

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO quotas VALUES (?, ?)", (user, document))
            self._database.after_commit(lambda: self._quotas.__setitem__(user, quota))

        await self._database.write(work)

    def check_buckets(self, connection: sqlite3.Connection, user: str, names: set[str]) -> None:
        """Raise QuotaExceeded where these buckets are more than the user may have, those that are there counted."""
        limit = self.of(user).buckets
        if user == ADMIN or not limit:
            return
        owned = {bucket.name for bucket in buckets.every(connection) if bucket.owner == user}
        new = {name for name in names - owned if buckets.get(connection, name) is None}
        if len(owned) + len(new) > int(limit):
            raise QuotaExceeded(
                f"MinIO bucket quota exceeded for user {user}: limit {limit}, current {len(owned)}, "
                f"requested new buckets {len(new)}"
            )

    def _check_service(self, connection: sqlite3.Connection, service: Service, owner: str) -> None:
        self.check_buckets(connection, owner, service.own_buckets)

    def _check_volume(self, connection: sqlite3.Connection, volume: Volume) -> None:
        if volume.owner == ADMIN:
            return
        quota = self.of(volume.owner)
        rows = connection.execute("SELECT * FROM volumes WHERE namespace = ?", (volume.namespace,)).fetchall()
        free = max(0, _amount("disk", quota.disk) - sum(Volume(*row).bytes for row in rows))
        if volume.bytes > free:
            raise VolumeError(f"not enough volume disk quota: requested {volume.size}, available {size_text(free)}")
        if len(rows) >= int(quota.volumes):
            raise VolumeError("not enough volume count quota: requested 1, available 0")
        least, most = quota.min_disk_per_volume, quota.max_disk_per_volume
        if not _amount("min", least) <= volume.bytes <= _amount("max", most):
            raise VolumeError(f"volume.size must be from {least} to {most}")

    def _check_object(self, connection: sqlite3.Connection, stored: StoredObject, event: str, origin: Origin) -> None:
        """In the transaction that stores an object: whether its bucket may be as large as it is now."""
        if not self._quotas or not event.startswith("s3:ObjectCreated:"):
            return
        bucket = buckets.get(connection, stored.bucket)
        if bucket is None or bucket.owner == ADMIN:
            return
        limit = _amount("storage_per_bucket", self.of(bucket.owner).storage_per_bucket)
        if limit and bucket.bytes > limit:
            raise QuotaExceeded(f'bucket "{bucket.name}" may hold {size_text(limit)}; this object is too much')

    def shown(self, user: str) -> dict[str, object]:
        """A user's limits and what is taken up, as OSCAR shows them where Kueue is off."""
        quota = self.of(user)
        volumes = self._volumes.of(namespace_of(user))
        owned = [bucket for bucket in self._store.buckets() if bucket.owner == user]
        return {
            "user_id": user,
            "volumes": {
                "disk": {"max": quota.disk, "used": size_text(sum(volume.bytes for volume in volumes))},
                "volumes": {"max": quota.volumes, "used": str(len(volumes))},
                "max_disk_per_volume": quota.max_disk_per_volume,
                "min_disk_per_volume": quota.min_disk_per_volume,
            },
            "minio": {
                "buckets": {"max": int(quota.buckets or 0), "used": len(owned)},
                "storage_per_bucket": {"max": quota.storage_per_bucket or "0"},
                "storage_total": {"used": size_text(sum(bucket.bytes for bucket in owned))},
            },
        }


def size_text(size: int) -> str:
    """Bytes as OSCAR writes them.

    >>> size_text(0), size_text(1536), size_text(5 << 30)
    ('0', '1.5Ki', '5Gi')
    """
    for unit, one in UNITS:
        if size >= one:
            return f"{size / one:.1f}".removesuffix(".0") + unit
    return str(size)


def _amount(name: str, text: str) -> int:
    """The value of a limit; nothing where there is none."""
    whole = name in ("volumes", "buckets")
    try:
        value = int(parse_quantity(text or "0"))
        if value < 0 or (whole and text and not (text.isascii() and text.isdecimal())):
            raise ValueError(f"must be {'a whole number' if whole else 'a quantity'} greater than or equal to zero")
    except ValueError as error:
        part = "minio" if name in ("buckets", "storage_per_bucket") else "volumes"
        raise QuotaError(f"invalid {part}.{name} quantity: {error}") from None
    return value
