"""Frames between an engine and its warm workers: a JSON header, and bytes that need no file on their way."""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

TRAVELS = 64 * 1024
"""Bytes of input, and of outputs together, up to which they travel in the frame; more of them stand in files."""
_LENGTHS = struct.Struct("<II")
Frame = tuple[dict[str, Any], bytes]


def pack(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


def read(stream: BinaryIO) -> Frame | None:
    """The next frame of a blocking stream; None at its end."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header, body = _LENGTHS.unpack(lengths)
    data = stream.read(header + body)
    return (json.loads(data[:header]), data[header:]) if len(data) == header + body else None


class Assembler:
    """Puts frames together from whatever pieces a socket gives."""

    def __init__(self) -> None:
        self._pieces = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with this piece; raises ValueError where a header is no JSON."""
        data = self._pieces + data
        frames = []
        at = 0
        while len(data) - at >= _LENGTHS.size:
            header, body = _LENGTHS.unpack_from(data, at)
            start = at + _LENGTHS.size
            if len(data) - start < header + body:
                break
            at = start + header + body
            frames.append((json.loads(data[start : start + header]), data[start + header : at]))
        self._pieces = data[at:]
        return frames
