"""The one database of an embedded cluster: SQLite, one writer that commits for many at once, reads beside it.

A commit costs an fsync, and an fsync costs the same for one change as for a hundred. So whoever wants a change queues a
function; a single thread runs everything that is queued inside one transaction, each in a savepoint of its own, and
commits once (group commit). Who awaits `write` is answered after the commit: what it has seen is on disk.
"""

import asyncio
import concurrent.futures
import fcntl
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from infra.local.migrations import MIGRATIONS, Migration, MigrationError, upgrade
from infra.local.reserve import Reserve

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Hook = Callable[[], object]

log = logging.getLogger(__name__)

GROUP = 256
"""Most functions that share one commit, which bounds how long the first of them waits for the last."""
CACHE_KIB = 16 * 1024
WAL_PAGES = 4000


class DatabaseError(Exception):
    """The database cannot be opened or written; the message names the file."""


class DiskFull(DatabaseError):  # noqa: N818 - what it is
    """There is no room left for a change; nothing of it was kept."""


class Database:
    """One SQLite file, owned by this process until `close`.

    `write` may be awaited from any event loop; `read` belongs to the thread of the event loop.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Open the file, brought up to the schema that the migrations lead to. Raises DatabaseError."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            opened.enter_context(_claim(path))
            try:
                self._writer = opened.enter_context(closing(_connect(path)))
                upgrade(self._writer, path, migrations)
                self._reader = opened.enter_context(closing(_connect(path)))
                self._reader.execute("PRAGMA query_only = ON")
            except MigrationError as error:
                raise DatabaseError(str(error)) from error
            except sqlite3.Error as error:
                raise DatabaseError(f"{path}: cannot be opened as a database: {error}") from error
            self._opened = opened.pop_all()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._hooks: list[Hook] = []
        self._reserve = Reserve(path.with_name(f"{path.name}.reserve"))
        self._reserve.take()
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="database-writer", daemon=True)
        self._thread.start()

    @property
    def read(self) -> sqlite3.Connection:
        """A connection that sees what is committed and cannot change it, for the event loop's thread.

        Read cursors to their end at once: an open one holds back the view of everybody and the log's checkpoint.
        """
        return self._reader

    async def write(self, work: Work[T], *, frees: bool = False) -> T:
        """Run `work` in a transaction, on the writer's thread; return its result once that is durable.

        What `frees` room may take the last of it, on a disk that is full for everything else.

        An exception undoes what this `work` did, and only that, and is raised here. `work` must be quick, must not
        commit, and runs even if who awaits it has been cancelled.

        Raises:
            DiskFull: nothing was changed for want of room.
            DatabaseError: the commit failed; nothing was changed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._submit(_Item(work, future, loop, frees))
        return await future

    def write_blocking(self, work: Work[T]) -> T:
        """`write`, for a thread that has no event loop to keep going; never for the event loop itself."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._submit(_Item(work, future, None))
        return future.result()

    def after_commit(self, hook: Hook) -> None:
        """From within a `work`: call `hook` once that work is durable, on its event loop; never if it is undone."""
        self._hooks.append(hook)

    def add_schema(self, script: str) -> None:
        """Create what a module keeps here: statements that do nothing where their tables exist already."""
        self.write_blocking(lambda connection: [connection.execute(statement) for statement in _statements(script)])

    def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._opened.close()

    def _submit(self, item: "_Item") -> None:
        with self._gate:
            if self._closed:
                raise DatabaseError(f"{self.path}: the database is closed")
            self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch = [item]
            last = False
            with suppress(queue.Empty):
                while len(batch) < GROUP and not last:
                    following = self._queue.get_nowait()
                    last = following is None
                    if following is not None:
                        batch.append(following)
            self._commit(batch)
            freeing = [item for item in batch if item.frees and isinstance(item.error, DiskFull)]
            if freeing and self._reserve.give_up():
                for item in freeing:
                    item.error = None
                self._commit(freeing)
            else:
                self._reserve.take()
            _answer(batch)
            if last:
                return

    def _commit(self, batch: list["_Item"]) -> None:
        """Run a batch as one transaction; a failure of the transaction itself is everybody's."""
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            for item in batch:
                self._attempt(connection, item)
            connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            failure = _failure(self.path, error)
            for item in batch:
                item.error, item.hooks = failure, []

    def _attempt(self, connection: sqlite3.Connection, item: "_Item") -> None:
        connection.execute("SAVEPOINT work")
        self._hooks = []
        try:
            item.result = item.work(connection)
            item.hooks = self._hooks
        except BaseException as error:  # whatever it is, it belongs to who asked for this work
            if not connection.in_transaction:
                raise sqlite3.OperationalError(str(error)) from error  # SQLite has given up the whole transaction
            connection.execute("ROLLBACK TO work")
            item.error = _failure(self.path, error) if _is_full(error) else error
        connection.execute("RELEASE work")


class _Item:
    """A queued piece of work, and who waits for it."""

    __slots__ = ("error", "frees", "future", "hooks", "loop", "result", "work")

    def __init__(
        self,
        work: Work[Any],
        future: "asyncio.Future[Any] | concurrent.futures.Future[Any]",
        loop: asyncio.AbstractEventLoop | None,
        frees: bool = False,
    ) -> None:
        self.work, self.future, self.loop, self.frees = work, future, loop, frees
        self.result: Any = None
        self.error: BaseException | None = None
        self.hooks: list[Hook] = []

    def resolve(self) -> None:
        for hook in self.hooks:
            try:
                hook()
            except Exception:
                log.exception("a hook failed after its commit")
        if self.future.done():
            return  # cancelled; the work is done all the same
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _answer(batch: list[_Item]) -> None:
    """Tell everybody of a batch, with one wake-up per event loop."""
    loops: dict[asyncio.AbstractEventLoop | None, list[_Item]] = {}
    for item in batch:
        loops.setdefault(item.loop, []).append(item)
    for loop, items in loops.items():
        if loop is None:
            _resolve(items)
            continue
        with suppress(RuntimeError):  # a loop that is closed has nobody left to tell
            loop.call_soon_threadsafe(_resolve, items)


def _resolve(items: list[_Item]) -> None:
    for item in items:
        item.resolve()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _claim(path: Path) -> IO[str]:
    """Hold a lock beside the database: two engines on one data folder would delete each other's files."""
    file = path.with_name(f"{path.name}.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise DatabaseError(f"{path}: in use by another process; stop it or choose another data folder") from None
    return file


def _statements(script: str) -> list[str]:
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    if pending.strip():
        statements.append(pending)
    return statements


def _is_full(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def _failure(path: Path, error: BaseException) -> DatabaseError:
    if _is_full(error) or _is_full(error.__cause__ or error):
        return DiskFull(f"{path}: no space left on the disk; nothing was changed")
    return DatabaseError(f"{path}: nothing was changed: {error}")
