"""A training on two nodes of a real Slurm: two tasks that speak by gloo, told to stop, and submitted again."""

import json
import sys
from pathlib import Path

import pytest

from tests.cluster import ROOT, eventually
from tests.infra.hpc.lab import Lab

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
pytestmark = pytest.mark.slow

REQUEST = {"frames": 160, "epochs": 1, "validation_frames": 18, "batch": 4, "other_bands": 0.0, "seed": 3}
CHUNKS = 40
TASK = f"""#!/bin/sh
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
export INPUT_FILE_PATH=$PWD/request.json TMP_OUTPUT_DIR=$PWD/out.$SLURM_PROCID DIOSCAR_CHECKPOINT=$PWD/checkpoints
export DIOSCAR_FUNCTION=pulsar.train STORAGE_OBJECT_KEY=in/request.json CHUNK=4 CHECKPOINT_STEPS=1000 OMP_NUM_THREADS=1
cd {ROOT} && exec {sys.executable} -P -m layers.runtime
"""
SCRIPT = """#!/bin/sh
# what docs/training.md asks of a job script
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM
export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + $$ % 12000))
srun --wait=0 --kill-on-bad-exit=0 sh task.sh &
while wait $!; code=$?; kill -0 $! 2>/dev/null; do :; done
exit $code
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    (tmp_path / "task.sh").write_text(TASK)
    (tmp_path / "job.sh").write_text(SCRIPT)
    return tmp_path


def submit(lab: Lab, folder: Path) -> str:
    flags = ("--nodes=2", "--ntasks-per-node=1", "--mem=1G", f"--chdir={folder}", f"--output={folder}/log")
    return lab.run("sbatch", "--parsable", "--open-mode=append", *flags, str(folder / "job.sh"))


def ended(lab: Lab, job: str) -> int:
    def look() -> str | None:
        facts = dict(fact.partition("=")[::2] for fact in lab.run("scontrol", "show", "job", "-o", job).split())
        return facts["ExitCode"] if facts["JobState"] not in ("PENDING", "RUNNING", "COMPLETING") else None

    return int(eventually(look, 300, "the job's end").partition(":")[0])


def learned(folder: Path) -> list[str]:
    """The lines of the log that tell of a chunk."""
    log = folder / "log"
    return [line for line in log.read_text().splitlines() if line.startswith("epoch ")] if log.exists() else []


def test_two_nodes_train_stop_together_and_go_on(
    slurm_lab: Lab, folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    whole = tmp_path_factory.mktemp("whole")
    for path in folder.iterdir():
        (whole / path.name).write_text(path.read_text())
    assert ended(slurm_lab, submit(slurm_lab, whole)) == 0, (whole / "log").read_text()

    job = submit(slurm_lab, folder)
    eventually(lambda: len(learned(folder)) >= 3, what="the third chunk")
    slurm_lab.run("scancel", "--batch", "--signal=TERM", job)  # as Slurm does, some time before the limit
    assert ended(slurm_lab, job) == 75, (folder / "log").read_text()
    assert not list(folder.glob("out.*/*")), "what has not ended has no outputs"
    stopped_at = len(learned(folder))
    assert 3 <= stopped_at < CHUNKS

    assert ended(slurm_lab, submit(slurm_lab, folder)) == 0, (folder / "log").read_text()
    assert len(learned(folder)) == CHUNKS, "none is repeated"
    name = "request.json.onnx"
    assert (folder / "out.0" / name).read_bytes() == (whole / "out.0" / name).read_bytes()
    assert not list((folder / "out.1").glob("*")), "outputs are those of rank 0"
    assert not list((folder / "checkpoints").glob("*"))
