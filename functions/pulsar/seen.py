"""Which labelled frames a model has seen, one by one: a frame is known again in whatever file it stands."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from functions.pulsar.frames import FramesFile

DIGITS = 16
"""Hexadecimal digits of a frame's SHA-256 that are kept; two of a million frames share them once in 10^7 times."""
MOST_FRAMES = 40_000
"""Frames that a manifest lists, which must stay below a megabyte; of more than that only the files are known."""
FIELD = "frames"


def digests(path: Path) -> Iterator[str]:
    """The start of the SHA-256 of each frame's cells, row by row, as they are stored."""
    with FramesFile(path) as file:
        for _, frames in file.batches(256):
            for frame in frames:
                yield hashlib.sha256(frame.tobytes()).hexdigest()[:DIGITS]


def with_frames(data: Iterable[Mapping[str, str]], paths: Iterable[Path]) -> list[dict[str, str]]:
    """The entries of a manifest's `data`, each with the frames of its file while there is room."""
    entries, room = [], MOST_FRAMES
    for entry, path in zip(data, paths, strict=True):
        found = list(digests(path))
        room -= len(found)
        entries.append({**entry, FIELD: "".join(found)} if room >= 0 else dict(entry))
    return entries


def hashes(data: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """The hashes in a manifest's `data`: of whole files, and of frames."""
    for entry in data:
        yield entry["sha256"]
        text = entry.get(FIELD, "")
        yield from (text[start : start + DIGITS] for start in range(0, len(text), DIGITS))
