"""SIGPROC filterbank files: the binary keyword header, read and written.

Layout (SIGPROC user's manual, D. Lorimer): little-endian; a string is an int32 length and its bytes; the header stands
between HEADER_START and HEADER_END; each keyword is followed by its value; then spectra, time-major.
"""

import struct
from io import BufferedReader
from pathlib import Path

from functions.pulsar.observation import Observation, checked, whole_samples
from layers.runtime import InputError

_INTEGERS = frozenset(
    (
        "machine_id",
        "telescope_id",
        "data_type",
        "nchans",
        "nbits",
        "nifs",
        "nbeams",
        "ibeam",
        "barycentric",
        "pulsarcentric",
        "nsamples",
        "nbins",
    )
)
_DOUBLES = frozenset(
    (
        "fch1",
        "foff",
        "tsamp",
        "tstart",
        "src_raj",
        "src_dej",
        "az_start",
        "za_start",
        "refdm",
        "period",
        "mjdobs",
        "srcraj",
        "srcdej",
    )
)
_STRINGS = frozenset(("source_name", "rawdatafile", "frame_bytes"))
_BYTES = frozenset(("signed",))
_START = struct.pack("<i", 12) + b"HEADER_START"
_MAX_KEYWORDS = 128

Header = dict[str, int | float | str]


def is_ours(magic: bytes) -> bool:
    """Whether a file that begins with `magic` is, or set out to be, a SIGPROC filterbank."""
    return magic.startswith(_START)


def read_header(path: Path) -> Observation:
    """The header of the filterbank `path`, checked; InputError names file, field and mend."""
    name = path.name
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header = _keywords(file, name)
        data_offset = file.tell()
    for key in ("nchans", "nbits", "tsamp", "fch1", "foff"):
        if key not in header:
            raise InputError(f"{name}: the header has no {key}; write the file again with this keyword")
    if header.get("signed", 0) == 1 and header["nbits"] == 8:
        raise InputError(f"{name}: signed: the samples are signed bytes; write them unsigned (add 128)")
    channels, bits = int(header["nchans"]), int(header["nbits"])
    polarisations = int(header.get("nifs", 1))
    promised = int(header["nsamples"]) if int(header.get("nsamples", 0)) > 0 else None
    observation = Observation(
        source_name=str(header.get("source_name", "")),
        telescope_id=int(header.get("telescope_id", 0)),
        start_mjd=float(header.get("tstart", 0.0)),
        sampling_time_s=float(header["tsamp"]),
        first_channel_mhz=float(header["fch1"]),
        channel_width_mhz=float(header["foff"]),
        channels=channels,
        bits=bits,
        polarisations=polarisations,
        data_offset=data_offset,
        samples=max(1, file_bytes - data_offset),
        file_bytes=file_bytes,
    )
    checked(observation, name)
    samples = whole_samples(name, file_bytes - data_offset, observation.spectrum_bits, promised)
    return checked(Observation(**{**vars(observation), "samples": samples}), name)


def header_bytes(observation: Observation) -> bytes:
    """The header of a filterbank that holds `observation` (whose offset and sizes do not matter)."""
    parts = [_START]
    values: Header = {
        "source_name": observation.source_name or "unknown",
        "machine_id": 0,
        "telescope_id": observation.telescope_id,
        "data_type": 1,
        "nchans": observation.channels,
        "nbits": observation.bits,
        "nifs": observation.polarisations,
        "tsamp": observation.sampling_time_s,
        "tstart": observation.start_mjd,
        "fch1": observation.first_channel_mhz,
        "foff": observation.channel_width_mhz,
    }
    for key, value in values.items():
        parts.append(_string(key))
        if isinstance(value, str):
            parts.append(_string(value))
        else:
            parts.append(struct.pack("<i", value) if key in _INTEGERS else struct.pack("<d", value))
    parts.append(_string("HEADER_END"))
    return b"".join(parts)


def _keywords(file: BufferedReader, name: str) -> Header:
    header: Header = {}
    _read_string(file, name)
    for _ in range(_MAX_KEYWORDS):
        key = _read_string(file, name)
        if key == "HEADER_END":
            return header
        if key in _INTEGERS:
            (header[key],) = struct.unpack("<i", _read(file, 4, name))
        elif key in _DOUBLES:
            (header[key],) = struct.unpack("<d", _read(file, 8, name))
        elif key in _STRINGS:
            header[key] = _read_string(file, name)
        elif key in _BYTES:
            (header[key],) = struct.unpack("<b", _read(file, 1, name))
        elif key in ("FREQUENCY_START", "fchannel"):
            raise InputError(
                f"{name}: {key}: frequency tables are not supported; write the file again with fch1 and foff"
            )
        else:
            raise InputError(f"{name}: {key!r} is no SIGPROC keyword, the header is damaged; copy the file again")
    raise InputError(f"{name}: the header has no HEADER_END among {_MAX_KEYWORDS} keywords; copy the file again")


def _read(file: BufferedReader, count: int, name: str) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise InputError(f"{name}: is truncated inside its header (no HEADER_END); copy it again")
    return data


def _read_string(file: BufferedReader, name: str) -> str:
    (length,) = struct.unpack("<i", _read(file, 4, name))
    if not 0 <= length <= 1024:
        raise InputError(
            f"{name}: a header string of {length} characters is impossible; the file is damaged, copy it again"
        )
    return _read(file, length, name).decode("latin-1")


def _string(text: str) -> bytes:
    data = text.encode("latin-1", "replace")
    return struct.pack("<i", len(data)) + data
