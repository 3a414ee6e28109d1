"""Jobs that ended long ago are forgotten, with their logs and the versions that they hold; a few at a time.

What tells that an object has had its job (`handled`) stays as long as the object, so nothing runs again for it.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local.database import Database, DatabaseError
from infra.local.jobs import State
from infra.local.objects import ObjectStore
from infra.local.workspace import forget_checkpoints

log = logging.getLogger("dioscar.jobs")

DAY_S = 24 * 3600.0
ROWS = 50
"""Jobs looked at by one transaction, in which everybody who wants a change at that moment waits for it."""
PAUSE_S = 0.03
ROUND_S = 3600.0
VARIABLES = {"TTL_JOB": 30 * DAY_S, "DIOSCAR_TTL_DEAD": 0.0}
"""The settings with their defaults, in seconds; the first is OSCAR's own."""


@dataclass(frozen=True)
class Ages:
    """Seconds that jobs are kept after their end; 0 is for ever."""

    finished_s: float = VARIABLES["TTL_JOB"]
    dead_s: float = VARIABLES["DIOSCAR_TTL_DEAD"]

    def of(self, state: State) -> float:
        """How long a job in this state is kept."""
        return self.dead_s if state == State.DEAD else self.finished_s


def ages_of(environ: Mapping[str, str]) -> Ages:
    """What `TTL_JOB` and `DIOSCAR_TTL_DEAD` say. Raises ValueError, naming the variable."""
    return Ages(*(_seconds(name, environ.get(name, "").strip(), default) for name, default in VARIABLES.items()))


class Expiry:
    """Forgets jobs now and then; belongs to the event loop that starts it."""

    def __init__(
        self, data: Path, database: Database, store: ObjectStore, ages: Ages, clock: Callable[[], float] = time.time
    ) -> None:
        self._logs = data / "logs"
        self._data = data
        self._database = database
        self._store = store
        self._ages = ages
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go round in the background."""
        self._task = asyncio.get_running_loop().create_task(self._go_round())

    async def stop(self) -> None:
        """End what runs in the background; the next start goes on."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def purge(self) -> int:
        """Forget all jobs that are too old now; returns how many."""
        forgotten = 0
        for state in (State.SUCCEEDED, State.CANCELLED, State.DEAD):
            age = self._ages.of(state)
            if age:
                forgotten += await self._purge(state, self._clock() - age)
        return forgotten

    async def _purge(self, state: State, before: float) -> int:
        forgotten, after = 0, 0
        while True:
            seen, gone = await self._database.write(
                lambda connection, after=after: self._some(connection, state, before, after)  # type: ignore[misc]
            )
            await asyncio.to_thread(forget_checkpoints, self._data, gone)
            forgotten += len(gone)
            if seen is None:
                return forgotten
            after = seen
            await asyncio.sleep(PAUSE_S)

    def _some(
        self, connection: sqlite3.Connection, state: State, before: float, after: int
    ) -> tuple[int | None, list[str]]:
        """Forget those that are too old of the next jobs after `after`; where to go on from, and who is gone.

        Jobs stand in the order in which they were made, and none has ended before it was made: the first page on which
        all are too young is the last.
        """
        rows = connection.execute(
            "SELECT seq, id, service, created, finished FROM jobs INDEXED BY jobs_of_state"
            " WHERE state = ? AND seq > ? ORDER BY seq LIMIT ?",
            (state, after, ROWS),
        ).fetchall()
        old = [row for row in rows if (row["finished"] or row["created"]) < before]
        connection.executemany("DELETE FROM jobs WHERE seq = ?", [(row["seq"],) for row in old])
        for row in old:
            self._store.unpin(connection, row["id"])
            # before the commit: a job that is back after a crash is forgotten later, a log without a job never
            (self._logs / row["service"] / f"{row['id']}.log").unlink(missing_ok=True)
        more = len(rows) == ROWS and rows[0]["created"] < before
        return rows[-1]["seq"] if more else None, [row["id"] for row in old]

    async def _go_round(self) -> None:
        shortest = min((age for age in (self._ages.finished_s, self._ages.dead_s) if age), default=0.0)
        if not shortest:
            return
        while True:
            try:
                if count := await self.purge():
                    log.info("forgot %d jobs that had ended long ago", count)
            except (DatabaseError, OSError) as error:
                log.warning("jobs that ended long ago are kept for now: %s", error)
            await asyncio.sleep(max(1.0, min(ROUND_S, shortest / 10)))


def _seconds(name: str, text: str, default: float) -> float:
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(
            f'{name}: "{text}" is no time in seconds; write e.g. {30 * DAY_S:.0f} (30 days), or 0 for ever'
        )
    return seconds
