"""Bucket notifications to any URL, as MinIO sends them, from a queue that no crash empties.

An event's row in the queue is written in the transaction of the object. Each target has a task of its own that delivers
its rows in order, at least once, over one connection, and tries the first of them again for as long as it takes.
"""

import asyncio
import json
import logging
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from events.notifications import build
from infra.local.announcing import notification_of
from infra.local.database import Database, DatabaseError
from infra.local.objects import ObjectStore
from infra.local.posting import Poster, PostFailed
from infra.local.stored import Origin, StoredObject

SCHEMA = """
CREATE TABLE IF NOT EXISTS webhook_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_events_target ON webhook_events (target, id);
"""
PREFIX = "MINIO_NOTIFY_WEBHOOK_"
ON = frozenset(["1", "t", "true", "on", "yes", "enabled"])
OFF = frozenset(["", "0", "f", "false", "off", "no", "disabled"])
NOT_HERE = ("CLIENT_CERT", "CLIENT_KEY")
BACKOFF_S = 0.25
BACKOFF_MOST_S = 30.0
AHEAD = 64
"""Rows that are read at once."""

log = logging.getLogger("dioscar.webhooks")


class WebhookError(ValueError):
    """A target is configured wrongly; the message names the variable."""


@dataclass(frozen=True)
class Target:
    """Where events are posted to; `authorization` is the header's value, empty for none."""

    id: str
    url: SplitResult
    authorization: str = field(default="", repr=False)


def targets_of(environ: Mapping[str, str]) -> list[Target]:
    """The targets that MinIO's variables `MINIO_NOTIFY_WEBHOOK_ENABLE_<ID>`, `..._ENDPOINT_<ID>` and
    `..._AUTH_TOKEN_<ID>` configure, by ID; without `_<ID>` the ID is `_`.

    Raises WebhookError.
    """
    found = []
    for name, value in sorted(environ.items()):
        if name != f"{PREFIX}ENABLE" and not name.startswith(f"{PREFIX}ENABLE_"):
            continue
        suffix = name.removeprefix(f"{PREFIX}ENABLE")
        if value.strip().lower() in ON:
            found.append(_target(suffix, environ))
        elif value.strip().lower() not in OFF:
            raise WebhookError(f'{name}: "{value}" is neither on nor off')
    return found


class Webhooks:
    """The configured targets and what is queued for them; belongs to the event loop that starts it."""

    def __init__(self, database: Database, store: ObjectStore, targets: Sequence[Target], region: str) -> None:
        self._database = database
        self._store = store
        self._region = region
        self._deliveries = {target.id: _Delivery(database, target) for target in targets}
        self._tasks: list[asyncio.Task[None]] = []
        database.add_schema(SCHEMA)
        store.targets.append(lambda arn: self._delivery(arn) is not None)
        if targets:
            store.listeners.append(self._on_event)

    async def start(self) -> None:
        """Deliver what is queued, and from now on what comes."""
        for name, count in self.queued().items():
            if name not in self._deliveries:
                log.warning("%d events are queued for the webhook %s, which is no longer configured", count, name)
        self._tasks = [asyncio.create_task(delivery.run()) for delivery in self._deliveries.values()]

    async def stop(self) -> None:
        """Deliver nothing more; the rest waits for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def queued(self) -> dict[str, int]:
        """How many events wait, by target."""
        rows = self._database.read.execute("SELECT target, count(*) FROM webhook_events GROUP BY target").fetchall()
        return dict.fromkeys(self._deliveries, 0) | {row[0]: row[1] for row in rows}

    def _delivery(self, arn: str) -> "_Delivery | None":
        parts = arn.split(":")
        ours = len(parts) == 6 and parts[:3] == ["arn", "minio", "sqs"] and parts[5] == "webhook"
        return self._deliveries.get(parts[4]) if ours else None

    def _on_event(self, connection: sqlite3.Connection, stored: StoredObject, name: str, origin: Origin) -> None:
        """In the transaction of an event: a row for each target that its bucket's notifications name."""
        matching = self._store.matching(connection, stored.bucket, stored.key, name)
        wanted = [delivery for arn in matching if (delivery := self._delivery(arn)) is not None]
        if not wanted:
            return
        body = json.dumps(build(notification_of(stored, name, origin, self._region)), ensure_ascii=False)
        for delivery in dict.fromkeys(wanted):
            connection.execute("INSERT INTO webhook_events (target, body) VALUES (?, ?)", (delivery.target.id, body))
            self._database.after_commit(delivery.wake)


