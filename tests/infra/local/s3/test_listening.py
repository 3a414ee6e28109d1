"""Events as they happen, for the minio client."""

import io
import threading

import pytest
from botocore.exceptions import ClientError

from tests.infra.local.s3.helpers import code


def listeners(endpoint):
    return len(endpoint.app._listening._listeners)


def heard(minio, endpoint, bucket, count, ready, **wanted):
    events = []
    stream = minio.listen_bucket_notification(bucket, **wanted)
    stream._response = stream._func()  # the client itself connects at the first event it waits for
    ready.set()
    for event in stream:
        events += event["Records"]
        if len(events) >= count:
            break
    stream._response.close()
    stream._response.release_conn()
    return events


def test_what_happens_is_told_as_minio_tells_it(minio, s3, endpoint, bucket):
    ready, result = threading.Event(), []
    thread = threading.Thread(
        target=lambda: result.extend(heard(minio, endpoint, bucket, 3, ready, prefix="in/", suffix=".txt"))
    )
    thread.start()
    assert ready.wait(10)
    minio.put_object(bucket, "out/a.txt", io.BytesIO(b"x"), 1)
    minio.put_object(bucket, "in/a b.txt", io.BytesIO(b"hello"), 5, metadata={"hop": "1"})
    s3.copy_object(Bucket=bucket, Key="in/copy.txt", CopySource={"Bucket": bucket, "Key": "in/a b.txt"})
    s3.delete_object(Bucket=bucket, Key="in/copy.txt")
    thread.join(10)

    assert [(one["eventName"], one["s3"]["object"]["key"]) for one in result] == [
        ("s3:ObjectCreated:Put", "in/a b.txt"),
        ("s3:ObjectCreated:Copy", "in/copy.txt"),
        ("s3:ObjectRemoved:Delete", "in/copy.txt"),
    ]
    first = result[0]
    assert first["s3"]["bucket"]["name"] == bucket and first["s3"]["object"]["size"] == 5
    assert first["s3"]["object"]["userMetadata"]["X-Amz-Meta-Hop"] == "1"
    assert first["userIdentity"]["principalId"] == "test-access"


def test_a_listener_who_goes_is_forgotten_and_one_who_stays_is_told_of_the_end(minio, s3, endpoint, bucket):
    import time

    ready = threading.Event()
    thread = threading.Thread(target=heard, args=(minio, endpoint, bucket, 1, ready))
    thread.start()
    assert ready.wait(10) and listeners(endpoint) >= 1
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    thread.join(10)
    deadline = time.monotonic() + 10
    while listeners(endpoint) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert listeners(endpoint) == 0

    response = minio.listen_bucket_notification(bucket)._func()
    endpoint.call(endpoint.app.close)
    assert response.read().strip() == b""
    response.release_conn()


def test_listening_to_what_is_not_there(s3, minio, endpoint):
    from minio.error import S3Error

    with pytest.raises(S3Error, match="NoSuchBucket"):
        minio.listen_bucket_notification("no-such-bucket")._func()
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket="no-such-bucket")
    assert code(caught)[0] == "NoSuchBucket"
