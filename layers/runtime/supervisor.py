"""Our supervisor, where OSCAR's is absent: event on standard input, stage in, `sh` the script, stage out.

Differs from OSCAR's on purpose (docs/contract.md has the list): output is streamed, the script's exit status is the
supervisor's, outputs of a script that failed are not uploaded, and every record of a notification is handled.
"""

import base64
import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from layers.objects.errors import ObjectError
from layers.runtime import storage
from layers.runtime.contract import Exit, InputError
from layers.runtime.incoming import Payload, StorageEvent, interpret

SCRIPT = Path(f"{storage.ROOT}/oscar/config/script.sh")
LARGEST_VARIABLE = 128 * 1024
"""Bytes of one environment variable, its name and its end among them: Linux starts no program with more."""

log = logging.getLogger("supervisor")


def main() -> int:
    """Handle the event on standard input; the exit status is the script's, or 65 where the event itself is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    log.addHandler(handler)
    log.propagate = False
    signal.signal(signal.SIGTERM, _leave)
    try:
        return supervise(sys.stdin.buffer.read(), os.environ, sys.stdout.buffer)
    except (InputError, storage.StorageError, ObjectError) as error:
        print(f"supervisor: {error}", file=sys.stderr)  # noqa: T201 - the job's log
        return int(Exit.BAD_INPUT if isinstance(error, InputError) else Exit.FAILED)


def supervise(body: bytes, environ: Mapping[str, str], printed: BinaryIO) -> int:
    """Handle the event in `body`: the reply or the script's output goes to `printed`.

    Returns the script's exit status; of several objects, the first that is not 0.
    """
    event = interpret(body)
    config = storage.read_config(environ)
    job = isinstance(event, StorageEvent) or bool(environ.get("JOB_UUID"))
    # what a pod that serves /run prints is the reply: there, whoever waits wants no lines of ours in it
    log.setLevel(config.log_level if job and config.log_level in logging.getLevelNamesMapping() else logging.ERROR)
    events = [event]
    if isinstance(event, StorageEvent) and event.bodies:
        events = [interpret(one) for one in event.bodies]
        log.info("The event tells of %d objects; the script runs for each", len(events))
    first = 0
    told = threading.Event()
    for one in events:
        if told.is_set():
            return int(Exit.AGAIN)
        code = _supervise(one, config, environ, printed, told, job=job)
        first = first or code
        if code == Exit.AGAIN:
            return code  # it was told to stop; those that are done will be found done, or be done again
    return first


def _supervise(
    event: StorageEvent | Payload,
    config: storage.ServiceConfig,
    environ: Mapping[str, str],
    printed: BinaryIO,
    told: threading.Event,
    *,
    job: bool,
) -> int:
    """Stage in what the event names, run the script, stage out; `told` is set by a SIGTERM that did not end it."""
    from layers.runtime import providers

    if isinstance(event, StorageEvent):
        event = event.at(config.located(event.notification))
    with tempfile.TemporaryDirectory(prefix="oscar-") as folder:
        received, produced = Path(folder, "input"), Path(folder, "output")
        received.mkdir()
        produced.mkdir()
        after = Path(folder, "after")
        variables = {
            **environ,
            "DIOSCAR_AFTER": str(after),
            **script_variables(event, received, produced, staged=not config.file_stage_in),
        }
        opened = providers.Providers(config)
        if isinstance(event, Payload):
            Path(variables["INPUT_FILE_PATH"]).write_bytes(event.body)
            outputs = (
                config.outputs if opened.has_own else tuple(o for o in config.outputs if o.provider != storage.OWN)
            )
        else:
            outputs = config.outputs_of(event.notification)
        for output in outputs:
            opened[output.provider]  # what cannot be stored is said before the work is done
        if isinstance(event, StorageEvent) and not config.file_stage_in:
            log.info("Downloading %s from %s", event.notification.key, event.notification.provider)
            opened[event.notification.provider].fetch(event.notification, Path(variables["INPUT_FILE_PATH"]))
        if "INPUT_FILE_PATH" in variables:
            log.info("INPUT_FILE_PATH variable set to '%s'", variables["INPUT_FILE_PATH"])
        script = _script(environ, Path(folder))
        captured = io.BytesIO()
        code = _run(script, variables, printed if job else captured, told)
        files = regular_files(produced)
        with _undisturbed(told):
            for output in outputs if code == 0 else ():
                for path in filter(output.takes, files):
                    log.info("Uploading file '%s' to %s, %s", path, output.provider, output.bucket)
                    opened[output.provider].send(produced / path, output, path)
            if code == 0 and after.is_file():
                _forget(Path(after.read_text(encoding="utf-8")), config, event)
        if code:
            log.error("The script ended with status %d; nothing is uploaded", code)
        if not job:
            printed.write(encode_reply(produced, files) if files else captured.getvalue())
            printed.flush()
    return code


def script_variables(
    event: StorageEvent | Payload, received: Path | str, produced: Path | str, *, staged: bool = True
) -> dict[str, str]:
    """The variables that OSCAR's supervisor exports to a script.

    Raises InputError where the event cannot be one, or names no file.
    """
    variables = {"TMP_INPUT_DIR": str(received), "TMP_OUTPUT_DIR": str(produced), **event.query}
    if isinstance(event, Payload):
        variables["INPUT_FILE_PATH"] = f"{received}/event-file-{uuid.uuid4()}"
        return _fitting(variables) if event.query else variables
    key = event.notification.key
    records = event.document.get("Records")
    time = records[0].get("eventTime") if records else None
    variables |= {"STORAGE_OBJECT_KEY": event.object_key, "EVENT": event.text}
    if time:
        variables["EVENT_TIME"] = str(time)
    if staged:
        name = PurePosixPath(key).name
        if key.endswith("/") or name in ("", ".", ".."):
            raise InputError(f"{key}: is a folder marker; upload a file")
        variables["INPUT_FILE_PATH"] = f"{received}/{name}"
    return _fitting(variables) if event.query or len(event.text) > LARGEST_VARIABLE // 4 else variables


def _fitting(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if len(f"{name}={value}".encode()) >= LARGEST_VARIABLE:
            raise InputError(
                f"{name}: has {len(value)} characters, more than an environment variable holds; send a smaller event"
            )
    return variables


def regular_files(folder: Path) -> list[str]:
    """The paths of all files below `folder`, relative to it, sorted.

    A link counts as the file that it leads to, if that is one of the run's own. Raises InputError for any other link to
    a file: it would carry off what the script was never given.
    """
    return sorted(_files(str(folder), "", os.path.realpath(folder.parent) + "/"))


def _files(folder: str, below: str, own: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/", own)
            elif entry.is_file(follow_symlinks=False):
                yield below + entry.name
            elif entry.is_symlink() and not Path(entry.path).is_dir():
                if not (Path(entry.path).is_file() and os.path.realpath(entry.path).startswith(own)):
                    raise InputError(f"{below}{entry.name}: is a link to no file of this run; copy what it leads to")
                yield below + entry.name


def followed(path: Path) -> Path:
    """The file that a path of `regular_files` stands for, where a link is not to be opened as one."""
    return path.resolve() if path.is_symlink() else path


def encode_reply(folder: Path, files: Iterable[str]) -> bytes:
    """OSCAR's reply: base64 of the one file, or of a stored zip of several."""
    files = list(files)
    if len(files) == 1:
        return base64.b64encode((folder / files[0]).read_bytes())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in files:
            archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
    return base64.b64encode(buffer.getvalue())


