"""What trains goes to a batch system, with an end that its queue can plan for, in each FDL file of the repository."""

import shlex
from pathlib import Path

import pytest

from fdl.document import read_file
from fdl.model import Service

FILES = sorted((Path(__file__).parents[2] / "fdl").glob("*.yaml"))
TRAININGS = [
    service
    for file in FILES
    for service in read_file(file).services
    if service.environment.variables.get("DIOSCAR_FUNCTION", "").endswith(".train")
]


def test_there_is_a_training() -> None:
    assert "pulsar-train" in [service.name for service in TRAININGS]


@pytest.mark.parametrize("service", TRAININGS, ids=lambda service: str(service.name))
def test_a_training_runs_on_the_node_for_batch_jobs_and_has_a_time_limit(service: Service) -> None:
    assert service.interlink_node_name == "hpc"
    flags = dict(flag.partition("=")[::2] for flag in shlex.split(service.annotations["slurm-job.vk.io/flags"]))
    assert flags.get("--time"), flags
