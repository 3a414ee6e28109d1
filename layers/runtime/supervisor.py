"""Our supervisor, where OSCAR's is absent: event on standard input, stage in, `sh` the script, stage out.

Differs from OSCAR's on purpose: output is streamed, the script's exit status is the supervisor's, and outputs of a
script that failed are not uploaded.
"""

import base64
import io
import os
import signal
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from layers.objects.errors import ObjectError
from layers.runtime import storage
from layers.runtime.contract import Exit, InputError
from layers.runtime.incoming import Payload, StorageEvent, interpret

SCRIPT = Path("/oscar/config/script.sh")


def main() -> int:
    """Handle the event on standard input; the exit status is the script's, or 65 where the event itself is wrong."""
    try:
        return supervise(sys.stdin.buffer.read(), os.environ, sys.stdout.buffer)
    except (InputError, storage.StorageError, ObjectError) as error:
        print(f"supervisor: {error}", file=sys.stderr)  # noqa: T201 - the job's log
        return int(Exit.BAD_INPUT if isinstance(error, InputError) else Exit.FAILED)


def supervise(body: bytes, environ: Mapping[str, str], log: BinaryIO) -> int:
    """Stage in what `body` names, run the script, stage out; the reply or the script's output goes to `log`."""
    event = interpret(body)
    config = storage.read_config(environ)
    client = storage.client(config)
    with tempfile.TemporaryDirectory(prefix="oscar-") as folder:
        received, produced = Path(folder, "input"), Path(folder, "output")
        received.mkdir()
        produced.mkdir()
        variables = {**environ, **script_variables(event, received, produced, staged=not config.file_stage_in)}
        if isinstance(event, Payload):
            Path(variables["INPUT_FILE_PATH"]).write_bytes(event.body)
        elif not config.file_stage_in:
            if client is None:
                raise storage.StorageError("this pod has no credentials for object storage; mount minio.default")
            client.get(event.notification.bucket, event.notification.key, Path(variables["INPUT_FILE_PATH"]))
        script = _script(environ, Path(folder))
        direct = isinstance(event, Payload)
        captured = io.BytesIO()
        code = _run(script, variables, captured if direct else log)
        files = regular_files(produced)
        if client and (code == 0 or direct):
            for output in config.outputs if code == 0 else ():
                for path in filter(output.takes, files):
                    client.put(output.bucket, output.key(path), produced / path)
        if direct:
            log.write(encode_reply(produced, files) if files else captured.getvalue())
            log.flush()
    return code


def script_variables(
    event: StorageEvent | Payload, received: Path | str, produced: Path | str, *, staged: bool = True
) -> dict[str, str]:
    """The variables that OSCAR's supervisor exports to a script."""
    variables = {"TMP_INPUT_DIR": str(received), "TMP_OUTPUT_DIR": str(produced)}
    if isinstance(event, Payload):
        return {**variables, **event.query, "INPUT_FILE_PATH": f"{received}/event-file-{uuid.uuid4()}"}
    key = event.notification.key
    variables |= {
        "STORAGE_OBJECT_KEY": key,
        "EVENT_TIME": str(event.document["Records"][0].get("eventTime", "")),
        "EVENT": event.text,
    }
    if staged:
        name = PurePosixPath(key).name
        if key.endswith("/") or name in ("", ".", ".."):
            raise InputError(f"{key}: is a folder marker; upload a file")
        variables["INPUT_FILE_PATH"] = f"{received}/{name}"
    return variables


def regular_files(folder: Path) -> list[str]:
    """The paths of all files below `folder`, relative to it, sorted."""
    return sorted(_files(str(folder), ""))


def _files(folder: str, below: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield below + entry.name


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


def _run(script: Path, variables: Mapping[str, str], log: BinaryIO) -> int:
    """The script under `sh`, its output streamed to `log`; SIGTERM is passed on to it."""
    process = subprocess.Popen(
        ["/bin/sh", str(script)],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
    assert process.stdout is not None
    with process.stdout as output:
        while chunk := os.read(output.fileno(), 65536):
            log.write(chunk)
            log.flush()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
