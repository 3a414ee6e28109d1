"""PSRDADA-style files: a text header of `KEY value` lines, padded to HDR_SIZE bytes, then binary samples.

What is read is detected power, `ORDER TF` (time-major; frequency fastest, polarisations between), unsigned.
Keys (PSRDADA): HDR_SIZE, NCHAN, NBIT, NPOL, NDIM, TSAMP (microseconds), FREQ (centre of the band, MHz), BW (width of
the band, MHz, negative when the first channel is the highest), MJD_START or UTC_START (of the observation, whose later
files begin OBS_OFFSET bytes after it), SOURCE, TELESCOPE.
"""

from datetime import UTC, datetime
from pathlib import Path

from functions.pulsar.observation import Observation, checked, whole_samples
from layers.runtime import InputError

DEFAULT_HEADER_BYTES = 4096
MAX_HEADER_BYTES = 1 << 20
_MJD_OF_UNIX_EPOCH = 40587.0


def is_ours(magic: bytes) -> bool:
    """Whether a file that begins with `magic` has a PSRDADA text header: HDR_SIZE or NCHAN begins a line of it."""
    return any(line.split()[:1] in ([b"HDR_SIZE"], [b"NCHAN"]) for line in magic.split(b"\n"))


def read_header(path: Path) -> Observation:
    """The header of the PSRDADA file `path`, checked; InputError names file, field and mend."""
    name = path.name
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header = _keys(file.read(DEFAULT_HEADER_BYTES))
        header_bytes = _integer(header, "HDR_SIZE", name, DEFAULT_HEADER_BYTES)
        if not 1 <= header_bytes <= MAX_HEADER_BYTES:
            raise InputError(
                f"{name}: HDR_SIZE: {header_bytes} bytes are impossible; write the header's true size, 4096"
            )
        file.seek(0)
        header = _keys(file.read(header_bytes))
    if file_bytes < header_bytes:
        raise InputError(f"{name}: is truncated inside its header of {header_bytes} bytes; copy it again")
    if _integer(header, "NDIM", name, 1) != 1:
        raise InputError(f"{name}: NDIM: the samples are complex voltages; detect them first (digifil)")
    order = header.get("ORDER", "TF").upper()
    if order not in ("TF", "TFP", "TPF"):
        raise InputError(f"{name}: ORDER: {order!r} is not supported; write the samples time-major, ORDER TF")
    polarisations = _integer(header, "NPOL", name, 1)
    if order == "TFP" and polarisations != 1:
        raise InputError(
            f"{name}: ORDER: TFP with NPOL {polarisations} is not supported; write total intensity, NPOL 1"
        )
    channels = _integer(header, "NCHAN", name)
    bandwidth = _number(header, "BW", name)
    width = bandwidth / channels if channels > 0 else 0.0
    observation = Observation(
        source_name=header.get("SOURCE", ""),
        telescope_id=0,
        start_mjd=_start_mjd(header, name),
        sampling_time_s=_number(header, "TSAMP", name) * 1e-6,
        first_channel_mhz=_number(header, "FREQ", name) - bandwidth / 2 + width / 2,
        channel_width_mhz=width,
        channels=channels,
        bits=_integer(header, "NBIT", name),
        polarisations=polarisations,
        data_offset=header_bytes,
        samples=max(1, file_bytes - header_bytes),
        file_bytes=file_bytes,
    )
    checked(observation, name)
    samples = whole_samples(name, file_bytes - header_bytes, observation.spectrum_bits, None)
    offset_s = _integer(header, "OBS_OFFSET", name, 0) / (observation.spectrum_bits // 8) * observation.sampling_time_s
    if offset_s < 0:
        raise InputError(f"{name}: OBS_OFFSET: {header['OBS_OFFSET']} bytes are impossible; write a number >= 0")
    start_mjd = observation.start_mjd and observation.start_mjd + offset_s / 86400.0  # 0 is unknown
    return checked(Observation(**{**vars(observation), "samples": samples, "start_mjd": start_mjd}), name)


def _keys(data: bytes) -> dict[str, str]:
    """The `KEY value # comment` lines of a header.

    >>> _keys(b"NCHAN 256 # channels" + bytes([10]) + b"SOURCE B0531+21" + bytes(8))
    {'NCHAN': '256', 'SOURCE': 'B0531+21'}
    """
    keys = {}
    for line in data.split(b"\0", 1)[0].decode("latin-1").splitlines():
        words = line.split("#", 1)[0].split(None, 1)
        if len(words) == 2:
            keys[words[0]] = words[1].strip()
    return keys


def _integer(header: dict[str, str], key: str, name: str, default: int | None = None) -> int:
    if key not in header and default is not None:
        return default
    number = _number(header, key, name)
    if number != int(number):
        raise InputError(f"{name}: {key}: {header[key]!r} is no whole number; write one")
    return int(number)


def _number(header: dict[str, str], key: str, name: str) -> float:
    if key not in header:
        raise InputError(f"{name}: the header has no {key}; add a line `{key} value` to it")
    try:
        number = float(header[key])
    except ValueError:
        raise InputError(f"{name}: {key}: {header[key]!r} is no number; write one") from None
    if number - number != 0:  # infinite or NaN
        raise InputError(f"{name}: {key}: {header[key]!r} is not finite; write a finite number")
    return number


def _start_mjd(header: dict[str, str], name: str) -> float:
    if "MJD_START" in header:
        return _number(header, "MJD_START", name)
    if "UTC_START" not in header:
        return 0.0
    text = header["UTC_START"]
    whole, _, fraction = text.partition(".")
    try:
        start = datetime.strptime(whole, "%Y-%m-%d-%H:%M:%S").replace(tzinfo=UTC)
        fraction_s = float(f"0.{fraction}0")
    except ValueError:
        raise InputError(f"{name}: UTC_START: {text!r} is no time; write yyyy-mm-dd-hh:mm:ss") from None
    return _MJD_OF_UNIX_EPOCH + (start.timestamp() + fraction_s) / 86400.0