class _Delivery:
    """What is queued for one target, posted row by row."""

    def __init__(self, database: Database, target: Target, pause: Callable[[int], float] | None = None) -> None:
        self.target = target
        self._database = database
        self._poster = Poster(target.url, target.authorization)
        self._pause = pause or pause_s
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._delivered = 0
        self._forgotten = 0
        self._forgetting: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is something new, says whichever thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # a loop that is closed has nobody left to wake
                self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._news.clear()
                rows = await self._waiting()
                for row in rows:
                    await self._deliver(row["body"].encode())
                    self._delivered = row["id"]
                    if self._forgetting is None or self._forgetting.done():
                        self._forgetting = asyncio.create_task(self._forget())
                if not rows:
                    await self._news.wait()
        finally:
            self._poster.close()
            if self._forgetting is not None:
                await self._forgetting

    async def _waiting(self) -> list[sqlite3.Row]:
        """The next rows."""
        while True:
            try:
                return self._database.read.execute(
                    "SELECT id, body FROM webhook_events WHERE target = ? AND id > ? ORDER BY id LIMIT ?",
                    (self.target.id, self._delivered, AHEAD),
                ).fetchall()
            except sqlite3.Error as error:  # a disk may have its moments
                log.warning("webhook %s: the queue cannot be read: %s", self.target.id, error)
                await asyncio.sleep(BACKOFF_MOST_S)

    async def _deliver(self, body: bytes) -> None:
        failures = 0
        while True:
            try:
                await self._poster.post(body)
            except PostFailed as error:
                failures += 1
                pause = self._pause(failures)
                if failures == 1:
                    log.warning("webhook %s: %s; its events wait until it is back", self.target.id, error)
                await asyncio.sleep(pause)
                continue
            if failures:
                log.info("webhook %s is back after %d attempts", self.target.id, failures)
            return

    async def _forget(self) -> None:
        """Take what was delivered out of the queue, however much that is by the time it is written."""
        while self._forgotten < (upto := self._delivered):
            try:
                await self._database.write(lambda connection, upto=upto: self._remove(connection, upto))  # type: ignore[misc]
            except DatabaseError as error:
                log.warning("webhook %s: delivered events stay in the queue for now: %s", self.target.id, error)
                return
            self._forgotten = upto

    def _remove(self, connection: sqlite3.Connection, upto: int) -> None:
        connection.execute("DELETE FROM webhook_events WHERE target = ? AND id <= ?", (self.target.id, upto))


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row: exponential, bounded, and never the same for two."""
    return min(BACKOFF_S * 2.0 ** min(failures - 1, 30), BACKOFF_MOST_S) * random.uniform(0.75, 1.25)  # noqa: S311


def _target(suffix: str, environ: Mapping[str, str]) -> Target:
    name = f"{PREFIX}ENDPOINT{suffix}"
    endpoint = environ.get(name, "").strip()
    if not endpoint:
        raise WebhookError(f'{name}: is missing, but {PREFIX}ENABLE{suffix} is on; write "http://HOST:PORT/PATH"')
    for option in NOT_HERE:
        if environ.get(f"{PREFIX}{option}{suffix}"):
            raise WebhookError(f"{PREFIX}{option}{suffix}: client certificates are not supported here; remove it")
    identity = suffix.removeprefix("_") or "_"
    if ":" in identity:
        raise WebhookError(f'{PREFIX}ENABLE{suffix}: "{identity}" cannot stand in an ARN; take a name without ":"')
    return Target(identity, _url(name, endpoint), _authorization(f"{PREFIX}AUTH_TOKEN{suffix}", environ))


def _url(name: str, endpoint: str) -> SplitResult:
    mend = f'{name}: "{endpoint}" is no endpoint; write "http://HOST:PORT/PATH" or "https://HOST/PATH"'
    if not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        raise WebhookError(mend)
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise WebhookError(mend)
    if "@" in url.netloc:
        raise WebhookError(f"{name}: has a password in it; put it into {name.replace('ENDPOINT', 'AUTH_TOKEN', 1)}")
    return url


def _authorization(name: str, environ: Mapping[str, str]) -> str:
    """`Bearer <token>`, unless the token has a scheme already."""
    words = environ.get(name, "").split()
    if not words:
        return ""
    if len(words) > 2 or not all(word.isascii() and word.isprintable() for word in words):
        raise WebhookError(f'{name}: is no token; write "TOKEN" or "SCHEME TOKEN", in ASCII')
    return " ".join(words) if len(words) == 2 else f"Bearer {words[0]}"
