"""Run a function once: resolve, run in a private folder, record, and hand over all of the outputs or none."""

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from layers.runtime import function as functions
from layers.runtime import parameters
from layers.runtime.checkpoints import Copy, Kept
from layers.runtime.contract import Checkpointed, Exit, Input, InputError
from layers.runtime.forward import RECORDS, Forward, Rule, forwards, next_hop, parse_forward
from layers.runtime.holding import default_root, run_folder
from layers.runtime.invocation import Invocation
from layers.runtime.job import RunningJob
from layers.runtime.wire import TRAVELS

RECORD_VERSION = 1
MOST_FILES = 10_000
"""Files of a run that an engine stores: each is a row, and all rows are one transaction, for which everybody waits."""
LONGEST_SENTENCE = 2_000
"""Characters of an error that are told; a function may put a whole request into its sentence."""
ERROR_FILE = "error.json"
Stage = Callable[[Path, Kept], list[Input]]
Send = Callable[[Forward, Path, dict[str, str]], None]
FindCopy = Callable[[str], Copy | None]


@dataclass(frozen=True)
class Produced:
    """One output: its path below `out/`, its SHA-256 and its size in bytes; `data` is the content of a small one."""

    path: str
    sha256: str
    size: int
    data: bytes | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """What records and engines are told of it."""
        return {"path": self.path, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `error` is the type and `message` the sentence, both empty when it is done."""

    code: int
    error: str = ""
    message: str = ""
    run_key: str = ""
    outputs: tuple[Produced, ...] = ()
    forwards: tuple[Forward, ...] = ()

    def as_error(self) -> dict[str, Any]:
        """The reply to a synchronous call that failed."""
        return {"error": {"type": self.error, "message": self.message}}


def execute(
    invocation: Invocation,
    *,
    stage: Stage,
    send: Send | None = None,
    copy: FindCopy = lambda run_key: None,
    stopping: threading.Event | None = None,
    content: bytes | None = None,
) -> Outcome:
    """Run `invocation` and report how it ended; never raises for what the function or its input did.

    `stage(source, kept)` puts the objects that a request names into `kept`; `send` emits a forward (None: the engine
    emits them after the run); `copy` says where the checkpoint of a run key is kept whose folder does not survive. On
    success the outputs stand in `invocation.destination`; in any other case nothing does, except `error.json` for a
    synchronous call.

    With `content`, the bytes of the source, the run travels: where all outputs have their `data`, the caller takes them
    from there, and the record of the run has no file.
    """
    began = time.time()
    try:
        outcome = _run(invocation, stage, send, copy, stopping or threading.Event(), began, content is not None)
    except InputError as error:
        outcome = Outcome(Exit.BAD_INPUT, "InputError", _sentence(error))
    except Checkpointed as error:
        outcome = Outcome(Exit.AGAIN, "Checkpointed", _sentence(error) or "checkpointed; to be run again")
    except SystemExit:
        outcome = Outcome(Exit.FAILED, "SystemExit", "the function left its process; return, or raise InputError")
    except MemoryError:
        outcome = Outcome(Exit.FAILED, "MemoryError", "the memory of this job is used up; give the service more memory")
    except Exception as error:  # the function is a stranger's code: whatever it raises is an outcome
        traceback.print_exc(file=sys.stdout)
        outcome = Outcome(Exit.FAILED, type(error).__name__, _sentence(error))
    _report(invocation, outcome, time.time() - began)
    if outcome.code and invocation.reply:
        text = json.dumps(outcome.as_error(), ensure_ascii=False)
        (invocation.destination / ERROR_FILE).write_text(text, encoding="utf-8")
    return outcome


@dataclass(frozen=True)
class _Plan:
    """All that identifies a run, known before it starts."""

    function: functions.Function
    settings: Any
    rules: tuple[Rule, ...]
    models: Mapping[str, Path]
    identity: Mapping[str, Any]

    @property
    def run_key(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()


def _plan(invocation: Invocation) -> _Plan:
    function = functions.load(invocation.function)
    settings = parameters.read_settings(function.settings, invocation.environ)
    rules = parse_forward(invocation.environ.get("FORWARD", ""))
    if invocation.reply and rules:
        where = f"upload to {invocation.service}/in or POST /job/{invocation.service}"
        raise InputError(f"{invocation.service}: forwards its outputs, which a synchronous call cannot; {where}")
    models = functions.resolve_models(function, invocation.environ)
    identity = {
        "service": invocation.service,
        "input": {"key": invocation.key or invocation.name, "sha256": invocation.sha256},
        "function": {"name": function.name, "version": function.version},
        "settings": parameters.as_json(settings),
        "models": {name: functions.version_of(path) for name, path in models.items()},
        **({"ranks": invocation.ranks} if invocation.ranks > 1 else {}),
    }
    return _Plan(function, settings, rules, models, identity)


def _run(
    invocation: Invocation,
    stage: Stage,
    send: Send | None,
    copy: FindCopy,
    stopping: threading.Event,
    began: float,
    travels: bool,
) -> Outcome:
    plan = _plan(invocation)
    run_key = plan.run_key
    named = invocation.environ.get("DIOSCAR_CHECKPOINT")
    kept = Kept(
        run_folder(Path(named) if named else default_root(), run_key, invocation.bucket),
        lambda: copy(run_key),
        rank=invocation.rank,
        ranks=invocation.ranks,
        after=invocation.environ.get("DIOSCAR_AFTER", ""),
    )
    with contextlib.closing(kept), _workplace(invocation) as made:
        source = _named_source(invocation, made)
        job = RunningJob(
            staged=stage(source, kept),
            models=plan.models,
            kept=kept,
            stop=stopping,
            seed=int(invocation.sha256[:16], 16),
            progress_file=invocation.environ.get("DIOSCAR_PROGRESS", ""),
            quiet=invocation.rank > 0,
        )
        if invocation.reply and job.inputs:
            where = f"POST it to /job/{invocation.service}"
            raise InputError(f"{source.name}: names inputs, which a synchronous call cannot read; {where}")
        folder = made
        if invocation.folder:
            folder = made / invocation.folder
            folder.mkdir(parents=True, exist_ok=True)
        arguments = (source, folder, plan.settings, job)
        try:
            plan.function.run(*(arguments if plan.function.takes_job else arguments[:3]))
        except Checkpointed:
            kept.keep_now()
            raise
        if invocation.rank:
            return Outcome(Exit.DONE, run_key=run_key)  # rank 0 has the outputs
        outputs = _outputs(made, MOST_FILES if invocation.environ.get("DIOSCAR_ENGINE") else None)
        emitted = tuple(forwards(plan.rules, [output.path for output in outputs]))
        if invocation.reply:
            reply = _reply(outputs, plan.function)
            for other in outputs:
                if other is not reply:
                    (made / other.path).unlink()
            outputs = [reply]
        else:
            record = _record(invocation, source, plan, job, outputs, emitted, began)
            if not (travels and all(output.data is not None for output in outputs)):
                _write(made / record.path, record)
            outputs.append(record)
        if send and emitted:
            metadata = next_hop(invocation.metadata, invocation.service, invocation.bucket, invocation.key)
            for forward in emitted:
                send(forward, made / forward.path, metadata)
        for output in outputs if made != invocation.destination else ():
            _hand_over(made / output.path, invocation.destination / output.path)
        if not invocation.environ.get("DIOSCAR_ENGINE"):  # which does so itself, once the outputs are its own
            kept.remove()
    return Outcome(Exit.DONE, run_key=run_key, outputs=tuple(outputs), forwards=emitted)


@contextlib.contextmanager
def _workplace(invocation: Invocation) -> Iterator[Path]:
    """Where the function writes: a private folder, or the destination where an engine discards that of a failed run."""
    if not invocation.destination.is_dir():
        invocation.destination.mkdir(parents=True, exist_ok=True)
    if invocation.environ.get("DIOSCAR_ENGINE"):
        try:
            yield invocation.destination
        except BaseException:
            for entry in invocation.destination.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            raise
        return
    with tempfile.TemporaryDirectory(prefix=".dioscar-", dir=invocation.destination.parent) as private:
        made = Path(private) / "out"
        made.mkdir()
        yield made


def _record(
    invocation: Invocation,
    source: Path,
    plan: _Plan,
    job: RunningJob,
    outputs: list[Produced],
    emitted: tuple[Forward, ...],
    began: float,
) -> Produced:
    """The provenance record of a run: everything that went in, everything that came out, when and where."""
    size = source.stat().st_size
    record = {
        "version": RECORD_VERSION,
        "run_key": plan.run_key,
        **plan.identity,
        "input": {"bucket": invocation.bucket, **plan.identity["input"], "size": size},
        "inputs": [{"bucket": i.bucket, "key": i.key, "sha256": i.sha256} for i in job.inputs],
        "outputs": [output.as_json() for output in outputs],
        "forwards": [vars(forward) for forward in emitted],
        "job": invocation.environ.get("JOB_UUID", ""),
        "started": _timestamp(began),
        "finished": _timestamp(time.time()),
        "host": socket.gethostname(),
    }
    data = json.dumps(record, ensure_ascii=False).encode() + b"\n"
    name = f"{RECORDS}/{invocation.name}/{plan.run_key}.json"
    return Produced(name, hashlib.sha256(data).hexdigest(), len(data), data)


def _named_source(invocation: Invocation, made: Path) -> Path:
    """The source under the name that outputs derive from, which the body of a direct call gets only here."""
    name = invocation.name.rpartition("/")[2]
    if invocation.source.name == name:
        return invocation.source
    if invocation.environ.get("DIOSCAR_ENGINE"):  # which gave us a copy of our own
        return invocation.source.rename(invocation.source.with_name(name))
    folder = made.with_name(f"{made.name}-source")
    folder.mkdir()
    target = folder / name
    try:
        os.link(invocation.source, target)
    except OSError:
        shutil.copyfile(invocation.source, target)
    return target


def _outputs(folder: Path, most: int | None) -> list[Produced]:
    """What the function wrote, in the order of the paths; small files with their data, up to `TRAVELS` together."""
    outputs: list[Produced] = []
    room = TRAVELS
    for path, name in _files(str(folder), ""):
        if len(outputs) == most:
            raise InputError(f"left more than {most} files; write one archive (HDF5, tar) instead")
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - this and what follows is done for every run
            size = os.fstat(file.fileno()).st_size
            data = file.read(room + 1) if size <= room else None
            if data is None or len(data) > room:
                file.seek(0)
                outputs.append(Produced(name, hashlib.file_digest(file, "sha256").hexdigest(), size))
            else:
                room -= len(data)
                outputs.append(Produced(name, hashlib.sha256(data).hexdigest(), len(data), data))
    return sorted(outputs, key=lambda output: output.path)


def _files(folder: str, below: str) -> Iterator[tuple[str, str]]:
    """Every file below a folder: its path, and its path below the first folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield entry.path, below + entry.name
            else:
                kind = "a symbolic link" if entry.is_symlink() else "no regular file"
                raise InputError(f"{entry.name}: is {kind}; a function writes its outputs as files")


def _reply(outputs: list[Produced], function: functions.Function) -> Produced:
    """The one file that answers a synchronous call."""
    found = [output for output in outputs if fnmatch.fnmatchcase(output.path, function.reply or "*")]
    if len(found) != 1:
        names = ", ".join(output.path for output in outputs) or "none"
        where = f"functions/{function.name.replace('.', '/')}.py"
        raise RuntimeError(f'{where}: REPLY "{function.reply}" must match one of its outputs ({names})')
    return found[0]


def _write(path: Path, record: Produced) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(record.data or b"")


def _hand_over(made: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, target)


def _report(invocation: Invocation, outcome: Outcome, seconds: float) -> None:
    what = f"dioscar: {invocation.function} {invocation.name}"
    if outcome.code == Exit.DONE:
        if invocation.reply:
            return  # to whoever called
        print(f"{what}: done in {seconds:.2f} s, {len(outcome.outputs)} files", flush=True)  # noqa: T201 - the job's log
    else:
        print(f"{what}: {outcome.error}: {outcome.message}", flush=True)  # noqa: T201


def _sentence(error: BaseException) -> str:
    return parameters.cut(" ".join(str(error).split()), LONGEST_SENTENCE) or type(error).__name__


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
