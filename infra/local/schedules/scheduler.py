"""The schedules of an embedded cluster: kept in its database, looked at by one task, changed by the API.

What a schedule does and the note that it was done are one transaction, so each due time runs once, whenever the process
is killed.
"""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from events.schedules import Schedule, ScheduleError, read
from infra.local.database import Database, DatabaseError
from infra.local.engine import Engine
from infra.local.external.link import Link
from infra.local.objects import StoreError
from infra.local.schedules import elsewhere, table, timing
from infra.local.schedules.gathering import Gathering
from infra.local.schedules.renewal import renew
from infra.local.schedules.starting import Hindered, by_call, hindrance
from infra.local.schedules.table import Entry
from infra.local.waiting import news
from layers.objects.errors import ObjectError

log = logging.getLogger("dioscar.schedules")

POLL_S = 2.0
"""Between two looks at what has arrived, or at what keeps a schedule that is due from running."""
FAR_POLL_S = 60.0
"""The same, where each look lists another store."""
AGE_POLL_S = 600.0
"""Between two looks at which version serves: one that was rolled back to may be old already."""
LONGEST_S = 20.0
"""The longest pause: a clock that is set is noticed after it."""


class NoSuchSchedule(Exception):  # noqa: N818 - the cluster's answer
    """No schedule has that name."""


