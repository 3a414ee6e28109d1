"""The schema's version, and what brings a database of an earlier version up to this one.

Each module makes its own tables where they are missing (`Database.add_schema`). What that cannot do, because a table or
an index of the same name is there already, is a migration. Any change of the schema is a new version, also one that
needs no statement of its own: an earlier DiOSCAR must not open what it does not understand.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

Migration = Callable[[sqlite3.Connection], None]
"""Changes a database by one version, in the transaction of all of them: by `execute` only, `executescript` commits.

Foreign keys are checked at the end, so that a table may be made anew under its old name.
"""

MIGRATIONS: Sequence[Migration] = ()
"""From version 1 (DiOSCAR 0.1) to 2, from 2 to 3, and so on; what has been released is never edited."""

log = logging.getLogger("dioscar.database")


class MigrationError(Exception):
    """The database stays as it is; the message says why, and what to do."""


def newest(migrations: Sequence[Migration]) -> int:
    """The version that these migrations lead to, which is the one of a new database."""
    return 1 + len(migrations)


def upgrade(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the database at `path` to the newest version, after a copy of it; all of the way or not at all.

    Raises MigrationError.
    """
    known = newest(migrations)
    found = _version(connection, path)
    if found is None:
        _migrate(connection, (), known)
    elif found > known:
        raise MigrationError(
            f"{path.parent}: this data folder was written by a newer DiOSCAR (its schema is {found}, this one knows "
            f"{known}); use that one, or restore a backup"
        )
    elif found < known:
        try:
            kept = copy_of(path, found)
            log.info("%s is brought from schema %d to %d; as it was, it is kept in %s", path, found, known, kept)
            copy(connection, kept)
            _migrate(connection, migrations[found - 1 :], known)
        except (sqlite3.Error, OSError) as error:
            raise MigrationError(
                f"{path}: cannot be brought from schema {found} to {known} ({error}); it is as it was"
            ) from error


def copy_of(path: Path, version: int) -> Path:
    """Where the database of an earlier version is kept when it is brought up to this one."""
    return path.with_name(f"{path.stem}-schema-{version}{path.suffix}")


def copy(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the database into one file, which is there when it is whole and on disk."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as target_connection:
        connection.backup(target_connection)
        target_connection.execute("PRAGMA journal_mode = DELETE")
    part.chmod(0o600)
    _sync(part)
    part.replace(target)
    _sync(target.parent)


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], version: int) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")  # has no effect within a transaction
    try:
        connection.execute("BEGIN IMMEDIATE")
        for migration in migrations:
            migration(connection)
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise sqlite3.IntegrityError(f"a row of {broken[0]} refers to one of {broken[2]} that is not there")
        _stamp(connection, version)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def _version(connection: sqlite3.Connection, path: Path) -> int | None:
    """The version that a database is of; None for a new one."""
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not names:
        return None
    if "meta" in names:
        row = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if row is not None:
            return int(row[0])
    raise MigrationError(f"{path}: is the database of another program; choose another data folder")


def _stamp(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(version),))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
