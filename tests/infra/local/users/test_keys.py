"""Users' keys at the S3 endpoint: their own buckets and shared ones, and AccessDenied everywhere else."""

import io
from typing import Any

import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from minio import Minio
from minio.error import S3Error

from infra.local.s3.app import BUCKET, OBJECT
from tests.cluster import Cluster
from tests.infra.local.users.conftest import Person, boto, denied
from tests.infra.local.users.issuer import TestIssuer


def make(person: Person, name: str, visibility: str = "private", allowed: tuple[str, ...] = ()) -> str:
    """A bucket with one object in it."""
    document = {"bucket_name": name, "visibility": visibility, "allowed_users": list(allowed)}
    answer = person.ask("POST", "/system/buckets", json=document)
    assert answer.status_code == 201, answer.text
    person.s3.put_object(Bucket=name, Key="a", Body=f"{name}'s".encode())
    return name


def share(person: Person, name: str, visibility: str, *allowed: str) -> None:
    document = {"bucket_name": name, "visibility": visibility, "allowed_users": list(allowed)}
    answer = person.ask("PUT", "/system/buckets", json=document)
    assert answer.status_code == 204, answer.text


@pytest.fixture(scope="module")
def hers(alice: Person) -> str:
    return make(alice, "hers")


@pytest.fixture(scope="module")
def his(bob: Person) -> str:
    return make(bob, "his")


def test_a_users_own_bucket_is_theirs(alice: Person, hers: str) -> None:
    s3 = alice.s3
    assert s3.get_object(Bucket=hers, Key="a")["Body"].read() == b"hers's"
    s3.put_object(Bucket=hers, Key="b", Body=b"b", Tagging="x=y")
    s3.copy_object(Bucket=hers, Key="c", CopySource={"Bucket": hers, "Key": "b"})
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=hers)["Contents"]] == ["a", "b", "c"]
    s3.delete_objects(Bucket=hers, Delete={"Objects": [{"Key": "b"}, {"Key": "c"}]})
    s3.put_bucket_tagging(Bucket=hers, Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    assert s3.get_bucket_tagging(Bucket=hers)["TagSet"] == [{"Key": "k", "Value": "v"}]
    assert denied(s3.create_bucket, Bucket=hers) == "BucketAlreadyOwnedByYou"


def test_a_list_of_buckets_has_those_that_are_seen(cluster: Cluster, alice: Person, bob: Person, hers: str) -> None:
    def names(person: Person) -> set[str]:
        return {one["Name"] for one in person.s3.list_buckets()["Buckets"]}

    shared = make(alice, "listed")
    assert {hers, shared} <= names(alice)
    assert not names(bob) & {hers, shared}
    share(alice, shared, "restricted", bob.uid)
    assert shared in names(bob)
    share(alice, shared, "restricted", "carol")
    assert shared not in names(bob)
    share(alice, shared, "public")
    assert shared in names(bob)
    root = boto(cluster.facts["s3"], cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])
    assert {hers, shared} <= {one["Name"] for one in root.list_buckets()["Buckets"]}
    root.close()


CALLS: dict[str, dict[str, Any]] = {
    "get_object": {"Key": "a"},
    "head_object": {"Key": "a"},
    "get_object_tagging": {"Key": "a"},
    "get_object_attributes": {"Key": "a", "ObjectAttributes": ["ETag"]},
    "put_object": {"Key": "new", "Body": b"x"},
    "put_object_tagging": {"Key": "a", "Tagging": {"TagSet": []}},
    "delete_object": {"Key": "a"},
    "delete_object_tagging": {"Key": "a"},
    "delete_objects": {"Delete": {"Objects": [{"Key": "a"}]}},
    "list_objects": {},
    "list_objects_v2": {},
    "list_object_versions": {},
    "list_multipart_uploads": {},
    "create_multipart_upload": {"Key": "new"},
    "upload_part": {"Key": "new", "PartNumber": 1, "UploadId": "x", "Body": b"x"},
    "complete_multipart_upload": {"Key": "new", "UploadId": "x", "MultipartUpload": {"Parts": []}},
    "abort_multipart_upload": {"Key": "new", "UploadId": "x"},
    "head_bucket": {},
    "create_bucket": {},
    "delete_bucket": {},
    "get_bucket_location": {},
    "get_bucket_tagging": {},
    "put_bucket_tagging": {"Tagging": {"TagSet": []}},
    "delete_bucket_tagging": {},
    "get_bucket_notification_configuration": {},
    "put_bucket_notification_configuration": {"NotificationConfiguration": {}},
    "get_bucket_acl": {},
    "get_bucket_policy": {},
    "put_bucket_policy": {"Policy": "{}"},
    "delete_bucket_policy": {},
}
DENIED = ("AccessDenied", "403")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bucket", ["his", "absent"])
def test_everything_else_is_access_denied(alice: Person, his: str, name: str, bucket: str) -> None:
    assert denied(getattr(alice.s3, name), Bucket=bucket, **CALLS[name]) in DENIED


