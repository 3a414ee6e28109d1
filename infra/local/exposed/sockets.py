"""Websockets between a client and an exposed service, message by message, with their subprotocols and closing codes."""

import asyncio
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from infra.local.exposed.headers import to_client
from infra.local.exposed.instance import Unavailable
from infra.local.exposed.upstream import Elsewhere

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

LARGEST = 16 << 20
"""Bytes of a message, in either direction; a larger one closes the connection with code 1009."""
OPENS_S = 60.0
SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


async def carry(
    session: "aiohttp.ClientSession",
    url: "URL",
    headers: list[tuple[str, str]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Connect the two until either leaves. Raises Unavailable where the service takes no websocket."""
    import aiohttp
    from multidict import CIMultiDict

    try:
        async with asyncio.timeout(OPENS_S):
            service = await session.ws_connect(
                url,
                headers=CIMultiDict(headers),
                protocols=scope["subprotocols"],
                max_msg_size=LARGEST,
                compress=0,
            )
    except aiohttp.WSServerHandshakeError as error:
        status = error.status if 400 <= error.status <= 599 else 502
        raise Unavailable(status, f"the service takes no websocket here (it answers {error.status})") from None
    except Elsewhere:
        raise Unavailable(502, "the service answers a websocket with a redirection, which is not followed") from None
    except TimeoutError:
        raise Unavailable(504, f"the service has not answered within {OPENS_S:g} s") from None
    except (aiohttp.ClientError, ConnectionError):
        raise Unavailable(502, "the service has ended the connection without an answer") from None
    async with service:
        answered = to_client(service._response.raw_headers)
        await receive()  # the wish to connect
        await send({"type": "websocket.accept", "subprotocol": service.protocol, "headers": answered})
        both = [asyncio.create_task(_to_service(service, receive)), asyncio.create_task(_to_client(service, send))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)


async def _to_service(service: "aiohttp.ClientWebSocketResponse", receive: Receive) -> None:
    while True:
        message = await receive()
        try:
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1000
                reason = (message.get("reason") or "").encode()
                await service.close(code=code if _sendable(code) else 1001, message=reason[:120])
                return
            if message.get("text") is not None:
                await service.send_str(message["text"])
            else:
                await service.send_bytes(message["bytes"])
        except ConnectionError:
            await asyncio.Event().wait()  # the service has gone, which the other direction tells


async def _to_client(service: "aiohttp.ClientWebSocketResponse", send: Send) -> None:
    from aiohttp import WSMsgType

    reason = ""
    while True:
        message = await service.receive()
        if message.type == WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type == WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        else:
            reason = str(message.extra or "") if message.type == WSMsgType.CLOSE else ""
            break
    code = service.close_code or 1000
    known = code if _sendable(code) else 1011
    await send({"type": "websocket.close", "code": known, "reason": reason[:120]})


def _sendable(code: int) -> bool:
    return code in SENDABLE or 3000 <= code <= 4999
