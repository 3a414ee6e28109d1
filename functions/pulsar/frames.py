"""Frames files: time-frequency frames of 256 rows by 256 samples in HDF5.

A frames file is an *observation* (consecutive frames of one file) or a *collection* (frames that stand alone, each with
its own bandpass reference and, if known, its labels). Dataset `frames` has shape (n, 256, 256), axis 1 is frequency,
**row 0 is the highest**, axis 2 is time; values are the mean of the original samples of a row times the attribute
`scale`, unsigned 8 bit (16 for 16-bit originals), stored uncompressed: one frame is 65,536 (131,072) bytes, which is
what "bytes kept" counts.

Rule for rows: channels are sorted by descending frequency; channel c of N goes to row floor(256 c / N), and a row is
the mean of its channels. With N < 256 there are more rows than channels: row r shows channel floor(N r / 256), and rows
repeat. Nothing is interpolated, so the noise of different rows is independent whenever N >= 256.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from functions.pulsar.arrays import Floats, Positions, Samples
from functions.pulsar.observation import Observation
from layers.runtime import InputError

ROWS = 256
SAMPLES = 256
FORMAT = "dioscar-pulsar-frames"
VERSION = 1


@dataclass(frozen=True)
class FramesHeader:
    """What a frames file says of its frames; `kind` is "observation" or "collection"."""

    kind: str
    source_name: str
    telescope_id: int
    start_mjd: float
    sampling_time_s: float
    samples: int
    """Valid samples: the last frame of an observation may be partly filled, and is 0 after them."""
    channels: int
    bits: int
    scale: float
    input_bytes: int
    """Size of the file that the frames were cut from."""
    frequency_mhz: Floats
    """Mean centre frequency of each row's channels, shape (256,), descending."""

    @property
    def frame_s(self) -> float:
        """Duration of a frame, s."""
        return SAMPLES * self.sampling_time_s


class RowMap:
    """Maps spectra of any channel count to 256 rows by the rule above."""

    def __init__(self, frequencies_mhz: Floats, bits: int) -> None:
        channels = len(frequencies_mhz)
        self.order = np.argsort(-frequencies_mhz, kind="stable")
        self.scale = 1.0 if bits in (8, 16) else 255.0 / ((1 << bits) - 1)
        self.dtype: np.dtype[Any] = np.dtype("<u2") if bits == 16 else np.dtype(np.uint8)
        descending = frequencies_mhz[self.order]
        if channels >= ROWS:
            row_of = np.arange(channels) * ROWS // channels
            self.first = np.searchsorted(row_of, np.arange(ROWS))
            self.count = np.diff(np.append(self.first, channels))
            self.frequency_mhz: Floats = np.add.reduceat(descending, self.first) / self.count
        else:
            self.first = np.arange(ROWS) * channels // ROWS
            self.count = np.ones(ROWS, int)
            self.frequency_mhz = descending[self.first]
        self.channels = channels

    def rows(self, spectra: Samples) -> Samples:
        """(samples, channels) in the file's order -> (256, samples), rows descending in frequency."""
        if self.channels == ROWS and self.scale == 1.0:
            return np.ascontiguousarray(spectra.T if self.order[0] == 0 else spectra[:, ::-1].T).astype(self.dtype)
        sorted_spectra = spectra[:, self.order]
        if self.channels < ROWS:
            values: Floats = sorted_spectra[:, self.first].astype(np.float32)
        else:
            sums = np.add.reduceat(sorted_spectra, self.first, axis=1, dtype=np.uint32)
            values = sums / self.count.astype(np.float32)
        return np.asarray(np.rint(values * np.float32(self.scale)).astype(self.dtype).T)


def frames_header(observation: Observation, row_map: RowMap) -> FramesHeader:
    """The header of the frames that `row_map` makes of `observation`."""
    return FramesHeader(
        kind="observation",
        source_name=observation.source_name,
        telescope_id=observation.telescope_id,
        start_mjd=observation.start_mjd,
        sampling_time_s=observation.sampling_time_s,
        samples=observation.samples,
        channels=observation.channels,
        bits=observation.bits,
        scale=row_map.scale,
        input_bytes=observation.file_bytes,
        frequency_mhz=row_map.frequency_mhz,
    )


class FramesWriter:
    """Writes a frames file, some frames at a time; its bytes depend on nothing but what is written."""

    def __init__(self, path: Path, header: FramesHeader) -> None:
        dtype = np.dtype("<u2") if header.bits == 16 else np.dtype(np.uint8)
        self._file = h5py.File(path, "w", track_order=True)
        attributes = self._file.attrs
        attributes["format"] = FORMAT
        attributes["version"] = VERSION
        for key, value in vars(header).items():
            if key != "frequency_mhz":
                attributes[key] = value
        self._file.create_dataset("frequency_mhz", data=header.frequency_mhz, track_times=False)
        self._frames = self._extendable("frames", (ROWS, SAMPLES), dtype, 1)
        self._index = self._extendable("index", (), np.dtype("<i8"), 1024)
        self._extra: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, frames: Samples, index: Positions, **columns: Floats) -> None:
        """Append (n, 256, 256) frames, their positions in the observation, and further per-frame columns."""
        _extend(self._frames, frames)
        _extend(self._index, index)
        for name, values in columns.items():
            if name not in self._extra:
                self._extra[name] = self._extendable(name, values.shape[1:], values.dtype, 64)
            _extend(self._extra[name], values)

    def _extendable(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: int) -> Any:
        return self._file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(chunk, *shape), track_times=False
        )


