"""A pod's status, from what the batch system says of its job and what the job's script has written down.

One rule stands above the table: a pod is a success only where the batch system says COMPLETED (or has forgotten the
job), and every container's own file says 0. An answer that ends a pod is final for Kubernetes, so nothing else may look
like one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.hpc.batch import BatchJob, BatchState
from infra.hpc.folder import OUTPUT, file_of
from infra.hpc.pods import Record
from infra.hpc.protocol import (
    NOT_CREATED,
    ContainerState,
    ContainerStatus,
    PodStatus,
    Running,
    Terminated,
    Waiting,
)

CHECKPOINTED = 75
"""The exit code that says: checkpointed, run me again."""

_CODES = {
    BatchState.TIMEOUT: 124,  # as timeout(1)
    BatchState.OUT_OF_MEMORY: 137,  # killed
    BatchState.CANCELLED: 143,  # terminated
}
"""What stands for an exit code where neither the container nor the batch system tells one; 1 for other states."""


@dataclass(frozen=True)
class Mark:
    """What a job's script has written down of a container; times in seconds since 1970."""

    started: float | None = None
    finished: float | None = None
    code: int | None = None


Marks = Mapping[str, Mark]


def read_marks(folder: Path, containers: list[str]) -> dict[str, Mark]:
    """What stands in a pod's folder of each container. A file that makes no sense counts as one that is not there."""
    return {
        name: Mark(
            _number(file_of(folder, name, "started")),
            _number(file_of(folder, name, "finished")),
            _code(file_of(folder, name, "status")),
        )
        for name in containers
    }


def is_complete(record: Record, marks: Marks) -> bool:
    """Whether it is written down how the pod ended: all have ended, or an init container failed, which ends it."""
    return all(mark.code is not None for mark in marks.values()) or bool(failed_init(record, marks))


def failed_init(record: Record, marks: Marks) -> str:
    """The init container that failed, so that nothing after it has started; empty where none did."""
    return next((name for name in record.init_containers if marks[name].code), "")


def wants_another_run(record: Record, job: BatchJob | None, marks: Marks) -> bool:
    """Whether the pod has ended with a checkpoint, and nothing else: then it is to be submitted again."""
    if job is not None and job.state is BatchState.CANCELLED and not job.reason.upper().startswith("PREEMPT"):
        return False  # somebody ended it on purpose
    codes = {mark.code for mark in marks.values()}
    return CHECKPOINTED in codes and codes <= {0, CHECKPOINTED}


def ending(record: Record, job: BatchJob | None, marks: Marks, now: float, words: str = "") -> dict[str, Terminated]:
    """How each container has ended. `job` is None where the batch system does not know it; `words`: the job's last."""
    clean = job is None or job.state is BatchState.COMPLETED
    success = clean and all(mark.code == 0 for mark in marks.values())
    zero_stands = success or any(marks[name].code != 0 for name in record.containers)  # the pod fails all the same
    code, signal, why = _verdict(record, job, words)
    culprit = failed_init(record, marks)
    ends: dict[str, Terminated] = {}
    for name in record.all_containers:
        mark = marks[name]
        if mark.code is None and culprit:
            says = f"did not start: init container {culprit} ended with {marks[culprit].code}"
            ends[name] = _terminated(record, job, mark, now, marks[culprit].code or 1, says)
        elif mark.code is None:
            ends[name] = _terminated(record, job, mark, now, code, why, signal)
        elif mark.code == 0 and not zero_stands and name in record.containers:
            says = f"its own exit code was 0, but {why}"
            ends[name] = _terminated(record, job, mark, now, code, says, signal)
        else:
            says = "" if mark.code == 0 else "; ".join(filter(None, ["" if clean else _told(job), words]))
            ends[name] = _terminated(record, job, mark, now, mark.code, says)
    return ends


def pod_status(record: Record, marks: Marks) -> PodStatus:
    """The status of a pod, every container of it."""
    final = {name: Terminated.model_validate(end) for name, end in record.final.items()}
    state = BatchState(record.state)
    states: dict[str, ContainerState] = {}
    if final:
        states = {name: ContainerState(terminated=final[name]) for name in record.all_containers}
    elif not record.job or state is BatchState.PENDING:
        waiting = ContainerState(waiting=_waiting(record))
        states = dict.fromkeys(record.all_containers, waiting)
    else:
        states = _under_way(record, marks)
    return _status(record, states)


def unknown_status(pod: Record) -> PodStatus:
    """The status of a pod that nobody has asked to create yet: it waits."""
    waiting = Waiting(reason=NOT_CREATED, message="this plugin has not been asked to create the pod")
    return _status(pod, dict.fromkeys(pod.all_containers, ContainerState(waiting=waiting)))


def lost_status(pod: Record) -> PodStatus:
    """The status of a pod that was created here once, and of which neither a record nor a job is left."""
    end = Terminated(exit_code=1, reason="Lost", message="lost: this plugin has no record of the pod, nor a job of it")
    return _status(pod, dict.fromkeys(pod.all_containers, ContainerState(terminated=end)))


