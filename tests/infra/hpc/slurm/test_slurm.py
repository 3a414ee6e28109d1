"""A real Slurm: what it says of jobs that end in every way there is, and when it does not answer."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from infra.hpc.batch import BatchBusy, BatchJob, BatchRefused, BatchState, BatchUnavailable, Submission
from infra.hpc.slurm import Slurm, parse_line, total_of
from infra.hpc.states import state_of
from tests.cluster import eventually
from tests.infra.hpc.lab import SCRIPT, Lab, running_lab

T = TypeVar("T")


def submission(folder: Path, text: str, *flags: str, name: str = "") -> Submission:
    """A job of a few lines of shell."""
    name = name or str(uuid4())
    folder = folder / name
    folder.mkdir(mode=0o700)
    script = folder / "job.sh"
    script.write_text(f"#!/bin/sh\n{text}\n")
    return Submission(name, "default/test", script, folder, ("--mem=50M", *flags))


def ask(question: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(question)


def job_in(slurm: Slurm, job: str, *states: BatchState) -> BatchJob:
    """The job, once it is in one of these states."""

    def look() -> BatchJob | None:
        found = ask(slurm.query([job])).get(job)
        return found if found and found.state in states else None

    return eventually(look, what=f"job {job} {states}")


def ended(slurm: Slurm, job: str) -> BatchJob:
    return job_in(slurm, job, *(state for state in BatchState if state.is_final))


@pytest.fixture
def slurm(slurm_lab: Lab) -> Slurm:
    return Slurm(environ=slurm_lab.environ)


def test_a_job_ends_with_its_own_exit_status(slurm: Slurm, tmp_path: Path) -> None:
    good = ask(slurm.submit(submission(tmp_path, "exit 0")))
    bad = ask(slurm.submit(submission(tmp_path, "exit 7", name="of-seven")))
    killed = ask(slurm.submit(submission(tmp_path, "kill -KILL $$")))
    found = ended(slurm, good)
    assert (found.state, found.exit_code, found.signal, found.reason) == (BatchState.COMPLETED, 0, None, "")
    assert found.started is not None and found.ended is not None and abs(found.ended - time.time()) < 120
    found = ended(slurm, bad)
    assert (found.state, found.exit_code, found.name) == (BatchState.FAILED, 7, "of-seven")
    found = ended(slurm, killed)
    assert (found.state, found.exit_code, found.signal) == (BatchState.FAILED, 0, 9)


def test_jobs_are_found_by_name_and_asked_for_together(slurm: Slurm, tmp_path: Path) -> None:
    names = [str(uuid4()) for _ in range(3)]
    ids = [ask(slurm.submit(submission(tmp_path, "sleep 600", "--hold", name=name))) for name in names]
    assert {job.name: job.id for job in ask(slurm.named(names))} == dict(zip(names, ids, strict=True))
    assert ask(slurm.named([str(uuid4())])) == []
    assert set(ask(slurm.query([*ids, "99999999"]))) == set(ids)
    assert ask(slurm.query(["99999999"])) == {} and ask(slurm.query([])) == {}
    for job in ids:
        ask(slurm.cancel(job))


def test_a_cancelled_job_is_no_success_whether_it_ran_or_not(slurm: Slurm, tmp_path: Path) -> None:
    running = ask(slurm.submit(submission(tmp_path, "sleep 600")))
    waiting = ask(slurm.submit(submission(tmp_path, "sleep 600", "--hold")))
    job_in(slurm, running, BatchState.RUNNING)
    found = job_in(slurm, waiting, BatchState.PENDING)
    assert found.reason == "JobHeldUser" and found.started is None
    for job in (running, waiting):
        ask(slurm.cancel(job))
        assert ended(slurm, job).state is BatchState.CANCELLED
    ask(slurm.cancel(running))
    ask(slurm.cancel("99999999"))


@pytest.mark.parametrize("flags", [("--partition=none-such",), ("--mem=900G",), ("--no-such-option",), ("--time=x",)])
def test_what_slurm_will_never_take_is_refused_in_its_words(slurm: Slurm, tmp_path: Path, flags: tuple[str]) -> None:
    with pytest.raises(BatchRefused) as refused:
        ask(slurm.submit(submission(tmp_path, "true", *flags)))
    assert "\n" not in str(refused.value) and len(str(refused.value)) > 10


def test_a_partition_in_maintenance_is_no_refusal(slurm: Slurm, slurm_lab: Lab, tmp_path: Path) -> None:
    partition = slurm_lab.run("sinfo", "--noheader", "--format=%R").split()[0]
    slurm_lab.run("scontrol", "update", f"PartitionName={partition}", "State=DRAIN")
    try:
        with pytest.raises(BatchBusy, match="partition"):
            ask(slurm.submit(submission(tmp_path, "true")))
    finally:
        slurm_lab.run("scontrol", "update", f"PartitionName={partition}", "State=UP")


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ("QOSMaxSubmitJobPerUserLimit", BatchBusy),
        ("AssocMaxSubmitJobLimit", BatchBusy),
        ("AssocGrpSubmitJobsLimit", BatchBusy),
        ("", BatchBusy),
        ("QOSMaxCpuPerJobLimit", BatchRefused),
        ("AssocMaxWallDurationPerJobLimit", BatchRefused),
    ],
)
def test_too_many_jobs_are_no_refusal_but_too_large_a_job_is(tmp_path: Path, limit: str, kind: type) -> None:
    says = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    first = f"echo 'sbatch: error: {limit}' >&2\n" if limit else ""
    sbatch = f'{first}echo "sbatch: error: Batch job submission failed: {says}" >&2; exit 1'
    slurm = Slurm(programs(tmp_path, sbatch=sbatch, scontrol="exit 0"))
    with pytest.raises(kind, match="accounting"):
        ask(slurm.submit(submission(tmp_path, "true")))


def test_output_that_cannot_be_written_is_a_failure(slurm: Slurm, tmp_path: Path) -> None:
    given = submission(tmp_path, "true")
    (given.folder / "job.out").mkdir()
    found = ended(slurm, ask(slurm.submit(given)))
    assert found.state is BatchState.FAILED and found.reason == "JobLaunchFailure"


def test_nothing_of_the_plugins_environment_reaches_a_job(slurm_lab: Lab, tmp_path: Path) -> None:
    slurm = Slurm(environ={**slurm_lab.environ, "SECRET": "s3cret", "SBATCH_PARTITION": "none-such"})
    given = submission(tmp_path, "env > env; pwd > pwd")
    assert ended(slurm, ask(slurm.submit(given))).state is BatchState.COMPLETED
    assert "s3cret" not in (given.folder / "env").read_text()
    assert (given.folder / "pwd").read_text().strip() == str(given.folder)


def test_fifty_jobs_at_once(slurm: Slurm, tmp_path: Path) -> None:
    async def submit_all() -> list[str]:
        given = [submission(tmp_path, f"exit {number % 3}") for number in range(50)]
        return await asyncio.gather(*(slurm.submit(one) for one in given))

    ids = ask(submit_all())
    assert len(set(ids)) == 50

    ends: dict[str, BatchJob] = {}

    def look() -> bool:
        live = [job for job in ids if job not in ends]
        ends.update({job: found for job, found in ask(slurm.query(live)).items() if found.state.is_final})
        return len(ends) == 50

    eventually(look, patience_s=180, what="the end of all")
    assert [ends[job].exit_code for job in ids] == [number % 3 for number in range(50)]


def test_the_lab_tells_its_size(slurm: Slurm) -> None:
    resources = ask(slurm.ping())
    assert (resources.cpus, resources.pods, dict(resources.accelerators)) == (64, 10_000, {})
    assert resources.memory >= 1 << 30


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_job_lives_through_the_end_of_the_controller(tmp_path: Path, how: signal.Signals) -> None:
    with running_lab(tmp_path / "lab", "--cpus", "4") as lab:
        slurm = Slurm(environ=lab.environ)
        given = submission(tmp_path, "touch began; while [ ! -e go ]; do sleep 0.1; done; exit 3")
        job = ask(slurm.submit(given))
        eventually((given.folder / "began").exists)
        controller = lab.pid()
        if how == signal.SIGKILL:  # told to end it writes down what it knows; killed, it has what it wrote before
            kept = lab.folder / "state" / "job_state"
            began = (given.folder / "began").stat().st_mtime
            eventually(lambda: kept.stat().st_mtime > began and given.name.encode() in kept.read_bytes())
        os.kill(controller, how)
        eventually(lambda: not Path(f"/proc/{controller}").exists())
        conf = lab.folder / "slurm.conf"
        told = conf.read_text()
        conf.write_text(told.replace("MessageTimeout=5", "MessageTimeout=1"))  # commands then give up sooner

        async def ask_all() -> list[object]:
            lost = submission(tmp_path, "true")
            questions = (slurm.query([job]), slurm.named(["x"]), slurm.ping(), slurm.cancel("1"), slurm.submit(lost))
            return await asyncio.gather(*questions, return_exceptions=True)

        assert [type(answer) for answer in ask(ask_all())] == [BatchUnavailable] * 5
        (given.folder / "go").touch()
        conf.write_text(told)
        lab.start()
        found = ended(slurm, job)
        assert (found.state, found.exit_code, found.name) == (BatchState.FAILED, 3, given.name)


@pytest.mark.slow
def test_nodes_fail_and_ids_come_again(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", "--cpus", "4") as lab:
        slurm = Slurm(environ=lab.environ)
        job = ask(slurm.submit(submission(tmp_path, "exit 3")))
        ended(slurm, job)
        # a node that dies: without --no-requeue the job waits for another, with it the job has failed
        stays = ask(slurm.submit(submission(tmp_path, "sleep 600", "--requeue", "--nodelist=lab1")))
        fails = ask(slurm.submit(submission(tmp_path, "sleep 600", "--no-requeue", "--nodelist=lab1")))
        for one in (stays, fails):
            job_in(slurm, one, BatchState.RUNNING)
        lab.run("scontrol", "update", "NodeName=lab1", "State=DOWN", "Reason=test")
        found = job_in(slurm, fails, BatchState.NODE_FAIL)
        assert found.reason == "NodeDown"
        job_in(slurm, stays, BatchState.PENDING)

        # a controller that has lost its state counts from one again: the id is another job's
        lab.stop()
        shutil.rmtree(lab.folder / "state")
        (lab.folder / "state").mkdir()
        lab.start()
        again = ask(slurm.submit(submission(tmp_path, "true", name="another")))
        assert again == job and ask(slurm.query([job]))[job].name == "another"
        assert [one.id for one in ask(slurm.named(["another"]))] == [job]


def test_a_command_that_hangs_is_no_answer(tmp_path: Path) -> None:
    for name in ("sbatch", "squeue"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexec sleep 600\n")
        program.chmod(0o755)
    slurm = Slurm(tmp_path, timeout_s=0.2)
    with pytest.raises(BatchUnavailable, match="did not answer"):
        ask(slurm.query(["1"]))
    with pytest.raises(BatchUnavailable, match="did not answer"):
        ask(slurm.submit(submission(tmp_path, "true")))
    with pytest.raises(BatchUnavailable, match="cannot be started"):
        ask(Slurm(tmp_path / "nowhere").ping())


def test_words_of_success_without_an_id_are_no_answer(tmp_path: Path) -> None:
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\necho Submitted batch job 12 >&2\n")
    program.chmod(0o755)
    with pytest.raises(BatchUnavailable):
        ask(Slurm(tmp_path).submit(submission(tmp_path, "true")))


def programs(folder: Path, **texts: str) -> Path:
    """Commands of Slurm's in a few lines of shell; each notes that it was called."""
    for name, text in texts.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >> {folder}/calls\n{text}\n")
        program.chmod(0o755)
    return folder


