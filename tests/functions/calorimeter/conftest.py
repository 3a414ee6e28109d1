"""Simulations that the tests share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layers.runtime.testing import call

Simulate = Callable[..., Path]


@pytest.fixture
def simulate(tmp_path: Path) -> Simulate:
    """Runs `calorimeter.simulate` on a request, and gives the ROOT file."""

    def made(**request: Any) -> Path:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        source = folder / "request.json"
        source.write_text(json.dumps(request))
        outcome = call("calorimeter.simulate", source, folder / "out")
        assert outcome.code == 0, outcome.message
        return folder / "out" / "request.json.root"

    return made


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: what small networks compute, so that tests side by side do not hinder each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def electrons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT file of 40 electrons of 5 GeV, by Geant4."""
    folder = tmp_path_factory.mktemp("electrons")
    source = folder / "electrons.json"
    source.write_text(json.dumps({"energy_gev": [5.0], "showers": 40, "seed": 7}))
    outcome = call("calorimeter.simulate", source, folder)
    assert outcome.code == 0, outcome.message
    return folder / "electrons.json.root"
