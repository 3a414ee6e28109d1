"""What the tests of the pulsar twin share: runs through the runtime, synthetic observations, the real files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layers.runtime.testing import Outcome, call

SMALL = {"seed": 5, "duration_s": 2.5, "pulses": 24, "nbrfi": 150, "bbrfi": 150, "other": 0}
"""A request for an observation of 95 frames in which something happens."""


@pytest.fixture(scope="session")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make an observation (or frames) and return the folder; its files are request.json.*."""
    made: dict[str, Path] = {}

    def make(**request: Any) -> Path:
        text = json.dumps(request, sort_keys=True)
        if text not in made:
            folder = tmp_path_factory.mktemp("synthesised")
            source = folder / "request.json"
            source.write_text(text)
            outcome = call("pulsar.synthesise", source, folder)
            assert outcome.code == 0, outcome.message
            made[text] = folder
        return made[text]

    return make


@pytest.fixture
def through(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Pass a telescope's file through preprocess and classify; returns summary, labels and the output folder."""

    def pass_on(source: Path, **settings: str) -> dict[str, Any]:
        out = tmp_path / source.stem
        frames = call("pulsar.preprocess", source, out)
        assert frames.code == 0, frames.message
        labelled = call("pulsar.classify", out / f"{source.name}.h5", out, settings={"PICTURE": "no", **settings})
        assert labelled.code == 0, labelled.message
        return {
            "folder": out,
            "summary": json.loads((out / f"{source.name}.h5.summary.json").read_text()),
            "labels": json.loads((out / f"{source.name}.h5.labels.json").read_text()),
        }

    return pass_on


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Run a function on a bad input and return the sentence; nothing may stand in the destination."""

    def refuse(function: str, source: Path, **settings: str) -> str:
        out = tmp_path / "refused"
        outcome: Outcome = call(function, source, out, settings=settings)
        assert outcome.code == 65, f"exit status {outcome.code}: {outcome.error} {outcome.message}"
        assert not list(out.iterdir()), "a refused input left files behind"
        return outcome.message

    return refuse


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """A real telescope file; skips when DIOSCAR_TEST_DATA is not set, fails when it is and the file is missing."""

    def find(name: str) -> Path:
        folder = os.environ.get("DIOSCAR_TEST_DATA")
        if not folder:
            pytest.skip("DIOSCAR_TEST_DATA is not set: real telescope files are not here")
        path = Path(folder) / "pulsar" / name
        assert path.is_file(), f"{path} is missing, though DIOSCAR_TEST_DATA is set"
        return path

    return find
