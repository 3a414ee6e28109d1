"""Validation: what is as good as the truth is promoted, what is not is refused with reasons; bad requests."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from functions.calorimeter import gate, hdf5
from functions.calorimeter.validation import bands, cells
from layers.runtime.function import sha256_of
from tests.functions.calorimeter.tiny_model import tiny_model
from tests.functions.calorimeter.validated import (
    SMALL,
    given,
    nature,
    refusals,
    report_of,
    small_model,
    validate,
    version,
)

MANY, FEW = 2400, 150


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the function's own, but for fewer showers, in one band, with a smaller network."""
    whole = gate.gate
    monkeypatch.setattr("functions.calorimeter.gate.gate", lambda: whole(MANY))
    monkeypatch.setattr(bands, "PARTS", 1)
    monkeypatch.setattr(bands, "RESAMPLES", 20)
    monkeypatch.setattr(cells, "HIDDEN", 32)
    monkeypatch.setattr(cells, "EPOCHS", 12)
    monkeypatch.setattr(cells, "RATE", 2e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Showers that nobody has seen, and those that candidates were trained on."""
    folder = tmp_path_factory.mktemp("nature")
    return nature(folder / "unseen.h5", MANY, 1), nature(folder / "seen.h5", MANY, 2)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("few")
    return nature(folder / "unseen.h5", FEW, 3), nature(folder / "seen.h5", FEW, 4)


def test_what_is_as_good_as_the_truth_is_promoted(
    files: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unseen, seen = files
    inputs = [*version(tmp_path / "c", small_model(), [seen]), given(unseen)]
    outcome = validate(tmp_path, inputs, {"showers": MANY, "seed": 1})
    assert outcome.code == 0, outcome.message
    report = report_of(tmp_path)
    assert refusals(report) == [] and report["passed"] is True
    assert all(found["valid"] for found in report["classifiers"].values())
    (promotion,) = (tmp_path / "out/promotions").iterdir()
    digest = sha256_of(tmp_path / "c/model.onnx")
    data = (tmp_path / "out/v.json.report.json").read_bytes()
    told = json.loads(promotion.read_text())
    assert (told["sha256"], told["report"]) == (digest, hashlib.sha256(data).hexdigest())
    (kept,) = (tmp_path / f"out/versions/{digest[:16]}/reports").iterdir()
    assert kept.read_bytes() == data
    assert f"version {digest[:16]} promoted as number 1" in capfd.readouterr().out


def test_a_wrong_gain_is_refused_by_name_and_the_page_needs_nothing_else(
    few: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unseen, seen = few
    inputs = [*version(tmp_path / "c", small_model(0.93), [seen]), given(unseen)]
    for name in ("one", "two"):
        outcome = validate(tmp_path / name, inputs, {"seed": 1})
        assert outcome.code == 0, outcome.message
        assert not any("promotions/" in output.path for output in outcome.outputs)
    told = refusals(report_of(tmp_path / "one"))
    assert any(sentence.startswith("gain (e-): 0.9") for sentence in told)
    assert any("samples, fewer than the" in sentence for sentence in told), "and so few promote nothing"
    assert "refused: gain (e-)" in capfd.readouterr().out
    html = (tmp_path / "one/out/v.json.report.html").read_text()
    assert "<script" not in html and not re.search(r'(src|href)="(?!data:)', html) and "url(" not in html
    assert html.count("data:image/png;base64,") == 12 and len(html) < 3_000_000
    for name in ("v.json.report.json", "v.json.report.html"):
        assert (tmp_path / "one/out" / name).read_bytes() == (tmp_path / "two/out" / name).read_bytes()


def reasons_of(folder: Path, inputs: list[Any], monkeypatch: pytest.MonkeyPatch, **others: Any) -> list[str]:
    """Refusals that are there before anything is measured."""
    from functions.calorimeter import validate as module

    found: list[str] = []

    def judged(comparison: Any, settings: Any, _seed: int) -> Any:
        found.extend(reason.sentence for reason in module._before(comparison, settings) if not reason.passed)
        raise module.InputError("enough")

    monkeypatch.setattr(module, "_judged", judged)
    outcome = validate(folder, inputs, {}, **others)
    assert outcome.code == 65 and outcome.message.endswith("enough"), outcome.message
    return found


def test_a_training_file_that_nobody_names_leaves_replays_unseen(
    few: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen, seen = few
    *model, _ = version(tmp_path / "c", small_model(), [seen])
    (sentence,) = reasons_of(tmp_path, [*model, given(unseen)], monkeypatch)
    assert "1 of the 1 files are not among the inputs" in sentence and "replays" in sentence


def test_showers_that_were_learned_from_are_no_test(
    few: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen, seen = few
    with hdf5.ShowersHdf5(seen) as one, hdf5.ShowersHdf5(unseen) as two:
        parts, about = [*two.read(), *(part.part(0, 20) for part in one.read(40))], two.about
    with hdf5.Writer(tmp_path / "mixed.h5", SMALL, about) as writer:
        for part in parts:
            writer.add(part)
    inputs = [*version(tmp_path / "c", small_model(), [seen]), given(tmp_path / "mixed.h5")]
    (sentence,) = reasons_of(tmp_path, inputs, monkeypatch)
    assert re.match(r"[1-9]\d* of the showers to test on are among those that it was trained on", sentence)


def test_what_a_training_held_out_is_a_test(
    few: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functions.calorimeter.training.split import held_out

    _, seen = few
    with hdf5.ShowersHdf5(seen) as file:
        showers, about = next(iter(file.read(FEW))), file.about
    out = np.flatnonzero(held_out(sha256_of(seen), showers.energy_gev, 0.5))
    with hdf5.Writer(tmp_path / "held_out-e-.h5", SMALL, about) as writer:
        writer.add(showers.rows(out))
    for part, refused in ((0.5, 0), (0.1, 1)):
        request = {"parameters": {"held_out": part}}
        inputs = [*version(tmp_path / "c", small_model(), [seen], request=request), given(tmp_path / "held_out-e-.h5")]
        if refused:
            outcome = validate(tmp_path / "r", inputs, {})
            assert outcome.code == 65 and "were learned from" in outcome.message
        else:
            assert reasons_of(tmp_path / "p", inputs, monkeypatch) == []


@pytest.mark.parametrize(
    ("about", "geometry", "gain", "words"),
    [
        ({"engine": "gflash"}, "small", 1.0, "were made by gflash; only Geant4's"),
        ({"engine": ""}, "small", 1.0, "nobody knows whom"),
        ({}, "siw25", 1.0, "deploy one with GEOMETRY=small and a registry of its own"),
        ({}, "small", 0.9, "is the version that serves"),
    ],
)
def test_where_showers_and_models_come_from_matters(
    about: dict[str, Any],
    geometry: str,
    gain: float,
    words: str,
    few: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unseen = nature(tmp_path / "unseen.h5", 80, 5, **about)
    inputs = [*version(tmp_path / "c", small_model(gain), [few[1]]), given(unseen)]
    (sentence,) = reasons_of(tmp_path, inputs, monkeypatch, geometry=geometry)
    assert words in sentence


def test_gflash_stands_in_for_a_serving_model_of_another_detector(
    few: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functions.calorimeter import validate as module

    seen: list[bool] = []

    def judged(comparison: Any, *_: Any) -> Any:
        seen.append(comparison.comparable or comparison.served is not comparison.gflash)
        raise module.InputError("enough")

    monkeypatch.setattr(module, "_judged", judged)
    inputs = [*version(tmp_path / "c", small_model(), [few[1]]), given(few[0])]
    validate(tmp_path / "a", inputs, {}, serving=tiny_model(particles=("e-",)))
    validate(tmp_path / "b", inputs, {}, serving=small_model(0.9))
    assert seen == [False, True]


# what cannot be judged


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.onnx": None}, "inputs: 0 of them end in .onnx"),
        ({"manifest.json": None}, "inputs: 0 of them end in manifest.json"),
        ({"manifest.json": b"{"}, "is no manifest"),
        ({"model.onnx": b"GIF89a"}, "is the manifest of calorimeter-generator"),
        ({"notes.txt": b"good"}, "notes.txt is neither a version's file nor showers (.h5)"),
        ({"unseen.h5": b"good"}, "unseen.h5: is no whole HDF5 file"),
        ({"unseen.h5": None}, "names no showers to test on"),
    ],
)
def test_a_request_that_names_no_candidate_is_bad_input(
    change: dict[str, bytes | None], words: str, few: tuple[Path, Path], tmp_path: Path
) -> None:
    unseen, seen = few
    inputs = {item.key: item for item in (*version(tmp_path / "c", small_model(), [seen]), given(unseen))}
    for name, content in change.items():
        if content is None:
            del inputs[name]
        else:
            (tmp_path / name).write_bytes(content)
            inputs[name] = given(tmp_path / name)
    outcome = validate(tmp_path, list(inputs.values()), {})
    assert outcome.code == 65 and words in outcome.message, outcome.message
    assert not list((tmp_path / "out").iterdir())


def test_what_a_model_has_made_is_no_monte_carlo(few: tuple[Path, Path], tmp_path: Path) -> None:
    _, seen = few
    made = nature(tmp_path / "made.h5", FEW, 7, engine="model")
    outcome = validate(tmp_path, [*version(tmp_path / "c", small_model(), [seen]), given(made)], {})
    assert outcome.code == 65 and outcome.message == (
        "made.h5: its showers are generated by a model, and are no Monte Carlo to compare with; send simulated or"
        " measured ones"
    )


def test_showers_that_the_model_is_not_about_are_bad_input(few: tuple[Path, Path], tmp_path: Path) -> None:
    candidate = version(tmp_path / "c", small_model(), [few[1]])
    other = nature(tmp_path / "gamma.h5", 80, 6, particle="gamma")
    with hdf5.ShowersHdf5(few[0]) as file, hdf5.Writer(tmp_path / "t.h5", SMALL, file.about, threshold_mev=1) as writer:
        for part in file.read():
            writer.add(part)
    siw = version(tmp_path / "s", tiny_model(particles=("e-",)), [few[1]])
    for inputs, words in (
        ([*candidate, given(other)], "holds showers of gamma, and the model makes e-"),
        ([*candidate, given(tmp_path / "t.h5")], "has no cells below 1 MeV"),
        ([*siw, given(few[0])], "is of the geometry small, and the model of siw25"),
        ([*candidate, given(nature(tmp_path / "few.h5", 30, 7))], "30 showers are left to test on"),
    ):
        outcome = validate(tmp_path, inputs, {})
        assert outcome.code == 65 and words in outcome.message, outcome.message


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"showers": 10}, "showers: 10 is not between 60"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"bands": 3}, '"bands" is no key of this request'),
    ],
)
def test_a_request_that_cannot_be_met_is_bad_input(
    request_: dict[str, Any], words: str, few: tuple[Path, Path], tmp_path: Path
) -> None:
    inputs = [*version(tmp_path / "c", small_model(), [few[1]]), given(few[0])]
    outcome = validate(tmp_path, inputs, request_)
    assert outcome.code == 65 and words in outcome.message, outcome.message
