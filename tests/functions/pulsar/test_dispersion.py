"""The dispersion law, and sums along its tracks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.pulsar.dispersion import (
    K_DM_S_MHZ2,
    delay_s,
    dispersion_coordinate,
    dm_of_delay,
    smearing_s,
    sum_tracks,
)


def test_the_dispersion_constant_is_that_of_the_handbook() -> None:
    assert pytest.approx(4148.808) == K_DM_S_MHZ2
    assert float(delay_s(1.0, 1000.0, 1e9)) == pytest.approx(4.148808e-3, rel=1e-9)


def test_smearing_is_the_derivative_of_the_delay() -> None:
    across = delay_s(100.0, 1399.5, 1400.5)
    assert float(smearing_s(100.0, 1400.0, 1.0)) == pytest.approx(float(across), rel=1e-5)


@given(dm=st.floats(0.1, 3000), low=st.floats(100, 5000), width=st.floats(1, 3000))
def test_a_delay_gives_back_its_dm(dm: float, low: float, width: float) -> None:
    delay = delay_s(dm, low, low + width)
    assert float(dm_of_delay(delay, low + width, low)) == pytest.approx(dm, rel=1e-6)


def test_tracks_of_any_band_are_straight_in_the_coordinate() -> None:
    frequency = np.linspace(4000.0, 700.0, 256)
    delays = delay_s(56.8, frequency, 4000.0)
    assert np.allclose(delays / delays[-1], dispersion_coordinate(frequency))


def test_one_channel_has_a_coordinate() -> None:
    assert np.isfinite(dispersion_coordinate(np.full(256, 1400.0))).all()


def exact(rows: np.ndarray, coordinate: np.ndarray, delay: int) -> np.ndarray:
    """Sums along one delay, row by row."""
    out = np.zeros(rows.shape[1])
    for row, position in zip(rows, coordinate, strict=True):
        shift = round(delay * position)
        out[: len(out) - shift] += row[shift:]
    return out


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 100])
def test_every_track_sum_takes_every_row_once(rows: int) -> None:
    coordinate = np.linspace(0, 1, rows) if rows > 1 else np.zeros(1)
    sums = sum_tracks(np.ones((rows, 200), np.float32), coordinate, 50)
    assert np.allclose(sums[:, :149], rows)


def test_a_dispersed_pulse_stands_at_its_delay_and_start() -> None:
    coordinate = dispersion_coordinate(np.linspace(1530.0, 1211.0, 256))
    rows = np.random.default_rng(0).standard_normal((256, 600)).astype(np.float32)
    for row, position in enumerate(coordinate):
        rows[row, 200 + round(130 * position)] += 3
    sums = sum_tracks(rows, coordinate, 200)
    delay, start = np.unravel_index(np.argmax(sums), sums.shape)
    assert abs(delay - 130) <= 2 and abs(start - 200) <= 2
    assert sums.max() > 0.75 * exact(rows, coordinate, 130).max()


def test_a_batch_is_summed_frame_by_frame() -> None:
    rows = np.random.default_rng(1).standard_normal((64, 90, 3)).astype(np.float32)
    line = np.linspace(0, 1, 64)
    together = sum_tracks(rows, line, 40)
    alone = np.stack([sum_tracks(rows[:, :, i], line, 40) for i in range(3)], axis=2)
    assert np.allclose(together, alone, atol=1e-4)
