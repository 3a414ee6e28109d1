"""Races, faults and kill -9: what was acknowledged is there, and nothing else is."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from infra.local.database import DiskFull
from layers.objects.client import S3Client
from layers.objects.errors import ObjectError
from tests.infra.local.s3.conftest import serving
from tests.infra.local.s3.helpers import ACCESS, SECRET, boto, code

SERVER = """
import asyncio, socket, sys, uvicorn, uvloop
from pathlib import Path
from infra.local.blobs import Blobs
from infra.local.database import Database
from infra.local.objects import ObjectStore
from infra.local.s3.app import S3App

async def main(data):
    database = Database(data / "dioscar.db")
    store = ObjectStore(database, Blobs(database, data / "blobs"))
    await store.start()
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    print(listener.getsockname()[1], flush=True)
    app = S3App(store, {sys.argv[2]: sys.argv[3]}.get)
    config = uvicorn.Config(app, http="httptools", lifespan="off", access_log=False, log_config=None)
    await uvicorn.Server(config).serve(sockets=[listener])

uvloop.run(main(Path(sys.argv[1])))
"""


@contextlib.contextmanager
def process(data):
    """A server in a process of its own, killed at the end if it is not dead by then."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, data, ACCESS, SECRET], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield server, f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def test_only_one_of_many_creates(s3, endpoint, bucket):
    with ThreadPoolExecutor(8) as pool:

        def put(number):
            with contextlib.closing(boto(endpoint.url)) as client:
                try:
                    client.put_object(Bucket=bucket, Key="lock", Body=b"%d" % number, IfNoneMatch="*")
                except ClientError as error:
                    return error.response["Error"]["Code"]
                return number

        results = list(pool.map(put, range(8)))
    winners = [result for result in results if isinstance(result, int)]
    assert len(winners) == 1 and results.count("PreconditionFailed") == 7
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"%d" % winners[0]


def test_a_write_that_expects_another_version(s3, bucket):
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=first)["ETag"]
    for expected, refused in ((first, ("PreconditionFailed", 412)), (second, None)):
        if refused is None:
            s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=expected)
        else:
            with pytest.raises(ClientError) as caught:
                s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfMatch=expected)
            assert code(caught) == refused
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="none", Body=b"x", IfMatch=first)
    assert code(caught) == ("NoSuchKey", 404)


def test_a_listener_that_fails_takes_the_object_with_it(s3, endpoint, bucket):
    def fail(*_):
        raise RuntimeError("no job")

    before = len(endpoint.files())
    endpoint.store.listeners.append(fail)
    try:
        for size in (10, 500_000):
            with pytest.raises(ClientError) as caught:
                s3.put_object(Bucket=bucket, Key="k", Body=b"x" * size)
            assert code(caught) == ("InternalError", 500)
            assert "no job" not in str(caught.value)
    finally:
        endpoint.store.listeners.remove(fail)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket) and len(endpoint.files()) == before


def test_a_full_disk_is_answered_and_what_was_there_stays(s3, endpoint, bucket, monkeypatch):
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")

    def full(*_, **__):
        raise DiskFull("no space left on the disk; nothing was changed")

    with monkeypatch.context() as patch:
        patch.setattr(endpoint.store, "insert", full)
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="new", Body=b"x")
    assert code(caught) == ("XMinioStorageFull", 507)
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["kept"]


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    sizes = (100, 70_000, 900_000)
    acknowledged = {}
    with process(tmp_path) as (server, url):
        with contextlib.closing(boto(url)) as setup:
            setup.create_bucket(Bucket="bucket")
            upload = setup.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
            part = setup.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=1, Body=b"p" * 6_000_000)
        source = tmp_path / "source"
        source.write_bytes(b"")

        def put(worker):
            path = tmp_path / f"source{worker}"
            with S3Client(url, ACCESS, SECRET) as client:
                for number in range(10_000):
                    data = os.urandom(sizes[number % 3])
                    path.write_bytes(data)
                    try:
                        client.put("bucket", f"{worker}/{number}", path)
                    except ObjectError:
                        return
                    acknowledged[f"{worker}/{number}"] = data

        threads = [threading.Thread(target=put, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 150:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()

    with serving(tmp_path) as endpoint, contextlib.closing(boto(endpoint.url)) as client:
        listed = [
            entry["Key"]
            for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket")
            for entry in page["Contents"]
        ]
        assert set(acknowledged) <= set(listed)
        for key in listed:
            body = client.get_object(Bucket="bucket", Key=key)["Body"].read()
            assert body == acknowledged.get(key, body)
            assert key in acknowledged or len(body) in sizes
        client.complete_multipart_upload(
            Bucket="bucket",
            Key="parts",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
        assert client.get_object(Bucket="bucket", Key="parts")["Body"].read() == b"p" * 6_000_000
        large = sum(1 for key in listed if client.head_object(Bucket="bucket", Key=key)["ContentLength"] > 65_536)
        deadline = time.monotonic() + 5
        while len(endpoint.files()) != large + 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(endpoint.files()) == large + 1  # of what was under way, nothing is left


def test_a_server_that_is_gone_is_named(tmp_path):
    with process(tmp_path) as (_, url):
        pass
    with contextlib.closing(boto(url)) as client, pytest.raises(EndpointConnectionError):
        client.list_buckets()
