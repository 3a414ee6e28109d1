"""Managed volumes: folders of their own, one namespace for each owner, which services of that owner may attach.

A row is a volume; its folder is `volumes/<namespace>/<name>` in the data folder, made with it and removed after it.
"""

import asyncio
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fdl.model import Service
from fdl.parts import Volume as VolumeConfig
from fdl.quantities import parse_quantity
from infra.local.database import Database
from infra.local.services import Deployed, Services
from infra.local.users.identity import ADMIN

SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    size TEXT NOT NULL,
    owner TEXT NOT NULL,
    service TEXT NOT NULL,
    lifecycle TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
"""
ATTACHED = (
    "SELECT 1 FROM services WHERE owner = ? AND json_extract(document, '$.volume') IS NOT NULL"
    " AND coalesce(nullif(json_extract(document, '$.volume.name'), ''), name) = ? LIMIT 1"
)
NAMESPACE = "oscar-svc"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED = ("/oscar/config", "/oscar/bin")


class VolumeError(Exception):
    """The volume cannot be what is asked for; the message is OSCAR's."""


class VolumeExists(VolumeError):  # noqa: N818
    """There is a volume of that name."""


class NoSuchVolume(VolumeError):  # noqa: N818
    """There is no volume of that name."""


@dataclass(frozen=True)
class Volume:
    """A managed volume; `service` is the one that it was made with, if any, `lifecycle` what that one's end does."""

    namespace: str
    name: str
    size: str
    owner: str
    service: str = ""
    lifecycle: str = ""
    created: float = 0.0

    @property
    def bytes(self) -> int:
        """The size that was asked for."""
        return int(parse_quantity(self.size))


class Volumes:
    """All volumes of a cluster."""

    def __init__(self, data: Path, database: Database, services: Services) -> None:
        database.add_schema(SCHEMA)
        self._data = data
        self._database = database
        self._services = services
        self.checks: list[Callable[[sqlite3.Connection, Volume], None]] = []
        """Asked in the transaction that makes a volume; who raises VolumeError, refuses it."""
        services.creating.append(self._create_with)
        services.deleting.append(self._delete_with)

    def get(self, namespace: str, name: str) -> Volume:
        """The volume of that name. Raises NoSuchVolume."""
        return _find(self._database.read, namespace, name)

    def of(self, namespace: str) -> list[Volume]:
        """The volumes of a namespace, by name."""
        rows = self._database.read.execute("SELECT * FROM volumes WHERE namespace = ? ORDER BY name", (namespace,))
        return [Volume(*row) for row in rows.fetchall()]

    def attachments(self, volume: Volume) -> list[tuple[str, str]]:
        """The services that have the volume, and where."""
        found = ((deployed, deployed.service.volume) for deployed in self._services.all())
        return [
            (deployed.name, config.mount_path)
            for deployed, config in found
            if config is not None
            and namespace_of(deployed.owner) == volume.namespace
            and name_of(deployed.service, config) == volume.name
        ]

    def folder(self, volume: Volume) -> Path:
        """Where its files are."""
        return folder_of(self._data, volume.owner, volume.name)

    async def create(self, owner: str, name: str, size: str) -> Volume:
        """Make a volume. Raises VolumeError where the name or the size is wrong, VolumeExists."""
        check_new(name, size)
        volume = Volume(namespace_of(owner), name, size, owner, created=time.time())
        await self._database.write(lambda connection: self._insert(connection, volume))
        return volume

    async def delete(self, namespace: str, name: str) -> None:
        """Remove a volume with its files. Raises NoSuchVolume, VolumeError where a service has it."""

        def work(connection: sqlite3.Connection) -> Volume:
            volume = _find(connection, namespace, name)
            if connection.execute(ATTACHED, (volume.owner, name)).fetchone():
                raise VolumeError("managed volume is still attached to one or more services")
            connection.execute("DELETE FROM volumes WHERE namespace = ? AND name = ?", (namespace, name))
            return volume

        volume = await self._database.write(work, frees=True)
        await asyncio.to_thread(shutil.rmtree, self.folder(volume), ignore_errors=True)

    def _create_with(self, connection: sqlite3.Connection, service: Service, owner: str) -> None:
        """In the transaction that deploys a service: its volume."""
        config = service.volume
        if config is None:
            return
        name = name_of(service, config)
        if not config.size:
            try:
                _find(connection, namespace_of(owner), name)
            except NoSuchVolume:
                raise VolumeError("Referenced volume does not exist in the caller namespace") from None
            return
        volume = Volume(
            namespace_of(owner),
            name,
            config.size,
            owner,
            service.name,
            config.lifecycle_policy or "delete",
            time.time(),
        )
        try:
            self._insert(connection, volume)
        except VolumeExists:
            raise VolumeExists("A managed volume with the provided name already exists") from None

    def _delete_with(self, connection: sqlite3.Connection, deployed: Deployed) -> None:
        """In the transaction that removes a service: the volume that was made with it, unless it is to be kept.

        One that another service has, too, stays for that.
        """
        made = connection.execute(
            "SELECT * FROM volumes WHERE namespace = ? AND service = ? AND lifecycle = 'delete'",
            (namespace_of(deployed.owner), deployed.name),
        ).fetchall()
        rows = [row for row in made if not connection.execute(ATTACHED, (deployed.owner, row["name"])).fetchone()]
        for row in rows:
            connection.execute("DELETE FROM volumes WHERE namespace = ? AND name = ?", (row["namespace"], row["name"]))
        folders = [self.folder(Volume(*row)) for row in rows]
        if folders:
            self._database.after_commit(lambda: _remove_later(folders))

    def _insert(self, connection: sqlite3.Connection, volume: Volume) -> None:
        for check in self.checks:
            check(connection, volume)
        done = connection.execute(
            "INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                volume.namespace,
                volume.name,
                volume.size,
                volume.owner,
                volume.service,
                volume.lifecycle,
                volume.created,
            ),
        )
        if not done.rowcount:
            raise VolumeExists("volume already exists in caller namespace")
        folder = self.folder(volume)
        for made in (folder.parent.parent, folder.parent, folder):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)


