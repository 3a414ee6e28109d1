"""uvicorn's websockets, loaded when the first client asks for one: a cluster without exposed services needs none."""

import asyncio
from typing import Any


def websocket_protocol(**arguments: Any) -> asyncio.Protocol:
    """The protocol that a connection goes on with once it is to be a websocket (uvicorn's setting `ws`)."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**arguments)
