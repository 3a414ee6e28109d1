"""What nobody wants any more is deleted at its plugin, however often that has to be said."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from infra.local.database import Database, DatabaseError
from infra.local.interlink import record
from infra.local.interlink.client import Plugin, PluginAway, PluginRefused
from infra.local.interlink.record import Sent
from infra.local.waiting import news

REFUSALS = 5
"""How often a plugin may answer with an error before it is believed: one of Go's drops the connection for a pod that
it does not know."""
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0

log = logging.getLogger("dioscar.interlink")


class Sweeper:
    """Tells plugins of pods that have ended; belongs to one event loop."""

    def __init__(self, database: Database, plugin_of: Callable[[str], Plugin | None]) -> None:
        self._database = database
        self._plugin_of = plugin_of
        self._more = asyncio.Event()
        self._refused: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take up what an earlier process left."""
        self._more.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def soon(self) -> None:
        """There may be something to delete."""
        self._more.set()

    async def close(self, patience_s: float = 0.0) -> None:
        """Stop, after a while for what is left; the next start goes on."""
        if self._task is None:
            return
        end = asyncio.get_running_loop().time() + patience_s
        while record.left(self._database.read, 1) and asyncio.get_running_loop().time() < end:
            self.soon()
            await asyncio.sleep(0.05)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        pause = PAUSE_S
        while True:
            await self._more.wait()
            self._more.clear()
            found = record.left(self._database.read)
            done = await asyncio.gather(*(self._delete(sent) for sent in found))
            if all(done):
                pause = PAUSE_S
                if found:
                    self._more.set()
                continue
            await news(self._more, pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
            self._more.set()

    async def _delete(self, sent: Sent) -> bool:
        """Tell the plugin of one pod; whether that is done with."""
        plugin = self._plugin_of(sent.pod.node)
        uid = sent.pod.uid
        try:
            if plugin is None:
                log.warning("pod %s of job %s is left where it is: there is no node %s", uid, sent.job, sent.pod.node)
            else:
                await plugin.delete(sent.pod)
        except PluginRefused as error:
            self._refused[uid] = self._refused.get(uid, 0) + 1
            if self._refused[uid] < REFUSALS:
                return False
            log.warning("pod %s of job %s cannot be deleted at %s: %s", uid, sent.job, sent.pod.node, error)
        except PluginAway as error:
            log.debug("pod %s is still to be deleted at %s: %s", uid, sent.pod.node, error)
            return False
        self._refused.pop(uid, None)
        try:
            await self._database.write(lambda connection: record.forget(connection, uid), frees=True)
        except DatabaseError:
            return False
        return True
