"""The table from batch states and status files to what Kubernetes is told."""

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from infra.hpc.batch import BatchJob, BatchState
from infra.hpc.pods import Record, Run
from infra.hpc.protocol import PodStatus
from infra.hpc.status import Mark, as_record, ending, pod_status, read_marks, wants_another_run

CODES = (None, 0, 1, 75, 143)
NAMES = ("init", "main", "side")
JOBS = [None, *(BatchJob("1", "u", state) for state in BatchState)]


def record(*runs: Run) -> Record:
    pod = Record("u", "n", "p", ["main", "side"], ["init"], created=1_790_000_000.0)
    pod.runs.extend(runs or (Run(1_790_000_000.0, "1"),))
    return pod


def final(job: BatchJob | None, codes: dict[str, int | None]) -> PodStatus:
    """The status of a pod whose job has ended so."""
    pod = record()
    marks = {name: Mark(code=code) for name, code in codes.items()}
    pod.final = as_record(ending(pod, job, marks, 1_790_000_100.0))
    return pod_status(pod, marks)


def exits(status: PodStatus) -> list[int]:
    ends = [one.state.terminated for one in status.containers]
    assert all(ends), "every container has ended"
    return [end.exit_code for end in ends if end]


def test_no_combination_is_a_success_but_completed_or_forgotten_and_all_zero() -> None:
    for job, codes in itertools.product(JOBS, itertools.product(CODES, repeat=3)):
        success = not any(exits(final(job, dict(zip(NAMES, codes, strict=True)))))
        clean = job is None or job.state is BatchState.COMPLETED
        assert success == (clean and set(codes) == {0}), (job, codes)


@given(
    state=st.sampled_from([None, *BatchState]),
    codes=st.lists(st.one_of(st.none(), st.integers(0, 255)), min_size=3, max_size=3),
    exit_code=st.one_of(st.none(), st.integers(0, 255)),
    signal=st.one_of(st.none(), st.integers(0, 64)),
    reason=st.text(max_size=20),
)
def test_whatever_the_batch_system_says_of_exit_codes(
    state: BatchState | None, codes: list[int | None], exit_code: int | None, signal: int | None, reason: str
) -> None:
    job = BatchJob("1", "u", state, reason=reason, exit_code=exit_code, signal=signal) if state else None
    status = final(job, dict(zip(NAMES, codes, strict=True)))
    clean = job is None or job.state is BatchState.COMPLETED
    assert (not any(exits(status))) == (clean and all(code == 0 for code in codes))
    for name, code, one in zip(NAMES, codes, [*status.init_containers, *status.containers], strict=True):
        assert one.name == name and one.state.terminated
        if code:
            assert one.state.terminated.exit_code == code


@given(
    state=st.sampled_from([BatchState.PENDING, BatchState.RUNNING, BatchState.UNKNOWN]),
    codes=st.lists(st.one_of(st.none(), st.integers(0, 255)), min_size=3, max_size=3),
    started=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_a_job_that_has_not_ended_never_ends_its_pod(
    state: BatchState, codes: list[int | None], started: list[bool]
) -> None:
    pod = record()
    pod.state = state.value
    marks = {
        name: Mark(started=1.0 if begun else None, code=code)
        for name, begun, code in zip(NAMES, started, codes, strict=True)
    }
    status = pod_status(pod, marks)
    assert len(status.containers) == 2 and len(status.init_containers) == 1
    assert not all(one.state.terminated for one in status.containers)
    for one in (*status.containers, *status.init_containers):
        assert len(one.wire()["state"]) == 1


def test_a_container_that_ended_well_beside_one_that_failed_keeps_its_zero() -> None:
    status = final(BatchJob("1", "u", BatchState.FAILED), {"init": 0, "main": 7, "side": 0})
    assert exits(status) == [7, 0]


def test_a_zero_that_the_batch_system_contradicts_is_none() -> None:
    status = final(BatchJob("1", "u", BatchState.TIMEOUT, "TimeLimit"), {"init": 0, "main": 0, "side": 0})
    assert exits(status) == [124, 124]
    end = status.containers[0].state.terminated
    assert end and end.message == "its own exit code was 0, but job 1 ended as TIMEOUT (TimeLimit)"


def test_only_a_checkpoint_and_nothing_else_runs_again() -> None:
    def again(state: BatchState, reason: str, *codes: int | None) -> bool:
        marks = {name: Mark(code=code) for name, code in zip(NAMES, codes, strict=True)}
        return wants_another_run(record(), BatchJob("1", "u", state, reason), marks)

    assert again(BatchState.FAILED, "", 0, 75, 0)
    assert again(BatchState.TIMEOUT, "", 0, 75, 75)
    assert again(BatchState.CANCELLED, "PREEMPTED", 0, 75, 0)
    assert not again(BatchState.CANCELLED, "", 0, 75, 0)
    assert not again(BatchState.FAILED, "", 0, 75, 1)
    assert not again(BatchState.FAILED, "", 0, 75, None)
    assert not again(BatchState.COMPLETED, "", 0, 0, 0)


def test_files_that_make_no_sense_count_as_absent(tmp_path: Path) -> None:
    for text in ("", "\n", "x", "-1", "256", "1e3", "0x0", "00000"):
        (tmp_path / "main.status").write_text(text)
        assert read_marks(tmp_path, ["main"])["main"].code is None
    (tmp_path / "main.status").write_bytes(b"\xff0")
    assert read_marks(tmp_path, ["main"])["main"].code is None
    (tmp_path / "main.status").write_text("0\n")
    (tmp_path / "main.started").write_text("1790000000\n")
    (tmp_path / "main.finished").write_text("nan")
    assert read_marks(tmp_path, ["main"])["main"] == Mark(1_790_000_000.0, None, 0)


def test_times_come_from_the_script_then_from_the_batch_system() -> None:
    pod = record()
    job = BatchJob("1", "u", BatchState.TIMEOUT, started=1_790_000_010.0, ended=1_790_000_020.0)
    marks = {"init": Mark(1_790_000_011.0, 1_790_000_012.0, 0), "main": Mark(), "side": Mark()}
    ends = ending(pod, job, marks, 1_790_000_100.0)
    assert ends["init"].started_at and ends["init"].started_at.timestamp() == 1_790_000_011
    assert ends["main"].started_at and ends["main"].started_at.timestamp() == 1_790_000_010
    assert ends["main"].finished_at and ends["main"].finished_at.timestamp() == 1_790_000_020
