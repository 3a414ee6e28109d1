"""The way to exposed services: `/system/services/<name>/exposed/...`, streaming in both directions."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.local.exposed import access
from infra.local.exposed.exposures import Exposures
from infra.local.exposed.headers import BadRequest, Raw, to_client, to_service, without
from infra.local.exposed.instance import Instance, Unavailable
from infra.local.exposed.process import Address

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

ANSWER_S = 300.0
"""How long a service may be silent before it begins to answer, without `dioscar/timeout`: OSCAR's own limit."""

log = logging.getLogger("dioscar.exposed")


class ExposedProxy:
    """An ASGI application for requests whose path parameter `service` names an exposed service."""

    def __init__(
        self, exposures: Exposures, administrator: tuple[str, str], forward: Callable[[Request], Awaitable[Response]]
    ) -> None:
        self._exposures = exposures
        self._administrator = administrator
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or carry a websocket."""
        instance = self._exposures.get(scope["path_params"]["service"])
        try:
            if instance is None:
                raise Unavailable(404, "there is no exposed service of that name")
            target = self._target(instance, scope)
            passed = to_service(
                scope["headers"],
                client=scope["client"][0] if scope.get("client") else "",
                scheme="https" if scope["scheme"] in ("https", "wss") else "http",
                prefix=_base(instance),
            )
            given = Headers(scope=scope)
            added = await self._admit(instance, given, scope)
            if self._is_ours(instance, given.get("authorization", "")):
                passed = without(passed, "authorization")  # a key to the whole cluster is no service's business
            with instance.use():
                await instance.ready()
                address = instance.address
                session, url = await self._exposures.upstream.session(address.path), self._url(address, target)
                if scope["type"] == "websocket":
                    from infra.local.exposed.sockets import carry

                    await carry(session, url, passed, scope, receive, send)
                else:
                    await Exchange(instance, scope, receive, send, added).run(session, url, passed)
        except BadRequest as error:
            await refuse(scope, receive, send, 400, str(error))
        except _Refused as refused:
            response = refused.response
            await refuse(scope, receive, send, response.status_code, bytes(response.body).decode(), refused.challenge)
        except Unavailable as error:
            again = {} if error.retry_s is None else {"Retry-After": f"{error.retry_s:.0f}"}
            await refuse(scope, receive, send, error.status, str(error), again)

    async def _admit(self, instance: Instance, given: Headers, scope: Scope) -> list[Raw]:
        """Headers that the answer gets from whoever has let the request in. Raises _Refused."""
        deployed = instance.deployed
        expose = deployed.service.expose
        if not expose.set_auth:
            return []
        if expose.auth_type == "forward":
            response = await self._forward(Request({**scope, "type": "http", "method": "GET"}))
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                raise _Refused(response)
            return [(name, value) for name, value in response.raw_headers if name == b"set-cookie"]
        if not access.is_basic(given.get("authorization", ""), deployed.name, deployed.token):
            sentence = f"the user name is {deployed.name}, the password the token of that service"
            challenge = {"WWW-Authenticate": 'Basic realm="Authentication Required"'}
            raise _Refused(Response(sentence, HTTPStatus.UNAUTHORIZED, challenge))
        return []

    def _is_ours(self, instance: Instance, authorization: str) -> bool:
        """Whether that is the cluster's own password, or a user's token that has let a request in."""
        expose = instance.deployed.service.expose
        if expose.set_auth and expose.auth_type == "forward":
            return access.is_basic(authorization, *self._administrator) or access.is_users(authorization)
        return access.is_basic(authorization, *self._administrator)

    def _target(self, instance: Instance, scope: Scope) -> str:
        """Path and query as the service is asked for them, byte for byte. Raises Unavailable, BadRequest."""
        base = _base(instance)
        try:
            raw: str = scope["raw_path"].decode("ascii")
            query: str = scope["query_string"].decode("ascii")
        except UnicodeDecodeError:
            raise BadRequest("the address has characters that must be percent-encoded") from None
        rest = raw.removeprefix(base)
        if not raw.startswith(base) or rest[:1] not in ("", "/"):
            raise Unavailable(404, "there is no exposed service of that name")  # it was spelt with escapes
        path = base + rest if instance.deployed.service.expose.rewrite_target else rest or "/"
        return f"{path}?{query}" if query else path

    def _url(self, address: Address, target: str) -> "URL":
        from yarl import URL

        try:
            return URL(address.base + target, encoded=True)
        except ValueError:
            raise BadRequest("the address cannot be read") from None


class Exchange:
    """One request and its answer."""

    def __init__(self, instance: Instance, scope: Scope, receive: Receive, send: Send, added: list[Raw]) -> None:
        self._instance = instance
        self._added = added
        self._scope = scope
        self._receive = receive
        self._send = send
        self._gone = False
        self._sent = asyncio.Event()
        self._begun = False
        limit = instance.deployed.settings.timeout_s
        self._silence_s = ANSWER_S if limit is None else float(limit)
        self._patience = asyncio.timeout(self._silence_s)

    async def run(self, session: "aiohttp.ClientSession", url: "URL", headers: list[tuple[str, str]]) -> None:
        """Carry it; a client that leaves ends it, and its connection to the service."""
        running = asyncio.current_task()
        assert running is not None
        listening = asyncio.create_task(self._listen(running))
        try:
            await self._carry(session, url, headers)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            running.uncancel()
        finally:
            listening.cancel()

    async def _carry(self, session: "aiohttp.ClientSession", url: "URL", headers: list[tuple[str, str]]) -> None:
        import aiohttp
        from multidict import CIMultiDict

        name = self._instance.deployed.name
        try:
            async with self._patience:
                response = await session.request(
                    self._scope["method"],
                    url,
                    headers=CIMultiDict(headers),
                    data=self._body(),
                    allow_redirects=False,
                )
                self._patience.reschedule(None)
        except TimeoutError:
            raise Unavailable(504, f"{name} has not answered within {self._silence_s:g} s") from None
        except aiohttp.ClientConnectorError:
            raise Unavailable(502, f"{name} does not listen where it is to") from None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            raise Unavailable(502, f"{name} has ended the connection without an answer") from None
        except aiohttp.ClientError:
            raise Unavailable(502, f"{name} has answered with something that is no HTTP") from None
        try:
            if not 200 <= response.status <= 599:
                raise Unavailable(502, f"{name} has answered with the status {response.status}, which there is not")
            await self._answer(response)
        except (aiohttp.ClientError, ConnectionError) as error:
            if not self._begun:
                raise Unavailable(502, f"{name} has ended the connection without an answer") from None
            log.warning("exposed service %s has broken off an answer (%s)", name, type(error).__name__)
        finally:
            response.close()

    async def _answer(self, response: "aiohttp.ClientResponse") -> None:
        headers = [*to_client(response.raw_headers), *self._added]
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        self._begun = True
        async for chunk in response.content.iter_any():
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    def _body(self) -> AsyncIterator[bytes] | None:
        names = {name for name, _ in self._scope["headers"]}
        if names & {b"content-length", b"transfer-encoding"}:
            return self._chunks()
        self._sent.set()
        return None

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The body, as it comes; the time that a service has to answer begins anew with each piece."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._sent.set()
                raise ConnectionError("the client has gone")
            self._rest()
            if chunk := message.get("body", b""):
                yield chunk
                self._rest()
            more = message.get("more_body", False)
        self._sent.set()

    def _rest(self) -> None:
        if self._patience.when() is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + self._silence_s)

    async def _listen(self, running: "asyncio.Task[Any]") -> None:
        """Once the body has come, wait for the client to leave."""
        await self._sent.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        running.cancel()


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    sentence: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer with a sentence, also where a websocket was asked for."""
    response = Response(sentence, status, headers, media_type="text/plain")
    if scope["type"] == "http":
        response.headers["Connection"] = "close"  # the rest of a body that is not wanted is not waited for
        await response(scope, receive, send)
        return
    await receive()  # the wish to connect
    await send({"type": "websocket.http.response.start", "status": status, "headers": response.raw_headers})
    await send({"type": "websocket.http.response.body", "body": response.body})


class _Refused(Exception):  # noqa: N818 - an answer
    """The request is not from somebody who may use the service."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response
        challenge = response.headers.get("www-authenticate")
        self.challenge = {"WWW-Authenticate": challenge} if challenge else None


def _base(instance: Instance) -> str:
    return f"/system/services/{instance.deployed.name}/exposed"
