"""aws-chunked bodies: a payload in chunks that may each be signed, with checksums that follow it (a trailer).

Grammar: `SIZE[;chunk-signature=HEX] CRLF DATA CRLF`, ended by a chunk of size 0, trailer lines and an empty line.
"""

import hmac
from collections.abc import Callable
from hashlib import sha256

from infra.local.s3.errors import S3Error
from infra.local.s3.request import Signed
from layers.objects import sigv4

LINE = 4096
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
KINDS = (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER)

Trailer = Callable[[str, str], None]


class ChunkDecoder:
    """Takes the framing off, and checks each signature when its chunk has gone through."""

    def __init__(self, kind: str, signed: Signed, trailer: Trailer) -> None:
        self._signed = signed if kind != UNSIGNED_TRAILER else None
        self._trailer = trailer
        self._with_trailer = kind != SIGNED
        self._previous = signed.signature
        self._buffer = bytearray()
        self._step: Callable[[list[bytes]], bool] = self._read_size
        self._left = 0
        self._expected = ""
        self._hash = sha256()
        self._lines = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The payload in the next bytes of the body."""
        self._buffer += data
        out: list[bytes] = []
        while self._step(out):
            pass
        return out

    def finish(self) -> None:
        """Raise unless the last chunk and its trailer have come."""
        if self._step != self._ignore:
            raise S3Error("IncompleteBody")

    def _read_size(self, __: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        size, _, extension = line.partition(b";")
        try:
            self._left = int(size.strip(), 16)
        except ValueError:
            raise S3Error("InvalidRequest", "A chunk's size is no hexadecimal number.") from None
        name, _, value = extension.strip().partition(b"=")
        self._expected = value.decode("latin-1") if name == b"chunk-signature" else ""
        if self._left < 0 or (self._signed and not self._expected):
            raise S3Error("SignatureDoesNotMatch" if self._signed else "InvalidRequest")
        self._hash = sha256()
        if self._left:
            self._step = self._read_data
        else:
            self._verify_chunk()
            self._step = self._read_trailer
        return True

    def _read_data(self, out: list[bytes]) -> bool:
        if not self._buffer:
            return False
        block = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(block)
        if self._signed:
            self._hash.update(block)
        out.append(block)
        if not self._left:
            self._step = self._read_end
        return True

    def _read_end(self, _: list[bytes]) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise S3Error("InvalidRequest", "A chunk is longer than its size says.")
        del self._buffer[:2]
        self._verify_chunk()
        self._step = self._read_size
        return True

    def _read_trailer(self, __: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        if not line:
            if self._signed and self._with_trailer and self._lines:
                raise S3Error("SignatureDoesNotMatch", "The trailer is not signed.")
            self._step = self._ignore
            return True
        name, _, value = (part.strip().decode("latin-1") for part in line.partition(b":"))
        name = name.lower()
        if name == "x-amz-trailer-signature":
            self._verify(value, "AWS4-HMAC-SHA256-TRAILER", sha256(self._lines).hexdigest())
            self._lines = b""
            return True
        self._lines += f"{name}:{value}\n".encode("latin-1")
        if len(self._lines) > LINE:
            raise S3Error("InvalidRequest", "The trailer is too long.")
        self._trailer(name, value)
        return True

    def _ignore(self, _: list[bytes]) -> bool:
        self._buffer.clear()
        return False

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > LINE or (end < 0 and len(self._buffer) > LINE):
            raise S3Error("InvalidRequest", "A chunk's header is too long.")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _verify_chunk(self) -> None:
        if self._signed:
            content = f"{sigv4.EMPTY_SHA256}\n{self._hash.hexdigest()}"
            self._verify(self._expected, "AWS4-HMAC-SHA256-PAYLOAD", content)

    def _verify(self, given: str, algorithm: str, content: str) -> None:
        signed = self._signed
        if signed is None:
            return
        text = f"{algorithm}\n{signed.moment}\n{signed.scope}\n{self._previous}\n{content}"
        expected = sigv4.signature(signed.secret_key, signed.scope, text)
        if not hmac.compare_digest(expected.encode(), given.encode("latin-1", "replace")):
            raise S3Error("SignatureDoesNotMatch")
        self._previous = expected
