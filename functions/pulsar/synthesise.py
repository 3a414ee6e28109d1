"""The physics twin as a function: a request in, an observation (or labelled frames) whose truth is known out.

`request.json` -> `request.json.fil` and `request.json.truth.json` (kind "observation"), or `request.json.h5` and
`request.json.truth.json` (kind "frames"). Frames of the truth lie on the grid of `preprocess`: 256 samples, from 0.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from functions.pulsar import telescope
from functions.pulsar.band import Band
from functions.pulsar.empirical import empirical_model, learn
from functions.pulsar.frames import SAMPLES, FramesFile, FramesHeader, FramesWriter
from functions.pulsar.labelled import Population, balanced, draw_frame
from functions.pulsar.labels import CLASSES, COMPONENTS, SNR_MIN
from functions.pulsar.observation import Observation
from functions.pulsar.scene import THEORETICAL, Model
from functions.pulsar.sigproc import header_bytes
from layers.runtime import InputError, Job, read_request

MAX_CELLS = 1e12
"""Most samples times channels of an output: a terabyte of 8 bits."""
MAX_HAPPENINGS = 1e6
"""Most pulses and episodes that are expected in an observation; all of them are held in memory."""
MAX_RATE = 6e4
MAX_DM = 1e5


@dataclass(frozen=True)
class Request:
    """What to synthesise. Rates are per minute of observation; an absent seed derives from the request's bytes."""

    kind: Literal["observation", "frames"] = "observation"
    generator: Literal["theoretical", "empirical", "both"] = "theoretical"
    """`both` only for frames. The empirical one learns from the frames file named in `inputs`, if there is one."""
    seed: int | None = None
    duration_s: float = 20.0
    channels: int = 256
    bits: int = 8
    centre_mhz: float = 1370.625
    bandwidth_mhz: float = 320.0
    sampling_time_us: float = 102.4
    descending: bool = True
    """Whether the file's first channel is the highest."""
    source_name: str = "synthetic"
    pulses: float = 18.0
    """Single pulses a minute; at least one if not 0."""
    dm_pc_cm3: tuple[float, ...] = (20.0, 300.0)
    """Range of the pulses' DM, log-uniform."""
    pulse_snr: tuple[float, ...] = (12.0, 50.0)
    """Range of the pulses' signal-to-noise ratio in their best frame, log-uniform."""
    period_s: float = 0.0
    """If not 0, a pulsar of this period, with lighthouse geometry, log-normal energies and nulling, at `pulsar_dm`."""
    pulsar_dm_pc_cm3: float = 56.77
    pulsar_snr: float = 8.0
    """Median in-frame signal-to-noise ratio of the pulsar's pulses."""
    nbrfi: float = 30.0
    """Episodes of narrow-band interference a minute, each 0.2 to 8 frames long."""
    bbrfi: float = 30.0
    """Episodes of broad-band interference a minute."""
    other: float = 3.0
    """Faults and upward sweeps a minute."""
    frames: int = 900
    """Number of frames of kind "frames"."""
    classes: tuple[str, ...] = CLASSES
    """Their classes, in equal parts."""

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < 1e7:
            raise ValueError(f"duration_s: {self.duration_s} is not between 0 and 1e7")
        if self.bits not in (1, 2, 4, 8, 16):
            raise ValueError(f"bits: {self.bits} is none of 1, 2, 4, 8, 16")
        if not 1 <= self.channels <= 65536 or self.channels * self.bits % 8:
            raise ValueError(f"channels: {self.channels} is not between 1 and 65536, or fills no whole bytes")
        for name, most in (("dm_pc_cm3", MAX_DM), ("pulse_snr", 1e6)):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
                raise ValueError(f"{name}: {list(value)} is no range; write [low, high], above 0 and at most {most:g}")
        for name, most in (
            ("pulses", MAX_RATE),
            ("nbrfi", MAX_RATE),
            ("bbrfi", MAX_RATE),
            ("other", MAX_RATE),
            ("period_s", 1e6),
            ("pulsar_dm_pc_cm3", MAX_DM),
            ("pulsar_snr", 1e6),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: {getattr(self, name)} is not between 0 and {most:g}")
        if 0 < self.period_s < 1e-3:
            raise ValueError(f"period_s: {self.period_s} is below 1 ms; no pulsar turns faster")
        if self.frames < 1 or not self.classes:
            raise ValueError("frames and classes: write at least one")
        for name in self.classes:
            if name not in CLASSES:
                raise ValueError(f'classes: "{name}" is no class; write some of {", ".join(CLASSES)}')
        if self.kind == "observation" and self.generator == "both":
            raise ValueError('generator: "both" is for frames; write "theoretical" or "empirical"')
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative")
        band = self.band  # checks its own ranges
        if not 1 <= band.frequency_mhz[-1] <= band.frequency_mhz[0] <= 1e6:
            raise ValueError("centre_mhz, bandwidth_mhz: the band is not between 1 and 1e6 MHz")
        self._check_size()

    def _check_size(self) -> None:
        if self.kind == "frames":
            if self.frames * SAMPLES * self.channels > MAX_CELLS:
                raise ValueError(f"frames: {self.frames} frames hold more than {MAX_CELLS:g} samples; ask for fewer")
            return
        cells = self.duration_s / self.band.sampling_time_s * self.channels
        if not cells <= MAX_CELLS:
            raise ValueError(
                f"duration_s, sampling_time_us, channels: {cells:g} samples are more than {MAX_CELLS:g}; "
                "ask for a shorter observation"
            )
        expected = (self.pulses + self.nbrfi + self.bbrfi + self.other) * self.duration_s / 60
        if self.period_s:
            expected += self.duration_s / self.period_s
        if not expected <= MAX_HAPPENINGS:
            raise ValueError(
                f"pulses, nbrfi, bbrfi, other, period_s: {expected:g} are expected in {self.duration_s:g} s, "
                f"more than {MAX_HAPPENINGS:g}; ask for fewer or for a shorter observation"
            )

    @property
    def band(self) -> Band:
        return Band(self.centre_mhz, self.bandwidth_mhz, self.channels, self.sampling_time_us * 1e-6)


@dataclass(frozen=True)
class Settings:
    """How `synthesise` works."""

    frames_per_block: int = 16
    """Frames that are made at once: memory against speed."""


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    """Write the observation or the frames, and their truth."""
    request = read_request(Request, source)
    seed = request.seed if request.seed is not None else job.seed
    models = _models(request, job)
    if request.kind == "frames":
        truth = _frames(request, seed, models, destination / f"{source.name}.h5", job)
    else:
        truth = _observation(request, seed, models[0], destination / f"{source.name}.fil", settings, job)
    head = {"generator": request.generator, "seed": seed, "request": asdict(request), "components": COMPONENTS}
    path = destination / f"{source.name}.truth.json"
    path.write_text(json.dumps({**head, **truth}, ensure_ascii=False) + "\n", "utf-8")


def _models(request: Request, job: Job) -> tuple[Model, ...]:
    if request.generator == "theoretical":
        return (THEORETICAL,)
    if len(job.inputs) > 1:
        raise InputError(f"inputs: {len(job.inputs)} files are named; the empirical generator learns from one")
    empirical = empirical_model()
    for item in job.inputs:
        with FramesFile(item.path) as file:
            empirical = empirical_model(learn(file))
    return (empirical,) if request.generator == "empirical" else (THEORETICAL, empirical)


def _observation(request: Request, seed: int, model: Model, path: Path, settings: Settings, job: Job) -> dict[str, Any]:
    band = request.band
    frames = max(1, round(request.duration_s / band.sampling_time_s / SAMPLES))
    plan = telescope.draw_plan(
        model,
        band,
        frames,
        telescope.Rates(
            pulses=request.pulses,
            nbrfi=request.nbrfi,
            bbrfi=request.bbrfi,
            other=request.other,
            dm_pc_cm3=(request.dm_pc_cm3[0], request.dm_pc_cm3[1]),
            pulse_snr=(request.pulse_snr[0], request.pulse_snr[1]),
            period_s=request.period_s,
            pulsar_dm_pc_cm3=request.pulsar_dm_pc_cm3,
            pulsar_snr=request.pulsar_snr,
        ),
        request.bits,
        np.random.default_rng((seed, 1)),
    )
    width = band.channel_width_mhz
    header = Observation(
        source_name=request.source_name,
        telescope_id=0,
        start_mjd=59000.0,
        sampling_time_s=band.sampling_time_s,
        first_channel_mhz=float(band.frequency_mhz[0 if request.descending else -1]),
        channel_width_mhz=-width if request.descending else width,
        channels=band.channels,
        bits=request.bits,
        polarisations=1,
        data_offset=0,
        samples=frames * SAMPLES,
        file_bytes=0,
    )
    done = 0
    with path.open("wb") as out:
        out.write(header_bytes(header))
        for spectra in telescope.observe(plan, settings.frames_per_block, np.random.default_rng((seed, 2))):
            ordered = spectra if request.descending else spectra[:, ::-1]
            out.write(telescope.to_bytes(ordered, request.bits))
            done += len(spectra) // SAMPLES
            job.progress(done, frames)
    return telescope.truth(plan)


def _frames(request: Request, seed: int, models: tuple[Model, ...], path: Path, job: Job) -> dict[str, Any]:
    if request.channels != 256 or request.bits != 8:
        raise InputError("channels, bits: labelled frames have 256 channels of 8 bits; leave both out")
    population = Population(
        models=models,
        bands=(request.band,),
        pulse_snr=(max(SNR_MIN, request.pulse_snr[0]), max(SNR_MIN, request.pulse_snr[1])),
        dm_pc_cm3=(request.dm_pc_cm3[0], request.dm_pc_cm3[1]),
    )
    rng = np.random.default_rng((seed, 3))
    if request.classes == CLASSES:
        names = balanced(request.frames, rng)
    else:
        names = [request.classes[i % len(request.classes)] for i in range(request.frames)]
    header = FramesHeader(
        kind="collection",
        source_name=request.source_name,
        telescope_id=0,
        start_mjd=59000.0,
        sampling_time_s=request.band.sampling_time_s,
        samples=request.frames * SAMPLES,
        channels=256,
        bits=8,
        scale=1.0,
        input_bytes=0,
        frequency_mhz=request.band.frequency_mhz,
    )
    truth = []
    with FramesWriter(path, header) as writer:
        for number, name in enumerate(names):
            frame = draw_frame(population, name, rng)
            writer.append(
                frame.frame[None],
                np.array([number]),
                reference_mean=frame.reference_mean[None],
                reference_sigma=frame.reference_sigma[None],
                labels=frame.present[None].astype(np.uint8),
                snr=np.array([frame.snr], np.float32),
                dm_pc_cm3=np.array([frame.dm_pc_cm3], np.float32),
            )
            truth.append(
                {
                    "index": number,
                    "start_s": round(number * header.frame_s, 9),
                    "label": name,
                    "labels": [c for c, there in zip(COMPONENTS, frame.present, strict=True) if there],
                    "snr": round(frame.snr, 3),
                    "dm_pc_cm3": round(frame.dm_pc_cm3, 3),
                    "width_s": round(frame.width_s, 9),
                    "generator": frame.model,
                }
            )
            job.progress(number + 1, len(names))
    return {"frame_s": header.frame_s, "frames": truth, "pulses": []}