def deleted_status(pod: Record) -> PodStatus:
    """The status of a pod that was deleted before it had ended."""
    end = Terminated(exit_code=_CODES[BatchState.CANCELLED], reason="Deleted", message="the pod has been deleted")
    return _status(pod, dict.fromkeys(pod.all_containers, ContainerState(terminated=end)))


def last_words(folder: Path, limit: int = 300) -> str:
    """The last line of what the job itself said, for a failure that no container explains."""
    try:
        with (folder / OUTPUT).open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 4096))
            lines = stream.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " ".join(lines[-1].split())[:limit] if lines else ""


def as_record(ends: Mapping[str, Terminated]) -> dict[str, dict[str, Any]]:
    """How containers ended, as a record keeps it."""
    return {name: end.wire() for name, end in ends.items()}


def _under_way(record: Record, marks: Marks) -> dict[str, ContainerState]:
    """The states while the job runs, or has ended and is not judged yet: nothing here may end the pod."""
    everything_ended = all(marks[name].code is not None for name in record.containers)
    everything_ended = everything_ended or bool(failed_init(record, marks))
    initialised = all(marks[name].code == 0 for name in record.init_containers)
    states = {}
    for name in record.all_containers:
        mark = marks[name]
        initial = name in record.init_containers
        if mark.code is not None and (not everything_ended or (initial and mark.code == 0)):
            says = "" if mark.code == 0 else f"exited with {mark.code}"
            end = _terminated(record, None, mark, mark.finished or 0.0, mark.code, says)
            states[name] = ContainerState(terminated=end)
        elif mark.started is not None:
            states[name] = ContainerState(running=Running(started_at=_time(mark.started)))
        elif initial or initialised:
            says = f"job {record.job} runs; the container has not started yet"
            reason = "PodInitializing" if initial else "ContainerCreating"
            states[name] = ContainerState(waiting=Waiting(reason=reason, message=says))
        else:
            says = f"job {record.job} runs its init containers"
            states[name] = ContainerState(waiting=Waiting(reason="PodInitializing", message=says))
    return states


def _waiting(record: Record) -> Waiting:
    again = len(record.runs) - 1
    if not record.job:
        why = f": {record.reason}" if record.reason else ""
        if again > 0:
            says = f"checkpointed; is being submitted again ({again} times so far){why}"
            return Waiting(reason="Requeued", message=says)
        return Waiting(reason="Submitting", message=f"is being submitted to the batch system{why}")
    word = re.match(r"[A-Za-z][A-Za-z0-9_]*", record.reason)
    reason = record.reason.removeprefix("waits ")
    says = f"job {record.job} waits in the queue" + (f": {reason}" if reason else "")
    if again > 0:
        says += f"; checkpointed and submitted again, {again} times so far"
    return Waiting(reason=word.group() if word else "Pending", message=says)


def _verdict(record: Record, job: BatchJob | None, words: str) -> tuple[int, int | None, str]:
    """The exit code (never 0), the signal and the sentence for containers whose own end is not recorded."""
    said = f"; the job's last words: {words}" if words else ""
    if job is None:
        known = f"the batch system does not know job {record.job or record.uid} any more"
        return 1, None, f"lost: {known}, and no exit code was recorded{said}"
    if job.state is BatchState.COMPLETED:
        return 1, None, f"{_told(job)}, but no exit code was recorded{said}"
    if job.exit_code:
        return job.exit_code, None, _told(job) + said
    if job.signal:
        return 128 + job.signal, job.signal, _told(job) + said
    return _CODES.get(job.state, 1), None, _told(job) + said


def _told(job: BatchJob | None) -> str:
    if job is None:
        return ""
    reason = "" if job.reason in ("", "None", job.state.value) else f" ({job.reason})"
    return f"job {job.id} ended as {job.state.value}{reason}"


def _terminated(
    record: Record, job: BatchJob | None, mark: Mark, now: float, code: int, message: str, signal: int | None = None
) -> Terminated:
    started = mark.started or (job.started if job else None) or record.started or record.created
    finished = mark.finished or (job.ended if job else None) or now
    if code == 0:
        reason = "Completed"
    else:
        reason = job.state.value if job and job.state is not BatchState.COMPLETED else "Error"
    return Terminated(
        exit_code=code,
        reason=reason,
        message=message,
        started_at=_time(started),
        finished_at=_time(max(started, finished)),
        signal=signal,
    )


def _status(record: Record, states: Mapping[str, ContainerState]) -> PodStatus:
    def status(name: str) -> ContainerStatus:
        state = states[name]
        running = state.running is not None
        image = record.images.get(name, "")
        again = max(0, len(record.runs) - 1)
        return ContainerStatus(
            name=name, state=state, ready=running, started=running, restart_count=again, image=image, image_id=image
        )

    return PodStatus(
        name=record.name,
        uid=record.uid,
        namespace=record.namespace,
        jid=record.job,
        containers=[status(name) for name in record.containers],
        init_containers=[status(name) for name in record.init_containers],
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _number(path: Path) -> float | None:
    try:
        value = float(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None
    return value if 0 < value < 1e11 else None


def _code(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= 255 else None
