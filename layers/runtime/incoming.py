"""What stands on a supervisor's standard input: an object's notification, or the body of a direct call."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from events.notifications import Notification, NotificationError, is_notification, parse
from layers.runtime.contract import InputError

MAY_BE_JSON = b'{["-0123456789tfnNI \t\r\n\xef\xfe\xff\x00'
"""What JSON begins with, byte-order marks included; anything else is base64 without trying."""


@dataclass(frozen=True)
class StorageEvent:
    """An object was created: download it, then run."""

    notification: Notification
    document: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Payload:
    """A direct call: its body, decoded, and the query parameters that an API gateway passes on."""

    body: bytes
    query: dict[str, str]


def interpret(body: bytes) -> StorageEvent | Payload:
    """Tell what `body` is, in the order of OSCAR's supervisor.

    JSON with `httpMethod` is an API gateway's call; with `event`, another cluster's wrapper around the real event; with
    `Records` of MinIO or S3, a notification (its first record). Other JSON is the payload itself; a JSON string, like
    all that is no JSON, is base64. Raises InputError where it is neither.
    """
    if body[:1] not in MAY_BE_JSON:
        return Payload(_decode(body), {})
    try:
        document = json.loads(body) if body.strip() else None
    except ValueError:
        return Payload(_decode(body), {})
    except RecursionError:
        raise InputError("the body is JSON nested too deeply; send a flat object") from None
    if not body.strip():
        return Payload(b"", {})
    if isinstance(document, str):
        return Payload(_decode(document.encode()), {})
    if isinstance(document, dict):
        if "httpMethod" in document:
            return _gateway(document)
        if "event" in document and "subscription" not in document:
            inner = document["event"]
            return interpret((inner if isinstance(inner, str) else json.dumps(inner)).encode())
        if is_notification(document):
            try:
                return StorageEvent(parse(document)[0], document, body.decode())
            except NotificationError as error:
                raise InputError(f"event: {error}") from None
    return Payload(body if isinstance(document, (dict, list)) else json.dumps(document).encode(), {})


def _gateway(document: dict[str, Any]) -> Payload:
    text = document.get("body") or ""
    if not isinstance(document.get("queryStringParameters") or {}, dict):
        raise InputError('queryStringParameters: is no JSON object; write {"name": "value"}')
    body = text if isinstance(text, str) else json.dumps(text)
    query = document.get("queryStringParameters") or {}
    decoded = _decode(body.encode()) if document.get("isBase64Encoded") else body.encode()
    return Payload(decoded, {f"CONT_VAR_{name}": str(value) for name, value in query.items()})


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the body is neither JSON nor base64; encode the file with `base64 -w0 FILE`") from None
