"""A training that is killed, told to stop, or done by two processes goes on, and gives the same model."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from tests.cluster import eventually
from tests.functions.pulsar.attempts import ended, start, steps
from tests.ports import free_port

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")

REQUEST = {"frames": 80, "epochs": 1, "validation_frames": 18, "batch": 2, "other_bands": 0.0, "seed": 3}
STEPS = 40
SETTINGS = {"CHUNK": "2", "THREADS": "1"}
"""A step to a chunk, 40 chunks."""


def folder_for(path: Path) -> Path:
    path.mkdir()
    (path / "request.json").write_text(json.dumps(REQUEST))
    return path


def model(folder: Path) -> bytes:
    return (folder / "out" / "request.json.onnx").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_for(tmp_path_factory.mktemp("training") / "whole")
    assert ended(start(folder, settings=SETTINGS)) == 0, (folder / "log").read_text()
    assert steps(folder) == STEPS
    return folder


@pytest.mark.parametrize("kills, kept", [(3, False), (1, True)], ids=["shared folder", "object storage"])
def test_killed_at_random_steps_it_gives_the_same_model(
    uninterrupted: Path, tmp_path: Path, kills: int, kept: bool
) -> None:
    folder = folder_for(tmp_path / "killed")
    seed = int.from_bytes(os.urandom(4), "big")
    dies = sorted(random.Random(seed).sample(range(2, STEPS), kills))
    for number, step in enumerate(dies):
        before = dies[number - 1] - 1 if number else 0  # the step at which it died is repeated
        assert ended(start(folder, settings=SETTINGS, die_at=step - before, kept=kept)) == -signal.SIGKILL, f"{seed=}"
    assert ended(start(folder, settings=SETTINGS, kept=kept)) == 0, (folder / "log").read_text()
    assert model(folder) == model(uninterrupted), f"{seed=}"
    assert steps(folder) == STEPS + kills < 1.1 * STEPS, f"each time, the step that was not saved: {seed=}"
    assert not list((folder / "store").rglob("*.pt")) and not list((folder / "checkpoints").rglob("*.pt"))


def test_no_more_than_an_interval_is_repeated(uninterrupted: Path, tmp_path: Path) -> None:
    folder = folder_for(tmp_path / "seldom")
    settings = {**SETTINGS, "CHECKPOINT_STEPS": "6"}
    assert ended(start(folder, settings=settings, die_at=17)) == -signal.SIGKILL
    assert ended(start(folder, settings=settings)) == 0
    assert steps(folder) == STEPS + 5, "from the 12th step, which was saved, to the 17th"
    assert model(folder) == model(uninterrupted)


def test_told_to_stop_it_saves_and_goes_on(uninterrupted: Path, tmp_path: Path) -> None:
    folder = folder_for(tmp_path / "stopped")
    settings = {**SETTINGS, "CHECKPOINT_STEPS": "1000"}
    attempt = start(folder, settings=settings)
    eventually(lambda: steps(folder) >= 5, what="the fifth step")
    os.kill(attempt.pid or 0, signal.SIGTERM)
    assert ended(attempt) == 75
    assert not (folder / "out" / "request.json.onnx").exists()
    assert ended(start(folder, settings=settings)) == 0
    assert (steps(folder), model(folder)) == (STEPS, model(uninterrupted)), "nothing is repeated"


def ranks(port: int) -> list[dict[str, str]]:
    """The variables of two processes, as `srun` sets them (docs/training.md)."""
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]


def test_two_processes_stop_at_the_same_step_and_go_on_to_the_same_model(uninterrupted: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "CHUNK": "4", "CHECKPOINT_STEPS": "1000"}
    whole, folder = folder_for(tmp_path / "whole"), folder_for(tmp_path / "stopped")
    assert [ended(one) for one in [start(whole, settings=settings, environ=e) for e in ranks(free_port())]] == [0, 0]
    first, second = [start(folder, settings=settings, environ=e) for e in ranks(free_port())]
    eventually(lambda: steps(folder) >= 5, what="the fifth step")
    os.kill(second.pid or 0, signal.SIGTERM)  # one of them is told
    assert [ended(first), ended(second)] == [75, 75]
    stopped_at = steps(folder)
    assert [ended(one) for one in [start(folder, settings=settings, environ=e) for e in ranks(free_port())]] == [0, 0]
    assert stopped_at < steps(folder) == steps(whole) == STEPS // 2
    assert model(folder) == model(whole) != model(uninterrupted)
    records = list((folder / "out" / "_runs").glob("*/*.json"))
    assert [json.loads(path.read_text())["ranks"] for path in records] == [2], "the outputs are those of the first"


@pytest.mark.slow
def test_when_one_process_dies_the_others_fail_and_all_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    folder = folder_for(tmp_path / "killed")
    settings = {**SETTINGS, "CHUNK": "4"}
    environs = ranks(free_port())
    first = start(folder, settings=settings, environ=environs[0])
    second = start(folder, settings=settings, environ=environs[1], die_at=7)
    assert ended(second) == -signal.SIGKILL
    assert ended(first) == 1, "and it does not wait for ever"
    assert [ended(one) for one in [start(folder, settings=settings, environ=e) for e in ranks(free_port())]] == [0, 0]
    assert STEPS // 2 <= steps(folder) <= STEPS // 2 + 1
