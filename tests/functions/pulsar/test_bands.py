"""Pulses are found in every band that the model knows, however narrow the range of DMs, however bright they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from functions.pulsar.dispersion import dm_of_delay
from functions.pulsar.train import OTHER_BANDS

Synthesise = Callable[..., Path]
Through = Callable[..., dict[str, Any]]
QUIET = {"seed": 11, "nbrfi": 0, "bbrfi": 0, "other": 0}


def found(result: dict[str, Any], truth: list[dict[str, Any]], tolerance_s: float) -> int:
    """How many true pulses have an event at their time, each event counted once."""
    events = [event["time_s"] for event in result["summary"]["events"]]
    count = 0
    for pulse in truth:
        near = [time for time in events if abs(time - pulse["time_s"]) < tolerance_s]
        if near:
            events.remove(near[0])
            count += 1
    return count


def pulses_of(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "request.json.truth.json").read_text())["pulses"])


@pytest.mark.parametrize("band", OTHER_BANDS, ids=lambda band: f"{band.centre_mhz:.0f}MHz")
def test_pulses_are_found_in_every_band_of_the_training(synthesise: Synthesise, through: Through, band: Any) -> None:
    frames = 120
    duration_s = frames * 256 * band.sampling_time_s
    edges = band.centre_mhz + band.bandwidth_mhz / 2, band.centre_mhz - band.bandwidth_mhz / 2
    dm = max(10.0, float(dm_of_delay(120 * band.sampling_time_s, *edges)))  # less would be no sweep but a burst
    folder = synthesise(
        **QUIET,
        duration_s=duration_s,
        pulses=4 * 60 / duration_s,
        centre_mhz=band.centre_mhz,
        bandwidth_mhz=band.bandwidth_mhz,
        sampling_time_us=band.sampling_time_s * 1e6,
        dm_pc_cm3=[dm, 2 * dm],
        pulse_snr=[25.0, 50.0],
    )
    truth = pulses_of(folder)
    assert truth
    assert found(through(folder / "request.json.fil"), truth, 40 * band.sampling_time_s + 0.02) >= len(truth) - 1


@pytest.mark.parametrize(
    "settings", [{"DM_MIN": "50", "DM_MAX": "65"}, {"DM_MIN": "25"}, {"DM_MIN": "900", "DM_MAX": "901"}]
)
def test_a_narrow_range_of_dms_is_searched(synthesise: Synthesise, through: Through, settings: dict[str, str]) -> None:
    folder = synthesise(**QUIET, duration_s=3.0, pulses=60, dm_pc_cm3=[55.0, 58.0], pulse_snr=[25.0, 50.0])
    result = through(folder / "request.json.fil", **settings)
    truth = pulses_of(folder)
    inside = float(settings["DM_MIN"]) < 55
    assert (found(result, truth, 0.02) >= len(truth) - 1) == inside


@pytest.mark.parametrize("snr", [300.0, 3000.0])
def test_the_brightest_pulses_are_not_taken_for_interference(
    synthesise: Synthesise, through: Through, snr: float
) -> None:
    folder = synthesise(**QUIET, duration_s=4.0, pulses=75, dm_pc_cm3=[56.0, 58.0], pulse_snr=[snr, snr])
    truth = pulses_of(folder)
    assert found(through(folder / "request.json.fil"), truth, 0.02) >= len(truth) - 1


def test_the_summary_says_how_far_the_search_reached(synthesise: Synthesise, through: Through) -> None:
    folder = synthesise(
        **QUIET, duration_s=2.0, pulses=0, centre_mhz=350.0, bandwidth_mhz=100.0, sampling_time_us=81.92
    )
    low, high = through(folder / "request.json.fil")["summary"]["searched_dm_pc_cm3"]
    assert low == pytest.approx(3.0, abs=0.01)
    assert 30 < high < 100, "48 frames hold no more than this at 350 MHz, whatever DM_MAX asks for"
