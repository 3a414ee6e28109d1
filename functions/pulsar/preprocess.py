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
from functions.pulsar.observation import Observation, open_observation, read_blocks
from layers.runtime import InputError, Job

MAX_CHANNELS = 1 << 16
"""A frame of more channels would not fit into a small memory."""
BLOCK_BYTES = 64 << 20


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
    if observation.channels > MAX_CHANNELS:
        raise InputError(
            f"{source.name}: nchans: {observation.channels} channels are more than {MAX_CHANNELS}; "
            "average neighbouring channels first"
        )
    row_map = RowMap(observation.frequencies_mhz, observation.bits)
    blocks = read_blocks(source, observation, block_samples(observation, settings.frames_per_block))
    total = -(-observation.samples // SAMPLES)
    done = 0
    with FramesWriter(destination / f"{source.name}.h5", frames_header(observation, row_map)) as writer:
        for frames in cut(blocks, row_map):
            writer.append(frames, np.arange(done, done + len(frames)))
            done += len(frames)
            job.progress(done, total)


def block_samples(observation: Observation, frames: int) -> int:
    """Spectra of a block: whole frames, at most `frames` and, if one frame allows, `BLOCK_BYTES` as 32-bit numbers."""
    spectrum_bytes = 4 * observation.channels * observation.polarisations
    return max(1, min(frames, BLOCK_BYTES // spectrum_bytes // SAMPLES)) * SAMPLES


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
