"""Places to run in, shared fairly: a service has as many as its limit allows, and services with work take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """So many places in all; belongs to one event loop."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._running: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[asyncio.Future[None], int]]] = OrderedDict()

    @asynccontextmanager
    async def place(self, service: str, limit: int) -> AsyncIterator[None]:
        """Wait for a place of `service`, which runs at most `limit` at once, and give it back at the end."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(service, deque()).append((future, limit))
        self._grant()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give_back(service)
            raise
        try:
            yield
        finally:
            self._give_back(service)

    def _give_back(self, service: str) -> None:
        self._running[service] -= 1
        if not self._running[service]:
            del self._running[service]
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        """Hand out what is free, to one service after the other; who has just been served goes to the end."""
        while self._free and (service := self._next()) is not None:
            future, _ = self._waiting[service].popleft()
            self._waiting.move_to_end(service)
            if future.cancelled():
                continue
            self._free -= 1
            self._running[service] += 1
            future.set_result(None)

    def _next(self) -> str | None:
        """The first service in turn that waits and may run one more."""
        for service, queue in list(self._waiting.items()):
            while queue and queue[0][0].cancelled():
                queue.popleft()
            if not queue:
                del self._waiting[service]
            elif self._running[service] < queue[0][1]:
                return service
        return None
