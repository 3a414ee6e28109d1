"""The users whom the cluster has met, and the S3 keys that it has given them."""

import re
import secrets
import sqlite3
import time
from dataclasses import dataclass

from infra.local.database import Database
from infra.local.users.identity import ADMIN, User
from infra.local.users.refusals import Refused

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    uid TEXT PRIMARY KEY,
    issuer TEXT NOT NULL,
    name TEXT NOT NULL,
    secret_key TEXT NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
"""
UID = re.compile(r"[!#-+\--\[\]-~]{1,255}")
"""What can be an S3 access key: printable ASCII but for the comma, the quotation mark and the backslash."""


@dataclass(frozen=True)
class Account:
    """A user who has been here; the access key is the `uid`, as in OSCAR."""

    uid: str
    issuer: str
    name: str
    secret_key: str
    created: float


class Accounts:
    """All of them, held in memory and kept in the database."""

    def __init__(self, database: Database, reserved: frozenset[str]) -> None:
        """`reserved` are names that no user can have: the access key of the administrator."""
        database.add_schema(SCHEMA)
        self._database = database
        self._reserved = reserved | {ADMIN}
        rows = database.read.execute("SELECT * FROM users").fetchall()
        self._accounts = {row["uid"]: Account(**row) for row in rows}

    def get(self, uid: str) -> Account | None:
        """The account of that user."""
        return self._accounts.get(uid)

    def all(self) -> list[Account]:
        """Every account, by uid."""
        return [self._accounts[uid] for uid in sorted(self._accounts)]

    async def enter(self, user: User, issuer: str) -> Account:
        """The account of a user, made at the first visit.

        Raises Refused where the name belongs to another issuer's user, or can be none.
        """
        known = self._accounts.get(user.uid) or await self._make(user, issuer)
        if known.issuer != issuer:
            raise Refused(401, f'the user "{user.uid}" of this cluster is of another issuer ({known.issuer})')
        return known

    async def remove(self, uid: str) -> bool:
        """Take a user's keys back; the next visit brings new ones. Whether there was such a user."""

        def work(connection: sqlite3.Connection) -> bool:
            return bool(connection.execute("DELETE FROM users WHERE uid = ?", (uid,)).rowcount)

        found = await self._database.write(work, frees=True)
        self._accounts.pop(uid, None)
        return found

    async def _make(self, user: User, issuer: str) -> Account:
        if user.uid in self._reserved or not UID.fullmatch(user.uid):
            raise Refused(
                401, f"{ascii(user.uid)[:80]} cannot be the name of a user here; the issuer must give another sub"
            )
        new = Account(user.uid, issuer, user.name, secrets.token_urlsafe(30), time.time())

        def work(connection: sqlite3.Connection) -> Account:
            connection.execute(
                "INSERT INTO users VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (new.uid, new.issuer, new.name, new.secret_key, new.created),
            )
            return Account(**connection.execute("SELECT * FROM users WHERE uid = ?", (new.uid,)).fetchone())

        made = await self._database.write(work)
        return self._accounts.setdefault(made.uid, made)
