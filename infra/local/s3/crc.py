"""CRC-32C and CRC-64/NVME, which newer clients send by default and the standard library does not know.

A CRC is linear over GF(2): a block is cut into lanes that numpy advances side by side, two bytes a step, and
neighbouring lanes are joined by the operator "as many zero bytes follow", until one value is left.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.uint64]
else:
    Values = Any

CRC32C = 0x82F63B78, 32
CRC64NVME = 0x9A6C9329AC4BC9B5, 64
SMALL, LARGE = 4 * 1024, 64 * 1024


class Crc:
    """A running CRC with a reflected polynomial, all ones before and after.

    >>> crc = Crc(*CRC32C)
    >>> crc.update(b"123456789")
    >>> crc.digest().hex()
    'e3069283'
    """

    def __init__(self, polynomial: int, bits: int) -> None:
        self._polynomial = polynomial
        self._bits = bits
        self._ones = (1 << bits) - 1
        self._state = self._ones

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        lanes = 4096 if len(data) >= LARGE else 256 if len(data) >= SMALL else 0
        done = 0
        if lanes:
            width = len(data) // lanes // 2 * 2
            done = lanes * width
            self._state = _lanes(self._polynomial, self._bits, self._state, data[:done], lanes, width)
        table = _bytes(self._polynomial)
        state = self._state
        for byte in data[done:]:
            state = state >> 8 ^ table[(state ^ byte) & 0xFF]
        self._state = state

    def digest(self) -> bytes:
        """Its value, in network order."""
        return (self._state ^ self._ones).to_bytes(self._bits // 8, "big")


def _lanes(polynomial: int, bits: int, state: int, data: bytes, lanes: int, width: int) -> int:
    import numpy as np

    words = np.frombuffer(data, "<u2").reshape(lanes, width // 2)
    columns = np.ascontiguousarray(words.T).astype(np.uint64)
    table = _pairs(polynomial)
    values = np.zeros(lanes, np.uint64)
    values[0] = state
    shift, mask = np.uint64(16), np.uint64(0xFFFF)
    for column in columns:
        values = (values >> shift) ^ table[(values ^ column) & mask]
    while len(values) > 1:
        values = _apply(_zeros(polynomial, bits, width), values[0::2]) ^ values[1::2]
        width *= 2
    return int(values[0])


@lru_cache
def _bytes(polynomial: int) -> list[int]:
    """What each byte adds to the state."""
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    return table


@lru_cache
def _pairs(polynomial: int) -> Values:
    """What each pair of bytes adds to the state."""
    import numpy as np

    single = np.array(_bytes(polynomial), np.uint64)
    words = np.arange(1 << 16, dtype=np.uint64)
    first = single[words & np.uint64(0xFF)] ^ (words >> np.uint64(8))
    table: Values = (first >> np.uint64(8)) ^ single[first & np.uint64(0xFF)]
    return table


@lru_cache(maxsize=256)
def _zeros(polynomial: int, bits: int, count: int) -> Values:
    """The operator "`count` zero bytes follow": what becomes of each bit of the state."""
    import numpy as np

    if count == 1:
        single = np.array(_bytes(polynomial), np.uint64)
        basis = np.uint64(1) << np.arange(bits, dtype=np.uint64)
        images: Values = (basis >> np.uint64(8)) ^ single[basis & np.uint64(0xFF)]
        return images
    half = _zeros(polynomial, bits, count // 2)
    whole = _apply(half, half)
    return _apply(_zeros(polynomial, bits, 1), whole) if count % 2 else whole


def _apply(operator: Values, values: Values) -> Values:
    import numpy as np

    result = np.zeros_like(values)
    for bit, image in enumerate(operator):
        result ^= ((values >> np.uint64(bit)) & np.uint64(1)) * image
    return result