class FramesFile:
    """A frames file open for reading: header, and frames or per-frame columns in slices."""

    def __init__(self, path: Path) -> None:
        name = path.name
        if path.stat().st_size == 0:
            raise InputError(f"{name}: is empty; send the .h5 that pulsar-preprocess makes")
        try:
            self._file = h5py.File(path, "r")
        except OSError:
            raise InputError(
                f"{name}: is no HDF5 file, or a truncated one; send the .h5 that pulsar-preprocess makes"
            ) from None
        try:
            self.header = _read_header(self._file, name)
        except BaseException:
            self._file.close()
            raise
        self.name = name
        self._frames = self._file["frames"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._frames.shape[0])

    @property
    def index(self) -> Positions:
        """Position of each frame in its observation."""
        return np.asarray(self._file["index"][:], dtype=np.int64)

    def read(self, start: int, stop: int) -> Samples:
        """Frames start..stop, shape (n, 256, 256)."""
        try:
            frames: Samples = self._frames[start:stop]
        except OSError:
            raise InputError(
                f"{self.name}: frames {start} to {stop} cannot be read; the file is damaged, make it again"
            ) from None
        return frames

    def has(self, column: str) -> bool:
        """Whether the file has the per-frame column `column`."""
        return column in self._file

    def column(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Values of a per-frame column."""
        return np.asarray(self._file[name][start:stop])

    def batches(self, size: int) -> Iterator[tuple[int, Samples]]:
        """Yield (position of the first frame, up to `size` frames)."""
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))


_ATTRIBUTES = tuple(field.name for field in fields(FramesHeader) if field.name != "frequency_mhz")


def _extend(dataset: Any, values: Floats) -> None:
    length = dataset.shape[0]
    dataset.resize(length + len(values), axis=0)
    dataset[length:] = values


def _read_header(file: Any, name: str) -> FramesHeader:
    mend = "send the .h5 that pulsar-preprocess makes"
    try:
        ours = file.attrs.get("format") == FORMAT
    except (OSError, TypeError, ValueError):
        ours = False
    if not ours:
        raise InputError(f"{name}: is an HDF5 file, but holds no pulsar frames (attribute format); {mend}")
    if int(file.attrs.get("version", 0)) != VERSION:
        raise InputError(f"{name}: version: {file.attrs.get('version')} is not supported; run pulsar-preprocess again")
    for dataset in ("frames", "index", "frequency_mhz"):
        if dataset not in file:
            raise InputError(f"{name}: the dataset {dataset} is missing; {mend}")
    shape = file["frames"].shape
    if len(shape) != 3 or shape[1:] != (ROWS, SAMPLES) or file["frames"].dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: frames: shape {shape} of {file['frames'].dtype} is not (n, 256, 256) unsigned; {mend}"
        )
    if shape[0] == 0:
        raise InputError(f"{name}: holds no frame; {mend}")
    if file["index"].shape != shape[:1] or file["frequency_mhz"].shape != (ROWS,):
        raise InputError(f"{name}: index or frequency_mhz has the wrong shape; {mend}")
    for attribute in _ATTRIBUTES:
        if attribute not in file.attrs:
            raise InputError(f"{name}: the attribute {attribute} is missing; {mend}")
    try:
        header = FramesHeader(
            kind=str(file.attrs["kind"]),
            source_name=str(file.attrs["source_name"]),
            telescope_id=int(file.attrs["telescope_id"]),
            start_mjd=float(file.attrs["start_mjd"]),
            sampling_time_s=float(file.attrs["sampling_time_s"]),
            samples=int(file.attrs["samples"]),
            channels=int(file.attrs["channels"]),
            bits=int(file.attrs["bits"]),
            scale=float(file.attrs["scale"]),
            input_bytes=int(file.attrs["input_bytes"]),
            frequency_mhz=np.asarray(file["frequency_mhz"][:], dtype=np.float64),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: an attribute has the wrong type ({error}); {mend}") from None
    frequency = header.frequency_mhz
    if not (np.isfinite(frequency).all() and (frequency > 0).all() and (np.diff(frequency) <= 0).all()):
        raise InputError(f"{name}: frequency_mhz: is not positive and descending; {mend}")
    if not 0 < header.sampling_time_s < 10:
        raise InputError(f"{name}: sampling_time_s: {header.sampling_time_s} s is impossible; {mend}")
    return header
