"""One small S3 client on the standard library: files to objects and back, path style, streaming, with retries.

It is what a function's runtime starts with, so it imports in milliseconds; whoever needs more of S3 takes boto3.
"""

import contextlib
import http.client
import io
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import unquote_plus, urlsplit

from layers.objects import sigv4
from layers.objects.errors import AccessRefused, NoSuchObject, ObjectError, ObjectExists, StoreUnavailable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["AccessRefused", "NoSuchObject", "ObjectError", "ObjectExists", "ObjectInfo", "S3Client", "StoreUnavailable"]

T = TypeVar("T")

BLOCK = 1 << 20
TIMEOUT_S = 60.0
PAUSES_S = (0.1, 0.5, 2.0)
"""Pauses before the second, third and fourth attempt."""
META = "x-amz-meta-"
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says about an object; `metadata` is empty in a listing, which does not carry it."""

    bucket: str
    key: str
    size: int
    etag: str
    modified: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""


class S3Client:
    """Reads and writes objects of any S3 store; may be used by several threads at once."""

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        verify: bool = True,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.allowed: Callable[[str], None] | None = None
        """Is given the address at the other end of each new connection, and raises where it is not to be asked."""
        self._timeout_s = timeout_s
        self._idle: list[http.client.HTTPConnection] = []
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ObjectError(f'endpoint "{endpoint}" is no S3 endpoint; write "http://HOST:PORT" or "https://HOST"')
        self.endpoint = endpoint.rstrip("/")
        self._secure = parts.scheme == "https"
        self._verify = verify
        self._address = (parts.hostname, parts.port or (443 if self._secure else 80))
        self._host = parts.netloc.rpartition("@")[2]
        self._credentials = sigv4.Credentials(access_key, secret_key)
        self._region = region

    def get(self, bucket: str, key: str, target: Path) -> ObjectInfo:
        """Write the object to `target`, which is whole or not there."""

        def save(response: http.client.HTTPResponse) -> ObjectInfo:
            info = _info(bucket, key, response)
            try:
                with target.open("wb") as file:
                    _copy(response, file, info.size)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            return info

        return self._call("GET", bucket, key, save)

    def read(self, bucket: str, key: str, limit: int = BLOCK) -> bytes:
        """The bytes of a small object. Raises ObjectError where it has more than `limit`."""

        def content(response: http.client.HTTPResponse) -> bytes:
            size = int(response.getheader("content-length") or 0)
            if size > limit:
                raise ObjectError(f"{bucket}/{key}: has {size} bytes, more than {limit}")
            data = response.read()
            if len(data) != size:
                raise http.client.IncompleteRead(data, size - len(data))
            return data

        return self._call("GET", bucket, key, content)

    def put(
        self,
        bucket: str,
        key: str,
        source: Path | bytes,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Store the file `source`, or these bytes; metadata names and values are ASCII (quote what is not).

        With `if_absent`, raises ObjectExists where the key has an object already, and changes nothing; a store that
        does not know the condition ignores it, or refuses the request.
        """
        metadata = metadata or {}
        for name, value in metadata.items():
            if not (name.isascii() and value.isascii() and value.isprintable()):
                raise ObjectError(f'{bucket}/{key}: metadata "{name}" is not printable ASCII; percent-encode it')
        headers = {f"{META}{name}": value for name, value in metadata.items()}
        headers["content-type"] = content_type or "application/octet-stream"
        if if_absent:
            headers["if-none-match"] = "*"

        def stored(response: http.client.HTTPResponse) -> ObjectInfo:
            response.read()
            info = _info(bucket, key, response)
            return ObjectInfo(bucket, key, size, info.etag, info.modified, dict(metadata), headers["content-type"])

        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            payload = file_digest(file, "sha256").hexdigest()
            size = file.seek(0, io.SEEK_END)
            return self._call("PUT", bucket, key, stored, headers=headers, body=file, size=size, payload=payload)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """What the store knows about an object."""
        return self._call("HEAD", bucket, key, lambda response: _info(bucket, key, response))

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in the order of their keys' UTF-8 bytes."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        while True:
            page = self._call("GET", bucket, "", _xml, query=query)
            decoded = unquote_plus if _text(page, "EncodingType") == "url" else str
            for entry in page.iterfind("{*}Contents"):
                yield ObjectInfo(
                    bucket,
                    decoded(_text(entry, "Key")),
                    int(_text(entry, "Size")),
                    _text(entry, "ETag").strip('"'),
                    datetime.fromisoformat(_text(entry, "LastModified")),
                )
            if _text(page, "IsTruncated") != "true":
                return
            query["continuation-token"] = _text(page, "NextContinuationToken")

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        self._call("DELETE", bucket, key, lambda response: response.read())

    def close(self) -> None:
        """Close idle connections; the client may be used again."""
        while (connection := self._take_idle()) is not None:
            connection.close()

    def __enter__(self) -> "S3Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _call(
        self,
        method: str,
        bucket: str,
        key: str,
        read: Callable[[http.client.HTTPResponse], T],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | None = None,
        size: int = 0,
        payload: str = sigv4.EMPTY_SHA256,
    ) -> T:
        """One request, asked again while the store cannot be reached or is in trouble; `read` takes in the answer."""
        path = sigv4.quote_path(f"/{bucket}/{key}" if key else f"/{bucket}")
        search = sigv4.canonical_query((query or {}).items())
        unsigned = {"host": self._host, **(headers or {})}
        for pause in (*PAUSES_S, None):
            signed = sigv4.sign(
                method,
                path,
                search,
                unsigned,
                payload=payload,
                credentials=self._credentials,
                region=self._region,
                now=datetime.now(UTC),
            )
            if body is not None:
                body.seek(0)
                signed["content-length"] = str(size)
            try:
                return self._once(method, f"{path}?{search}" if search else path, signed, body, read)
            except _Refused as refusal:
                if refusal.status < 500 or pause is None:
                    raise _error(self.endpoint, bucket, key, refusal) from None
            except (http.client.HTTPException, ConnectionError, TimeoutError, socket.gaierror) as error:
                if pause is None:
                    reason = str(error) or type(error).__name__
                    raise StoreUnavailable(f"{bucket}/{key}: no answer from {self.endpoint}: {reason}") from error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: IO[bytes] | None,
        read: Callable[[http.client.HTTPResponse], T],
    ) -> T:
        connection = self._connection()
        try:
            try:
                connection.request(method, url, body=body, headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                if connection.sock is None:
                    raise
                # a store that refuses a body says so and closes: its answer may be there already
            response = connection.getresponse()
            if response.status >= 300:
                raise _refusal(response)
            result = read(response)
        except BaseException as error:
            if isinstance(error, _Refused) and not error.closing:
                self._idle.append(connection)
            else:
                connection.close()
            raise
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self._idle.append(connection)
        return result

    def _take_idle(self) -> http.client.HTTPConnection | None:
        """An idle connection, unless other threads have them all."""
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return None

    def _connection(self) -> http.client.HTTPConnection:
        while (connection := self._take_idle()) is not None:
            if connection.sock is not None and not _readable(connection.sock):
                return connection
            connection.close()
        connection = self._new_connection()
        if self.allowed is not None:
            connection.connect()
            try:
                self.allowed(str(connection.sock.getpeername()[0]))
            except BaseException:
                connection.close()
                raise
        return connection

    def _new_connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        if not self._secure:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s, blocksize=BLOCK)
        import ssl

        context = ssl.create_default_context()
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, blocksize=BLOCK, context=context)


