"""A copy of a running cluster, consistent in itself: the database as of one moment, and the blobs that it names.

Of volumes, which are files that services write to as they like, it has what is met while they are copied.
"""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from infra.local import trees
from infra.local.blobs import Blobs
from infra.local.contents import place
from infra.local.database import Database
from infra.local.migrations import copy
from infra.local.settings import CREDENTIALS
from infra.local.volumes import folder_of

DATABASE = "dioscar.db"
BLOBS = "blobs"


class BackupError(Exception):
    """The copy cannot be made there; the message says why."""


@dataclass(frozen=True)
class Backup:
    """What was copied; blobs on the same disk are linked and take no room until the original goes."""

    objects: int
    blobs: int
    bytes: int
    volumes: int


async def back_up(data: Path, database: Database, blobs: Blobs, target: Path) -> Backup:
    """Copy a cluster that runs into the new folder `target`, which `dioscar up --data` can serve.

    Raises BackupError where the folder is there already or cannot be made, and OSError where the disk refuses.
    """
    if not target.is_absolute():
        raise BackupError(f"{target}: is no absolute path; write one")
    if target.resolve().is_relative_to(data):
        raise BackupError(f"{target}: lies in the data folder itself; name one outside")
    try:
        target.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise BackupError(f"{target}: is there already; name a new folder") from None
    except OSError as error:
        raise BackupError(f"{target}: cannot be made ({error.strerror}); name another folder") from None
    try:
        with blobs.held():
            await asyncio.to_thread(_copy_database, database.path, target / DATABASE)
            return await asyncio.to_thread(_copy_blobs, data, target)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        raise


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as connection:
        copy(connection, target)


def _copy_blobs(data: Path, target: Path) -> Backup:
    """The files that the copied database names, its volumes and its credentials, and what jobs printed."""
    with closing(sqlite3.connect(target / DATABASE)) as connection:
        objects = connection.execute("SELECT count(*) FROM objects WHERE current = 1").fetchone()[0]
        rows = connection.execute("SELECT id, size FROM blobs WHERE data IS NULL").fetchall()
        volumes = connection.execute("SELECT owner, name FROM volumes").fetchall()
    for number, _ in rows:
        name = place(number)
        (target / BLOBS / name).parent.mkdir(parents=True, exist_ok=True)
        _link(data / BLOBS / name, target / BLOBS / name)
    shutil.copy2(data / CREDENTIALS, target / CREDENTIALS)
    if (data / "logs").is_dir():
        shutil.copytree(data / "logs", target / "logs")
    copied = sum(_copy_volume(data, target, owner, name) for owner, name in volumes)
    return Backup(objects, len(rows), copied + sum(size for _, size in rows), len(volumes))


def _copy_volume(data: Path, target: Path, owner: str, name: str) -> int:
    """Copy one volume; returns its bytes. It has its folder in the copy even where it has just been removed."""
    folder = folder_of(target, owner, name)
    try:
        return trees.copy(folder_of(data, owner, name), folder)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return 0


def _link(source: Path, target: Path) -> None:
    """Blobs never change, so a second name is a copy; on another disk it has to be a real one."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
