"""What stands on a supervisor's standard input: an object's notification, or the body of a direct call."""

import base64
import binascii
import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from events.notifications import Notification, NotificationError, read
from layers.runtime.contract import InputError

MAY_BE_JSON = b'{["-0123456789tfnNI \t\r\n\xef\xfe\xff\x00'
"""What JSON begins with, byte-order marks included; anything else is base64 without trying."""


@dataclass(frozen=True)
class StorageEvent:
    """An object was created: download it, then run. `text` is the event as a script gets it."""

    notification: Notification
    document: dict[str, Any]
    text: str
    query: dict[str, str] = field(default_factory=dict)

    def at(self, notification: Notification) -> "StorageEvent":
        """The same event, its object where `notification` says."""
        return replace(self, notification=notification)

    @property
    def object_key(self) -> str:
        """STORAGE_OBJECT_KEY: the key, of Onedata with its space before it."""
        found = self.notification
        return f"/{found.bucket}/{found.key}" if found.provider.startswith("onedata") else found.key

    @property
    def bodies(self) -> list[bytes]:
        """Of an event that tells of several objects, an event for each; else none."""
        records = self.document.get("Records") or []
        if len(records) < 2 or self.notification.provider.partition(".")[0] not in ("minio", "s3"):
            return []
        name = self.notification.provider.partition(".")[2]
        wrapper = {} if name == "default" else {"storage_provider": name}
        documents = [{"Records": [record]} for record in records]
        return [
            json.dumps({**wrapper, "event": one} if wrapper else one, ensure_ascii=False).encode() for one in documents
        ]


@dataclass(frozen=True)
class Payload:
    """A direct call: its body, decoded, and the query parameters that an API gateway passes on."""

    body: bytes
    query: dict[str, str]


LARGEST_DOCUMENT = 4 << 20
"""Bytes of JSON that are looked into; what is larger is no event, and would take fifty times its size in memory."""
LONGEST_SCALAR = 64
"""Characters of JSON that begins with a letter or a digit: a number, true, false or null."""
WRAPPER = {"event", "storage_provider"}
"""The keys of the document in which one cluster passes an event on to another."""
MOST_WRAPPED = 8
"""Events that may stand one in the other, as they pass from cluster to cluster."""


def interpret(body: bytes) -> StorageEvent | Payload:
    """Tell what `body` is, in the order of OSCAR's supervisor.

    JSON with `httpMethod` is an API gateway's call, and its body is told like any other; with `event`, another
    cluster's wrapper around the real event; a notification of MinIO, S3, dCache, Rucio or Onedata is an object's (its
    first record). Other JSON is the payload itself; a JSON string, like all that is no JSON, is base64. Raises
    InputError where it is neither.
    """
    first = body[:1]
    if first not in MAY_BE_JSON or (len(body) > LONGEST_SCALAR and first.isalnum()):
        return Payload(_decode(body), {})  # most bodies: trying JSON first would cost more than decoding
    return _interpret(body, 0)


def _interpret(body: bytes, wrapped: int, provider: str = "") -> StorageEvent | Payload:
    """`wrapped`: how many events it was taken out of; `provider`: the store that the innermost of those names."""
    if len(body) > LARGEST_DOCUMENT:
        return _large(body)
    if not body.strip():
        return Payload(b"", {})
    try:
        document = json.loads(body)
    except ValueError:
        return Payload(_decode(body), {})
    except RecursionError:
        raise InputError("the body is JSON nested too deeply; send a flat object") from None
    unwrapped = False
    while _is_wrapper(document):
        wrapped, unwrapped = _deeper(wrapped), True
        provider = str(document.get("storage_provider") or provider)
        document = document["event"]
        if isinstance(document, str):
            return _interpret(_encoded(document), wrapped, provider)
    if unwrapped:
        body = _encoded(json.dumps(document, ensure_ascii=False))
    if isinstance(document, str):
        return _quoted(_encoded(document))
    if isinstance(document, dict):
        if "httpMethod" in document:
            return _gateway(document, wrapped)
        try:
            found = read(document)
        except NotificationError as error:
            raise InputError(f"event: {error}") from None
        if found:
            text = body.decode(json.detect_encoding(body))
            return StorageEvent(_delegated(found[0], provider), document, text)
    return Payload(body if isinstance(document, (dict, list)) else json.dumps(document).encode(), {})


def _is_wrapper(document: Any) -> bool:
    """Whether it is what a cluster sends that passes an event on.

    OSCAR takes all JSON with `event` for one. Here a document with keys of its own is its sender's, unless what stands
    in its `event` is a notification.
    """
    if not isinstance(document, dict) or "event" not in document:
        return False
    if "httpMethod" in document or "subscription" in document:
        return False
    inner = document["event"]
    if isinstance(inner, str):
        return document.keys() <= WRAPPER or '"Records"' in inner
    return document.keys() <= WRAPPER or (isinstance(inner, dict) and "Records" in inner)


def _deeper(wrapped: int) -> int:
    if wrapped == MOST_WRAPPED:
        raise InputError(f"the body is an event within an event, more than {MOST_WRAPPED} times; send the inner one")
    return wrapped + 1


def _delegated(notification: Notification, provider: str) -> Notification:
    """The notification, its store the one that the sending cluster names: `cluster-a`, or with its type before it."""
    kind = notification.provider.partition(".")[0]
    name = provider.removeprefix("minio.").removeprefix("s3.")
    if not name or kind not in ("minio", "s3"):
        return notification
    return replace(notification, provider=f"{kind}.{name}")


def _quoted(text: bytes) -> Payload:
    """A JSON string: the JSON that stands in it, or base64."""
    if text[:1] in (b"{", b"["):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text)
            return Payload(text, {})
    return Payload(_decode(text), {})


def _large(body: bytes) -> Payload:
    """What is told from its first character: JSON as it is, or base64, be it in quotation marks or not."""
    first = body[:64].lstrip()[:1]
    if first in (b"{", b"["):
        return Payload(body, {})
    return Payload(_decode(body.strip()[1:-1].replace(b"\\/", b"/") if first == b'"' else body), {})


def _gateway(document: dict[str, Any], wrapped: int) -> StorageEvent | Payload:
    """An API gateway's call: its body is an event, JSON, base64, or else the text that it is."""
    text = document.get("body") or ""
    query = document.get("queryStringParameters") or {}
    if not isinstance(query, dict):
        raise InputError('queryStringParameters: is no JSON object; write {"name": "value"}')
    for name, value in query.items():
        if "=" in name or "\0" in f"{name}{value}" or not _is_text(f"{name}{value}"):
            raise InputError(
                f"queryStringParameters: {ascii(name)[:80]} cannot be an environment variable; leave it out"
            )
    variables = {f"CONT_VAR_{name}": str(value) for name, value in query.items()}
    body = _encoded(text if isinstance(text, str) else json.dumps(text))
    if document.get("isBase64Encoded"):
        return Payload(_decode(body), variables)
    if _is_json(body):
        inner = _interpret(body, _deeper(wrapped))
        return replace(inner, query={**inner.query, **variables})
    with contextlib.suppress(InputError):
        return Payload(_decode(body), variables)
    return Payload(body, variables)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


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
