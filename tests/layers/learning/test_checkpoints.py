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


def test_a_run_that_is_behind_takes_nothing_from_one_that_is_ahead(job: Job) -> None:
    for step in (900, 1000, 5, 10, 15):
        Checkpoint(job).save(step, {})
    assert steps(job.checkpoint) == [10, 15, 900, 1000]
    found = Checkpoint(job).load()
    assert found is not None and found.step == 1000


def test_the_same_step_again_replaces_it(job: Job) -> None:
    for text in ("x", "y"):
        Checkpoint(job).save(5, {"text": text})
    assert steps(job.checkpoint) == [5]
    found = Checkpoint(job).load()
    assert found is not None and found.state == {"text": "y"}


def test_two_that_write_the_same_step_at_once_are_in_nobodys_way(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def other_first(number: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        Checkpoint(job).save(5, {"by": "the other"})
        real(number)

    monkeypatch.setattr(os, "fsync", other_first)
    Checkpoint(job).save(5, {"by": "this one"})
    found = Checkpoint(job).load()
    assert found is not None and found.state == {"by": "this one"}


def test_what_a_killed_process_left_half_written_goes_when_it_is_old(job: Job) -> None:
    for name, age in (("old", 7200), ("new", 0)):
        part = job.checkpoint / f"step-{name}.part"
        part.write_bytes(b"half")
        at = part.stat().st_mtime - age
        os.utime(part, (at, at))
    Checkpoint(job).save(1, {})
    assert [name for name in names(job.checkpoint) if name.endswith(".part")] == ["step-new.part"]