class Scheduler:
    """Runs the schedules of one cluster; belongs to the event loop that starts it."""

    def __init__(
        self, database: Database, engine: Engine, link: Link | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        database.add_schema(table.SCHEMA)
        self._database = database
        self._engine = engine
        self._link = link
        self._clock = clock
        self._gathering = Gathering(database, engine)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._before = float("inf")
        self._told: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        self._looking = asyncio.Lock()
        self._away: dict[str, asyncio.Future[None]] = {}
        self._one_look: dict[str, asyncio.Lock] = {}

    def start(self) -> None:
        """Run what is due from now on, and what was missed."""
        self._task = asyncio.get_running_loop().create_task(self._go_round())

    async def stop(self) -> None:
        """Start nothing more; the next start takes it up."""
        tasks = [*([self._task] if self._task else []), *self._away.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the objects are in another store than the cluster's own."""
        return self._link is not None

    def all(self) -> list[Entry]:
        """Every schedule, by name."""
        return table.every(self._database.read)

    def get(self, name: str) -> Entry:
        """The schedule of that name. Raises NoSuchSchedule."""
        entry = table.get(self._database.read, name)
        if entry is None:
            raise NoSuchSchedule(name)
        return entry

    def progress(self, entry: Entry) -> dict[str, Any] | None:
        """What has arrived for a schedule by arrival; None for others, and where another store knows it."""
        if entry.schedule.gather is None or self._link is not None:
            return None
        totals = self._gathering.totals(entry, entry.schedule.gather)
        oldest = totals.oldest if totals.objects else None
        return {"objects": totals.objects, "bytes": totals.bytes, "oldest": oldest}

    async def apply(self, document: Any) -> dict[str, str]:
        """Take the schedules of a document; what became of each: created, changed or unchanged. Raises ScheduleError.

        A schedule that says the same as before goes on as it was, also where somebody has paused it meanwhile.
        """
        schedules = read(document)
        entries: Mapping[str, Any] = document["schedules"]
        now = self._clock()

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            known = len(table.every(connection))
            done = {one.name: self._take(connection, one, entries[one.name], now) for one in schedules}
            if known + list(done.values()).count("created") > table.MOST:
                raise ScheduleError(f"would make more than {table.MOST} schedules; delete some first", "schedules")
            return done

        done = await self._database.write(work)
        for name in done:
            self._gathering.forget(name)
        self._wake()
        return done

    async def delete(self, name: str) -> None:
        """Forget a schedule; its jobs go on. Raises NoSuchSchedule."""
        if not await self._database.write(lambda connection: table.delete(connection, name), frees=True):
            raise NoSuchSchedule(name)
        self._gathering.forget(name)
        self._wake()

    async def pause(self, name: str) -> None:
        """Let a schedule run no more until it is resumed. Raises NoSuchSchedule."""
        self.get(name)
        await self._database.write(lambda connection: table.change(connection, name, paused=1, note=""))
        self._wake()

    async def resume(self, name: str) -> None:
        """Let a schedule run again; what its clock said meanwhile is past. Raises NoSuchSchedule."""
        entry, now = self.get(name), self._clock()
        facts: dict[str, Any] = {"paused": 0, "note": ""}
        if entry.paused and entry.schedule.cron is not None:
            facts["due"] = timing.first_due(entry.schedule, now, entry.last)
        elif entry.paused and entry.schedule.at is not None and entry.due is not None and entry.due <= now:
            facts |= {"due": None, "note": "was paused at its time"}
        await self._database.write(lambda connection: table.change(connection, name, **facts))
        self._wake()

    async def run(self, name: str) -> list[str]:
        """Run a schedule now, whatever it waits for; the jobs' ids. Raises NoSuchSchedule, Hindered, StoreError."""
        async with self._looking:
            entry = self.get(name)
            if _is_by_clock(entry):
                return [await self._database.write(lambda connection: self._run_now(connection, name))]
            made = await self._look_around(entry, self._clock(), everything=True)
        if not made:
            raise Hindered(
                "nothing new has arrived for it" if entry.schedule.gather else "it has been changed just now"
            )
        return made

    # What happens by itself

    async def _go_round(self) -> None:
        while True:
            self._changed.clear()
            pause = POLL_S
            try:
                async with self._looking:
                    pause = await self.look()
                self._told.pop("", None)
            except DatabaseError as error:
                self._tell("", str(error))
            except Exception:
                log.exception("the schedules cannot be looked at")
            await news(self._changed, pause if pause != float("inf") else None)

    async def look(self) -> float:
        """Run what is due; returns after how many seconds something may be due again."""
        now = self._clock()
        entries = [entry for entry in self.all() if not entry.paused]
        if now < self._before - 1:  # also at the start: the clock may have been set while nothing ran
            entries = [await self._mend(entry, now) for entry in entries]
        self._before = now
        for entry in entries:
            await self._guarded(entry, self._look_at(entry, now))
        return min((self._patience(entry) for entry in self.all() if not entry.paused), default=float("inf"))

    async def _guarded(self, entry: Entry, looking: Coroutine[Any, Any, object]) -> None:
        """Look at one schedule; what is wrong with it keeps no other from running. Raises DatabaseError."""
        try:
            await looking
            self._told.pop(entry.name, None)
        except (Hindered, StoreError, ObjectError) as hindered:
            await self._note(entry, str(hindered))
        except DatabaseError:
            raise
        except Exception as error:  # a defect of ours
            self._tell(entry.name, f"the cluster failed: {type(error).__name__}: {error}")

    async def _look_at(self, entry: Entry, now: float) -> None:
        if _is_by_clock(entry):
            if entry.due is not None and entry.due <= now:
                await self._database.write(lambda connection: self._on_time(connection, entry, now))
        elif self._link is None:
            await self._look_around(entry, now)
        elif entry.name not in self._away and self._is_time(entry, now, FAR_POLL_S):
            # on its own: the clock waits for no store
            task = asyncio.ensure_future(self._guarded(entry, self._look_around(entry, now)))
            self._away[entry.name] = task
            task.add_done_callback(lambda done: self._back(entry.name, done))

    def _back(self, name: str, task: "asyncio.Future[None]") -> None:
        del self._away[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(name, str(error))

    async def _look_around(self, entry: Entry, now: float, *, everything: bool = False) -> list[str]:
        gather, model = entry.schedule.gather, entry.schedule.model
        made: list[str] = []
        if self._link is not None:
            async with self._one_look.setdefault(entry.name, asyncio.Lock()):
                made = await elsewhere.look(self._database, self._engine, self._link, entry, now, everything=everything)
        elif gather is not None:
            made = await self._gathering.look(entry, gather, now, everything=everything)
        elif model is not None:
            is_due = everything or (entry.due is not None and entry.due <= now)
            if is_due or self._is_time(entry, now, AGE_POLL_S):
                made = await renew(self._database, self._engine, entry, model, now, everything=everything)
        if made:
            log.info("schedule %s started %s", entry.name, entry.schedule.service)
        return made

    def _is_time(self, entry: Entry, now: float, period_s: float) -> bool:
        """Whether something that costs more than a look at a row was last done a while ago."""
        before = self._asked.get(entry.name)
        if before is not None and before <= now < before + period_s:
            return False
        self._asked[entry.name] = now
        return True

    def _on_time(self, connection: sqlite3.Connection, seen: Entry, now: float) -> None:
        """In a transaction: what is to be done about a schedule whose time has come. Raises Hindered."""
        entry = table.get(connection, seen.name)
        if entry is None or entry.paused or entry.due is None or entry.due > now:
            return
        reason = hindrance(connection, self._engine, entry)
        step = timing.step(entry.schedule, entry.due, now, reason)
        if step is None:
            raise Hindered(reason)
        facts: dict[str, Any] = {"due": step.due, "note": step.note}
        if step.run is not None:
            facts |= {"last": step.run, "job": by_call(connection, self._engine, entry).id}
        table.change(connection, entry.name, **facts)
        self._database.after_commit(lambda: self._say(entry, step))

    def _run_now(self, connection: sqlite3.Connection, name: str) -> str:
        entry = table.get(connection, name)
        if entry is None:
            raise NoSuchSchedule(name)
        job = by_call(connection, self._engine, entry)
        table.change(connection, name, job=job.id, note="")
        return job.id

    def _take(self, connection: sqlite3.Connection, schedule: Schedule, fields: Any, now: float) -> str:
        """In a transaction: a schedule as it is to be from now on."""
        document = json.dumps(fields, sort_keys=True)
        known = table.get(connection, schedule.name)
        if known is not None and known.document == document:
            return "unchanged"
        skip = schedule.gather is not None and schedule.gather.existing == "skip"
        fresh = {
            "paused": int(schedule.paused),
            "due": timing.first_due(schedule, now),
            "note": "its time was before it was made" if schedule.at is not None and schedule.at <= now else "",
            "scanned": table.newest(connection) if skip else 0,
        }
        if known is None:
            table.add(connection, schedule.name, document, created=now, **fresh)
            return "created"
        if known.schedule.paused == schedule.paused:
            del fresh["paused"]  # whoever paused or resumed it by hand has not been contradicted
        if (schedule.cron, schedule.at) == (known.schedule.cron, known.schedule.at) and schedule.model is None:
            fresh |= {"due": known.due, "note": known.note}
        elif schedule.cron is not None:
            fresh["due"] = timing.first_due(schedule, now, known.last)
        if _watched(known.schedule) == _watched(schedule):
            del fresh["scanned"]
        else:
            table.forget(connection, schedule.name)
        table.change(connection, schedule.name, document=document, **fresh)
        return "changed"

    async def _mend(self, entry: Entry, now: float) -> Entry:
        due = timing.mended(entry.schedule, entry.due, entry.last, now)
        if due != entry.due:
            await self._database.write(lambda connection: table.change(connection, entry.name, due=due))
        return replace(entry, due=due)

    async def _note(self, entry: Entry, reason: str) -> None:
        self._tell(entry.name, reason)
        if entry.note != reason:
            with suppress(DatabaseError):
                await self._database.write(lambda connection: table.change(connection, entry.name, note=reason))

    def _patience(self, entry: Entry) -> float:
        if entry.schedule.gather is not None:
            return POLL_S if self._link is None else LONGEST_S
        if entry.due is None:
            return float("inf")
        return min(LONGEST_S, max(entry.due - self._clock(), 0.0) or POLL_S)

    def _say(self, entry: Entry, step: timing.Step) -> None:
        if step.run is None:
            log.warning("schedule %s %s", entry.name, step.note)
        else:
            log.info("schedule %s started %s", entry.name, entry.schedule.service)

    def _tell(self, name: str, reason: str) -> None:
        """Say once what keeps a schedule from running."""
        if self._told.get(name) != reason:
            log.warning("schedule %s waits: %s", name, reason) if name else log.warning("schedules wait: %s", reason)
            self._told[name] = reason

    def _wake(self) -> None:
        self._asked.clear()
        self._changed.set()


def _is_by_clock(entry: Entry) -> bool:
    return entry.schedule.cron is not None or entry.schedule.at is not None


def _watched(schedule: Schedule) -> tuple[object, ...]:
    """What of a schedule says which objects it gathers: another answer is another beginning."""
    gather = schedule.gather
    return () if gather is None else (gather.bucket, gather.prefix, gather.suffix, gather.word)
