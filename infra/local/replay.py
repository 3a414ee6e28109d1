"""Run again what has run or never did: one job, the dead of a time, objects below a prefix, what is missing."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.local import history, jobs
from infra.local.engine import Engine
from infra.local.jobs import Job, State
from infra.local.services import exists

BATCH = 500


class NothingToReplay(Exception):  # noqa: N818 - an answer, not a defect
    """What was asked for cannot run again; the message says why."""


@dataclass(frozen=True)
class JobSpan:
    """Jobs that have ended: by service and state (the dead by default), made between two times in Unix seconds."""

    service: str = ""
    state: str = State.DEAD
    since: float = 0.0
    until: float = float("inf")


class Replayer:
    """Puts work back into the queue of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = engine.database
        self._store = engine.store

    async def job(self, job: Job) -> None:
        """Run one job again, on the version of its event or, if that is gone, on the object as it is now."""
        if not await self._database.write(lambda connection: self._revive(connection, job)):
            raise NothingToReplay(f"{job.id} is {job.state} and has not ended; cancel it first")

    async def span(self, span: JobSpan) -> int:
        """Run jobs again; those that cannot stay as they are. Returns how many were put back."""
        where = {name: value for name, value in (("service", span.service), ("state", span.state)) if value}
        revived = after = 0
        read = self._database.read
        while some := history.ended_between(read, where, span.since, span.until, after=after, limit=BATCH):
            after = some[-1].seq
            revived += await self._database.write(lambda connection, some=some: self._revive_some(connection, some))  # type: ignore[misc]
        return revived

    async def objects(
        self,
        bucket: str,
        prefix: str = "",
        *,
        newest: Mapping[str, str] | None = None,
        service: str = "",
        missing: bool = False,
    ) -> int:
        """New jobs for the objects below `prefix`, of one service or all that listen.

        With `missing`, only for those that no job has ever had. With `newest`, for these keys instead, each as long as
        its newest job is the one named (empty: it has had none): what was heard of since it was looked at has its job.
        Returns how many jobs were made. Raises NoSuchBucket.
        """
        keys = [
            key for key in (self._store.keys(bucket, prefix) if newest is None else newest) if not key.endswith("/")
        ]
        made = 0
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            made += await self._database.write(
                lambda connection, some=some: self._queue_some(  # type: ignore[misc]
                    connection, bucket, some, service, newest, missing=missing
                )
            )
        return made

    async def missing(self) -> int:
        """New jobs for every object in a mailbox that no job has ever had: uploads from before a service, say."""
        made = 0
        for deployed in self._engine.services.all():
            for entry in deployed.service.mailboxes:
                made += await self.objects(entry.bucket, f"{entry.folder}/" if entry.folder else "", missing=True)
        return made

    def _revive(self, connection: sqlite3.Connection, job: Job) -> bool:
        if not exists(connection, job.service):
            raise NothingToReplay(f'there is no service "{job.service}"; deploy it first')
        deployed = self._engine.services.get(job.service)
        if deployed is not None and deployed.tenant != job.tenant:  # a job's input is not for the next to take its name
            raise NothingToReplay(f'the service "{job.service}" has another owner by now; upload the input again')
        object_id = job.object
        if object_id is not None:
            kept = self._store.version(connection, object_id) or self._store.find(connection, job.bucket, job.key)
            if kept is None:
                raise NothingToReplay(f"{job.bucket}/{job.key}: the object is gone; upload it again")
            object_id = kept.id
        inputs = [int(entry["id"]) for entry in json.loads(job.pinned or "[]")]
        there = all(self._store.version(connection, number) is not None for number in inputs)
        if not jobs.revive(connection, job, object_id, job.pinned if there else None):
            return False
        for number in [*([] if object_id is None else [object_id]), *(inputs if there else [])]:
            self._store.pin(connection, number, job.id)
        self._engine.wake(job.service)
        return True

    def _revive_some(self, connection: sqlite3.Connection, some: list[Job]) -> int:
        revived = 0
        for job in some:
            try:
                revived += self._revive(connection, job)
            except NothingToReplay:
                continue
        return revived

    def _queue_some(
        self,
        connection: sqlite3.Connection,
        bucket: str,
        keys: Sequence[str],
        service: str,
        newest: Mapping[str, str] | None,
        *,
        missing: bool,
    ) -> int:
        made = 0
        for key in keys:
            stored = self._store.find(connection, bucket, key)
            if stored is None:
                continue
            for deployed in self._engine.listening(connection, bucket, key):
                if service not in ("", deployed.name):
                    continue
                if missing and jobs.is_handled(connection, deployed.name, stored.id):
                    continue
                if newest is not None and newest[key] != _newest(connection, deployed.name, bucket, key):
                    continue
                self._engine.queue(connection, deployed, stored)
                made += 1
        return made


def _newest(connection: sqlite3.Connection, service: str, bucket: str, key: str) -> str:
    found = history.find(connection, {"service": service, "bucket": bucket, "key": key}, limit=1)
    return found[0].id if found else ""
