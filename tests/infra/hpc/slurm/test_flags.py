"""What a pod may ask of Slurm, and what is asked for it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.hpc.flags import Ranks, flags_of, parse_flags, ranks_of
from infra.hpc.launcher import launcher, started
from infra.hpc.protocol import CreateRequest, PodRefused
from infra.hpc.settings import ALLOWED_FLAGS
from tests.infra.hpc.slurm.pods import container, pod, settings_for

ROOT = Path("/srv/pods")


def flags(
    text: str = "", limits: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **more: str
) -> list[str]:
    """The options of a pod with an annotation `flags`, other annotations, and limits."""
    annotations = {name.replace("_", "-"): value for name, value in more.items()}
    annotations = {f"dioscar/{name}": value for name, value in annotations.items()}
    if text:
        annotations["slurm-job.vk.io/flags"] = text
    request = pod(container("true", resources={"limits": limits or {}}), annotations=annotations)
    return list(flags_of(CreateRequest.model_validate(request).pod, settings_for(ROOT, **(settings or {}))))


def test_limits_become_options_and_flags_go_before_them() -> None:
    limits = {"cpu": "1500m", "memory": "1Gi", "nvidia.com/gpu": "2"}
    ours = ["--cpus-per-task=2", "--mem=1024M", "--gres=gpu:2", "--requeue", "--signal=B:TERM@60"]
    assert flags(limits=limits) == ours
    assert flags() == ["--cpus-per-task=1", "--mem=2048M", "--requeue", "--signal=B:TERM@60"]
    given = flags("--mem-per-cpu=2G -c 8 --gpus-per-task=1 --no-requeue --signal=B:USR1@300", limits)
    assert given == [
        "--cpus-per-task=8",
        "--mem-per-cpu=2G",
        "--gpus-per-task=1",
        "--no-requeue",
        "--signal=B:USR1@300",
    ]
    site = {"default_flags": ("--partition=cpu", "--mem=1G", "--account=physics")}
    assert flags("-p gpu", limits, site)[:3] == ["--partition=gpu", "--mem=1024M", "--account=physics"]


def test_the_largest_init_container_counts_and_containers_count_together() -> None:
    def sized(name: str, cpu: str, memory: str) -> dict[str, Any]:
        return container("true", name, resources={"limits": {"cpu": cpu, "memory": memory}})

    request = pod(sized("a", "1", "1Gi"), sized("b", "1", "1Gi"), initContainers=[sized("i", "1", "5Gi")])
    found = flags_of(CreateRequest.model_validate(request).pod, settings_for(ROOT))
    assert found[:2] == ("--cpus-per-task=2", "--mem=5120M")


@pytest.mark.parametrize(
    "time, grace", [("600", 60), ("2", 30), ("1", 15), ("1-00", 60), ("0:20", 5), ("UNLIMITED", 60)]
)
def test_a_short_job_is_told_to_stop_late(time: str, grace: int) -> None:
    assert f"--signal=B:TERM@{grace}" in flags(f"--time={time}")


def test_a_deadline_is_a_time_limit() -> None:
    request = pod(container("true"), activeDeadlineSeconds=61)
    assert "--time=2" in flags_of(CreateRequest.model_validate(request).pod, settings_for(ROOT))


@pytest.mark.parametrize(
    "text, words",
    [
        *(
            (f"{flag}=x", flag)
            for flag in ("--uid", "--gid", "--output", "--job-name", "--chdir", "--wrap", "--export")
        ),
        *(
            (flag, "not allowed")
            for flag in ("-o x", "-J x", "-Dx", "-e /etc/x", "--get-user-env", "--array=1-9", "job.sh")
        ),
        *(
            (flag, "not allowed")
            for flag in ("--comment=x", "--parsable", "--dependency=after:1", "--ui=0", "--prolog=x")
        ),
        ("--time", "no value"),
        ("-N", "no value"),
        ("'--partition=a\nb'", "cannot be printed"),
        ("--partition=a\n--uid=0", "--uid"),
        ("--partition='a", "close the quotes"),
    ],
)
def test_other_options_are_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(PodRefused, match=words) as refused:
        flags(text)
    assert "\n" not in str(refused.value) or "cannot be printed" in words


@given(st.text(max_size=80))
def test_whatever_stands_there_only_allowed_options_come_out(text: str) -> None:
    try:
        found = parse_flags(text, ALLOWED_FLAGS)
    except PodRefused:
        return
    assert set(found) <= set(ALLOWED_FLAGS)
    assert all(value.isprintable() for value in found.values())


def test_nodes_and_gpus_make_ranks() -> None:
    found = flags(limits={"memory": "1Gi", "nvidia.com/gpu": 1}, nodes="2", gpus_per_node="4")
    assert found[1:5] == ["--mem=4096M", "--gres=gpu:4", "--nodes=2", "--ntasks-per-node=4"]
    request = CreateRequest.model_validate(pod(container("true"))).pod
    assert ranks_of(request, found) == Ranks(2, 4)
    assert ranks_of(request, flags(nodes="3")) == Ranks(3, 1)
    assert ranks_of(request, flags("--ntasks=6 --nodes=2")) == Ranks(2, 3)
    assert ranks_of(request, flags()).total == 1
    for name, value in (("nodes", "0"), ("nodes", "two"), ("gpus_per_node", "-1"), ("tasks_per_node", "1.5")):
        with pytest.raises(PodRefused, match="dioscar/"):
            flags(**{name: value})


@pytest.mark.parametrize(
    "text, words",
    [
        ("true", ["srun", "--mpi=none"]),
        ("srun --mpi=pmix", ["srun", "--export=ALL"]),
        ("--map-by core --mca btl tcp,self", ["mpiexec", "-np", "2", "--map-by", "core", "--mca", "btl", "tcp,self"]),
        ("mpirun -np 2", ["mpirun", "-np", "2"]),
    ],
)
def test_mpi_flags_choose_what_starts_the_ranks(text: str, words: list[str]) -> None:
    request = pod(container("true"), annotations={"slurm-job.vk.io/mpi-flags": text})
    assert (launcher(CreateRequest.model_validate(request).pod, Ranks(1, 2)) or [])[: len(words)] == words


@pytest.mark.parametrize(
    "text",
    [
        "sh -c id",
        "-np 2 evil",
        "--wdir /",
        "-launcher /x",
        "--mca plm_rsh_agent /x",
        "srun -w x",
        "-genv PATH /x",
        "mpiexec -genv APPTAINER_BIND /home:/mnt",
        "srun --nodes=2 --ntasks-per-node=2",
    ],
)
def test_other_mpi_flags_are_refused(text: str) -> None:
    request = pod(container("true"), annotations={"slurm-job.vk.io/mpi-flags": text})
    with pytest.raises(PodRefused, match="mpi-flags"):
        launcher(CreateRequest.model_validate(request).pod, Ranks(1, 2))


@pytest.mark.parametrize("text, total", [("-np 3", 3), ("mpirun --np=4", 4), ("srun --ntasks=2", 2), ("true", 6)])
def test_the_number_in_mpi_flags_is_that_of_the_ranks(text: str, total: int) -> None:
    request = pod(container("true"), annotations={"slurm-job.vk.io/mpi-flags": text})
    assert started(CreateRequest.model_validate(request).pod, ["--nodes=2", "--ntasks-per-node=3"]).total == total


@pytest.mark.parametrize("text", ["-np two", "-np 0", "-n 2 -np 3", "-np"])
def test_mpi_flags_that_do_not_say_how_many_are_refused(text: str) -> None:
    request = pod(container("true"), annotations={"slurm-job.vk.io/mpi-flags": text})
    with pytest.raises(PodRefused, match="mpi-flags"):
        started(CreateRequest.model_validate(request).pod, [])


@pytest.mark.parametrize(
    "text, words",
    [
        ("--nodes=1-2 --ntasks-per-node=2", "--nodes=1-2: is not one number"),
        ("--nodes=2-4", "--nodes=2-4: is not one number"),
        ("--nodes=1,3 --ntasks=2", "--nodes=1,3: is not one number"),
        ("--gpus=4 --gpus-per-task=1", "--gpus-per-task=1: does not say how many"),
        ("--ntasks-per-socket=2", "--ntasks-per-socket=2: does not say how many"),
        ("--ntasks=many", "--ntasks=many: is not one number"),
    ],
)
def test_tasks_that_cannot_be_counted_are_refused(text: str, words: str) -> None:
    request = CreateRequest.model_validate(pod(container("true"))).pod
    with pytest.raises(PodRefused, match=words):
        ranks_of(request, flags(text))


def test_tasks_are_counted_as_slurm_does() -> None:
    request = CreateRequest.model_validate(pod(container("true"))).pod
    assert ranks_of(request, flags("--nodes=2 --ntasks-per-node=2 --ntasks=3")).total == 3
    assert ranks_of(request, flags("--gpus-per-task=1 --ntasks=4")).total == 4