def _script(environ: Mapping[str, str], folder: Path) -> Path:
    if "SCRIPT" not in environ:
        if not SCRIPT.is_file():
            raise InputError(f"there is no script: neither the variable SCRIPT nor {SCRIPT}")
        return SCRIPT
    path = folder / "script.sh"
    path.write_bytes(base64.b64decode(environ["SCRIPT"]))
    return path


def _run(script: Path, variables: Mapping[str, str], printed: BinaryIO, told: threading.Event) -> int:
    """The script under `sh`, its output streamed to `printed`; SIGTERM is passed on to it, and its end waited for.

    Returns its exit status; 128 and the number of the signal that ended it.
    """
    process: subprocess.Popen[bytes] | None = None

    def pass_on(*_: object) -> None:
        told.set()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    with _on_sigterm(pass_on):
        process = subprocess.Popen(
            ["/bin/sh", str(script)],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if told.is_set():
            pass_on()
        assert process.stdout is not None
        with process.stdout as output:
            while chunk := os.read(output.fileno(), 65536):
                printed.write(chunk)
                printed.flush()
        code = process.wait()
    return code if code >= 0 else 128 - code


def _forget(kept: Path, config: storage.ServiceConfig, event: StorageEvent | Payload) -> None:
    """The outputs are stored: what the run kept for another attempt is not needed any longer."""
    from layers.runtime.checkpoints import Copy, forget
    from layers.runtime.holding import run_key_of

    provider, bucket = config.mailbox(event.notification.bucket if isinstance(event, StorageEvent) else "")
    client = storage.client(config, provider=provider) if bucket else None
    forget(kept, Copy(client, bucket, run_key_of(kept)) if client else None)


def _undisturbed(told: threading.Event) -> contextlib.AbstractContextManager[None]:
    """What is done is stored, SIGTERM or not: another run could do no better."""
    return _on_sigterm(lambda *_: told.set())


def _leave(*_: object) -> None:
    """Nothing has been done yet, of this object at least."""
    sys.exit(int(Exit.AGAIN))


@contextlib.contextmanager
def _on_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
