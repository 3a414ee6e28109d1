"""An observation: what a telescope's file says of itself, and its samples block by block."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functions.pulsar.arrays import Floats, Samples
from layers.runtime import InputError

SAMPLE_BITS = (1, 2, 4, 8, 16)
MAX_CHANNELS = 1 << 20


@dataclass(frozen=True)
class Observation:
    """The header of a dynamic spectrum: `samples` spectra of `channels` channels, detected power, unsigned integers."""

    source_name: str
    telescope_id: int
    start_mjd: float
    sampling_time_s: float
    first_channel_mhz: float
    channel_width_mhz: float
    """Signed: negative when the first channel is the highest, as most telescopes write it."""
    channels: int
    bits: int
    polarisations: int
    """1, or 2 whose sum is taken."""
    data_offset: int
    samples: int
    file_bytes: int

    @property
    def frequencies_mhz(self) -> Floats:
        """Centre frequency of each channel, in the file's order, MHz."""
        return self.first_channel_mhz + self.channel_width_mhz * np.arange(self.channels)

    @property
    def spectrum_bits(self) -> int:
        return self.channels * self.polarisations * self.bits


def open_observation(path: Path) -> Observation:
    """Read and check the header of a SIGPROC filterbank or a PSRDADA-style file.

    Raises InputError, naming the file, the field and the mend.
    """
    from functions.pulsar import psrdada, sigproc

    with path.open("rb") as file:
        magic = file.read(4096)
    if not magic:
        raise InputError(f"{path.name}: is empty; send a SIGPROC filterbank (.fil) or a PSRDADA file")
    if sigproc.is_ours(magic):
        return sigproc.read_header(path)
    if psrdada.is_ours(magic):
        return psrdada.read_header(path)
    if magic.startswith(b"SIMPLE  ="):
        raise InputError(f"{path.name}: is a FITS file; convert it to a SIGPROC filterbank first (psrfits2fil)")
    raise InputError(
        f"{path.name}: is no filterbank, it begins with neither HEADER_START nor a PSRDADA text header; "
        "send a SIGPROC filterbank (.fil) or a PSRDADA file"
    )


def checked(observation: Observation, name: str) -> Observation:
    """The same observation, if its values are possible and its file is whole; else InputError."""
    for field, value in (
        ("sampling time", observation.sampling_time_s),
        ("first channel's frequency", observation.first_channel_mhz),
        ("channel width", observation.channel_width_mhz),
        ("start MJD", observation.start_mjd),
    ):
        if not math.isfinite(value):
            raise InputError(f"{name}: the {field} is {value}; write a finite number in the header")
    if observation.channels < 1:
        raise InputError(
            f"{name}: the header gives {observation.channels} channels; write the number of channels, >= 1"
        )
    if observation.channels > MAX_CHANNELS:
        raise InputError(
            f"{name}: the header gives {observation.channels} channels; at most {MAX_CHANNELS} are possible"
        )
    if observation.bits == 32:
        raise InputError(f"{name}: the samples are 32-bit floats; requantise them to 8 bits (digifil -b 8)")
    if observation.bits not in SAMPLE_BITS:
        raise InputError(f"{name}: the header gives {observation.bits} bits a sample; requantise to 1, 2, 4, 8 or 16")
    if observation.polarisations not in (1, 2):
        raise InputError(
            f"{name}: the header gives {observation.polarisations} polarisations (IFs); write total intensity, 1 or 2"
        )
    if not 0 < observation.sampling_time_s < 10:
        raise InputError(f"{name}: the sampling time is {observation.sampling_time_s} s; write one between 0 and 10 s")
    if observation.channel_width_mhz == 0 and observation.channels > 1:
        raise InputError(f"{name}: the channel width is 0 MHz; write the distance of two channels in the header")
    frequencies = observation.frequencies_mhz
    lowest, highest = float(frequencies.min()), float(frequencies.max())
    if lowest <= 0 or highest > 1e6:
        raise InputError(
            f"{name}: the channels run from {lowest:g} to {highest:g} MHz; "
            "write first frequency and channel width in MHz, all of the band between 0 and 1e6"
        )
    if observation.spectrum_bits % 8:
        raise InputError(
            f"{name}: a spectrum of {observation.channels} channels of {observation.bits} bits ends inside a byte; "
            "write a number of channels that fills whole bytes"
        )
    if observation.samples < 1:
        raise InputError(f"{name}: holds a header but no samples; the file is truncated, copy it again")
    return observation


def whole_samples(name: str, data_bytes: int, spectrum_bits: int, promised: int | None) -> int:
    """How many spectra `data_bytes` hold; InputError when the file ends inside one or before the `promised` number."""
    if spectrum_bits <= 0 or spectrum_bits % 8:
        return max(0, data_bytes * 8 // max(spectrum_bits, 1))  # `checked` says what is wrong
    samples, rest = divmod(data_bytes, spectrum_bits // 8)
    if rest:
        raise InputError(
            f"{name}: is truncated, it ends {rest} bytes into a spectrum of {spectrum_bits // 8} bytes; copy it again"
        )
    if promised is not None and samples < promised:
        raise InputError(
            f"{name}: is truncated, it holds {samples} of the {promised} spectra its header promises; copy it again"
        )
    return samples


def read_blocks(path: Path, observation: Observation, samples: int) -> Iterator[Samples]:
    """Yield (up to `samples`, channels) arrays in the file's channel order until the file ends; memory is one block."""
    dtype = np.dtype("<u2") if observation.bits == 16 else np.dtype(np.uint8)
    spectrum_bytes = observation.spectrum_bits // 8
    left = observation.samples
    with path.open("rb") as file:
        file.seek(observation.data_offset)
        while left > 0:
            count = min(samples, left)
            raw = file.read(count * spectrum_bytes)
            if len(raw) < count * spectrum_bytes:
                raise InputError(f"{path.name}: is truncated, it became shorter while it was read; copy it again")
            values: Samples = np.frombuffer(raw, dtype)
            if observation.bits < 8:
                values = unpack(np.frombuffer(raw, np.uint8), observation.bits)
            if observation.polarisations == 2:
                yield _sum_polarisations(values.reshape(count, 2, observation.channels), observation.bits)
            else:
                yield values.reshape(count, observation.channels)
            left -= count


def unpack(packed: Samples, bits: int) -> Samples:
    """Samples of 1, 2 or 4 bits from bytes, the lowest bits first (SIGPROC).

    >>> unpack(np.array([0b11100100], np.uint8), 2).tolist()
    [0, 1, 2, 3]
    """
    per_byte = 8 // bits
    shifts = (np.arange(per_byte, dtype=np.uint8) * bits).astype(np.uint8)
    return np.asarray((packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)


def pack(samples: Samples, bits: int) -> Samples:
    """Inverse of `unpack`; the number of samples must fill whole bytes.

    >>> pack(np.array([0, 1, 2, 3], np.uint8), 2).tolist() == [0b11100100]
    True
    """
    per_byte = 8 // bits
    shifts = (np.arange(per_byte, dtype=np.uint8) * bits).astype(np.uint8)
    return np.asarray(np.bitwise_or.reduce(samples.reshape(-1, per_byte) << shifts, axis=1), dtype=np.uint8)


def _sum_polarisations(pair: Samples, bits: int) -> Samples:
    """Mean of the two polarisations of (samples, 2, channels), so that the range of values stays that of `bits`."""
    total = pair[:, 0].astype(np.uint32) + pair[:, 1]
    return (total >> 1).astype(np.uint16 if bits == 16 else np.uint8)
