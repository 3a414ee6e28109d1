"""Pods as jobs of a real Slurm: their ends, their ranks, and what becomes of them when time is up or a node fails."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from infra.hpc.batch import BatchState
from infra.hpc.slurm import Slurm
from tests.cluster import eventually
from tests.infra.hpc.lab import Lab
from tests.infra.hpc.slurm.pods import container, log, pod, status, written
from tests.infra.hpc.slurm.test_slurm import ask, ended, job_in

LIMITS: dict[str, Any] = {"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}


@pytest.fixture
def slurm(slurm_lab: Lab) -> Slurm:
    return Slurm(environ=slurm_lab.environ)


def request(text: str, **annotations: str) -> dict[str, Any]:
    named = {name.replace("__", "/").replace("_", "-"): value for name, value in annotations.items()}
    return pod(container(text, **LIMITS), uid=str(uuid.uuid4()), annotations=named)


def test_a_pods_end_is_that_of_its_container(slurm: Slurm, tmp_path: Path) -> None:
    submission = written(tmp_path, request("echo said; exit 7"))
    found = ended(slurm, ask(slurm.submit(submission)))
    assert (found.state, found.exit_code) == (BatchState.FAILED, 7)
    assert (status(submission), log(submission), found.name) == (7, "said\n", submission.name)
    for path in submission.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_ranks_on_two_nodes_find_each_other_and_checkpoint_together(slurm: Slurm, tmp_path: Path) -> None:
    program = tmp_path / "meet.py"
    program.write_text(MEET)
    text = f"trap : TERM; python3 {program} {tmp_path}"
    submission = written(tmp_path, request(text, dioscar__nodes="2", dioscar__tasks_per_node="1"))
    job = ask(slurm.submit(submission))
    told = [tmp_path / f"rank-{rank}.json" for rank in range(2)]
    for path in told:
        eventually(path.exists, what=f"{path.name}, {log_of(submission.folder)}")
    first, second = (json.loads(path.read_text()) for path in told)
    assert (first["RANK"], first["WORLD_SIZE"], first["heard"]) == ("0", "2", "from 1")
    assert (second["RANK"], second["WORLD_SIZE"], second["heard"]) == ("1", "2", "from 0")
    assert {first["SLURMD_NODENAME"], second["SLURMD_NODENAME"]} == {"lab1", "lab2"}
    assert (first["MASTER_ADDR"], first["MASTER_PORT"]) == (second["MASTER_ADDR"], second["MASTER_PORT"])
    # as Slurm does before a time limit: it tells the script, which tells all ranks
    lab_signal(slurm, job)
    found = ended(slurm, job)
    assert (found.state, found.exit_code) == (BatchState.FAILED, 75), log(submission)
    assert status(submission) == 75


def test_mpi_flags_start_a_rank_for_each_task(slurm: Slurm, tmp_path: Path) -> None:
    text = f"echo $RANK $WORLD_SIZE $SLURM_PROCID >{tmp_path}/$RANK; exit $RANK"
    annotations = {"slurm-job.vk.io/mpi-flags": "true", "slurm-job.vk.io/flags": "--ntasks=2"}
    asked = pod(container(text, **LIMITS), uid=str(uuid.uuid4()), annotations=annotations)
    submission = written(tmp_path, asked)
    found = ended(slurm, ask(slurm.submit(submission)))
    assert found.exit_code == 1 and status(submission) == 1, log(submission)
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == ["0 2 0\n", "1 2 1\n"]


def test_a_pod_that_is_cancelled_is_told_so(slurm: Slurm, tmp_path: Path) -> None:
    text = f"trap 'echo saved >{tmp_path}/saved; exit 75' TERM; touch {tmp_path}/began; while :; do sleep 0.05; done"
    submission = written(tmp_path, request(text))
    job = ask(slurm.submit(submission))
    eventually((tmp_path / "began").exists)
    ask(slurm.cancel(job))
    assert ended(slurm, job).state is BatchState.CANCELLED
    eventually((tmp_path / "saved").exists)
    eventually(lambda: status(submission) == 75)


def test_a_pod_whose_node_fails_runs_again_in_its_folder(slurm: Slurm, slurm_lab: Lab, tmp_path: Path) -> None:
    text = f"echo run; [ ! -e {tmp_path}/began ] || exit 0; touch {tmp_path}/began; while :; do sleep 0.05; done"
    submission = written(tmp_path, request(text))
    job = ask(slurm.submit(submission))
    eventually((tmp_path / "began").exists)
    slurm_lab.run("scontrol", "requeue", job)  # what slurmctld does itself when a node is down
    slurm_lab.hasten(job)
    assert job_in(slurm, job, BatchState.PENDING).started is None
    again = ended(slurm, job)
    assert again.state is BatchState.COMPLETED, log_of(submission.folder)
    assert status(submission) == 0 and log(submission).split().count("run") == 2


@pytest.mark.slow
def test_time_limits_are_told_of_before_they_are_kept(slurm: Slurm, tmp_path: Path) -> None:
    loop = "while :; do sleep 0.1; done"
    annotations = {"slurm-job.vk.io/flags": "--time=1"}

    def submit(text: str) -> tuple[str, Any]:
        asked = pod(container(text, **LIMITS), uid=str(uuid.uuid4()), annotations=annotations)
        submission = written(tmp_path, asked)
        return ask(slurm.submit(submission)), submission

    obedient, first = submit(f"trap 'exit 75' TERM; {loop}")
    stubborn, second = submit(f"trap '' TERM; {loop}")
    final = [state for state in BatchState if state.is_final]

    def both() -> bool:
        return all(job.state in final for job in ask(slurm.query([obedient, stubborn])).values())

    eventually(both, patience_s=240, what="the time limit")
    found = ask(slurm.query([obedient, stubborn]))
    assert (found[obedient].exit_code, status(first)) == (75, 75)
    assert found[stubborn].state is BatchState.TIMEOUT and status(second) is None


def lab_signal(slurm: Slurm, job: str) -> None:
    asyncio.run(slurm._call("scancel", "--batch", "--signal=TERM", job))


def log_of(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in (*folder.glob("*.log"), *folder.glob("job.out")))


MEET = """\
import json, os, signal, socket, sys, time

stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
if rank == 0:
    server = socket.create_server(("", port))
    peer, _ = server.accept()
else:
    while True:
        try:
            peer = socket.create_connection((os.environ["MASTER_ADDR"], port), 5)
            break
        except OSError:
            time.sleep(0.1)
peer.sendall(f"from {rank}".encode())
heard = peer.recv(100).decode()
path = f"{sys.argv[1]}/rank-{rank}.json"
with open(path + ".part", "w") as stream:
    json.dump({**os.environ, "heard": heard}, stream)
os.rename(path + ".part", path)
while not stopped:
    time.sleep(0.05)
sys.exit(75)
"""
