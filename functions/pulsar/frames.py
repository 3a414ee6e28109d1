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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from functions.pulsar.arrays import Floats, Positions, Samples
from functions.pulsar.labels import COMPONENTS
from functions.pulsar.observation import SAMPLE_BITS, Observation
from layers.runtime import InputError

ROWS = 256
SAMPLES = 256
FORMAT = "dioscar-pulsar-frames"
VERSION = 1
MAX_INDEX = 1 << 40
"""More than the frames of any observation."""


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
        return np.asarray(_values(self._file, "index", (len(self),), "iu"), dtype=np.int64)

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
        return self._file.get(column, getlink=True) is not None

    def column(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Values of a per-frame column; InputError when they are no finite numbers, one row a frame."""
        return _values(self._file, name, (len(self), *_COLUMNS.get(name, ())), "biuf", slice(start, stop))

    def batches(self, size: int) -> Iterator[tuple[int, Samples]]:
        """Yield (position of the first frame, up to `size` frames)."""
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))


_MEND = "send the .h5 that pulsar-preprocess makes"
_UNREADABLE = (AttributeError, KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
_COLUMNS: dict[str, tuple[int, ...]] = {
    "frames": (ROWS, SAMPLES),
    "reference_mean": (ROWS,),
    "reference_sigma": (ROWS,),
    "labels": (len(COMPONENTS),),
}
"""Shapes of the per-frame columns that hold more than one value a frame."""


def _extend(dataset: Any, values: Floats) -> None:
    length = dataset.shape[0]
    dataset.resize(length + len(values), axis=0)
    dataset[length:] = values


def _read_header(file: Any, name: str) -> FramesHeader:
    if not _is_ours(file):
        raise InputError(f"{name}: is an HDF5 file, but holds no pulsar frames (attribute format); {_MEND}")
    version = _whole(file, "version", name)
    if version != VERSION:
        raise InputError(f"{name}: version: {version} is not supported; run pulsar-preprocess again")
    frames = _dataset(file, "frames", (None, ROWS, SAMPLES), "u")
    count = frames.shape[0]
    if count == 0:
        raise InputError(f"{name}: frames: holds no frame; {_MEND}")
    header = FramesHeader(
        kind=_text(file, "kind", name),
        source_name=_text(file, "source_name", name),
        telescope_id=_whole(file, "telescope_id", name),
        start_mjd=_number(file, "start_mjd", name),
        sampling_time_s=_number(file, "sampling_time_s", name),
        samples=_whole(file, "samples", name),
        channels=_whole(file, "channels", name),
        bits=_whole(file, "bits", name),
        scale=_number(file, "scale", name),
        input_bytes=_whole(file, "input_bytes", name),
        frequency_mhz=np.asarray(_values(file, "frequency_mhz", (ROWS,), "fiu"), dtype=np.float64),
    )
    frequency = header.frequency_mhz
    depth = np.dtype(np.uint16 if header.bits == 16 else np.uint8)
    index = np.asarray(_values(file, "index", (count,), "iu"), dtype=np.int64)
    for field, good, wrong in (
        ("kind", header.kind in ("observation", "collection"), f"{header.kind!r} is no kind of frames"),
        ("sampling_time_s", 0 < header.sampling_time_s < 10, f"{header.sampling_time_s} s is impossible"),
        ("samples", header.samples > 0, f"{header.samples} is not above 0"),
        ("channels", header.channels > 0, f"{header.channels} is not above 0"),
        ("bits", header.bits in SAMPLE_BITS, f"{header.bits} is none of 1, 2, 4, 8, 16"),
        ("bits", frames.dtype == depth, f"frames of {header.bits} bits are not stored as {frames.dtype}"),
        ("scale", header.scale > 0, f"{header.scale} is not above 0"),
        ("input_bytes", header.input_bytes >= 0, f"{header.input_bytes} is negative"),
        ("frequency_mhz", ((frequency >= 1) & (frequency <= 1e6)).all(), "is not between 1 and 1e6 MHz"),
        ("frequency_mhz", (np.diff(frequency) <= 0).all(), "is not descending"),
        ("index", index[0] >= 0 and index[-1] < MAX_INDEX, f"is not between 0 and {MAX_INDEX}"),
        ("index", (np.diff(index) > 0).all(), "is not ascending"),
    ):
        if not good:
            raise InputError(f"{name}: {field}: {wrong}; {_MEND}")
    return header


def _is_ours(file: Any) -> bool:
    try:
        return str(file.attrs.get("format")) == FORMAT
    except _UNREADABLE:
        return False


def _dataset(file: Any, key: str, shape: tuple[int | None, ...], kinds: str) -> Any:
    """The dataset `key` of that shape (None: any length) and one of those numpy kinds, stored in the file itself.

    Links, external storage and virtual datasets would read other files of the host.
    """
    name = Path(file.filename).name
    try:
        link = file.get(key, getlink=True)
        if link is None:
            raise InputError(f"{name}: the dataset {key} is missing; {_MEND}")
        dataset = file[key] if isinstance(link, h5py.HardLink) else None
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{name}: {key}: is no dataset of this file; {_MEND}")
        if dataset.external or dataset.is_virtual:
            raise InputError(f"{name}: {key}: is stored in another file; {_MEND}")
        found = dataset.shape or ()
        fits = len(found) == len(shape) and all(b in (None, a) for a, b in zip(found, shape, strict=True))
        if not fits or dataset.dtype.kind not in kinds:
            wanted = ", ".join("n" if length is None else str(length) for length in shape)
            raise InputError(f"{name}: {key}: shape {found} of {dataset.dtype} is not ({wanted}) numbers; {_MEND}")
    except _UNREADABLE:
        raise InputError(f"{name}: {key}: cannot be read; {_MEND}") from None
    return dataset


def _values(file: Any, key: str, shape: tuple[int | None, ...], kinds: str, part: slice = slice(None)) -> Floats:
    """The values of a dataset, or a part of them, that `_dataset` accepts and that are all finite."""
    dataset = _dataset(file, key, shape, kinds)
    name = Path(file.filename).name
    try:
        values = np.asarray(dataset[part])
    except _UNREADABLE:
        raise InputError(f"{name}: {key}: cannot be read; the file is damaged, make it again") from None
    if not np.isfinite(values).all():
        raise InputError(f"{name}: {key}: holds a value that is not finite; {_MEND}")
    return values


def _attribute(file: Any, key: str, name: str) -> Any:
    try:
        value = file.attrs.get(key)
    except _UNREADABLE:
        raise InputError(f"{name}: {key}: cannot be read; {_MEND}") from None
    if value is None:
        raise InputError(f"{name}: the attribute {key} is missing; {_MEND}")
    return value


def _text(file: Any, key: str, name: str) -> str:
    value = _attribute(file, key, name)
    if not isinstance(value, str) or value.encode("utf-8", "replace").decode() != value:  # no surrogates
        raise InputError(f"{name}: {key}: {value!r} is no text; {_MEND}")
    return value


def _number(file: Any, key: str, name: str) -> float:
    value = _attribute(file, key, name)
    if not isinstance(value, (np.integer, np.floating)) or not np.isfinite(value):
        raise InputError(f"{name}: {key}: {value!r} is no finite number; {_MEND}")
    return float(value)


def _whole(file: Any, key: str, name: str) -> int:
    number = _attribute(file, key, name)
    if not isinstance(number, (np.integer, np.floating)) or not np.isfinite(number) or int(number) != number:
        raise InputError(f"{name}: {key}: {number!r} is no whole number; {_MEND}")
    return int(number)