def test_to_look_for_names_takes_one_command_however_many_have_ended(tmp_path: Path) -> None:
    lines = "\n".join(f"{number}|COMPLETED|10|20|30|name-{number}|None" for number in range(1, 51))
    slurm = Slurm(programs(tmp_path, squeue=f"cat <<END\n{lines}\nEND", scontrol="echo ExitCode=0:0"))
    assert len(ask(slurm.named([f"name-{number}" for number in range(1, 51)]))) == 50
    assert (tmp_path / "calls").read_text().split() == ["squeue"]


def test_an_unknown_id_does_not_hide_the_others(tmp_path: Path) -> None:
    complains = """
case "$*" in *jobs=*7*) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1;; esac
for id in 5 6 8; do case "$*" in *$id*) echo "$id|RUNNING|10|20|N/A|name-$id|None";; esac; done"""
    slurm = Slurm(programs(tmp_path, squeue=complains))
    assert set(ask(slurm.query(["5", "6", "7", "8"]))) == {"5", "6", "8"}


@pytest.mark.parametrize(
    "name", ["CF", "CONFIGURING", "RQ", "REQUEUED", "SO", "SI", "RF", "CG", "S", "SUSPENDED", "??"]
)
def test_no_state_that_may_go_on_is_an_end(name: str) -> None:
    assert not state_of(name).is_final


