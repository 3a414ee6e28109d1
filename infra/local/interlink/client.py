"""A plugin's REST protocol, as interLink's API server speaks it: GET with a body, and only 200 is a success.

There is no password on this way: a plugin listens on a socket, on the loopback address, or behind something that asks.
"""

import asyncio
import importlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from infra.local.interlink.nodes import UNIX
from infra.local.interlink.pod import CONTAINER, PodName
from infra.local.interlink.status import PodState, read_statuses

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10.0
ANSWER_S = 150.0
"""For an answer: interLink itself waits 120 s for one."""
NO_TIME = "0001-01-01T00:00:00Z"
LONGEST = 2000
LARGEST_ANSWER = 64 << 20


class PluginAway(Exception):  # noqa: N818 - a state of the other side
    """The plugin cannot be asked now; whether it has done what it was asked last is not known."""


class PluginRefused(Exception):  # noqa: N818
    """The plugin has answered with an error; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Plugin:
    """One plugin; belongs to one event loop."""

    def __init__(self, url: str) -> None:
        self._url = "http://localhost" if url.startswith(UNIX) else url
        self._socket = url.removeprefix(UNIX) if url.startswith(UNIX) else ""
        self._session: aiohttp.ClientSession | None = None
        self._loading = asyncio.Lock()

    async def create(self, pod: dict[str, Any]) -> str:
        """Have a pod made (RetrievedPodData); returns the plugin's own name for it.

        Raises PluginRefused, or PluginAway where it may or may not have been taken.
        """
        answer = await self._json("POST", "create", pod)
        return str(answer.get("PodJID") or "") if isinstance(answer, dict) else ""

    async def status(self, pods: Sequence[PodName]) -> dict[str, PodState]:
        """The states of pods by uid, in one question. Raises PluginRefused, PluginAway."""
        answer = await self._json("GET", "status", [pod.bare() for pod in pods])
        try:
            return read_statuses(answer)
        except ValueError as error:
            raise PluginRefused(200, f"its answer to /status cannot be read: {error}") from None

    async def delete(self, pod: PodName) -> None:
        """Have a pod ended and forgotten. Raises PluginRefused, PluginAway."""
        async with self._asked("POST", "delete", pod.bare()) as response:
            await response.read()

    async def ping(self) -> dict[str, Any]:
        """What the plugin says of itself, empty where it says nothing. Raises PluginRefused, PluginAway."""
        async with self._asked("GET", "status", []) as response:
            text = await response.text(errors="replace")
        try:
            answer = json.loads(text)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    async def logs(self, pod: PodName, *, follow: bool, container: str = CONTAINER) -> AsyncIterator[bytes]:
        """What a container (the function's) has printed, from its start on; following, until it ends.

        Raises PluginRefused, PluginAway.
        """
        options = {
            "Tail": 0,
            "Bytes": 0,
            "Timestamps": False,
            "Follow": follow,
            "Previous": False,
            "SinceSeconds": 0,
            "SinceTime": NO_TIME,
        }
        wanted = {
            "Namespace": pod.namespace,
            "PodUID": pod.uid,
            "PodName": pod.name,
            "ContainerName": container,
            "Opts": options,
        }
        async with self._asked("GET", "getLogs", wanted, endless=follow) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    async def close(self) -> None:
        """Let go of the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _json(self, method: str, path: str, body: Any) -> Any:
        async with self._asked(method, path, body) as response:
            text = await response.text(errors="replace")
        try:
            return json.loads(text or "null")
        except (ValueError, RecursionError):
            raise PluginRefused(200, f"its answer to /{path} is no JSON: {_line(text)[:200]}") from None

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: Any, *, endless: bool = False
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        session = await self._opened()
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None if endless else ANSWER_S, sock_connect=CONNECT_S)
        headers = {"Content-Type": "application/json", "InterLink-Http-Session": str(uuid.uuid4())}
        data = json.dumps(body).encode()
        try:
            async with session.request(
                method, f"{self._url}/{path}", data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise PluginRefused(response.status, _sentence(await _text(response), response.status))
                yield response
        except TimeoutError:
            raise PluginAway(f"it has not answered /{path} in time") from None
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            why = os.strerror(number) if number and number > 0 else error.os_error.strerror or "no connection"
            raise PluginAway(f"{self._socket or self._url}: {why}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PluginAway(_line(str(error)) or type(error).__name__) from None

    async def _opened(self) -> "aiohttp.ClientSession":
        async with self._loading:
            if self._session is None:
                await asyncio.to_thread(importlib.import_module, "aiohttp")
                import aiohttp

                connector: aiohttp.BaseConnector
                if self._socket:
                    connector = aiohttp.UnixConnector(self._socket, limit=0)
                else:
                    connector = aiohttp.TCPConnector(limit=0)
                self._session = aiohttp.ClientSession(
                    connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
                )
            return self._session


async def _text(response: "aiohttp.ClientResponse") -> str:
    return (await response.content.read(LONGEST)).decode(errors="replace")


def _sentence(text: str, status: int) -> str:
    """What an error says, out of JSON where it is wrapped in that."""
    try:
        found = json.loads(text)
        for name in ("detail", "message", "error"):
            if isinstance(found, dict) and isinstance(found.get(name), str):
                text = found[name]
    except ValueError:
        pass
    return _line(text)[:500] or f"HTTP status {status}"


def _line(text: str) -> str:
    return " ".join(text.split())
