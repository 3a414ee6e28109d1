"""Checkpoints of a training: the last one that is whole, and the random numbers that would have come next."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layers.learning.checkpoints import Checkpoint

torch = pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")


class Job:
    """What a checkpoint asks of a job."""

    inputs = ()
    seed = 1
    stopping = False

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.kept: list[list[str]] = []

    def keep(self) -> None:
        self.kept.append(names(self.checkpoint))

    def model(self, name: str) -> Path:
        raise LookupError(name)

    def progress(self, done: float, total: float) -> None: ...


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(folder: Path) -> list[int]:
    return [int(name.split("-")[1]) for name in names(folder)]


def test_there_is_none_on_a_first_attempt(job: Job) -> None:
    assert Checkpoint(job).load() is None


def test_what_was_saved_last_comes_back(job: Job) -> None:
    network = torch.nn.Linear(2, 2)
    for step in (10, 20):
        Checkpoint(job).save(step, {"network": network.state_dict(), "losses": [0.5, step], "name": "x"})
    found = Checkpoint(job).load()
    assert found is not None
    assert (found.step, found.state["losses"], found.state["name"]) == (20, [0.5, 20], "x")
    assert torch.equal(found.state["network"]["weight"], network.weight)


def test_the_last_two_stay_and_each_is_kept_when_it_is_whole(job: Job) -> None:
    for step in (1, 5, 1000, 1001):
        Checkpoint(job).save(step, {})
    assert steps(job.checkpoint) == [1000, 1001]
    assert [len(kept) for kept in job.kept] == [1, 2, 2, 2]
    assert not any(name.endswith(".part") for kept in job.kept for name in kept)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:50] + b"?" + data[51:]]
)
def test_of_a_damaged_one_the_one_before_serves(job: Job, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):
        Checkpoint(job).save(step, {"step": step})
    newest = job.checkpoint / names(job.checkpoint)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    found = Checkpoint(job).load()
    assert found is not None and (found.step, found.state["step"]) == (1, 1)
    assert f"{newest.name}: is damaged" in capsys.readouterr().out
    Checkpoint(job).save(2, {})
    assert steps(job.checkpoint) == [1, 2]


def test_where_all_are_damaged_the_training_begins_anew(job: Job) -> None:
    Checkpoint(job).save(1, {})
    (job.checkpoint / names(job.checkpoint)[0]).write_bytes(b"")
    assert Checkpoint(job).load() is None


def test_a_half_written_one_is_no_checkpoint(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    Checkpoint(job).save(1, {"x": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Checkpoint(job).save(2, {"x": 2})
    monkeypatch.undo()
    (job.checkpoint / "step.part").write_bytes(b"of a process that was killed")
    found = Checkpoint(job).load()
    assert found is not None and found.state == {"x": 1}
    assert len(job.kept) == 1


def test_a_checkpoint_runs_no_code(job: Job) -> None:
    Checkpoint(job).save(1, {"x": print})
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        Checkpoint(job).load()


def test_random_numbers_go_on_where_they_were(job: Job) -> None:
    def draw() -> tuple[float, float, float, float]:
        return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(1))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    np.random.randn()  # a second normal number is in store
    Checkpoint(job).save(1, {})
    expected = draw()
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert draw() != expected
    Checkpoint(job).load()
    assert draw() == expected
