"""Every bad input gets one sentence that names the file and the field; nothing is left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.pulsar.observation import open_observation
from layers.runtime import InputError
from layers.runtime.testing import call
from tests.functions.pulsar.files import dada, filterbank, header

Refusal = Callable[..., str]
GROUP = object()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"nchans": 0}, "0 channels"),
        ({"nchans": -4}, "-4 channels"),
        ({"nbits": 32}, "32-bit float"),
        ({"nbits": 7}, "7 bits"),
        ({"tsamp": 0.0}, "sampling time"),
        ({"tsamp": -1e-4}, "sampling time"),
        ({"tsamp": float("nan")}, "sampling time"),
        ({"fch1": float("inf")}, "frequency"),
        ({"fch1": -1400.0}, "MHz"),
        ({"foff": -10.0}, "MHz"),
        ({"foff": 0.0}, "channel width"),
        ({"nifs": 4}, "polarisations"),
        ({"nbits": 1, "nchans": 13}, "whole bytes"),
        ({"tstart": float("nan")}, "start MJD"),
        ({"nsamples": 1000}, "truncated"),
        ({"signed": 1}, "signed"),
        ({"tsamp": None}, "tsamp"),
        ({"nchans": None}, "nchans"),
        ({"foff": None}, "foff"),
    ],
)
def test_an_impossible_filterbank_header_is_refused(
    tmp_path: Path, refusal: Refusal, changes: dict[str, Any], words: str
) -> None:
    source = filterbank(tmp_path / "spät am Tag.fil", b"x" * 512 * 256, **changes)
    sentence = refusal("pulsar.preprocess", source)
    assert words in sentence
    assert sentence.startswith("spät am Tag.fil: ")
    assert ";" in sentence, "it must say what to do"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(5000), "no filterbank"),
        (b"\x0c\x00\x00\x00HEADER_STOP", "no filterbank"),
        (b"SIMPLE  =                    T", "FITS"),
        (header()[:100], "truncated"),
        (header(), "no samples"),
        (header() + b"x" * 1000, "truncated"),
        (header()[:20] + b"\xff\xff\xff\x7f" + bytes(40), "damaged"),
        (header().replace(b"telescope_id", b"telescape_id"), "keyword"),
    ],
)
def test_what_is_no_whole_filterbank_is_refused(tmp_path: Path, refusal: Refusal, content: bytes, words: str) -> None:
    source = tmp_path / "a.fil"
    source.write_bytes(content)
    assert words in refusal("pulsar.preprocess", source)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"NCHAN": "0"}, "0 channels"),
        ({"NCHAN": "many"}, "NCHAN"),
        ({"NBIT": "32"}, "32-bit float"),
        ({"NDIM": "2"}, "NDIM"),
        ({"TSAMP": ""}, "TSAMP"),
        ({"TSAMP": "nan"}, "TSAMP"),
        ({"BW": ""}, "BW"),
        ({"ORDER": "FT"}, "ORDER"),
        ({"OBS_OFFSET": "-512"}, "OBS_OFFSET"),
        ({"OBS_OFFSET": "much"}, "OBS_OFFSET"),
        ({"HDR_SIZE": "-1"}, "HDR_SIZE"),
        ({"HDR_SIZE": "9999999"}, "HDR_SIZE"),
        ({"MJD_START": "", "UTC_START": "yesterday"}, "UTC_START"),
        ({"MJD_START": "", "UTC_START": "2020-05-31-11:36:46.x"}, "UTC_START"),
        ({"NCHAN": "257"}, "truncated"),
    ],
)
def test_an_impossible_psrdada_header_is_refused(
    tmp_path: Path, refusal: Refusal, changes: dict[str, str], words: str
) -> None:
    source = dada(tmp_path / "a.dada", np.zeros((256, 256), np.uint8), **changes)
    assert words in refusal("pulsar.preprocess", source)


def test_more_channels_than_memory_allows_are_refused(tmp_path: Path, refusal: Refusal) -> None:
    source = filterbank(tmp_path / "a.fil", bytes(65537 * 2), nchans=65537, foff=-1e-3)
    sentence = refusal("pulsar.preprocess", source)
    assert sentence.startswith("a.fil: nchans: ") and "average" in sentence


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_header_is_more_than_an_input_error(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(header() + bytes(256 * 300))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 320))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.fil"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        observation = open_observation(path)
    except InputError as refused:
        sentence = str(refused)
    else:
        sentence = f"a.fil: {observation.samples} samples"
    assert sentence.startswith("a.fil: ")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200))
def test_no_text_header_is_more_than_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.dada"
    path.write_bytes(b"HDR_SIZE 4096\n" + text.encode() + bytes(4096))
    with pytest.raises(InputError, match=r"a\.dada: "):
        open_observation(path)


def broken(path: Path, **changes: Any) -> Path:
    """A frames file of which something is wrong."""
    source = filterbank(path.parent / "good.fil")
    call("pulsar.preprocess", source, path.parent / "good")
    path.write_bytes((path.parent / "good/good.fil.h5").read_bytes())
    return altered(path, **changes)


def altered(path: Path, **changes: Any) -> Path:
    """The same frames file with other attributes and datasets; None removes one, GROUP puts a group in its place."""
    with h5py.File(path, "r+") as file:
        for key, value in changes.items():
            if key in file.attrs:
                if value is None:
                    del file.attrs[key]
                else:
                    file.attrs[key] = value
            else:
                if key in file:
                    del file[key]
                if value is GROUP:
                    file.create_group(key)
                elif value is not None:
                    file[key] = value
    return path


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"format": "something"}, "no pulsar frames"),
        ({"version": 99}, "version"),
        ({"frames": None}, "frames"),
        ({"frames": np.zeros((2, 128, 128), np.uint8)}, "frames"),
        ({"frames": np.zeros((2, 256, 256), np.float32)}, "frames"),
        ({"frames": np.zeros((0, 256, 256), np.uint8)}, "no frame"),
        ({"index": np.zeros(5, np.int64)}, "index"),
        ({"frequency_mhz": np.zeros(256)}, "frequency_mhz"),
        ({"sampling_time_s": 0.0}, "sampling_time_s"),
        ({"samples": None}, "samples"),
    ],
)
def test_classify_refuses_what_is_no_frames_file(
    tmp_path: Path, refusal: Refusal, changes: dict[str, Any], words: str
) -> None:
    sentence = refusal("pulsar.classify", broken(tmp_path / "x.h5", **changes))
    assert words in sentence and sentence.startswith("x.h5: ")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"version": "x"}, "version"),
        ({"version": np.ones(3, int)}, "version"),
        ({"format": np.ones(3, int)}, "format"),
        ({"samples": np.inf}, "samples"),
        ({"samples": 0}, "samples"),
        ({"samples": -5}, "samples"),
        ({"kind": "foo"}, "kind"),
        ({"kind": 3}, "kind"),
        ({"source_name": np.ones(3, int)}, "source_name"),
        ({"bits": 16}, "bits"),
        ({"bits": 5}, "bits"),
        ({"channels": 0}, "channels"),
        ({"scale": 0.0}, "scale"),
        ({"start_mjd": np.nan}, "start_mjd"),
        ({"start_mjd": h5py.Empty("f8")}, "start_mjd"),
        ({"frames": GROUP}, "frames"),
        ({"frames": h5py.Empty("u1")}, "frames"),
        ({"frequency_mhz": GROUP}, "frequency_mhz"),
        ({"frequency_mhz": np.full(256, 1e-300)}, "frequency_mhz"),
        ({"frequency_mhz": np.full(256, np.nan)}, "frequency_mhz"),
        ({"frequency_mhz": np.arange(1000.0, 1256.0)}, "frequency_mhz"),
        ({"index": np.array([b"a", b"b"])}, "index"),
        ({"index": np.array([0.0, 1.0])}, "index"),
        ({"index": np.array([0.0, np.nan])}, "index"),
        ({"index": np.array([1, 1])}, "index"),
        ({"index": np.array([1, 0])}, "index"),
        ({"index": np.array([-1, 0])}, "index"),
        ({"index": np.array([0, 1 << 62])}, "index"),
        ({"reference_mean": np.ones((1, 256))}, "reference_mean"),
        ({"reference_mean": np.ones(2)}, "reference_mean"),
        ({"reference_mean": np.full((2, 256), b"a")}, "reference_mean"),
        ({"reference_mean": np.full((2, 256), np.nan)}, "reference_mean"),
        ({"reference_sigma": np.full((2, 256), np.inf)}, "reference_sigma"),
        ({"reference_mean": GROUP}, "reference_mean"),
    ],
)
def test_classify_refuses_what_was_edited_into_nonsense(
    tmp_path: Path, refusal: Refusal, changes: dict[str, Any], words: str
) -> None:
    path = broken(tmp_path / "x.h5", reference_mean=np.ones((2, 256)), reference_sigma=np.ones((2, 256)))
    sentence = refusal("pulsar.classify", altered(path, **changes))
    assert words in sentence and sentence.startswith("x.h5: ") and ";" in sentence


@pytest.mark.parametrize("name", ["frames", "index", "frequency_mhz", "reference_mean"])
@pytest.mark.parametrize("way", ["external storage", "external link", "soft link", "virtual"])
def test_classify_reads_no_other_file_of_the_host(tmp_path: Path, refusal: Refusal, name: str, way: str) -> None:
    path = broken(tmp_path / "x.h5", reference_mean=np.ones((2, 256)), reference_sigma=np.ones((2, 256)))
    secret = tmp_path / "secret.h5"
    secret.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        shape, dtype, size = file[name].shape, file[name].dtype, file[name].nbytes
        file.move(name, "hidden")
        if way == "external storage":
            file.create_dataset(name, shape, dtype, external=[(str(secret), 0, size)])
        elif way == "external link":
            file[name] = h5py.ExternalLink(str(secret), name)
        elif way == "soft link":
            file[name] = h5py.SoftLink("/hidden")
        else:
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(secret), name, shape)
            file.create_virtual_dataset(name, layout)
    sentence = refusal("pulsar.classify", path)
    assert sentence.startswith(f"x.h5: {name}: ") and ";" in sentence


@pytest.mark.parametrize("content, words", [(b"", "empty"), (b"not HDF5" * 100, "no HDF5")])
def test_classify_refuses_what_is_no_hdf5(tmp_path: Path, refusal: Refusal, content: bytes, words: str) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    assert words in refusal("pulsar.classify", tmp_path / "x.h5")


def test_classify_refuses_a_truncated_frames_file(tmp_path: Path, refusal: Refusal) -> None:
    path = broken(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:-70000])
    assert "x.h5: " in refusal("pulsar.classify", path)


@pytest.mark.parametrize(
    "request_text, words",
    [
        ("no json", "no JSON"),
        ('{"duration_s": -1}', "duration_s"),
        ('{"durations": 1}', "durations"),
        ('{"bits": 9}', "bits"),
        ('{"channels": 0}', "channels"),
        ('{"channels": 3, "bits": 1}', "channels"),
        ('{"bandwidth_mhz": 9000}', "bandwidth_mhz"),
        ('{"dm_pc_cm3": [10]}', "dm_pc_cm3"),
        ('{"pulse_snr": [20, 10]}', "pulse_snr"),
        ('{"period_s": 1e-5}', "period_s"),
        ('{"kind": "frames", "classes": ["signal"]}', "signal"),
        ('{"kind": "frames", "channels": 512}', "channels"),
        ('{"generator": "both"}', "both"),
        ('{"seed": -1}', "seed"),
        ('{"duration_s": 1, "pulses": 999999}', "pulses"),
        ('{"duration_s": 1e6, "nbrfi": 999999}', "nbrfi"),
        ('{"duration_s": 1e5, "nbrfi": 6e4}', "nbrfi"),
        ('{"duration_s": 1e4, "period_s": 1e-3}', "period_s"),
        ('{"duration_s": 9e6, "sampling_time_us": 1e-6}', "sampling_time_us"),
        ('{"duration_s": 1e6, "channels": 65536}', "channels"),
        ('{"kind": "frames", "frames": 99999999999}', "frames"),
        ('{"dm_pc_cm3": [1e300, 1e301]}', "dm_pc_cm3"),
        ('{"pulsar_dm_pc_cm3": NaN}', "pulsar_dm_pc_cm3"),
        ('{"pulse_snr": [10, Infinity]}', "pulse_snr"),
        ('{"centre_mhz": 1e-300, "bandwidth_mhz": 1e-301}', "centre_mhz"),
    ],
)
def test_synthesise_refuses_an_impossible_request(
    tmp_path: Path, refusal: Refusal, request_text: str, words: str
) -> None:
    (tmp_path / "r.json").write_text(request_text)
    assert words in refusal("pulsar.synthesise", tmp_path / "r.json")


@pytest.mark.parametrize("request_text, words", [('{"epochs": 0}', "epochs"), ('{"generators": "all"}', "generators")])
def test_train_refuses_an_impossible_request(tmp_path: Path, refusal: Refusal, request_text: str, words: str) -> None:
    (tmp_path / "r.json").write_text(request_text)
    assert words in refusal("pulsar.train", tmp_path / "r.json")