def volume_of(connection: sqlite3.Connection, deployed: Deployed) -> Volume | None:
    """The volume of a service, if it has one."""
    config = deployed.service.volume
    if config is None:
        return None
    try:
        return _find(connection, namespace_of(deployed.owner), name_of(deployed.service, config))
    except NoSuchVolume:
        return None


def folder_of(data: Path, owner: str, name: str) -> Path:
    """Where the files of an owner's volume are."""
    return data / "volumes" / namespace_of(owner) / name


def namespace_of(owner: str) -> str:
    """Where the services and volumes of an owner are: a user's own namespace, whose name is also fit for a folder.

    >>> namespace_of("cluster_admin"), namespace_of("a/b@egi.eu")
    ('oscar-svc', 'oscar-svc-946b8c3638296c4afaec')
    """
    return NAMESPACE if owner == ADMIN else f"{NAMESPACE}-{sha256(owner.encode()).hexdigest()[:20]}"


def name_of(service: Service, config: VolumeConfig) -> str:
    """The name of the volume that a service asks for: its own where it gives none."""
    return config.name or service.name


def check_new(name: str, size: str) -> None:
    """Raise VolumeError, in OSCAR's words, unless Kubernetes takes the name and the size."""
    if not _LABEL.fullmatch(name):
        raise VolumeError("volume.name must satisfy Kubernetes DNS-1123 naming rules")
    _check_size(size)


def _check_size(size: str) -> None:
    try:
        positive = parse_quantity(size) >= 1
    except ValueError:
        positive = False
    if not positive:
        raise VolumeError("volume.size must be a valid positive quantity")


def check_config(service: Service) -> None:
    """Raise VolumeError, in OSCAR's words, where a service's `volume` cannot be meant."""
    config = service.volume
    if config is None:
        return
    if not config.mount_path:
        raise VolumeError("volume.mount_path is required")
    if not config.size and not config.name:
        raise VolumeError("volume.name is required when volume.size is not set")
    check_new(name_of(service, config), config.size or "1")
    if config.lifecycle_policy not in ("", "delete", "retain"):
        raise VolumeError('volume.lifecycle_policy must be either "delete" or "retain"')
    if config.lifecycle_policy and not config.size:
        raise VolumeError("volume.lifecycle_policy is only valid when volume.size is set")
    if not config.mount_path.startswith("/"):
        raise VolumeError("volume.mount_path must be an absolute path")
    if ":" in config.mount_path or not config.mount_path.isprintable():
        raise VolumeError('volume.mount_path must not contain ":" or control characters')
    if config.mount_path == "/" or f"/{os.path.normpath(f'.{config.mount_path}')}" != config.mount_path.rstrip("/"):
        raise VolumeError('volume.mount_path must be a folder below "/", written without ".", ".." and double slashes')
    if any(config.mount_path == path or config.mount_path.startswith(f"{path}/") for path in _RESERVED):
        raise VolumeError("volume.mount_path cannot overlap OSCAR reserved paths")


def _find(connection: sqlite3.Connection, namespace: str, name: str) -> Volume:
    row = connection.execute("SELECT * FROM volumes WHERE namespace = ? AND name = ?", (namespace, name)).fetchone()
    if row is None:
        raise NoSuchVolume(f'there is no volume "{name}"')
    return Volume(*row)


def _remove_later(folders: Iterable[Path]) -> None:
    for folder in folders:
        asyncio.get_running_loop().run_in_executor(None, lambda path: shutil.rmtree(path, ignore_errors=True), folder)
