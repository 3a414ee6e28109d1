"""The checksums that S3 clients add to what they send, verified and given back."""

import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from hashlib import md5, sha1, sha256
from typing import Protocol

from infra.local.s3.crc import CRC32C, CRC64NVME, Crc
from infra.local.s3.errors import S3Error

PREFIX = "x-amz-checksum-"


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """Its value, in network order."""


class Crc32:
    """CRC-32 of zlib and Ethernet."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        """Its value, in network order."""
        return self._value.to_bytes(4, "big")


ALGORITHMS: Mapping[str, Callable[[], Checksum]] = {
    "CRC32": Crc32,
    "CRC32C": lambda: Crc(*CRC32C),
    "CRC64NVME": lambda: Crc(*CRC64NVME),
    "SHA1": lambda: sha1(usedforsecurity=False),
    "SHA256": sha256,
}
LENGTHS = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}


class Expected:
    """What a payload must hash to, as its request says in a header or will say in a trailer."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.algorithm, self._value = _named(headers)
        self.checksum = ALGORITHMS[self.algorithm]() if self.algorithm else None
        self._md5 = _decoded(headers["content-md5"], 16) if "content-md5" in headers else None

    @property
    def digests(self) -> list[Checksum]:
        """What must be fed with the payload."""
        return [] if self.checksum is None else [self.checksum]

    def trailer(self, name: str, value: str) -> None:
        """Take in a line of the trailer."""
        if name == f"{PREFIX}{self.algorithm.lower()}":
            self._value = _decoded(value, LENGTHS[self.algorithm])

    def verify(self, payload_md5: str) -> dict[str, str]:
        """The checksums that the object keeps.

        Raises:
            S3Error: the payload is not what the client meant to send.
        """
        if self._md5 is not None and self._md5.hex() != payload_md5:
            raise S3Error("BadDigest")
        if self.checksum is None:
            return {}
        value = self.checksum.digest()
        if self._value is None:
            raise S3Error("InvalidRequest", f"The checksum {self.algorithm} was announced and never came.")
        if value != self._value:
            raise S3Error("BadDigest", f"The {self.algorithm} you specified did not match the calculated checksum.")
        return {self.algorithm: b64encode(value).decode()}


def combined(algorithm: str, values: list[str]) -> str:
    """The checksum over the parts' checksums that a multipart object has.

    >>> combined("CRC32", ["AAAAAA=="])
    'IUTfHA==-1'
    """
    checksum = ALGORITHMS[algorithm]()
    for value in values:
        checksum.update(b64decode(value))
    return f"{b64encode(checksum.digest()).decode()}-{len(values)}"


def known(name: str) -> str:
    """An algorithm's name, in capitals, if it is one that is verified here."""
    upper = name.upper()
    if upper not in ALGORITHMS:
        listed = ", ".join(ALGORITHMS)
        raise S3Error("InvalidRequest", f"Checksum algorithm {upper[:40]} is not supported; use one of {listed}.")
    return upper


def as_headers(checksums: Mapping[str, str]) -> dict[str, str]:
    """What an object's checksums are in an answer."""
    found = {f"{PREFIX}{name.lower()}": value for name, value in checksums.items()}
    if found:
        composite = any("-" in value for value in checksums.values())
        found[f"{PREFIX}type"] = "COMPOSITE" if composite else "FULL_OBJECT"
    return found


def _named(headers: Mapping[str, str]) -> tuple[str, bytes | None]:
    """The algorithm that the request names, and the value if that stands in a header."""
    announced = [name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",")]
    given = [
        name
        for name in (*headers, *announced)
        if name.startswith(PREFIX) and name not in (f"{PREFIX}type", f"{PREFIX}algorithm", f"{PREFIX}mode")
    ]
    if len(given) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    if not given:
        return "", None
    algorithm = known(given[0].removeprefix(PREFIX))
    value = headers.get(given[0])
    return algorithm, None if value is None else _decoded(value, LENGTHS[algorithm])


def _decoded(value: str, length: int) -> bytes:
    try:
        found = b64decode(value, validate=True)
    except (Base64Error, ValueError):
        found = b""
    if len(found) != length:
        raise S3Error("InvalidDigest")
    return found


def md5_of(data: bytes) -> str:
    """The MD5 of a payload in memory, in hexadecimal."""
    return md5(data, usedforsecurity=False).hexdigest()


def encoded(checksum: Checksum) -> str:
    """A checksum as headers and documents have it."""
    return b64encode(checksum.digest()).decode()
