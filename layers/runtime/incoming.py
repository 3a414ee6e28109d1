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


LARGEST_DOCUMENT = 4 << 20
"""Bytes of JSON that are looked into; what is larger is no event, and would take fifty times its size in memory."""
LONGEST_SCALAR = 64
"""Characters of JSON that begins with a letter or a digit: a number, true, false or null."""
MOST_WRAPPED = 8
"""Events that may stand one in the other, as they pass from cluster to cluster."""


def interpret(body: bytes) -> StorageEvent | Payload:
    """Tell what `body` is, in the order of OSCAR's supervisor.

    JSON with `httpMethod` is an API gateway's call; with `event`, another cluster's wrapper around the real event; with
    `Records` of MinIO or S3, a notification (its first record). Other JSON is the payload itself; a JSON string, like
    all that is no JSON, is base64. Raises InputError where it is neither.
    """
    return _interpret(body, 0)


def _interpret(body: bytes, wrapped: int) -> StorageEvent | Payload:
    if len(body) > LARGEST_DOCUMENT:
        return _large(body)
    if len(body) > LONGEST_SCALAR and body[:1].isalnum():
        return Payload(_decode(body), {})  # most bodies: trying JSON first would cost more than decoding
    if not body.strip():
        return Payload(b"", {})
    try:
        document = json.loads(body)
    except ValueError:
        return Payload(_decode(body), {})
    except RecursionError:
        raise InputError("the body is JSON nested too deeply; send a flat object") from None
    while isinstance(document, dict) and "httpMethod" not in document and "event" in document:
        if "subscription" in document:
            break
        wrapped += 1
        if wrapped > MOST_WRAPPED:
            raise InputError(
                f"the body is an event within an event, more than {MOST_WRAPPED} times; send the inner one"
            )
        document = document["event"]
        if isinstance(document, str):
            return _interpret(_encoded(document), wrapped)
    if wrapped:
        body = _encoded(json.dumps(document, ensure_ascii=False))
    if isinstance(document, str):
        return Payload(_decode(_encoded(document)), {})
    if isinstance(document, dict):
        if "httpMethod" in document:
            return _gateway(document)
        if is_notification(document):
            try:
                return StorageEvent(parse(document)[0], document, body.decode(json.detect_encoding(body)))
            except NotificationError as error:
                raise InputError(f"event: {error}") from None
    return Payload(body if isinstance(document, (dict, list)) else json.dumps(document).encode(), {})


def _large(body: bytes) -> Payload:
    """What is told from its first character: JSON as it is, or base64, be it in quotation marks or not."""
    first = body[:64].lstrip()[:1]
    if first in (b"{", b"["):
        return Payload(body, {})
    return Payload(_decode(body.strip()[1:-1].replace(b"\\/", b"/") if first == b'"' else body), {})


def _gateway(document: dict[str, Any]) -> Payload:
    text = document.get("body") or ""
    query = document.get("queryStringParameters") or {}
    if not isinstance(query, dict):
        raise InputError('queryStringParameters: is no JSON object; write {"name": "value"}')
    for name, value in query.items():
        if "=" in name or "\0" in f"{name}{value}" or not _is_text(f"{name}{value}"):
            raise InputError(
                f"queryStringParameters: {ascii(name)[:80]} cannot be an environment variable; leave it out"
            )
    body = _encoded(text if isinstance(text, str) else json.dumps(text))
    decoded = _decode(body) if document.get("isBase64Encoded") else body
    return Payload(decoded, {f"CONT_VAR_{name}": str(value) for name, value in query.items()})


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _encoded(text: str) -> bytes:
    if not _is_text(text):
        raise InputError("the body has half a character (a lone surrogate); send the whole one")
    return text.encode()


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.translate(None, b" \t\r\n\v\f"), validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the body is neither JSON nor base64; encode the file with `base64 -w0 FILE`") from None
