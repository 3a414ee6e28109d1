"""A store to compare, started, and what its tests say of it."""

from contextlib import closing
from dataclasses import dataclass

import pytest
from botocore.exceptions import ClientError
from minio import Minio
from minio.notificationconfig import NotificationConfig, QueueConfig

from tests.cluster import running_cluster
from tests.infra.local.receiver import Receiver, receiving
from tests.infra.local.s3.conformance.differences import MINIO
from tests.infra.local.s3.conformance.juicefs import gateway
from tests.infra.local.s3.helpers import ACCESS, SECRET, boto, code

PART = 5 << 20
ARN = "arn:minio:sqs:us-east-1:PRIMARY:webhook"
CONFIGURATION = {
    "MINIO_ACCESS_KEY": ACCESS,
    "MINIO_SECRET_KEY": SECRET,
    "MINIO_ROOT_USER": ACCESS,
    "MINIO_ROOT_PASSWORD": SECRET,
    "MINIO_REGION_NAME": "us-east-1",
    "MINIO_NOTIFY_WEBHOOK_ENABLE_PRIMARY": "on",
    "MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_PRIMARY": "token",
}


@dataclass(frozen=True)
class Store:
    """A server, its clients, and what its webhook receives."""

    name: str
    url: str
    s3: object
    minio: Minio
    receiver: Receiver


def start(stack, name, data):
    receiver = stack.enter_context(receiving())
    environ = {**CONFIGURATION, "MINIO_NOTIFY_WEBHOOK_ENDPOINT_PRIMARY": receiver.url}
    if name == MINIO:
        url, _ = stack.enter_context(gateway(data, environ))
    else:
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in environ.items():
                patch.setenv(variable, value)
            url = stack.enter_context(running_cluster(data)).facts["s3"]
    s3 = stack.enter_context(closing(boto(url, s3={"addressing_style": "path"}, signature_version="s3v4")))
    minio = Minio(url.removeprefix("http://"), ACCESS, SECRET, secure=False)
    stack.callback(minio._http.clear)
    return Store(name, url, s3, minio, receiver)


def refused(function, *args, **more):
    """The code and the status of an error."""
    with pytest.raises(ClientError) as caught:
        function(*args, **more)
    return code(caught)


def read(s3, bucket, key, **more):
    with closing(s3.get_object(Bucket=bucket, Key=key, **more)["Body"]) as body:
        return body.read()


def keys(page):
    return [entry["Key"] for entry in page.get("Contents", [])]


def prefixes(page):
    return [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def fill(s3, bucket, *names):
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=name.encode())


def upload(s3, bucket, key="k", **more):
    return s3.create_multipart_upload(Bucket=bucket, Key=key, **more)["UploadId"]


def part(s3, bucket, number, body, identity, key="k"):
    done = s3.upload_part(Bucket=bucket, Key=key, UploadId=identity, PartNumber=number, Body=body)
    return {"PartNumber": number, "ETag": done["ETag"]}


def complete(s3, bucket, identity, parts, key="k"):
    return s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=identity, MultipartUpload={"Parts": parts})


def rule(*events, arn=ARN, **more):
    queue = QueueConfig(queue=arn, events=list(events), **more)
    return NotificationConfig(queue_config_list=[queue])
