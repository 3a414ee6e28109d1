"""Telescope files become frames: rows, times, values, headers, and bounded memory."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.pulsar.frames import ROWS, SAMPLES, FramesFile, RowMap
from functions.pulsar.observation import open_observation, pack, read_blocks, unpack
from functions.pulsar.preprocess import block_samples
from layers.runtime.testing import call
from tests.functions.pulsar.files import dada, filterbank


def frames_of(source: Path, out: Path) -> FramesFile:
    outcome = call("pulsar.preprocess", source, out)
    assert outcome.code == 0, outcome.message
    return FramesFile(out / f"{source.name}.h5")


def ramp(samples: int, channels: int) -> np.ndarray:
    """Distinct values in time and frequency."""
    return ((np.arange(samples)[:, None] * 3 + np.arange(channels)[None, :] * 7) % 251).astype(np.uint8)


def test_every_sample_of_a_256_channel_file_stands_at_its_row_and_time(tmp_path: Path) -> None:
    spectra = ramp(600, 256)
    with frames_of(filterbank(tmp_path / "a.fil", spectra), tmp_path / "out") as file:
        frames = file.read(0, 3)
        assert len(file) == 3
        assert np.array_equal(frames[0], spectra[:256].T)
        assert np.array_equal(frames[1], spectra[256:512].T)
        assert np.array_equal(frames[2][:, :88], spectra[512:].T)


def test_what_the_last_frame_lacks_is_zero_and_the_header_says_where_it_ends(tmp_path: Path) -> None:
    with frames_of(filterbank(tmp_path / "a.fil", ramp(600, 256) | 1), tmp_path / "out") as file:
        assert not file.read(2, 3)[0][:, 88:].any()
        assert file.header.samples == 600


def test_the_first_row_is_the_highest_frequency_whatever_the_order_of_channels(tmp_path: Path) -> None:
    spectra = ramp(256, 256)
    with frames_of(filterbank(tmp_path / "down.fil", spectra), tmp_path / "o1") as file:
        down, frequency = file.read(0, 1), file.header.frequency_mhz
    reverse = filterbank(tmp_path / "up.fil", spectra[:, ::-1], fch1=1530.0 - 255 * 1.25, foff=1.25)
    with frames_of(reverse, tmp_path / "o2") as file:
        assert np.array_equal(file.read(0, 1), down)
        assert np.allclose(file.header.frequency_mhz, frequency)
        assert file.header.frequency_mhz[0] == pytest.approx(1530.0)


@pytest.mark.parametrize("channels", [257, 336, 512, 832, 1000])
def test_more_channels_than_rows_are_averaged_without_overlap(channels: int) -> None:
    row_map = RowMap(1500.0 - np.arange(channels), 8)
    assert row_map.count.sum() == channels and row_map.count.min() >= 1
    assert row_map.count.max() - row_map.count.min() <= 1
    spectra = ramp(4, channels)
    rows = row_map.rows(spectra)
    last = row_map.count[-1]
    assert np.array_equal(rows[-1], np.rint(spectra[:, -last:].mean(axis=1)))
    assert row_map.frequency_mhz[0] == pytest.approx(np.mean(1500.0 - np.arange(row_map.count[0])))


@pytest.mark.parametrize("channels", [1, 2, 64, 100, 255])
def test_fewer_channels_than_rows_repeat_in_order(channels: int) -> None:
    row_map = RowMap(1500.0 - np.arange(channels), 8)
    rows = row_map.rows(ramp(3, channels))
    assert rows.shape == (ROWS, 3)
    assert np.array_equal(rows[:, 0], ramp(3, channels)[0][np.arange(ROWS) * channels // ROWS])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_samples_below_8_bits_fill_the_range_of_a_byte(tmp_path: Path, bits: int) -> None:
    levels = np.random.default_rng(1).integers(0, 1 << bits, (256, 256)).astype(np.uint8)
    source = filterbank(tmp_path / "a.fil", pack(levels.reshape(-1), bits).tobytes(), nbits=bits)
    with frames_of(source, tmp_path / "out") as file:
        frame = file.read(0, 1)[0]
        assert np.array_equal(np.rint(frame / file.header.scale), levels.T)
        assert frame.max() == 255


def test_16_bit_samples_keep_their_values(tmp_path: Path) -> None:
    spectra = np.random.default_rng(2).integers(0, 65536, (256, 256)).astype("<u2")
    with frames_of(filterbank(tmp_path / "a.fil", spectra, nbits=16), tmp_path / "out") as file:
        assert np.array_equal(file.read(0, 1)[0], spectra.T)


def test_two_polarisations_are_averaged(tmp_path: Path) -> None:
    pair = np.random.default_rng(3).integers(0, 200, (256, 2, 256)).astype(np.uint8)
    with frames_of(filterbank(tmp_path / "a.fil", pair, nifs=2), tmp_path / "out") as file:
        assert np.array_equal(file.read(0, 1)[0], (pair.astype(int).sum(axis=1) >> 1).T)


def test_a_psrdada_file_gives_the_same_frames_as_the_filterbank(tmp_path: Path) -> None:
    spectra = ramp(512, 256)
    with frames_of(filterbank(tmp_path / "a.fil", spectra), tmp_path / "o1") as file:
        expected, frequency = file.read(0, 2), file.header.frequency_mhz
    with frames_of(dada(tmp_path / "a.dada", spectra), tmp_path / "o2") as file:
        assert np.array_equal(file.read(0, 2), expected)
        assert np.allclose(file.header.frequency_mhz, frequency)
        assert file.header.source_name == "B0531+21"
        assert file.header.start_mjd == 59000.5
        assert file.header.sampling_time_s == pytest.approx(102.4e-6)


def test_a_psrdada_start_may_be_a_utc_time(tmp_path: Path) -> None:
    source = dada(tmp_path / "a.dada", ramp(256, 256), MJD_START="", UTC_START="2020-05-31-11:36:46")
    assert open_observation(source).start_mjd == pytest.approx(59000.483866, abs=1e-6)


def test_the_fraction_of_a_psrdada_start_counts(tmp_path: Path) -> None:
    whole = dada(tmp_path / "a.dada", ramp(256, 256), MJD_START="", UTC_START="2020-05-31-11:36:46")
    half = dada(tmp_path / "b.dada", ramp(256, 256), MJD_START="", UTC_START="2020-05-31-11:36:46.75")
    later = open_observation(half).start_mjd - open_observation(whole).start_mjd
    assert later * 86400 == pytest.approx(0.75, abs=2e-6)


@pytest.mark.parametrize("start", [{}, {"MJD_START": "", "UTC_START": "2020-05-31-12:00:00"}])
def test_a_later_psrdada_file_of_an_observation_starts_later(tmp_path: Path, start: dict[str, str]) -> None:
    pair = np.zeros((256, 512), np.uint8)  # 256 channels of 2 polarisations
    source = dada(tmp_path / "a.dada", pair, NCHAN="256", NPOL="2", OBS_OFFSET=str(512 * 100_000), **start)
    assert (open_observation(source).start_mjd - 59000.5) * 86400 == pytest.approx(10.24, abs=2e-6)


def test_the_offset_of_a_psrdada_file_gives_no_start_where_none_is_known(tmp_path: Path) -> None:
    source = dada(tmp_path / "a.dada", ramp(256, 256), MJD_START="", OBS_OFFSET="25600000")
    assert open_observation(source).start_mjd == 0.0


def test_the_frames_carry_the_facts_of_the_observation(tmp_path: Path) -> None:
    source = filterbank(tmp_path / "a b ä.fil", nchans=336, foff=-1.0, source_name="FRB")
    with frames_of(source, tmp_path / "out") as file:
        header = file.header
    assert (header.source_name, header.telescope_id, header.start_mjd) == ("FRB", 8, 59000.5)
    assert (header.channels, header.bits, header.input_bytes) == (336, 8, source.stat().st_size)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    source = filterbank(tmp_path / "a.fil")
    frames_of(source, tmp_path / "o1")
    frames_of(source, tmp_path / "o2")
    assert (tmp_path / "o1/a.fil.h5").read_bytes() == (tmp_path / "o2/a.fil.h5").read_bytes()


def test_the_block_size_does_not_change_the_frames(tmp_path: Path) -> None:
    source = filterbank(tmp_path / "a.fil", ramp(1500, 256))
    one = call("pulsar.preprocess", source, tmp_path / "o1", settings={"FRAMES_PER_BLOCK": "1"})
    many = call("pulsar.preprocess", source, tmp_path / "o2")
    assert one.code == many.code == 0
    with FramesFile(tmp_path / "o1/a.fil.h5") as a, FramesFile(tmp_path / "o2/a.fil.h5") as b:
        assert np.array_equal(a.read(0, 6), b.read(0, 6))


@pytest.mark.parametrize("channels, polarisations", [(1, 1), (256, 1), (256, 2), (4096, 2), (65536, 1), (65536, 2)])
def test_a_block_is_whole_frames_of_bounded_bytes(tmp_path: Path, channels: int, polarisations: int) -> None:
    spectrum = bytes(channels * polarisations)
    source = filterbank(tmp_path / "a.fil", spectrum, nchans=channels, nifs=polarisations, foff=-1e-3)
    samples = block_samples(open_observation(source), 64)
    assert samples % 256 == 0 and 256 <= samples <= 64 * 256
    assert samples == 256 or samples * channels * polarisations * 4 <= 64 << 20


@given(bits=st.sampled_from([1, 2, 4]), data=st.data())
def test_packed_samples_come_back(bits: int, data: st.DataObject) -> None:
    samples = data.draw(
        st.lists(st.integers(0, (1 << bits) - 1), min_size=8, max_size=64).filter(lambda x: len(x) % 8 == 0)
    )
    values = np.array(samples, np.uint8)
    assert np.array_equal(unpack(pack(values, bits), bits), values)


@settings(max_examples=40)
@given(
    channels=st.integers(1, 600),
    samples=st.integers(1, 700),
    block=st.integers(1, 400),
    ascending=st.booleans(),
)
def test_blocks_cover_any_file_once(
    tmp_path_factory: pytest.TempPathFactory, channels: int, samples: int, block: int, ascending: bool
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "a.fil"
    spectra = ramp(samples, channels)
    filterbank(path, spectra, nchans=channels, foff=0.5 if ascending else -0.5, fch1=1500.0)
    observation = open_observation(path)
    assert np.array_equal(np.concatenate(list(read_blocks(path, observation, block))), spectra)


def test_the_samples_of_a_frame_are_256() -> None:
    assert SAMPLES == 256


def test_the_frames_file_is_readable_by_any_hdf5_reader(tmp_path: Path) -> None:
    frames_of(filterbank(tmp_path / "a.fil"), tmp_path / "out")
    with h5py.File(tmp_path / "out/a.fil.h5") as file:
        assert file["frames"].shape == (2, 256, 256)
        assert file["frames"].dtype == np.uint8
        json.dumps({key: str(value) for key, value in file.attrs.items()})
