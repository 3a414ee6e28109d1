"""Who called which service when: the last calls one by one, and how many there were, minute by minute.

Counts are kept in the database, a few seconds late: a cluster that is killed forgets the last of them. The calls
themselves are those of this process.
"""

import asyncio
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import NamedTuple

from infra.local.database import Database, DatabaseError

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    minute INTEGER NOT NULL,
    service TEXT NOT NULL,
    kind TEXT NOT NULL,
    user TEXT NOT NULL,
    requests INTEGER NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (minute, service, kind, user)
) WITHOUT ROWID;
"""
KEPT = 10_000
"""Calls that are remembered one by one."""
FLUSH_S = 5.0
KEPT_S = 90 * 24 * 3600.0
"""How long counts are kept."""
SYNC, ASYNC, EXPOSED = "sync", "async", "exposed"


class Call(NamedTuple):
    """One answered call; `number` counts them."""

    number: int
    time: float
    status: int
    latency_s: float
    client: str
    path: str
    user: str


@dataclass(frozen=True)
class Used:
    """What a service was used for in a span of time: requests of one kind by one user, and how long they ran."""

    service: str
    kind: str
    user: str
    requests: int
    seconds: float


class Calls:
    """The calls of one cluster; belongs to its event loop."""

    def __init__(self, database: Database) -> None:
        database.add_schema(SCHEMA)
        self._database = database
        self._recent: deque[Call] = deque(maxlen=KEPT)
        self._requests: Counter[tuple[int, str, str, str]] = Counter()
        self._seconds: Counter[tuple[int, str, str, str]] = Counter()
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep the counts from now on."""
        self._task = asyncio.get_running_loop().create_task(self._go_round())

    async def stop(self) -> None:
        """Keep what has been counted so far."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(DatabaseError):
            await self.flush()

    def record(self, service: str, kind: str, path: str, status: int, began: float, client: str, user: str) -> None:
        """A call that began at `began` has been answered just now."""
        now = time.time()
        self._number += 1
        self._recent.append(Call(self._number, now, status, now - began, client, path, user))
        if status < 400:
            self.count(service, kind, began, user)

    def count(self, service: str, kind: str, began: float, user: str = "") -> None:
        """A call that began at `began` was a success; it is remembered as one of many."""
        now = time.time()
        key = (int(now // 60), service, kind, user)
        self._requests[key] += 1
        self._seconds[key] += now - began  # type: ignore[assignment] # typeshed knows whole counts only

    def recent(self, *, before: int | None, limit: int) -> tuple[list[Call], int | None]:
        """The last `limit` calls, or those before call number `before`, oldest first; where older ones go on."""
        found = [call for call in self._recent if before is None or call.number < before]
        page = found[-limit:]
        return page, page[0].number if len(found) > limit else None

    async def used(self, since: float, until: float) -> list[Used]:
        """What was called through the API, to the minute, and the jobs that are still known, in a span of time."""
        with suppress(DatabaseError):
            await self.flush()
        return await asyncio.to_thread(self._used, since, until)

    async def flush(self) -> None:
        """Keep what has been counted so far."""
        requests, self._requests = self._requests, Counter()
        seconds, self._seconds = self._seconds, Counter()
        rows = [(*key, count, seconds[key]) for key, count in requests.items()]
        if not rows:
            return

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " requests = requests + excluded.requests, seconds = seconds + excluded.seconds",
                rows,
            )
            connection.execute("DELETE FROM calls WHERE minute < ?", ((time.time() - KEPT_S) // 60,))

        try:
            await self._database.write(work)
        except DatabaseError:
            self._requests.update(requests)
            self._seconds.update(seconds)
            raise

    def _used(self, since: float, until: float) -> list[Used]:
        """On a thread and a connection of its own: a million jobs take their time."""
        with closing(sqlite3.connect(f"{self._database.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            called = connection.execute(
                "SELECT service, kind, user, sum(requests), sum(seconds) FROM calls"
                " WHERE minute >= ? AND minute <= ? GROUP BY service, kind, user",
                (int(since // 60), int(until // 60)),
            ).fetchall()
            jobs = connection.execute(
                "SELECT service, 'job', '', count(*), coalesce(sum(max(0, finished - started)), 0) FROM jobs"
                " WHERE created >= ? AND created <= ? GROUP BY service",
                (since, until),
            ).fetchall()
        return [Used(*row) for row in _known([*called, *jobs])]

    async def _go_round(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            with suppress(DatabaseError):  # they are kept for the next time
                await self.flush()


def _known(rows: Iterable[tuple[str, str, str, int, float]]) -> list[tuple[str, str, str, int, float]]:
    return sorted(rows)
