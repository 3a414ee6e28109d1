"""How OSCAR answers: compact JSON, plain-text errors, and often nothing at all."""

from typing import Any

from starlette.responses import Response

from fdl.model import dumps


def json_reply(value: Any, status: int = 200) -> Response:
    """Compact JSON, keys in the order given."""
    return Response(dumps(value), status, media_type="application/json")


def text_reply(text: str, status: int) -> Response:
    """A plain-text error."""
    return Response(text, status, media_type="text/plain")


def empty(status: int) -> Response:
    """A status that says it all."""
    return Response(status_code=status)
