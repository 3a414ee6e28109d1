"""What a request's body must turn out to be: its size, its hashes and, if it comes in chunks, their signatures."""

from hashlib import sha256
from typing import TYPE_CHECKING

from infra.local.blobs import Blob, Blobs
from infra.local.s3 import checksums
from infra.local.s3.checksums import Expected
from infra.local.s3.chunked import KINDS, ChunkDecoder
from infra.local.s3.errors import S3Error
from infra.local.s3.request import Request
from infra.local.s3.xml import XmlError, parse
from layers.objects.sigv4 import UNSIGNED_PAYLOAD

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LARGEST = 5 << 40
DOCUMENT = 4 << 20


class Payload:
    """The promise of a request's headers, to be held by its body."""

    def __init__(self, request: Request) -> None:
        signed = request.signed
        assert signed is not None, "payloads are read after authentication"
        self._body = request.body
        self._headers = request.headers
        self._expected = Expected(request.headers)
        self._sha256 = ""
        kind = signed.payload
        if kind in KINDS:
            self._body.decoder = ChunkDecoder(kind, signed, self._expected.trailer)
            self._size = _length(request.headers, "x-amz-decoded-content-length")
        else:
            self._size = _length(request.headers, "content-length")
            if kind != UNSIGNED_PAYLOAD:
                self._sha256 = _hex(kind)
        if self._size is None and "transfer-encoding" not in request.headers:
            raise S3Error("MissingContentLength")
        if self._size is not None and self._size > LARGEST:
            raise S3Error("EntityTooLarge")

    async def into_blob(self, blobs: Blobs) -> tuple[Blob, dict[str, str]]:
        """The payload as a new blob, and the checksums that it proved to have; on any error nothing is left.

        Raises:
            S3Error: the payload is not what its headers promise.
            ClientGone: it never came to its end.
        """
        async with blobs.writer(self._expected.digests) as writer:
            async for block in self._body.blocks():
                await writer.write(block)
                self._check_size(writer.size, complete=False)
            self._check_size(writer.size, complete=True)
            blob = await writer.finish()
        try:
            self._check_sha256(blob.sha256)
            return blob, self._expected.verify(blob.md5)
        except S3Error:
            blobs.discard(blob)
            raise

    async def document(self, name: str) -> "Element":
        """The payload as an XML document, of which `name` is the root."""
        data = await self.small()
        try:
            return parse(data, name)
        except XmlError as error:
            raise S3Error("MalformedXML", f"The XML is not what is expected: {error}") from None

    async def small(self) -> bytes:
        """The payload in memory."""
        data = await self._body.read(DOCUMENT)
        self._check_size(len(data), complete=True)
        self._check_sha256(sha256(data).hexdigest() if self._sha256 else "")
        for digest in self._expected.digests:
            digest.update(data)
        self._expected.verify(checksums.md5_of(data))
        return data

    def _check_size(self, size: int, *, complete: bool) -> None:
        if self._size is not None and (size > self._size or (complete and size < self._size)):
            raise S3Error("IncompleteBody")
        if size > LARGEST:
            raise S3Error("EntityTooLarge")

    def _check_sha256(self, found: str) -> None:
        if self._sha256 and self._sha256 != found:
            raise S3Error("XAmzContentSHA256Mismatch")


def _length(headers: dict[str, str], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise S3Error("InvalidArgument", f"{name} is no number of bytes.")
    return int(value)


def _hex(value: str) -> str:
    lower = value.lower()
    if len(lower) != 64 or lower.strip("0123456789abcdef"):
        kinds = ", ".join((UNSIGNED_PAYLOAD, *KINDS))
        raise S3Error("InvalidArgument", f"x-amz-content-sha256 must be one of {kinds}, or a valid sha256 value.")
    return lower
