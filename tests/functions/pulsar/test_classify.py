"""From frames to labels, events, kept frames and a picture."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from functions.pulsar import classifier
from functions.pulsar.classify import final_labels, kept_frames
from functions.pulsar.confirm import Event
from functions.pulsar.frames import FramesFile
from functions.pulsar.labels import CLASSES
from layers.runtime.testing import call
from tests.functions.pulsar.conftest import SMALL
from tests.functions.pulsar.files import filterbank

Make = Callable[..., Path]
Through = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def found(synthesise: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small observation through the whole chain, with its truth and its picture."""
    folder = synthesise(**SMALL)
    out = tmp_path_factory.mktemp("classified")
    assert call("pulsar.preprocess", folder / "request.json.fil", out).code == 0
    outcome = call("pulsar.classify", out / "request.json.fil.h5", out)
    assert outcome.code == 0, outcome.message
    stem = out / "request.json.fil.h5"
    return {
        "frames": stem,
        "out": out,
        "labels": json.loads(Path(f"{stem}.labels.json").read_text()),
        "summary": json.loads(Path(f"{stem}.summary.json").read_text()),
        "truth": json.loads((folder / "request.json.truth.json").read_text()),
    }


def test_most_frames_are_labelled_as_they_truly_are(found: dict[str, Any]) -> None:
    pairs = zip(found["labels"]["frames"], found["truth"]["frames"], strict=True)
    assert np.mean([given["label"] == true["label"] for given, true in pairs]) >= 0.9


def test_the_true_pulse_is_an_event(found: dict[str, Any]) -> None:
    assert found["truth"]["pulses"]
    for pulse in found["truth"]["pulses"]:
        events = found["summary"]["events"]
        near = [e for e in events if abs(e["time_s"] - pulse["time_s"]) < 5e-3]
        assert near and near[0]["dm_pc_cm3"] == pytest.approx(pulse["dm_pc_cm3"], rel=0.05)
    assert len(found["summary"]["events"]) == len(found["truth"]["pulses"])


def test_labels_sum_to_the_frames_and_bytes_to_the_bytes(found: dict[str, Any]) -> None:
    summary = found["summary"]
    assert list(summary["labels"]) == list(CLASSES)
    assert sum(summary["labels"].values()) == summary["frames"]["in"] == 95
    assert summary["frames"]["kept"] + summary["frames"]["dropped"] == 95
    assert summary["bytes"]["kept"] + summary["bytes"]["dropped"] == summary["bytes"]["in"] == 95 * 65536
    assert summary["original_bytes"] > 95 * 65536


def test_the_labels_and_the_summary_agree(found: dict[str, Any]) -> None:
    names = [frame["label"] for frame in found["labels"]["frames"]]
    assert {name: names.count(name) for name in CLASSES} == found["summary"]["labels"]
    assert sum(frame["kept"] for frame in found["labels"]["frames"]) == found["summary"]["frames"]["kept"]
    for frame in found["labels"]["frames"]:
        assert set(frame["probabilities"]) == {"pulse", "nbrfi", "bbrfi", "other"}


def test_empty_intervals_hold_only_frames_of_nothing(found: dict[str, Any]) -> None:
    frames = found["labels"]["frames"]
    duration = 256 * 102.4e-6
    total = 0
    for interval in found["summary"]["empty_intervals"]:
        first = round(interval["start_s"] / duration)
        assert {frames[i]["label"] for i in range(first, first + interval["frames"])} == {"none"}
        assert interval["length_s"] == pytest.approx(interval["frames"] * duration)
        assert interval["std_sigma"] == pytest.approx(1.0, abs=0.1)
        total += interval["frames"]
    assert total == sum(frame["label"] == "none" and not frame["kept"] for frame in frames)


def test_kept_frames_are_the_original_ones_with_neighbours(found: dict[str, Any]) -> None:
    with FramesFile(found["frames"]) as all_frames, FramesFile(Path(f"{found['frames']}.kept.h5")) as kept:
        index = kept.index
        assert np.array_equal(kept.read(0, len(kept)), np.concatenate([all_frames.read(i, i + 1) for i in index]))
        digests = [hashlib.sha256(kept.read(i, i + 1).tobytes()).hexdigest() for i in range(len(kept))]
    assert digests == [frame["sha256"] for frame in found["summary"]["kept_frames"]]
    touched = {i for event in found["summary"]["events"] for i in event["frames"]}
    assert touched <= set(index.tolist())
    assert all(min(abs(i - t) for t in touched) <= 1 for i in index.tolist())