class _Refused(Exception):  # noqa: N818
    """The store's own error document."""

    def __init__(self, status: int, code: str, message: str, closing: bool) -> None:
        self.status, self.code, self.message, self.closing = status, code, message, closing


def _refusal(response: http.client.HTTPResponse) -> _Refused:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    text = response.read(BLOCK)
    code, message = "", response.reason
    if text.strip():
        try:
            document = fromstring(text)
            code, message = _text(document, "Code"), _text(document, "Message") or message
        except (ParseError, DefusedXmlException):
            message = f"{message}: {text[:200].decode(errors='replace')}"
    return _Refused(response.status, code, message, response.will_close or not response.isclosed())


def _error(endpoint: str, bucket: str, key: str, refusal: _Refused) -> ObjectError:
    family: type[ObjectError] = ObjectError
    if refusal.status == 404:
        family = NoSuchObject
    elif refusal.status in (401, 403):
        family = AccessRefused
    elif refusal.code in ("PreconditionFailed", "ConditionalRequestConflict"):
        family = ObjectExists
    elif refusal.status >= 500:
        family = StoreUnavailable
    name = f"{bucket}/{key}" if key else f"bucket {bucket}"
    reason = f"{refusal.code}: {refusal.message}" if refusal.code else refusal.message
    return family(f"{name}: {endpoint} answered {refusal.status} {reason}", status=refusal.status, code=refusal.code)


def _info(bucket: str, key: str, response: http.client.HTTPResponse) -> ObjectInfo:
    modified = response.getheader("last-modified") or response.getheader("date") or ""
    headers = [(name.lower(), value) for name, value in response.getheaders()]
    return ObjectInfo(
        bucket,
        key,
        int(response.getheader("content-length") or 0),
        (response.getheader("etag") or "").strip('"'),
        datetime.strptime(modified, HTTP_DATE).replace(tzinfo=UTC) if modified else datetime.now(UTC),
        {name.removeprefix(META): value for name, value in headers if name.startswith(META)},
        response.getheader("content-type") or "",
    )


def _copy(response: http.client.HTTPResponse, file: IO[bytes], size: int) -> None:
    copied = 0
    while block := response.read(BLOCK):
        copied += file.write(block)
    if copied != size:
        raise http.client.IncompleteRead(b"", size - copied)


def _xml(response: http.client.HTTPResponse) -> "Element":
    from defusedxml.ElementTree import fromstring

    document: Element = fromstring(response.read())
    return document


def _text(element: "Element", name: str) -> str:
    return element.findtext(f"{{*}}{name}") or element.findtext(name) or ""


def _readable(connection: socket.socket) -> bool:
    """Whether an idle connection has something to say, which can only be its end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
