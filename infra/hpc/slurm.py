"""Slurm, by its own commands: asked as seldom as can be, judged by exit status and job id rather than by words."""

import asyncio
import functools
import os
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from infra.hpc.batch import BatchBusy, BatchJob, BatchRefused, BatchState, BatchUnavailable, Resources, Submission
from infra.hpc.environment import handed_on
from infra.hpc.folder import OUTPUT
from infra.hpc.states import state_of

TIMEOUT_S = 60.0
"""A command may wait for the controller for as long as the site's MessageTimeout says, twice over."""
AT_ONCE = 8
"""Commands that may run at the same time."""
MOST_NAMES = 500
"""Ids or names in one command: its line stays far below what Linux takes."""
COLUMNS = "%A|%T|%V|%S|%e|%j|%r"
"""Id, state, submitted, started, ended, name, reason: the one that may hold anything is the last."""
GRES = re.compile(r"(gpu)(?::([^:(,]+))?:(\d+)(?=[(,]|$)")
FAILED_NODES = re.compile(r"down|drain|drng|fail|boot|maint|unk|future|no_respond|inval")
NOT_NOW = re.compile(
    r"(?i)unable to contact|timed out|temporarily|connection|communication|zero bytes|munge|authentication|"
    r"try again|not responding|backup controller|standby|in progress|slurmdbd|shutdown"
)
"""What Slurm says where the same submission may be taken later, though the controller answers."""
BUSY = re.compile(r"(QOS|Assoc)[A-Z]\w*Submit\w*|submit limit|inactive or drain|nodes are busy")
"""What it says where it has not taken a job for the time being: too many submitted, a partition in maintenance."""
OTHER_LIMIT = re.compile(r"\b(QOS|Assoc)(?!\w*Submit)[A-Z]\w+")
"""The limit that it names first where the job itself is too large: it then speaks of the submit limit, too."""
UNKNOWN_JOB = re.compile(r"(?i)invalid job id")
EXIT_CODE = re.compile(r"\bExitCode=(\d+):(\d+)")
OWN_VARIABLES = re.compile(r"S(BATCH|ALLOC|LURM|QUEUE|CANCEL|INFO|CONTROL|RUN)_\w*")
"""Variables by which Slurm's commands take options: a plugin that runs in a job itself must not hand them on."""


class _UnknownJob(BatchUnavailable):
    """squeue complains of an id that it does not know."""


@dataclass(frozen=True)
class _Ended:
    code: int
    printed: str
    said: str


