"""Which headers pass between a client and an exposed service, and which requests are none.

What is hop by hop stays where it is (RFC 9110, 7.6.1). What tells a service about its client is said by the cluster
alone, whatever the client has said of it, also with `_` for `-`, which many frameworks take for the same name.
"""

import re
from collections.abc import Iterable

Raw = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"}
    | {b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings", b"expect"}
)
OURS = frozenset({b"forwarded", b"x-real-ip", b"x-original-url", b"x-rewrite-url"})
OURS_PREFIX = b"x-forwarded-"
FRAMING = frozenset({b"host", b"content-length", b"authorization", b"cookie"})
"""Names that must not come a second time, spelt with `_`."""
WEBSOCKET = b"sec-websocket-"
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadRequest(ValueError):  # noqa: N818 - an answer
    """The request could be read in two ways, or in none; the message is a sentence."""


def to_service(headers: Iterable[Raw], *, client: str, scheme: str, prefix: str) -> list[tuple[str, str]]:
    """The headers of a request as the service gets them. Raises BadRequest."""
    headers = list(headers)
    host = _check(headers)
    named = _named(headers)
    passed = [
        (name.decode("ascii"), _text(value))
        for name, value in headers
        if name not in HOP_BY_HOP and name not in named and not name.startswith(WEBSOCKET) and not _is_ours(name)
    ]
    told = {"For": client, "Host": host, "Prefix": prefix, "Proto": scheme}
    return [*passed, *((f"X-Forwarded-{name}", value) for name, value in told.items() if value), ("X-Real-IP", client)]


def to_client(headers: Iterable[Raw]) -> list[Raw]:
    """The headers of an answer as the client gets them; the date is the cluster's own."""
    headers = [(name.lower(), value) for name, value in headers]
    left_out = HOP_BY_HOP | _named(headers) | {b"date"}
    return [(name, value) for name, value in headers if name not in left_out and not name.startswith(WEBSOCKET)]


def without(headers: Iterable[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """The headers but those of one name."""
    return [(one, value) for one, value in headers if one.lower() != name]


def _check(headers: list[Raw]) -> str:
    """The host; raises BadRequest where a header is malformed, or says what another one contradicts."""
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise BadRequest("a header's name has characters that no name has")
        if _CONTROL.search(value):
            raise BadRequest(f"the header {name.decode()} has control characters in it")
    for name in (b"host", b"content-length", b"transfer-encoding"):
        if len(_values(headers, name)) > 1:
            raise BadRequest(f"the header {name.decode()} comes more than once")
    coding, length = _values(headers, b"transfer-encoding"), _values(headers, b"content-length")
    if coding and length:
        raise BadRequest("content-length and transfer-encoding contradict each other; send one of them")
    if coding and coding[0].lower() != b"chunked":
        raise BadRequest("transfer-encoding is something else than chunked")
    if length and not (length[0].isdigit() and len(length[0]) < 19):
        raise BadRequest("content-length is no number of bytes")
    host = _values(headers, b"host")
    return _text(host[0]) if host else ""


def _values(headers: list[Raw], name: bytes) -> list[bytes]:
    return [value for one, value in headers if one == name]


def _named(headers: list[Raw]) -> frozenset[bytes]:
    """What the header Connection names beside itself."""
    return frozenset(
        token.strip().lower() for value in _values(headers, b"connection") for token in value.split(b",")
    ) - {b"host", b"content-length"}


def _is_ours(name: bytes) -> bool:
    spelt = name.replace(b"_", b"-")
    reserved = spelt in OURS or spelt.startswith(OURS_PREFIX)
    return reserved or (spelt != name and (spelt in HOP_BY_HOP or spelt in FRAMING))


def _text(value: bytes) -> str:
    """A header's value, as aiohttp will write it: the same bytes, where they are ASCII or UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
