"""From a telescope's file to frames: `observation.fil` -> `observation.fil.h5`.

Reads a SIGPROC filterbank or a PSRDADA-style file of any length in bounded memory, and cuts it into frames of 256
samples by 256 frequency rows (`frames` states the rule for rows). Frames follow one another without overlap; the last
one is filled with zeros when the observation does not end with it, and the attribute `samples` says where it ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functions.pulsar.arrays import Samples
from functions.pulsar.frames import ROWS, SAMPLES, FramesWriter, RowMap, frames_header
from functions.pulsar.observation import open_observation, read_blocks
from layers.runtime import Job


@dataclass(frozen=True)
class Settings:
    """How `preprocess` works."""

    frames_per_block: int = 64
    """Frames that are read and written at once: memory against speed."""

    def __post_init__(self) -> None:
        if not 1 <= self.frames_per_block <= 4096:
            raise ValueError(f"FRAMES_PER_BLOCK: {self.frames_per_block} is not between 1 and 4096")


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write `<source name>.h5`; raises InputError for what is no whole observation."""
    observation = open_observation(source)
    row_map = RowMap(observation.frequencies_mhz, observation.bits)
    # a block is bounded in bytes too, whatever the channel count
    spectra = max(SAMPLES, min(settings.frames_per_block * SAMPLES, (64 << 20) // observation.channels))
    blocks = read_blocks(source, observation, spectra // SAMPLES * SAMPLES)
    total = -(-observation.samples // SAMPLES)
    done = 0
    with FramesWriter(destination / f"{source.name}.h5", frames_header(observation, row_map)) as writer:
        for frames in cut(blocks, row_map):
            writer.append(frames, np.arange(done, done + len(frames)))
            done += len(frames)
            job.progress(done, total)


def cut(blocks: Iterator[Samples], row_map: RowMap) -> Iterator[Samples]:
    """(samples, channels) blocks in, (n, 256, 256) frames out.

    Every block but the last must hold whole frames (a multiple of 256 samples); what the last one lacks is zero.
    """
    for block in blocks:
        count, rest = divmod(len(block), SAMPLES)
        rows = row_map.rows(block)
        if rest:
            count += 1
            rows = np.pad(rows, ((0, 0), (0, SAMPLES - rest)))
        yield np.ascontiguousarray(rows.reshape(ROWS, count, SAMPLES).transpose(1, 0, 2))
