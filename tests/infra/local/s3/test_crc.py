"""The CRCs, against their definition."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.s3.crc import CRC32C, CRC64NVME, Crc


def defined(data, polynomial, bits):
    state = (1 << bits) - 1
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (polynomial if state & 1 else 0)
    return (state ^ ((1 << bits) - 1)).to_bytes(bits // 8, "big")


def of(kind, *blocks):
    crc = Crc(*kind)
    for block in blocks:
        crc.update(block)
    return crc.digest()


def test_the_published_check_values():
    assert of(CRC32C, b"123456789").hex() == "e3069283"
    assert of(CRC64NVME, b"123456789").hex() == "ae8b14860a799888"


@given(st.sampled_from([CRC32C, CRC64NVME]), st.lists(st.binary(max_size=100), max_size=4))
def test_short_blocks(kind, blocks):
    assert of(kind, *blocks) == defined(b"".join(blocks), *kind)


@pytest.mark.parametrize("kind", [CRC32C, CRC64NVME])
@pytest.mark.parametrize("size", [4095, 4096, 5001, 65_536, 70_001])
def test_blocks_in_lanes(kind, size):
    data = random.Random(size).randbytes(size)
    assert of(kind, b"ab", data, b"c") == defined(b"ab" + data + b"c", *kind)