def test_what_was_denied_changed_nothing(bob: Person, his: str) -> None:
    (left,) = bob.s3.list_objects_v2(Bucket=his)["Contents"]
    assert (left["Key"], left["Size"]) == ("a", len("his's"))
    assert "Uploads" not in bob.s3.list_multipart_uploads(Bucket=his)


OWNERS = [
    *("create_bucket", "delete_bucket", "put_bucket_tagging", "delete_bucket_tagging"),
    *("put_bucket_notification_configuration", "put_bucket_policy", "delete_bucket_policy"),
]


@pytest.mark.parametrize("visibility", ["restricted", "public"])
def test_who_shares_a_bucket_shares_what_is_in_it_and_stays_its_owner(
    alice: Person, bob: Person, visibility: str
) -> None:
    bucket = make(alice, f"shared-{visibility}", visibility, (bob.uid,))
    bob.s3.put_object(Bucket=bucket, Key="bobs", Body=b"b")
    assert alice.s3.get_object(Bucket=bucket, Key="bobs")["Body"].read() == b"b"
    bob.s3.delete_object(Bucket=bucket, Key="a")
    for name in OWNERS:
        assert denied(getattr(bob.s3, name), Bucket=bucket, **CALLS[name]) in DENIED, name
    share(alice, bucket, "private")
    assert denied(bob.s3.get_object, Bucket=bucket, Key="bobs") == "AccessDenied"
    assert alice.s3.get_object(Bucket=bucket, Key="bobs")["Body"].read() == b"b"


def test_nothing_is_copied_out_of_another_users_bucket(alice: Person, hers: str, his: str) -> None:
    source = {"Bucket": his, "Key": "a"}
    assert denied(alice.s3.copy_object, Bucket=hers, Key="stolen", CopySource=source) == "AccessDenied"
    upload = alice.s3.create_multipart_upload(Bucket=hers, Key="stolen")["UploadId"]
    part = {"Bucket": hers, "Key": "stolen", "UploadId": upload, "PartNumber": 1}
    assert denied(alice.s3.upload_part_copy, CopySource=source, **part) == "AccessDenied"
    alice.s3.abort_multipart_upload(Bucket=hers, Key="stolen", UploadId=upload)
    assert denied(alice.s3.copy_object, Bucket=hers, Key="x", CopySource=f"absent%2F/../{his}/a") == "AccessDenied"


def test_an_upload_that_outlives_its_right_is_not_stored(alice: Person, bob: Person) -> None:
    bucket = make(alice, "outlived", "public")
    upload = bob.s3.create_multipart_upload(Bucket=bucket, Key="late")["UploadId"]
    part = bob.s3.upload_part(Bucket=bucket, Key="late", UploadId=upload, PartNumber=1, Body=b"late")
    share(alice, bucket, "private")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    complete = bob.s3.complete_multipart_upload
    assert denied(complete, Bucket=bucket, Key="late", UploadId=upload, MultipartUpload=parts) == "AccessDenied"
    assert denied(alice.s3.head_object, Bucket=bucket, Key="late") == "404"


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_presigned_url_is_worth_what_its_keys_are(alice: Person, hers: str, his: str, version: str) -> None:
    keys = alice.keys
    client = boto(keys["endpoint"], keys["access_key"], keys["secret_key"], version)

    def url(bucket: str, method: str = "get_object") -> str:
        return str(client.generate_presigned_url(method, Params={"Bucket": bucket, "Key": "a"}))

    assert requests.get(url(hers), timeout=60).content == b"hers's"
    refused = requests.get(url(his), timeout=60)
    assert (refused.status_code, "<Code>AccessDenied</Code>" in refused.text) == (403, True)
    assert requests.put(url(his, "put_object"), data=b"x", timeout=60).status_code == 403
    client.close()


def test_a_form_is_worth_what_its_keys_are(alice: Person, hers: str, his: str) -> None:
    for bucket, status in ((hers, 204), (his, 403)):
        form = alice.s3.generate_presigned_post(bucket, "posted")
        answer = requests.post(form["url"], data=form["fields"], files={"file": b"posted"}, timeout=60)
        assert answer.status_code == status, answer.text


def test_events_are_heard_of_ones_own_bucket_only(alice: Person, hers: str, his: str) -> None:
    host = alice.keys["endpoint"].removeprefix("http://")
    client = Minio(host, alice.keys["access_key"], alice.keys["secret_key"], secure=False, region="us-east-1")
    with pytest.raises(S3Error, match="AccessDenied"), client.listen_bucket_notification(his) as events:
        next(iter(events))
    client.put_object(hers, "minio", io.BytesIO(b"1"), 1)
    assert client.stat_object(hers, "minio").size == 1
    unsigned = requests.get(f"{alice.keys['endpoint']}/?events=s3:ObjectCreated:*", timeout=60)
    assert unsigned.status_code == 403