def test_the_kept_frames_can_be_classified_again(found: dict[str, Any], tmp_path: Path) -> None:
    kept = Path(f"{found['frames']}.kept.h5")
    assert call("pulsar.classify", kept, tmp_path, settings={"PICTURE": "no"}).code == 0
    again = json.loads((tmp_path / f"{kept.name}.summary.json").read_text())
    assert [round(event["time_s"], 3) for event in again["events"]] == [
        round(event["time_s"], 3) for event in found["summary"]["events"]
    ]


def test_the_same_frames_give_the_same_bytes(found: dict[str, Any], tmp_path: Path) -> None:
    assert call("pulsar.classify", found["frames"], tmp_path).code == 0
    for suffix in ("labels.json", "kept.h5", "summary.json", "png"):
        name = f"{found['frames'].name}.{suffix}"
        assert (tmp_path / name).read_bytes() == (found["out"] / name).read_bytes(), suffix


def test_the_picture_is_a_picture(found: dict[str, Any]) -> None:
    picture = Path(f"{found['frames']}.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 2_000_000
    assert b"tIME" not in picture and b"Software" not in picture


def test_a_synchronous_call_answers_with_the_labels(found: dict[str, Any], tmp_path: Path) -> None:
    outcome = call("pulsar.classify", found["frames"], tmp_path, reply=True)
    assert outcome.code == 0 and [output.path for output in outcome.outputs] == ["request.json.fil.h5.labels.json"]


def test_a_label_depends_on_no_later_frame(found: dict[str, Any], tmp_path: Path) -> None:
    with FramesFile(found["frames"]) as file, h5py.File(tmp_path / "half.h5", "w") as half:
        for key in ("frames", "index"):
            half[key] = file.column(key, 0, 48)
        half["frequency_mhz"] = file.header.frequency_mhz
        for key, value in file._file.attrs.items():
            half.attrs[key] = value
        half.attrs["samples"] = 48 * 256
    assert call("pulsar.classify", tmp_path / "half.h5", tmp_path / "out", settings={"PICTURE": "no"}).code == 0
    labels = json.loads((tmp_path / "out/half.h5.labels.json").read_text())["frames"]
    for short, whole in zip(labels, found["labels"]["frames"], strict=False):
        assert short["probabilities"] == pytest.approx(whole["probabilities"], abs=2e-3)


@pytest.mark.parametrize("samples", [1, 100, 256, 300, 700])
def test_a_file_of_a_few_samples_or_frames_is_labelled(tmp_path: Path, through: Through, samples: int) -> None:
    noise = np.random.default_rng(samples).normal(100, 15, (samples, 256)).clip(0, 255).astype(np.uint8)
    result = through(filterbank(tmp_path / "short.fil", noise))
    assert result["summary"]["frames"] == {"in": -(-samples // 256), "kept": 0, "dropped": -(-samples // 256)}


def test_constant_samples_are_labelled_without_a_warning(tmp_path: Path, through: Through) -> None:
    flat = np.full((1024, 256), 7, np.uint8)
    assert through(filterbank(tmp_path / "flat.fil", flat))["summary"]["frames"]["kept"] == 0


def test_a_picture_is_drawn_without_any_event_and_for_any_name(tmp_path: Path) -> None:
    source = filterbank(tmp_path / "Näme mit $ und 漢字.fil", source_name="$x_{y$")
    assert call("pulsar.preprocess", source, tmp_path).code == 0
    outcome = call("pulsar.classify", tmp_path / f"{source.name}.h5", tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / f"{source.name}.h5.png").stat().st_size > 5000


def test_labelled_frames_are_judged_one_by_one_against_their_own_references(synthesise: Make, tmp_path: Path) -> None:
    folder = synthesise(kind="frames", frames=45, seed=4, pulse_snr=[20, 50], dm_pc_cm3=[5, 500])
    assert call("pulsar.classify", folder / "request.json.h5", tmp_path, settings={"PICTURE": "no"}).code == 0
    labels = json.loads((tmp_path / "request.json.h5.labels.json").read_text())["frames"]
    truth = json.loads((folder / "request.json.truth.json").read_text())["frames"]
    assert np.mean([a["label"] == b["label"] for a, b in zip(labels, truth, strict=True)]) >= 0.75


def test_loose_frames_without_references_are_judged_against_themselves(synthesise: Make, tmp_path: Path) -> None:
    folder = synthesise(kind="frames", frames=18, seed=4, pulse_snr=[20, 50], dm_pc_cm3=[5, 500])
    (tmp_path / "loose.h5").write_bytes((folder / "request.json.h5").read_bytes())
    with h5py.File(tmp_path / "loose.h5", "r+") as file:
        del file["reference_mean"], file["reference_sigma"]
    outcome = call("pulsar.classify", tmp_path / "loose.h5", tmp_path / "out", settings={"PICTURE": "no"})
    assert outcome.code == 0, outcome.message


def event(frames: tuple[int, ...], snr: tuple[float, ...]) -> Event:
    return Event(1.0, 57.0, 0.1, 1e-3, 12.0, 0.06, frames, snr)


THRESHOLDS = np.full(4, 0.5)


def test_a_suspected_pulse_without_an_event_is_no_pulse() -> None:
    labels = final_labels(np.array([[0.9, 0.1, 0.1, 0.1]]), np.array([0]), [], THRESHOLDS)
    assert not labels.any()


def test_an_event_makes_a_pulse_where_it_is_strong_or_suspected() -> None:
    probabilities = np.array([[0.1, 0, 0, 0], [0.9, 0, 0, 0], [0.1, 0, 0, 0]])
    labels = final_labels(probabilities, np.arange(3), [event((0, 1, 2), (8.0, 4.0, 4.0))], THRESHOLDS)
    assert labels[:, 0].tolist() == [True, True, False]


def test_a_strong_event_overrules_other() -> None:
    labels = final_labels(np.array([[0.1, 0, 0, 0.9]]), np.array([5]), [event((5,), (9.0,))], THRESHOLDS)
    assert labels[0].tolist() == [True, False, False, False]


def test_neighbours_are_kept() -> None:
    kept = kept_frames(np.arange(10), [event((4, 5), (8.0, 8.0))], 2)
    assert np.flatnonzero(kept).tolist() == [2, 3, 4, 5, 6, 7]


def test_a_model_that_is_none_is_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    filterbank(tmp_path / "a.fil")
    call("pulsar.preprocess", tmp_path / "a.fil", tmp_path)
    sentence = refusal(
        "pulsar.classify", tmp_path / "a.fil.h5", DIOSCAR_MODEL_PULSAR_CLASSIFIER=str(tmp_path / "model.onnx")
    )
    assert "model.onnx" in sentence


def test_the_shipped_model_is_small_and_says_what_it_is() -> None:
    path = Path(classifier.__file__).parent / "pulsar-classifier.onnx"
    assert path.stat().st_size < 2_000_000
    model = classifier.load(path)
    assert {"format", "inputs", "units", "training_range", "request", "thresholds", "trigger"} <= set(model.metadata)
    recorded = json.loads(model.metadata["request"])
    shipped = json.loads((path.parent / "train_request.json").read_text())
    assert recorded == {**recorded, **shipped}


@pytest.mark.parametrize(
    "name, value",
    [
        ("SNR_MIN", "1"),
        ("SNR_MIN", "nan"),
        ("SNR_MIN", "inf"),
        ("DM_MIN", "-1"),
        ("DM_MIN", "nan"),
        ("DM_MAX", "nan"),
        ("DM_MAX", "inf"),
        ("TRACK_TRIGGER", "nan"),
        ("TRACK_TRIGGER", "inf"),
        ("BATCH_FRAMES", "0"),
        ("NEIGHBOURS", "-1"),
    ],
)
def test_an_impossible_setting_is_refused(tmp_path: Path, refusal: Callable[..., str], name: str, value: str) -> None:
    (tmp_path / "x.h5").write_bytes(b"x")
    assert name in refusal("pulsar.classify", tmp_path / "x.h5", **{name: value})
