"""The physics twin makes what was asked for, and its truth is true."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from functions.pulsar.band import EFFELSBERG
from functions.pulsar.empirical import PUBLISHED, empirical_model, learn
from functions.pulsar.features import FeatureMaker, pool_samples
from functions.pulsar.frames import FramesFile
from functions.pulsar.labelled import Population, balanced, draw_frame, draw_frames, in_frame_snr, placed
from functions.pulsar.labels import CLASSES, components_of
from functions.pulsar.observation import open_observation, read_blocks
from functions.pulsar.scene import THEORETICAL, physical_pulse, track_inside
from functions.pulsar.source import Pulse
from layers.runtime import Input
from layers.runtime.testing import call
from tests.functions.pulsar.conftest import SMALL

Make = Callable[..., Path]


def truth_of(folder: Path) -> dict:
    return json.loads((folder / "request.json.truth.json").read_text())


def test_an_observation_has_the_length_and_header_asked_for(synthesise: Make) -> None:
    observation = open_observation(synthesise(**SMALL) / "request.json.fil")
    assert observation.samples == round(2.5 / 102.4e-6 / 256) * 256
    assert (observation.channels, observation.bits, observation.source_name) == (256, 8, "synthetic")
    assert observation.first_channel_mhz == 1530.0 and observation.channel_width_mhz == -1.25


def test_the_same_request_gives_the_same_bytes(synthesise: Make, tmp_path: Path) -> None:
    first = synthesise(**SMALL)
    (tmp_path / "request.json").write_text(json.dumps(SMALL, sort_keys=True))
    assert call("pulsar.synthesise", tmp_path / "request.json", tmp_path).code == 0
    for name in ("request.json.fil", "request.json.truth.json"):
        assert (tmp_path / name).read_bytes() == (first / name).read_bytes()


def test_another_seed_gives_another_observation(synthesise: Make) -> None:
    one, other = synthesise(**SMALL), synthesise(**{**SMALL, "seed": 6})
    assert (one / "request.json.fil").read_bytes() != (other / "request.json.fil").read_bytes()


def test_the_block_size_changes_neither_noise_free_truth_nor_length(synthesise: Make, tmp_path: Path) -> None:
    first = synthesise(**SMALL)
    (tmp_path / "request.json").write_text(json.dumps(SMALL, sort_keys=True))
    assert call("pulsar.synthesise", tmp_path / "request.json", tmp_path, settings={"FRAMES_PER_BLOCK": "3"}).code == 0
    assert truth_of(tmp_path) == truth_of(first)


def test_each_true_pulse_is_where_the_truth_says(synthesise: Make) -> None:
    folder = synthesise(
        seed=1, duration_s=4, pulses=30, nbrfi=0, bbrfi=0, other=0, dm_pc_cm3=[20, 80], pulse_snr=[40, 60]
    )
    observation = open_observation(folder / "request.json.fil")
    spectra = np.concatenate(list(read_blocks(folder / "request.json.fil", observation, 4096))).astype(float)
    z = (spectra - np.median(spectra, axis=0)) / spectra.std(axis=0)
    pulses = truth_of(folder)["pulses"]
    assert len(pulses) == 2
    for pulse in pulses:
        track = Pulse(pulse["time_s"], pulse["dm_pc_cm3"], 1e-3).arrivals(EFFELSBERG).round().astype(int)
        on = np.mean([z[track + shift, np.arange(256)].mean() for shift in range(-2, 3)])
        off = np.mean([z[track + shift, np.arange(256)].mean() for shift in (300, 301, 302)])
        assert on > 0.5 > abs(off) * 2


def test_the_truth_has_a_label_for_every_frame_of_the_grid(synthesise: Make) -> None:
    truth = truth_of(synthesise(**SMALL))
    assert [frame["index"] for frame in truth["frames"]] == list(range(95))
    assert truth["frames"][3]["start_s"] == pytest.approx(3 * 256 * 102.4e-6)
    assert {frame["label"] for frame in truth["frames"]} <= set(CLASSES)
    present = {part for frame in truth["frames"] for part in frame["labels"] or ["none"]}
    assert present == {"none", "pulse", "nbrfi", "bbrfi"}


def test_frames_without_anything_look_like_noise(synthesise: Make, tmp_path: Path) -> None:
    folder = synthesise(**SMALL)
    assert call("pulsar.preprocess", folder / "request.json.fil", tmp_path).code == 0
    with FramesFile(tmp_path / "request.json.fil.h5") as file:
        frames = file.read(0, 95)
    names = np.array([frame["label"] for frame in truth_of(folder)["frames"]])
    quiet = frames[names == "none"].astype(float)
    mean, sigma = quiet.mean(axis=(0, 2)), quiet.std(axis=(0, 2))
    z = (frames - mean[:, None]) / sigma[:, None]
    bright = np.abs(z[names == "bbrfi"].mean(axis=1)).max(axis=1)
    still = np.abs(z[names == "none"].mean(axis=1)).max(axis=1)
    assert np.median(bright) > 2 * np.median(still)


@pytest.mark.parametrize(
    "changes", [{"bits": 4}, {"bits": 16}, {"channels": 336}, {"channels": 100}, {"descending": False}]
)
def test_other_depths_and_channels_pass_through_preprocess(
    synthesise: Make, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = synthesise(**{"seed": 2, "duration_s": 0.2, **changes})
    assert call("pulsar.preprocess", folder / "request.json.fil", tmp_path).code == 0
    with FramesFile(tmp_path / "request.json.fil.h5") as file:
        assert len(file) == 8 and file.header.frequency_mhz[0] > file.header.frequency_mhz[-1]


def test_a_rotating_pulsar_pulses_at_its_period(synthesise: Make) -> None:
    truth = truth_of(synthesise(seed=3, duration_s=2, pulses=0, nbrfi=0, bbrfi=0, other=0, period_s=0.1))
    times = np.array([pulse["time_s"] for pulse in truth["pulses"]])
    assert 14 <= len(times) <= 21
    assert np.median(np.diff(times)) == pytest.approx(0.1, abs=0.01)
    assert {pulse["dm_pc_cm3"] for pulse in truth["pulses"]} == {56.77}


def test_labelled_frames_are_balanced_and_carry_their_truth(synthesise: Make) -> None:
    folder = synthesise(kind="frames", frames=45, seed=4, generator="both", pulse_snr=[7, 50], dm_pc_cm3=[5, 500])
    with FramesFile(folder / "request.json.h5") as file:
        labels = file.column("labels").astype(bool)
        assert file.header.kind == "collection" and len(file) == 45
        assert file.column("reference_mean").shape == (45, 256)
    truth = truth_of(folder)["frames"]
    assert np.array_equal(labels, [components_of(frame["label"]) for frame in truth])
    assert {name: sum(f["label"] == name for f in truth) for name in CLASSES} == dict.fromkeys(CLASSES, 5)
    assert {frame["generator"] for frame in truth} == {"theoretical", "empirical"}


@pytest.mark.parametrize("models", [(THEORETICAL,), (empirical_model(),)])
def test_a_drawn_frame_has_the_strength_that_it_says(models: tuple) -> None:
    population = Population(models=models, pulse_snr=(50.0, 50.0), dm_pc_cm3=(20.0, 30.0))
    power = {}
    for name in ("none", "pulse"):
        excess = []
        for frame in draw_frames(population, [name] * 16, np.random.default_rng(0)):
            z = (frame.frame - frame.reference_mean[:, None]) / frame.reference_sigma[:, None]
            excess.append(np.sum((z - np.median(z)) ** 2) - z.size)
        power[name] = np.median(excess)
    assert np.sqrt(power["pulse"] - power["none"]) == pytest.approx(50.0, rel=0.1)


def test_mixed_frames_have_one_realisation_of_noise() -> None:
    rng = np.random.default_rng(1)
    for name in ("none", "pulse+nbrfi+bbrfi"):
        spread = []
        for frame in draw_frames(Population(), [name] * 20, rng):
            z = (frame.frame - frame.reference_mean[:, None]) / frame.reference_sigma[:, None]
            spread.append(1.4826 * np.median(np.abs(z - np.median(z))))
        assert np.median(spread) == pytest.approx(1.0, abs=0.06)


def test_pulses_are_placed_anywhere_that_leaves_enough_of_the_track() -> None:
    rng = np.random.default_rng(2)
    pulse = physical_pulse(EFFELSBERG, 100.0, rng)
    starts = [placed(pulse, EFFELSBERG, rng).time_s for _ in range(60)]
    assert np.ptp(starts) > 0.09
    assert all(track_inside(Pulse(**{**vars(pulse), "time_s": start}), EFFELSBERG, 0) for start in starts)


def test_what_clips_a_corner_is_no_pulse() -> None:
    assert not track_inside(Pulse(255.5 * EFFELSBERG.sampling_time_s, 24.0, 1e-3), EFFELSBERG, 0)
    assert track_inside(Pulse(0.0, 24.0, 1e-3), EFFELSBERG, 0)


def test_references_do_not_know_the_frame() -> None:
    frame = draw_frame(Population(), "nbrfi", np.random.default_rng(3))
    rows = frame.frame.mean(axis=1) - frame.reference_mean
    assert (rows / frame.reference_sigma * 16).max() > 10


def test_a_balanced_list_is_balanced() -> None:
    names = balanced(90, np.random.default_rng(0))
    assert {name: names.count(name) for name in CLASSES} == dict.fromkeys(CLASSES, 10)


def test_the_empirical_generator_learns_bandpass_and_stripes(synthesise: Make, tmp_path: Path) -> None:
    folder = synthesise(**SMALL)
    assert call("pulsar.preprocess", folder / "request.json.fil", tmp_path).code == 0
    with FramesFile(tmp_path / "request.json.fil.h5") as file:
        template = learn(file)
        frames = file.read(0, 95)
    assert np.abs(template.mean - np.median(frames, axis=(0, 2))).max() < 1
    assert len(template.carriers) > 3 and len(template.bursts) > 3
    assert template.carriers is not PUBLISHED.carriers
    assert template.carriers[:, 0].min() >= 0 and template.carriers[:, 0].max() <= 1


def test_an_observation_can_be_resynthesised_from_frames(synthesise: Make, tmp_path: Path) -> None:
    folder = synthesise(**SMALL)
    assert call("pulsar.preprocess", folder / "request.json.fil", tmp_path).code == 0
    learned = tmp_path / "request.json.fil.h5"
    (tmp_path / "again.json").write_text(json.dumps({"generator": "empirical", "seed": 1, "duration_s": 1.0}))
    given = Input("b", "request.json.fil.h5", "0" * 64, learned)
    assert call("pulsar.synthesise", tmp_path / "again.json", tmp_path / "out", inputs=[given]).code == 0
    source = tmp_path / "out/again.json.fil"
    spectra = next(read_blocks(source, open_observation(source), 2048))
    with FramesFile(learned) as file:
        level = np.median(file.read(0, 20), axis=(0, 2))
    ratio = np.median(spectra, axis=0) / level
    assert np.std(ratio / np.median(ratio)) < 0.03


def test_in_frame_snr_adds_in_quadrature() -> None:
    one, other = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    one[0, 0], other[1, 1] = 3, 4
    assert in_frame_snr(one + other) == pytest.approx(5.0)


def test_generated_noise_is_not_told_from_its_reference() -> None:
    frames = draw_frames(Population(), ["none"] * 30, np.random.default_rng(4))
    cells = np.stack([frame.frame for frame in frames])
    made = FeatureMaker(EFFELSBERG.frequency_mhz)(
        pool_samples(cells),
        cells,
        np.stack([frame.reference_mean for frame in frames]),
        np.stack([frame.reference_sigma for frame in frames]),
    )
    assert abs(float(np.sinh(made.rows[:, 0]).mean())) < 0.3
    assert float(made.tracks.max()) < 6.5
