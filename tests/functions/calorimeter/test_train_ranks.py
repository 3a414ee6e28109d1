"""Two processes train together what one trains alone, end together, and go on together."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from layers.runtime import Input
from tests.functions.calorimeter.attempts import ended, ranks, start, task
from tests.functions.calorimeter.trainings import TINY, files, prepared

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

ROOT = Path(__file__).parents[3]
REQUEST = {**TINY, "parameters": {"steps": 20, "batch": 16}, "evaluate_every": 5}


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return prepared(tmp_path_factory.mktemp("showers"))


@pytest.fixture(scope="module")
def together(showers: Input, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by two ranks that torchrun starts."""
    folder = task(tmp_path_factory.mktemp("ranks") / "together", showers, REQUEST)
    module = ["-m", "tests.functions.calorimeter.attempts", str(folder)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_two_ranks_train_what_one_does_with_the_same_batch(together: Path, showers: Input, tmp_path: Path) -> None:
    alone = task(tmp_path / "alone", showers, REQUEST)
    assert ended(start(alone, {})) == [0], (alone / "log").read_text()
    first, second = (h5py.File(folder / "out/r.json.weights.h5") for folder in (alone, together))
    with first, second:
        for name in ("inner.weight", "inner.bias", "outer.weight", "outer.bias"):
            one, two = first[f"cells/{name}"][:], second[f"cells/{name}"][:]
            assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()
    curves = [json.loads((folder / "out/r.json.metrics.json").read_text())["curves"] for folder in (alone, together)]
    losses = [[values["loss/poisson"] for _, values in rows if "loss/poisson" in values] for rows in curves]
    assert len(losses[0]) == 20 and np.allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("sent", "codes"),
    [(signal.SIGTERM, [75, 75]), (signal.SIGKILL, [1, -signal.SIGKILL])],
    ids=["told to stop", "killed"],
)
def test_what_ends_one_of_two_ranks_ends_both_and_they_go_on(
    together: Path, showers: Input, tmp_path: Path, sent: signal.Signals, codes: list[int]
) -> None:
    folder = task(tmp_path / "ended", showers, REQUEST)
    both = [start(folder, one) for one in ranks({"TINY_SIGNAL": f"1 12 {int(sent)}"})]
    assert ended(*both) == codes, (folder / "log").read_text()
    assert not files(folder)
    assert ended(*(start(folder, one) for one in ranks({}))) == [0, 0], (folder / "log").read_text()
    assert files(folder) == files(together)
    (record,) = (folder / "out/_runs").glob("*/*.json")
    assert json.loads(record.read_text())["ranks"] == 2


def test_two_ranks_of_the_family_that_serves(showers: Input, tmp_path: Path) -> None:
    parameters = {"steps": 4, "batch": 16, "dropout": 0.0}
    request = {"family": "two-stage", "parameters": parameters, "seed": 3, "evaluate_every": 4}
    alone, both = (task(tmp_path / name, showers, request) for name in ("alone", "both"))
    assert ended(start(alone, {})) == [0], (alone / "log").read_text()
    assert ended(*(start(both, one) for one in ranks({}))) == [0, 0], (both / "log").read_text()
    one, two = (weights(folder / "out/r.json.weights.h5") for folder in (alone, both))
    assert len(one) > 20 and one.keys() == two.keys()
    for name, values in one.items():
        assert np.abs(values - two[name]).max() <= 1e-3 * np.abs(values).max(), name


def weights(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[:]} if isinstance(item, h5py.Dataset) else {}))
    return found
