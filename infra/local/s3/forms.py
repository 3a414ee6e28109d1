"""HTML forms with a file (multipart/form-data, RFC 7578), read as they arrive: the fields, then the file."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

from infra.local.s3.errors import S3Error

FIELDS_BYTES = 64 * 1024
BOUNDARY = re.compile(r'multipart/form-data\s*;.*\bboundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')


class Form:
    """A form whose fields (names in lower case) have been read, and whose file is still to come."""

    def __init__(self, fields: dict[str, str], filename: str, file: AsyncIterator[bytes]) -> None:
        self.fields = fields
        self.filename = filename
        self.file = file


async def read_form(content_type: str, blocks: AsyncGenerator[bytes, None]) -> Form:
    """Read up to the file, which must be the last field.

    Raises:
        S3Error: this is no such form.
    """
    found = BOUNDARY.match(content_type)
    if found is None:
        raise _malformed("it is no multipart/form-data")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    reader = _Reader(blocks, b"\r\n")  # so that the first delimiter looks like all others
    fields: dict[str, str] = {}
    await reader.until(delimiter)
    while True:
        if await reader.until(b"\r\n"):
            raise _malformed("it has no file")
        name, filename = _named(await reader.until(b"\r\n\r\n"))
        if name == "file":
            return Form(fields, filename, reader.stream(delimiter))
        if name in fields:
            raise _malformed(f'the field "{name}" is there twice')
        fields[name] = (await reader.until(delimiter)).decode("utf-8", "replace")


class _Reader:
    """Bytes up to a mark, however they are cut."""

    def __init__(self, blocks: AsyncGenerator[bytes, None], start: bytes) -> None:
        self._blocks = blocks
        self._buffer = bytearray(start)
        self._read = 0

    async def until(self, mark: bytes) -> bytes:
        """What comes before the mark, which is consumed."""
        while (end := self._buffer.find(mark)) < 0:
            self._check(len(self._buffer))
            await self._more()
        self._check(end)
        self._read += end + len(mark)
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def _check(self, size: int) -> None:
        if self._read + size > FIELDS_BYTES:
            raise _malformed("its fields are too long")

    async def stream(self, mark: bytes) -> AsyncIterator[bytes]:
        """What comes before the mark, block by block; the rest of the body is read and dropped."""
        while (end := self._buffer.find(mark)) < 0:
            safe = len(self._buffer) - len(mark) + 1
            if safe > 0:
                yield bytes(self._buffer[:safe])
                del self._buffer[:safe]
            await self._more()
        if end:
            yield bytes(self._buffer[:end])
        async for _ in self._blocks:
            pass

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._blocks)
        except StopAsyncIteration:
            raise _malformed("it ends too early") from None


def _named(head: bytes) -> tuple[str, str]:
    """The name of a field in lower case, and its file's name."""
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            found = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in PARAMETER.finditer(value)}
            return found.get("name", "").lower(), found.get("filename", "")
    return "", ""


def _malformed(reason: str) -> S3Error:
    return S3Error("MalformedPOSTRequest", f"The body of your POST request is not a well-formed form: {reason}.")
