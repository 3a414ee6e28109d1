"""Real telescope files, with controls. No threshold was chosen on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.pulsar.observation import open_observation, read_blocks
from tests.functions.pulsar.files import filterbank

Real = Callable[[str], Path]
Through = Callable[..., dict[str, Any]]

ASKAP = "askap_frb180417.fil"
FRB_TIME_S, FRB_DM = 2.03, 475.0


def spectra_of(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    observation = open_observation(path)
    header = {
        "nchans": observation.channels,
        "tsamp": observation.sampling_time_s,
        "fch1": observation.first_channel_mhz,
        "foff": observation.channel_width_mhz,
        "tstart": observation.start_mjd,
    }
    return np.concatenate(list(read_blocks(path, observation, 4096))), header


def pulse_frames(result: dict[str, Any]) -> list[int]:
    return [frame["index"] for frame in result["labels"]["frames"] if "pulse" in frame["labels"]]


def test_the_fast_radio_burst_is_kept_as_a_pulse_at_its_time(real: Real, through: Through) -> None:
    result = through(real(ASKAP))
    (event,) = result["summary"]["events"]
    assert event["time_s"] == pytest.approx(FRB_TIME_S, abs=0.02)
    assert event["dm_pc_cm3"] == pytest.approx(FRB_DM, abs=5)
    assert event["snr"] > 10
    frame_s = 256 * 1.26646875e-3
    assert int(FRB_TIME_S / frame_s) in pulse_frames(result)
    assert all(result["labels"]["frames"][i]["kept"] for i in event["frames"])
    assert result["summary"]["frames"]["kept"] <= 6


def test_noise_and_interference_yield_no_kept_pulse(real: Real, through: Through) -> None:
    result = through(real("parkes_noise_rfi.fil"))
    assert result["summary"]["events"] == []
    assert result["summary"]["frames"]["kept"] == 0
    assert pulse_frames(result) == []
    assert any("nbrfi" in frame["labels"] for frame in result["labels"]["frames"])


@pytest.mark.parametrize("seed", range(3))
def test_channels_rolled_at_random_give_no_pulse(real: Real, through: Through, tmp_path: Path, seed: int) -> None:
    spectra, header = spectra_of(real(ASKAP))
    rng = np.random.default_rng(seed)
    rolled = np.stack([np.roll(channel, rng.integers(len(spectra))) for channel in spectra.T], axis=1)
    assert through(filterbank(tmp_path / "rolled.fil", rolled, **header))["summary"]["events"] == []


@pytest.mark.parametrize("samples", [256, 1000])
def test_a_trimmed_start_moves_the_time(real: Real, through: Through, tmp_path: Path, samples: int) -> None:
    spectra, header = spectra_of(real(ASKAP))
    (event,) = through(filterbank(tmp_path / "trimmed.fil", spectra[samples:], **header))["summary"]["events"]
    assert event["time_s"] == pytest.approx(FRB_TIME_S - samples * header["tsamp"], abs=0.02)
    assert event["dm_pc_cm3"] == pytest.approx(FRB_DM, abs=5)


def test_reversed_channels_with_their_header_give_the_same_answer(real: Real, through: Through, tmp_path: Path) -> None:
    spectra, header = spectra_of(real(ASKAP))
    lowest = header["fch1"] + (header["nchans"] - 1) * header["foff"]
    turned = {**header, "fch1": lowest, "foff": -header["foff"]}
    expected = through(real(ASKAP))
    given = through(filterbank(tmp_path / "turned.fil", spectra[:, ::-1], **turned))
    assert given["labels"]["frames"] == expected["labels"]["frames"]
    assert given["summary"]["events"] == expected["summary"]["events"]


def test_reversed_channels_without_their_header_hold_no_pulse(real: Real, through: Through, tmp_path: Path) -> None:
    spectra, header = spectra_of(real(ASKAP))
    assert through(filterbank(tmp_path / "wrong.fil", spectra[:, ::-1], **header))["summary"]["events"] == []


def test_without_the_burst_nothing_is_found(real: Real, through: Through, tmp_path: Path) -> None:
    spectra, header = spectra_of(real(ASKAP))
    assert through(filterbank(tmp_path / "later.fil", spectra[2600:], **header))["summary"]["events"] == []