@pytest.mark.parametrize("name", ["NF", "BF", "DL", "PR", "TO", "OOM", "CA", "F", "RV", "CANCELLED by 0"])
def test_no_state_but_completed_is_a_success(name: str) -> None:
    assert state_of(name).is_final and state_of(name) is not BatchState.COMPLETED


def test_the_size_is_that_of_the_nodes_that_work() -> None:
    nodes = ("n1|64|256000|idle|gpu:a100:4(S:0-1),tmp:1", "n2|64|256000+|mix-|gpu:2", "n2|64|256000|mix|gpu:2")
    listed = "\n".join([*nodes, "n3|8|9|drain*|gpu:8"])
    resources = total_of(listed, 77)
    assert (resources.cpus, resources.memory, resources.pods) == (128, 2 * 256000 << 20, 77)
    assert dict(resources.accelerators) == {"a100": 4, "gpu": 2}


def test_a_reason_may_hold_anything() -> None:
    job = parse_line("12|PREEMPTED|10|20|30|a-name|(a | b)")
    assert job is not None and (job.state, job.reason) == (BatchState.NODE_FAIL, "PREEMPTED: (a | b)")
    assert parse_line("slurm_load_jobs error: anything") is None


def test_a_lab_with_no_node_or_other_settings_is_refused(tmp_path: Path, slurm_lab: Lab) -> None:
    def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), "start", str(folder), "--anyone", *options]
        return subprocess.run(command, env=slurm_lab.environ, capture_output=True, text=True, check=False)

    none = start(tmp_path / "lab", "--nodes", "0")
    assert (none.returncode, (tmp_path / "lab").exists()) == (2, False)
    assert "--nodes: write a number above 0" in none.stderr
    other = start(slurm_lab.folder, "--nodes", "3")
    assert other.returncode == 1 and "holds a Slurm with another --nodes" in other.stderr
    again = start(slurm_lab.folder)
    assert again.returncode == 0 and f"runs already in {slurm_lab.folder}. " in again.stdout
