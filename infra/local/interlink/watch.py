"""The states of a node's pods: one question for all of them, as often as the node's settings say."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from infra.local.interlink.client import Plugin, PluginAway, PluginRefused
from infra.local.interlink.pod import PodName
from infra.local.interlink.status import SILENT, UNKNOWN, PodState
from infra.local.waiting import news

COALESCE_S = 0.02
"""How long a question waits for more pods that have just come."""
LONGEST_PAUSE_S = 30.0

log = logging.getLogger("dioscar.interlink")


class Watched:
    """One pod that somebody waits for."""

    def __init__(self, pod: PodName) -> None:
        self.pod = pod
        self._look: PodState | PluginAway = UNKNOWN
        self._new = asyncio.Event()

    def tell(self, look: PodState | PluginAway) -> None:
        """There is an answer, or none can be had."""
        self._look = look
        self._new.set()

    async def looks(self) -> AsyncIterator[PodState | PluginAway]:
        """The newest answer, each time that there is a new one; without end."""
        while True:
            await self._new.wait()
            self._new.clear()
            yield self._look


class Watch:
    """Asks one plugin, while there is somebody who waits."""

    def __init__(self, plugin: Plugin, poll_s: float, revive: Callable[[], Awaitable[None]] | None = None) -> None:
        self._plugin = plugin
        self._poll_s = poll_s
        self._revive = revive
        self._watched: dict[str, Watched] = {}
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.asked = 0
        """How many questions there have been."""

    @contextmanager
    def watching(self, pod: PodName) -> Iterator[Watched]:
        """Ask for this pod, too, for the length of a `with`."""
        watched = self._watched[pod.uid] = Watched(pod)
        self._hurry.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield watched
        finally:
            self._watched.pop(pod.uid, None)

    async def close(self) -> None:
        """Ask nothing more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        failures = 0
        while self._watched:
            self._hurry.clear()
            await asyncio.sleep(COALESCE_S)
            failures = 0 if await self._ask() else failures + 1
            pause = min(self._poll_s * 2 ** min(failures, 10), max(self._poll_s, LONGEST_PAUSE_S if failures else 0.0))
            await news(self._hurry, pause)

    async def _ask(self) -> bool:
        """Ask once and tell everybody; whether there was an answer."""
        watched = dict(self._watched)
        self.asked += 1
        try:
            states = await self._plugin.status([one.pod for one in watched.values()])
        except PluginRefused as error:  # it cannot tell just now: no state is the end of a pod
            away = PluginAway(f"it answers {error.status}: {error}")
        except Exception as error:
            if not isinstance(error, PluginAway):
                log.exception("the states of the pods at a plugin")  # a defect of ours is no end of everybody's pods
            away = error if isinstance(error, PluginAway) else PluginAway(f"the cluster failed: {error}")
            if self._revive is not None:
                with contextlib.suppress(PluginAway):
                    await self._revive()
        else:
            for uid, one in watched.items():
                one.tell(states.get(uid, SILENT))
            return True
        for one in watched.values():
            one.tell(away)
        return False
