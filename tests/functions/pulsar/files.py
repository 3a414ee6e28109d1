"""Telescope files for tests, written by hand and not by the code that they test."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

DEFAULTS: dict[str, Any] = {
    "source_name": "J0000+00",
    "telescope_id": 8,
    "data_type": 1,
    "nchans": 256,
    "nbits": 8,
    "nifs": 1,
    "tsamp": 102.4e-6,
    "tstart": 59000.5,
    "fch1": 1530.0,
    "foff": -1.25,
}
INTEGERS = {"telescope_id", "data_type", "nchans", "nbits", "nifs", "nsamples", "machine_id"}


def text(value: str) -> bytes:
    data = value.encode("latin-1")
    return struct.pack("<i", len(data)) + data


def header(**changes: Any) -> bytes:
    """A SIGPROC header; a value of None leaves its keyword out."""
    out = text("HEADER_START")
    for key, value in {**DEFAULTS, **changes}.items():
        if value is None:
            continue
        out += text(key)
        if isinstance(value, str):
            out += text(value)
        elif key in INTEGERS:
            out += struct.pack("<i", value)
        elif key == "signed":
            out += struct.pack("<b", value)
        else:
            out += struct.pack("<d", value)
    return out + text("HEADER_END")


def filterbank(path: Path, samples: np.ndarray | bytes | None = None, **changes: Any) -> Path:
    """A filterbank with the given samples (time, channel), by default 512 spectra of noise."""
    if samples is None:
        channels = max(1, changes.get("nchans", 256))
        samples = np.random.default_rng(0).normal(100, 15, (512, channels)).clip(0, 255).astype(np.uint8)
    data = samples if isinstance(samples, bytes) else np.ascontiguousarray(samples).tobytes()
    path.write_bytes(header(**changes) + data)
    return path


def dada(path: Path, samples: np.ndarray, size: int = 4096, **changes: str) -> Path:
    """A PSRDADA-style file with the given samples (time, channel)."""
    keys = {
        "HEADER": "DADA",
        "HDR_SIZE": str(size),
        "NCHAN": str(samples.shape[1]),
        "NBIT": str(8 * samples.itemsize),
        "NPOL": "1",
        "NDIM": "1",
        "TSAMP": "102.4",
        "FREQ": "1370.625",
        "BW": "-320",
        "MJD_START": "59000.5",
        "SOURCE": "B0531+21",
        **changes,
    }
    lines = "".join(f"{key} {value}\n" for key, value in keys.items() if value != "")
    path.write_bytes(lines.encode().ljust(size, b"\0")[:size] + samples.tobytes())
    return path
