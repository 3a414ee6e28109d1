"""A training on the embedded cluster whose process is killed, whose cluster is stopped, and whose cluster is killed."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, eventually
from tests.contract.callers import signal_function
from tests.functions.pulsar.attempts import ended, start

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
pytestmark = pytest.mark.slow

SERVICE = f"train-{os.getpid()}"
"""No other's: its processes are found by it."""
REQUEST = {"frames": 300, "epochs": 1, "validation_frames": 18, "batch": 2, "other_bands": 0.0, "seed": 3}
CHUNKS = 150
SETTINGS = {"CHUNK": "2", "THREADS": "1"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path / "data")
    running.start()
    variables = {"DIOSCAR_FUNCTION": "pulsar.train", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **SETTINGS}
    running.deploy(SERVICE, variables=variables, annotations={"dioscar/retries": "1", "dioscar/executor": "process"})
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def chunks(cluster: Cluster) -> list[int]:
    """The chunks that were learned, in all attempts, as the job's log tells."""
    jobs = cluster.jobs(service=SERVICE)
    log = cluster.job_log(jobs[0]) if jobs else ""
    return [int(number) for number in re.findall(r"^epoch 1 of 1, chunk (\d+) of", log, re.MULTILINE)]


def test_it_goes_on_after_every_kind_of_end_and_gives_the_same_model(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    folder.mkdir()
    (folder / "request.json").write_text(json.dumps(REQUEST))
    assert ended(start(folder, settings=SETTINGS)) == 0, (folder / "log").read_text()

    cluster.put(SERVICE, "in/request.json", (folder / "request.json").read_bytes())
    eventually(lambda: len(chunks(cluster)) >= 10, what="the tenth chunk")
    signal_function(SERVICE, signal.SIGKILL)  # an attempt is counted, and tried again
    eventually(lambda: max(chunks(cluster)) >= 40, what="chunk 40")
    assert cluster.stop() == 0  # `dioscar down`: SIGTERM, checkpoint, 75
    cluster.start()
    eventually(lambda: max(chunks(cluster)) >= 80, what="chunk 80")
    cluster.kill()
    cluster.start()
    (job,) = cluster.ended(SERVICE, patience_s=240)
    assert job["state"] == "Succeeded", job["reason"] + cluster.job_log(job)
    learned = chunks(cluster)
    assert set(learned) == set(range(1, CHUNKS + 1))
    assert len(learned) <= CHUNKS + 2, f"each kill repeats the chunk that was not saved, being stopped none: {learned}"
    assert cluster.read(SERVICE, "out/request.json.onnx") == (folder / "out" / "request.json.onnx").read_bytes()