class Slurm:
    """Satisfies `infra.hpc.batch.Batch`."""

    def __init__(
        self,
        programs: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`programs`: the folder of Slurm's commands where they are not on PATH. SLURM_CONF is taken from `environ`."""
        self._programs = programs
        self._environ = {name: value for name, value in environ.items() if not OWN_VARIABLES.fullmatch(name)}
        if "SLURM_CONF" in environ:
            self._environ["SLURM_CONF"] = environ["SLURM_CONF"]
        self._for_jobs = handed_on(self._environ)
        self._for_jobs |= {name: environ[name] for name in ("SLURM_CONF",) if name in environ}
        self._environ["SLURM_TIME_FORMAT"] = "%s"
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="slurm")
        self._most_jobs: int | None = None

    async def submit(self, submission: Submission) -> str:
        """See `Batch`. Of the plugin's environment, the script sees what a login would set, and no more.

        `--export=NONE` would do it too, but then Slurm logs in on the node for each job, which takes a good half
        second. A site that wants that all the same has it among its `default_flags`.
        """
        ended = await self._call(
            "sbatch",
            "--parsable",
            "--export=ALL",
            f"--job-name={submission.name}",
            f"--comment={submission.comment}",
            f"--chdir={submission.folder}",
            f"--output={_literal(submission.folder / OUTPUT)}",
            "--open-mode=append",
            *submission.flags,
            str(submission.script),
            environ=self._for_jobs,
        )
        job = ended.printed.strip().partition(";")[0]
        if ended.code == 0 and job.isdecimal():
            return job
        said = _one_line(ended.said) or f"sbatch ended with status {ended.code} and named no job"
        if ended.code and BUSY.search(ended.said) and not OTHER_LIMIT.search(ended.said):
            raise BatchBusy(said)
        if ended.code == 0 or NOT_NOW.search(ended.said) or not await self._answers():
            raise BatchUnavailable(said)
        raise BatchRefused(said)

    async def named(self, names: Collection[str]) -> list[BatchJob]:
        """See `Batch`. One squeue for many names; how a job ended takes a command for each, so `query` tells that."""
        found: list[BatchJob] = []
        for part in _parts(names):
            found += await self._squeue(f"--name={','.join(part)}")
        wanted = set(names)
        return [job for job in found if job.name in wanted]

    async def query(self, ids: Collection[str]) -> dict[str, BatchJob]:
        """See `Batch`."""
        known: list[BatchJob] = []
        for part in _parts(ids):
            known += await self._known(part)
        return {job.id: job for job in await self._with_ends(known)}

    async def cancel(self, job: str) -> None:
        """See `Batch`. Slurm sends SIGTERM, and after its KillWait SIGKILL."""
        ended = await self._call("scancel", "--quiet", job)
        if ended.code and not UNKNOWN_JOB.search(ended.said):
            raise BatchUnavailable(_one_line(ended.said) or f"scancel ended with status {ended.code}")

    async def ping(self) -> Resources:
        """See `Batch`. Nodes that are down or drained are not counted."""
        pinged = await self._call("scontrol", "ping")
        if pinged.code:
            raise BatchUnavailable(_one_line(pinged.said or pinged.printed) or "slurmctld does not answer")
        if self._most_jobs is None:
            config = await self._succeed("scontrol", "show", "config")
            found = re.search(r"(?m)^MaxJobCount\s*=\s*(\d+)", config)
            self._most_jobs = int(found[1]) if found else 10_000
        listed = await self._succeed("sinfo", "--noheader", "--Node", "--format=%N|%c|%m|%t|%G")
        return total_of(listed, self._most_jobs)

    async def close(self) -> None:
        """See `Batch`. A command that is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answers(self) -> bool:
        try:
            return (await self._call("scontrol", "ping")).code == 0
        except BatchUnavailable:
            return False

    async def _known(self, ids: list[str]) -> list[BatchJob]:
        """The jobs of these ids; where squeue complains of an unknown one, the others are asked for without it."""
        try:
            # a single unknown id is an error to squeue, one among several is not
            return await self._squeue(f"--jobs={','.join([*ids, ids[0]])}")
        except _UnknownJob:
            if len(ids) == 1:
                return []
            half = len(ids) // 2
            return await self._known(ids[:half]) + await self._known(ids[half:])

    async def _squeue(self, selection: str) -> list[BatchJob]:
        # --all: those in hidden partitions, too
        listed = await self._call("squeue", "--noheader", "--all", "--states=all", f"--format={COLUMNS}", selection)
        if listed.code:
            kind = _UnknownJob if UNKNOWN_JOB.search(listed.said) else BatchUnavailable
            raise kind(_one_line(listed.said) or f"squeue ended with status {listed.code}")
        return [job for line in listed.printed.splitlines() if (job := parse_line(line)) is not None]

    async def _with_ends(self, jobs: Sequence[BatchJob]) -> list[BatchJob]:
        """The same jobs, those that have ended with how: what squeue prints of that differs from Slurm to Slurm."""
        return list(await asyncio.gather(*(self._with_end(job) if job.state.is_final else _same(job) for job in jobs)))

    async def _with_end(self, job: BatchJob) -> BatchJob:
        shown = await self._call("scontrol", "--oneliner", "show", "job", job.id)
        found = EXIT_CODE.search(shown.printed)
        if shown.code or not found:
            return job  # forgotten just now: what squeue said stands
        code, signal = int(found[1]), int(found[2])
        if job.state is BatchState.COMPLETED and (code or signal):
            job = replace(job, state=BatchState.FAILED)
        return replace(job, exit_code=code, signal=signal or None)

    async def _succeed(self, *command: str) -> str:
        ended = await self._call(*command)
        if ended.code:
            raise BatchUnavailable(_one_line(ended.said) or f"{command[0]} ended with status {ended.code}")
        return ended.printed

    async def _call(self, program: str, *arguments: str, environ: Mapping[str, str] | None = None) -> _Ended:
        path = str(self._programs / program) if self._programs else program
        run = functools.partial(
            subprocess.run,
            [path, *arguments],
            env=self._environ if environ is None else environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=self._timeout_s,
            start_new_session=True,
            check=False,
        )
        try:
            ended = await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except subprocess.TimeoutExpired:
            raise BatchUnavailable(f"{program} did not answer within {self._timeout_s:g} s") from None
        except OSError as error:
            raise BatchUnavailable(f"{path}: cannot be started: {error.strerror or error}") from None
        return _Ended(ended.returncode, ended.stdout, ended.stderr)


def parse_line(line: str) -> BatchJob | None:
    """A line of squeue in the form of COLUMNS; None for what is none.

    >>> parse_line("7|NODE_FAIL|1795325537|1795325538|1795325600|a-name|NodeDown").state
    <BatchState.NODE_FAIL: 'NODE_FAIL'>
    """
    fields = line.strip().split("|", 6)
    if len(fields) < 7 or not fields[0].isdecimal():
        return None
    job, state, submitted, started, ended, name, reason = fields
    ours = state_of(state)
    if reason in ("None", "NonZeroExitCode", ""):
        reason = "" if state == ours else state
    elif state != ours:
        reason = f"{state}: {reason}"
    return BatchJob(
        id=job,
        name=name,
        state=ours,
        reason=reason,
        submitted=_time(submitted),
        started=None if ours is BatchState.PENDING else _time(started),  # of a waiting job, when it is expected to
        ended=_time(ended) if ours.is_final else None,
    )


def total_of(listed: str, most_jobs: int) -> Resources:
    """What the nodes that sinfo has listed (name, cores, megabytes, state, GRES) have together."""
    cpus = memory = 0
    accelerators: Counter[str] = Counter()
    seen = set()
    for line in listed.splitlines():
        name, cores, megabytes, state, gres = (line.split("|", 4) + [""] * 5)[:5]
        if name in seen or FAILED_NODES.search(state.lower()) or not cores.isdecimal():
            continue
        seen.add(name)  # a node stands there once for each of its partitions
        cpus += int(cores)
        memory += int(megabytes.rstrip("+") or 0) << 20
        for kind, model, count in GRES.findall(gres):
            accelerators[model or kind] += int(count)
    return Resources(cpus=cpus, memory=memory, pods=most_jobs, accelerators=dict(accelerators))


async def _same(job: BatchJob) -> BatchJob:
    return job


def _parts(names: Collection[str]) -> list[list[str]]:
    ordered = list(dict.fromkeys(names))
    return [ordered[start : start + MOST_NAMES] for start in range(0, len(ordered), MOST_NAMES)]


def _time(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def _one_line(text: str) -> str:
    """What Slurm said, without its prefixes, in one line of at most 500 characters."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[:500]


def _literal(path: Path) -> str:
    """A path for --output, in which `%` begins a pattern."""
    return str(path).replace("%", "%%")