def test_a_bucket_may_call_only_services_that_its_owner_sees(alice: Person, bob: Person, hers: str) -> None:
    bob.deploy("bobs-service", script="true")

    def notify(service: str) -> None:
        queue = {"QueueArn": f"arn:minio:sqs:us-east-1:{service}:webhook", "Events": ["s3:ObjectCreated:*"]}
        alice.s3.put_bucket_notification_configuration(
            Bucket=hers, NotificationConfiguration={"QueueConfigurations": [queue]}
        )

    assert denied(notify, service="bobs-service") == "InvalidArgument"
    bob.deploy("bobs-service", 204, change=True, script="true", visibility="public")
    notify("bobs-service")
    alice.s3.put_bucket_notification_configuration(Bucket=hers, NotificationConfiguration={})


def test_a_wrong_secret_and_an_unknown_key(alice: Person, hers: str) -> None:
    for key, secret, code in (
        (alice.uid, "wrong", "SignatureDoesNotMatch"),
        ("nobody@example.org", "x", "InvalidAccessKeyId"),
    ):
        client = boto(alice.keys["endpoint"], key, secret)
        assert denied(client.list_objects_v2, Bucket=hers) == code
        client.close()


def test_the_administrators_keys_reach_everything(cluster: Cluster, hers: str, his: str) -> None:
    assert cluster.read(hers, "a") == b"hers's"
    assert cluster.read(his, "a") == b"his's"


def test_events_name_the_user(cluster: Cluster, alice: Person) -> None:
    alice.deploy("named", script="true", visibility="public")
    alice.s3.put_object(Bucket="named", Key="in/a", Body=b"1")
    (job,) = cluster.ended("named")
    (record,) = cluster.job(job["id"])["event"]["Records"]
    assert record["userIdentity"]["principalId"] == alice.uid


@pytest.mark.parametrize("bucket", ["his", "absent"])
def test_every_operation_of_the_endpoint_is_denied(alice: Person, his: str, bucket: str) -> None:
    """Those that boto3 has no call for among them."""
    keys = Credentials(alice.keys["access_key"], alice.keys["secret_key"])
    for key, table in (("", BUCKET), ("/a", OBJECT)):
        for method, name in [*table, ("GET", "events")]:
            url = f"{alice.keys['endpoint']}/{bucket}{key}?{name}"
            request = AWSRequest(method, url, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
            S3SigV4Auth(keys, "s3", "us-east-1").add_auth(request)
            answer = requests.request(method, url, headers=dict(request.headers), timeout=60)
            assert answer.status_code == 403, (method, url, answer.text)
            assert method == "HEAD" or "<Code>AccessDenied</Code>" in answer.text


@pytest.mark.parametrize(
    "uid", ["https://cilogon.org/serverA/users/1", "auth0|12+3=4;5", "cn=Eve;o=x", "(a)*'b'!#$&~`^{}[]<>?", "x" * 255]
)
def test_every_kind_of_name_is_an_access_key(cluster: Cluster, issuer: TestIssuer, uid: str) -> None:
    person = Person(cluster, issuer, uid)
    try:
        assert person.keys["access_key"] == uid
        name = f"name-{len(uid)}-{sum(map(ord, uid))}"
        make(person, name)
        assert name in [one["Name"] for one in person.s3.list_buckets()["Buckets"]]
        url = person.s3.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "a"})
        assert requests.get(url, timeout=60).status_code == 200
    finally:
        person.close()


def test_keys_are_taken_back(cluster: Cluster, issuer: TestIssuer, alice: Person) -> None:
    person = Person(cluster, issuer, "https://example.org/leaver")
    try:
        make(person, "leavers")
        assert alice.get("/dioscar/v1/users").status_code == 403
        assert alice.ask("DELETE", f"/dioscar/v1/users/{person.uid}").status_code == 403
        listed = {one["uid"]: one for one in cluster.get("/dioscar/v1/users")["users"]}
        assert listed[person.uid].keys() == {"uid", "name", "issuer", "created"}
        url = cluster.url(f"/dioscar/v1/users/{person.uid}")
        assert [cluster.http.delete(url).status_code for _ in range(2)] == [204, 404]
        assert denied(person.s3.list_objects_v2, Bucket="leavers") == "InvalidAccessKeyId"
        again = person.get("/system/config").json()["minio_provider"]
        assert again["secret_key"] != person.keys["secret_key"]
        client = boto(again["endpoint"], again["access_key"], again["secret_key"])
        assert client.list_objects_v2(Bucket="leavers")["KeyCount"] == 1
        client.close()
    finally:
        person.close()
