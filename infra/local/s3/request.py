"""A request as the handlers see it, and their answer."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import unquote, unquote_plus

from infra.local.blobs import Content
from infra.local.s3.bodies import Body
from infra.local.s3.errors import S3Error
from infra.local.stored import Origin
from layers.objects.sigv4 import Scope as SigningScope

Scope = Mapping[str, Any]

_numbers = count(time.time_ns())


@dataclass(frozen=True)
class Signed:
    """A request's valid signature, from which those of its chunks go on."""

    access_key: str
    secret_key: str = field(repr=False)
    scope: SigningScope
    moment: str
    signature: str
    payload: str


@dataclass
class Request:
    """One request, parsed; `parameters` are the decoded query in its order, `query` the first value of each name."""

    id: str
    method: str
    raw_path: str
    raw_query: str
    bucket: str
    key: str
    parameters: Sequence[tuple[str, str]]
    query: Mapping[str, str]
    header_list: Sequence[tuple[str, str]]
    headers: dict[str, str]
    client: str
    body: Body
    signed: Signed | None = None
    user: str = ""
    """The user whose keys signed it; empty for the administrator."""

    @property
    def origin(self) -> Origin:
        """Who asks, for the events that follow."""
        return Origin(
            self.signed.access_key if self.signed else "",
            self.client,
            self.headers.get("user-agent", ""),
            self.id,
            self.user,
        )

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A numeric parameter; one beyond `most` counts as `most`, as in S3."""
        value = self.query.get(name, "")
        if not value:
            return default
        if not value.isascii() or not value.isdigit() or len(value) > 18 or int(value) < least:
            raise S3Error("InvalidArgument", f"{name} must be an integer between {least} and {most}.")
        return min(int(value), most)


@dataclass
class Response:
    """An answer: bytes, or (`content`) the bytes of an object from `start` up to `end`, or an endless `stream`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content: Content | None = None
    start: int = 0
    end: int = 0
    stream: AsyncGenerator[bytes | bytearray, None] | AsyncGenerator[bytes, None] | None = None


def xml_response(body: bytes, status: int = 200) -> Response:
    """A document."""
    return Response(status, {"content-type": "application/xml"}, body)


def make_request(scope: Scope, body: Body, domains: Sequence[str]) -> Request:
    """A request from an ASGI scope; the bucket stands in the path, or before one of `domains` in the host."""
    header_list = [(name.decode("latin-1"), text(value)) for name, value in scope["headers"]]
    headers: dict[str, str] = {}
    for name, escaped in header_list:
        value = clean(escaped)
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    raw_path = scope["raw_path"].decode("latin-1")
    raw_query = scope["query_string"].decode("latin-1")
    parameters = parse_query(raw_query)
    query: dict[str, str] = {}
    for name, value in parameters:
        query.setdefault(name, value)
    bucket, key = _address(raw_path, headers.get("host", ""), domains)
    client = scope.get("client") or ("", 0)
    return Request(
        f"{next(_numbers):016X}",
        scope["method"],
        raw_path,
        raw_query,
        bucket,
        key,
        parameters,
        query,
        header_list,
        headers,
        client[0],
        body,
    )


def parse_query(raw: str) -> list[tuple[str, str]]:
    """Names and values, decoded.

    >>> parse_query("uploads&prefix=a+b%2Fc")
    [('uploads', ''), ('prefix', 'a b/c')]
    """
    pairs = (pair.partition("=") for pair in raw.split("&") if pair)
    return [(_decoded(name, plus=True), _decoded(value, plus=True)) for name, _, value in pairs]


def text(value: bytes) -> str:
    """A header's value as it is signed: bytes that are no UTF-8 become lone surrogates."""
    return value.decode("utf-8", "surrogateescape")


def clean(value: str) -> str:
    """A header's value as text that can be stored anywhere: what is no UTF-8 is read as Latin-1."""
    if value.isascii():
        return value
    found = raw(value)
    try:
        return found.decode()
    except UnicodeDecodeError:
        return found.decode("latin-1")


def raw(value: str) -> bytes:
    """The bytes of a header's value."""
    return value.encode("utf-8", "surrogateescape")


def _address(raw_path: str, host: str, domains: Sequence[str]) -> tuple[str, str]:
    path = _decoded(raw_path, plus=False)
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    for domain in domains:
        if name.endswith(f".{domain}"):
            return name[: -len(domain) - 1], path[1:]
    bucket, _, key = path[1:].partition("/")
    return bucket, key


def _decoded(value: str, *, plus: bool) -> str:
    try:
        return (unquote_plus if plus else unquote)(value, errors="strict")
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "The path or the query is not UTF-8.") from None
