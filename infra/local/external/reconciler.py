"""The listing that finds what no webhook told: at the start, whenever a service changes, and from time to time."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass

from fdl.model import Service
from infra.local.database import Database, DatabaseError
from infra.local.external.intake import Intake
from infra.local.external.remote import Remote
from infra.local.external.store import version_of
from infra.local.listing import successor
from infra.local.services import Deployed, Services
from infra.local.waiting import news
from layers.objects.client import ObjectInfo
from layers.objects.errors import ObjectError, StoreUnavailable

log = logging.getLogger("dioscar.store")

TOGETHER = 32
"""Objects that are noticed side by side."""
AGAIN_S = 5.0
"""How soon a store that could not be used is asked again, at most."""


@dataclass(frozen=True)
class Mailbox:
    """Objects of a bucket, below a prefix, that trigger a service."""

    service: str
    bucket: str
    prefix: str


@dataclass
class Health:
    """How the store was at the last look; times in Unix seconds, `trouble` is empty when there was none."""

    endpoint: str
    trouble: str = ""
    notified: bool = False
    """Whether it takes the rules by which it tells us of events."""
    listed: float | None = None
    found: int = 0
    """Jobs made by listings, for what no webhook had told."""


class Reconciler:
    """Keeps the other store's buckets as the services need them, and lists their mailboxes; belongs to one loop."""

    def __init__(
        self, database: Database, services: Services, intake: Intake, remote: Remote, *, period_s: float
    ) -> None:
        self._database = database
        self._services = services
        self._intake = intake
        self._remote = remote
        self._period_s = period_s
        self._news = asyncio.Event()
        self._listing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._subscribed: set[str] = set()
        self._silent: set[str] = set()
        self.health = Health(remote.endpoint)
        services.prepare = self._prepare
        services.on_change.append(lambda name: self._news.set())

    def start(self) -> None:
        """Look at once, and from now on."""
        self._task = asyncio.create_task(self._go_round())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def reconcile(self) -> int:
        """Jobs for what lies in mailboxes and has had none; returns how many.

        Raises ObjectError where a mailbox cannot be listed (after all the others, unless the store does not answer at
        all), and DatabaseError.
        """
        async with self._listing:
            made, trouble = 0, None
            for mailbox in self._mailboxes():
                try:
                    made += await self._look_through(mailbox)
                except StoreUnavailable:
                    raise
                except ObjectError as error:
                    trouble = error
            self.health.found += made
            if trouble is not None:
                raise trouble
            self.health.listed = time.time()
            return made

    async def _prepare(self, service: Service) -> None:
        """Before a service is deployed: its buckets."""
        await self._remote.make_buckets(service.own_buckets)

    async def _go_round(self) -> None:
        while True:
            self._news.clear()
            pause = self._period_s
            try:
                await self._remote.check()
                trouble = await self._set_up()
                made = await self.reconcile()
                if trouble is not None:
                    raise trouble
            except ObjectError as error:
                pause = min(pause, AGAIN_S)
                if str(error) != self.health.trouble:
                    log.warning("%s; its objects wait, and it is asked again", error)
                self.health.trouble = str(error)
            except DatabaseError as error:
                log.warning("the mailboxes cannot be compared now: %s", error)
            except Exception:  # a defect must not end the listings
                log.exception("the mailboxes could not be listed")
            else:
                if self.health.trouble:
                    log.info("%s is back", self._remote.endpoint)
                self.health.trouble = ""
                if made:
                    log.info("%d objects were found in mailboxes of which no event had come", made)
            await news(self._news, pause)

    async def _set_up(self) -> ObjectError | None:
        """Buckets and notifications of all services, as often as somebody may have changed them.

        Returns the refusal of a bucket, with which the others can be used all the same. Raises StoreUnavailable.
        """
        refusal = None
        for deployed in self._services.all():
            try:
                await self._remote.make_buckets(deployed.service.own_buckets)
            except StoreUnavailable:
                raise
            except ObjectError as error:
                refusal = error
        prefixes: dict[str, set[str]] = {}
        for mailbox in self._mailboxes():
            prefixes.setdefault(mailbox.bucket, set()).add(mailbox.prefix)
        silent = set()
        for bucket in sorted(prefixes.keys() | self._subscribed):
            try:
                await self._remote.subscribe(bucket, prefixes.get(bucket, ()))
            except StoreUnavailable:
                raise
            except ObjectError as error:
                silent.add(bucket)
                if bucket not in self._silent:
                    log.warning("%s; its objects are found by a listing every %g s", error, self._period_s)
        self._subscribed, self._silent = set(prefixes), silent
        self.health.notified = bool(prefixes) and not silent
        return refusal

    def _mailboxes(self) -> list[Mailbox]:
        return [mailbox for deployed in self._services.all() for mailbox in _mailboxes_of(deployed)]

    async def _look_through(self, mailbox: Mailbox) -> int:
        """Page by page: what is there and not handled, and what is on record and not there."""
        made = 0
        async for page, low, high in self._ranges(mailbox):
            known = self._known(mailbox, low, high)
            there = {info.key for info in page}
            missed = [info.key for info in page if known.get(info.key) != (*version_of(info), True)]
            made += await self._each(mailbox.bucket, [key for key in missed if not key.endswith("/")])
            for key in known.keys() - there:
                await self._intake.gone(mailbox.bucket, key)
        return made

    async def _ranges(self, mailbox: Mailbox) -> AsyncIterator[tuple[list[ObjectInfo], str, str | None]]:
        """Each page with the keys that it speaks for: from `low` on, below `high`."""
        low = mailbox.prefix
        end = successor(mailbox.prefix)
        async for page in self._remote.pages(mailbox.bucket, mailbox.prefix):
            high = f"{page[-1].key}\0"
            yield page, low, high
            low = high
        yield [], low, end

    def _known(self, mailbox: Mailbox, low: str, high: str | None) -> dict[str, tuple[str, int, bool]]:
        """What is on record of a range of keys: entity tag, time, and whether the service has had a job."""
        upto, values = ("", []) if high is None else (" AND o.key < ?", [high])
        rows = self._database.read.execute(
            "SELECT o.key, o.etag, o.modified, h.object IS NOT NULL AS handled FROM objects o"  # noqa: S608
            " JOIN buckets b ON b.id = o.bucket LEFT JOIN handled h ON h.object = o.id AND h.service = ?"
            f" WHERE b.name = ? AND b.deleted = 0 AND o.current = 1 AND o.key >= ?{upto}",
            (mailbox.service, mailbox.bucket, low, *values),
        ).fetchall()
        return {row["key"]: (row["etag"], int(row["modified"]), bool(row["handled"])) for row in rows}

    async def _each(self, bucket: str, keys: list[str]) -> int:
        made = 0
        for start in range(0, len(keys), TOGETHER):
            some = keys[start : start + TOGETHER]
            made += sum(await asyncio.gather(*(self._intake.notice(bucket, key) for key in some)))
        return made


def _mailboxes_of(deployed: Deployed) -> Iterable[Mailbox]:
    for entry in deployed.service.mailboxes:
        yield Mailbox(deployed.name, entry.bucket, f"{entry.folder}/" if entry.folder else "")
