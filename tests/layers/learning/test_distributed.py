"""Several processes that train together, as torchrun starts them; and one alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layers.learning.distributed import ALONE, Ranks, joined
from layers.runtime import InputError
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
TOGETHER = """
import os
import sys
import torch
from layers.learning.checkpoints import Checkpoint
from layers.learning.distributed import joined
from pathlib import Path

def told(line):
    os.write(1, f"{line}\\n".encode())  # at once: both write to one pipe, and print writes in pieces

class Job:
    def __init__(self, folder):
        self.checkpoint = Path(folder)
    def keep(self):
        told(f"kept by {ranks.rank}")

with joined() as ranks:
    job = Job(f"{sys.argv[1]}/{ranks.rank}")
    job.checkpoint.mkdir()
    assert ranks.size == 2 and ranks.is_first == (ranks.rank == 0)
    assert ranks.share(5).tolist() == [[0, 2], [1, 3]][ranks.rank]
    assert [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(True)] == [False, True, True]
    assert ranks.mean(ranks.rank + 1.0) == 1.5
    assert ranks.broadcast({"from": ranks.rank}) == {"from": 0}
    assert ranks.gather(ranks.rank) == ([0, 1] if ranks.is_first else [])
    ranks.wait()

    torch.manual_seed(7)
    network = torch.nn.Linear(3, 1)
    learner = ranks.wrap(network)
    data = torch.arange(12.0).reshape(4, 3)
    learner(data[ranks.share(4)]).mean().backward()
    assert torch.allclose(network.weight.grad, data.mean(0, keepdim=True)), "the mean over all four"

    torch.manual_seed(ranks.rank)
    Checkpoint(job, ranks).save(3, {"network": network.state_dict()})
    expected = torch.rand(1)
    found = Checkpoint(job, ranks).load()
    assert found.step == 3 and torch.equal(found.state["network"]["weight"], network.weight)
    assert torch.equal(torch.rand(1), expected), "each rank has its own random numbers back"
    assert len(list(job.checkpoint.iterdir())) == (1 if ranks.is_first else 0), "the first one has the files"
    told(f"well {ranks.rank}")
"""


def test_alone_nothing_is_said_to_anybody() -> None:
    with joined(environ={}) as ranks:
        assert (ranks.size, ranks.is_first, ranks.device) == (1, True, "cpu")
    assert ALONE.share(3).tolist() == [0, 1, 2]
    assert ALONE.any(True) and not ALONE.any(False)
    assert (ALONE.mean(2.5), ALONE.gather("x"), ALONE.broadcast("x")) == (2.5, ["x"], "x")
    assert ALONE.wrap("a network") == "a network"  # type: ignore[arg-type]
    ALONE.wait()


def test_each_has_a_gpu_of_its_own() -> None:
    assert Ranks(5, 8, 1, "cuda").device == "cuda:1"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"RANK": ""}, 'environment variable RANK: "" is no whole number'),
        ({"MASTER_PORT": "x"}, 'environment variable MASTER_PORT: "x" is no whole number'),
        ({"MASTER_ADDR": ""}, "environment variable MASTER_ADDR is not set"),
        ({"RANK": "2"}, r"environment variable RANK: 2 is not below 2 \(WORLD_SIZE\)"),
    ],
)
def test_a_wrong_variable_is_one_sentence(change: dict[str, str], sentence: str) -> None:
    right = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with pytest.raises(InputError, match=sentence), joined(environ={**right, **change}):
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_who_is_left_alone_does_not_wait_for_long(rank: int) -> None:
    pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
    where = {"RANK": str(rank), "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with (
        pytest.raises(TimeoutError, match=f"rank {rank}: not all of 2 ranks have joined in 0.5 s"),
        joined(environ={"WORLD_SIZE": "2", **where}, patience_s=0.5),
    ):
        pass


def test_two_that_torchrun_starts_work_together(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, *command], env=environ, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sorted(ran.stdout.split("\n")[:-1]) == ["kept by 0", "well 0", "well 1"]
